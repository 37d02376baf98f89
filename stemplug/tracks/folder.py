"""A folder of tracks: one file a stem, and ``stems.json`` that says how they were made."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stemplug.audio import Audio
from stemplug.closing import Closing
from stemplug.engine import Stems
from stemplug.errors import OptionError, TrackError, unknown
from stemplug.tracks.encode import FORMATS, TrackEncoder, check_format, check_rate_of, default_depth, open_track
from stemplug.tracks.naming import DEFAULT_FILE_NAME, DEFAULT_NAME, check_template, track_path
from stemplug.tracks.packages import LAYOUTS, PACKAGES, Content, Package
from stemplug.tracks.project import Project, Stem, Track, color_of
from stemplug.tracks.rpp import quotable
from stemplug.tracks.staging import Staging, sync, unwritable
from stemplug.tracks.wav import DEPTHS, TrackTags

CLIP_MODES = ("none", "clamp", "rescale")
REPORT = "stems.json"
_SPOOL = "32f"
_SYNCED_AFTER = 1 << 20
"""Values of a track. To wait for the disk now and then, while separation goes on, leaves little for the end."""


@dataclass(frozen=True)
class FolderFormat:
    """How tracks are written; raises `OptionError` for what does not exist or does not fit together.

    Attributes
    ----------
    format:
        "wav", "flac", "ogg" or "mp3"; "aac" or "alac" in a ``.stem.mp4``. None is the first that the layout knows.
    bit_depth:
        "16", "24", "32f"; None is the input's, and at least 24 bit.
    name:
        Path of a track below the output folder, without suffix, of the fields {song}, {stem}, {model}. By default
        "{song}/{stem}", or "{song}" where all stems go into one file.
    clip:
        What becomes of samples beyond full scale. "none" changes nothing: floats keep them, integers saturate, and
        the report counts them. "clamp" limits floats too. "rescale" turns all stems of a song down by one gain.
    overwrite:
        Replace tracks that exist.
    layout:
        "folder", or a key of `stemplug.tracks.packages.PACKAGES`.
    tempo:
        Of a project, in beats a minute, 1 to 960.
    """

    format: str | None = None
    bit_depth: str | None = None
    name: str | None = None
    clip: str = "none"
    overwrite: bool = False
    layout: str = "folder"
    tempo: float = 120.0

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise OptionError(unknown("layout", self.layout, LAYOUTS))
        if self.package and self.kind not in self.package.formats:
            raise OptionError(f"--as {self.layout}: {unknown('format', self.kind, self.package.formats)}")
        if self.kind in FORMATS or not self.package:
            check_format(self.kind, self.bit_depth)
        elif self.bit_depth:
            raise OptionError(f"--as {self.layout} has no choice of bit depth. Leave --bit-depth out.")
        check_template(self.template, one_file=self.one_file)
        if self.clip not in CLIP_MODES:
            raise OptionError(unknown("clip mode", self.clip, CLIP_MODES))
        if not 1 <= self.tempo <= 960:
            raise OptionError(f"--tempo {self.tempo:g}: expected 1 to 960 beats a minute.")

    @property
    def kind(self) -> str:
        """The format that was chosen, or the default one."""
        if self.format is not None:
            return self.format
        return self.package.formats[0] if self.package else FORMATS[0]

    @property
    def template(self) -> str:
        """The name that was chosen, or the default one."""
        if self.name is not None:
            return self.name
        return DEFAULT_FILE_NAME if self.one_file else DEFAULT_NAME

    @property
    def package(self) -> Package | None:
        """What the stems are handed over as; None for a folder."""
        return PACKAGES.get(self.layout)

    @property
    def one_file(self) -> bool:
        """Whether all stems go into one file."""
        return self.package is not None and not self.package.keeps_tracks


@dataclass
class TrackReport:
    """A written track: level in dBFS (RMS), peak in dBFS, samples beyond full scale before ``clip`` acted.

    ``saturated`` tells whether those were cut off unasked, because the format holds no more.
    """

    stem: str
    file: str
    level_db: float = -np.inf
    peak_db: float = -np.inf
    beyond_full_scale: int = 0
    saturated: bool = False
    sha256: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types: it knows no infinity, so the level of silence is None."""
        return {key: None if value == -np.inf else value for key, value in asdict(self).items()}


@dataclass
class _Track:
    """A stem on its way to its file, which ``lasts`` unless another is made from it."""

    report: TrackReport
    path: Path
    tags: TrackTags
    encoder: TrackEncoder
    lasts: bool
    energy: float = 0.0
    peak: float = 0.0
    values: int = 0

    def write(self, audio: Audio) -> None:
        self.encoder.write(audio)
        before, self.values = self.values, self.values + audio.size
        if self.lasts and self.values // _SYNCED_AFTER > before // _SYNCED_AFTER:
            sync(self.path)
        self.energy += float(np.einsum("cf,cf->", audio, audio, dtype=np.float64))
        if audio.size:
            self.peak = max(self.peak, float(audio.max()), -float(audio.min()))
            if self.peak > 1:
                self.report.beyond_full_scale += int(np.count_nonzero(np.abs(audio) > 1))

    def finish(self, gain: float) -> TrackReport:
        """Close the report: levels are those of the file."""
        level = gain * (self.energy / max(1, self.values)) ** 0.5
        self.report.level_db, self.report.peak_db = decibels(level), decibels(gain * self.peak)
        self.report.sha256 = sha256_of(self.path)
        return self.report


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def targets_of(options: FolderFormat, song: Path, stems: list[str], model: str) -> list[Path]:
    """The files of a song below the output folder: the tracks unless one file holds them, the package, the report.

    The report lies beside the tracks: ``stems.json`` in a folder of the song's own, else with the song's name before
    it; and with that of the layout, where files of several layouts may lie side by side.
    """
    package, tracks = options.package, [track_path(options.template, song, stem, model, options.kind) for stem in stems]
    folders = options.template.split("/")[:-1]
    shared = "/".join(itertools.takewhile(lambda folder: "{stem}" not in folder, folders))
    parent = track_path(f"{shared}/x", song, "", model, "x").parent if shared else Path()
    if not package or package.keeps_tracks:
        report = parent / (REPORT if "{song}" in shared else f"{song.stem}.{REPORT}")
        project = [parent / track_path(DEFAULT_FILE_NAME, song, "", model, package.suffix)] if package else []
        return [*tracks, *project, report]
    file = track_path(options.template, song, "", model, package.suffix)
    return [file, file.with_name(f"{song.stem}.{options.layout}.{REPORT}")]


def decibels(amplitude: float) -> float:
    """Amplitude, 1 at full scale, to dBFS with two decimals; silence is minus infinity."""
    return round(20 * float(np.log10(amplitude)), 2) if amplitude > 0 else -np.inf


class FolderWriter(Closing):
    """Writes stems of one song, piece by piece; leaves all files after `commit`, and none otherwise.

    Parameters
    ----------
    folder:
        The output folder; made where it is missing.
    song:
        The path of the song, for names and tags.
    stems:
        Names of the stems that `write` will get.
    sample_rate, channels, depth, frames:
        Those of the song; ``depth`` as in `stemplug.audio.ReaderInfo`, ``frames`` to see whether the disk has room.
    model:
        Name of the model, for ``{model}`` and the tags.
    options:
        See `FolderFormat`.
    start:
        The song's frame that the first written frame is.

    Raises
    ------
    OptionError
        If a track exists and ``overwrite`` is off, or would replace the song itself.
    TrackError
        If the folder cannot be written, is too full, or another run writes there.
    """

    def __init__(
        self,
        folder: Path,
        song: Path,
        stems: list[str],
        *,
        sample_rate: int,
        channels: int,
        depth: str,
        frames: int,
        model: str,
        options: FolderFormat,
        start: int = 0,
    ) -> None:
        self._options, self._rate, self._channels, self._start = options, sample_rate, channels, start
        self._depth = options.bit_depth or default_depth(options.kind, depth)
        self._song, self._frames = song, 0
        self._sums = options.package.sums(stems) if options.package else []
        self._sum_peak, self._sum_beyond = 0.0, 0
        check_rate_of(options.kind, sample_rate)
        if options.package and options.package.rates and sample_rate not in options.package.rates:
            rates = " or ".join(map(str, options.package.rates))
            raise OptionError(f"'{song}' has {sample_rate} Hz; --as {options.layout} holds {rates} Hz. Resample it.")
        targets = targets_of(options, song, stems, model)
        report = targets[-1]
        if options.package and options.package.keeps_tracks:
            for name in map(str, targets):
                if name != quotable(name):
                    raise OptionError(f"'{name}' cannot be named in a project. Rename the song, or choose a --name.")
        self._tracks: dict[str, _Track] = {}
        self._using = threading.Lock()  # libsndfile crashes if a file is closed under a thread that writes
        try:
            self._check_targets(folder, targets, song)
            self._staging = Staging(folder, targets, overwrite=options.overwrite)
        except OSError as error:
            raise unwritable(folder, error) from None
        try:
            self._check_space(frames * len(stems))
            for index, stem in enumerate(stems):
                tags = TrackTags(stem, song.stem, f"{stem} of {song.stem}, separated by StemPlug ({model})", start)
                path = self._staging.folder / f"{index}.wav" if options.one_file else self._staging.path(index)
                target = targets[0 if options.one_file else index]
                track = TrackReport(stem, os.path.relpath(target, report.parent))
                encoder = self._open(path, tags, spool=self._spooling)
                lasts = not (self._spooling or options.one_file)
                self._tracks[stem] = _Track(track, path, tags, encoder, lasts)
        except OSError as error:
            self.close()
            raise unwritable(folder, error) from None
        except BaseException:
            self.close()
            raise

    @property
    def _spooling(self) -> bool:
        """Whether files wait as floats until the gain of all stems is known."""
        return self._options.clip == "rescale"

    @property
    def cut(self) -> str | None:
        """What is to be said of sums that were cut off at full scale; None where none were."""
        if self._spooling or not self._sum_beyond:
            return None
        return (
            f"the mixture passes full scale (peak {decibels(self._sum_peak):+.1f} dB): {self._sum_beyond} samples were "
            "cut off. --clip rescale turns all stems down"
        )

    def _earlier(self) -> list[str]:
        """Files of earlier runs that stay beside the report that is replaced: they are stems still, not songs."""
        report = self._staging.root / self._staging.targets[-1]
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            old = json.loads(report.read_bytes())
            known = [stem["file"] for stem in old["stems"]] + old.get("earlier", [])
            new = {target for target in self._staging.targets}
            return sorted(
                {
                    name
                    for name in known
                    if self._staging.targets[-1].parent / name not in new and (report.parent / name).is_file()
                }
            )
        return []

    @property
    def depth(self) -> str | None:
        """The bit depth of the tracks; None where the format has none."""
        return self._depth

    def _check_targets(self, folder: Path, targets: list[Path], song: Path) -> None:
        for target in targets:
            check_target(folder / target, song, overwrite=self._options.overwrite)
        # Under the lock it is looked at again, when all is written: see Staging.commit.

    def _check_space(self, frames: int) -> None:
        """What can be told beforehand: the size of WAV files, and of the floats that wait for `--clip rescale`."""
        bits = DEPTHS[self._depth or _SPOOL] if self._options.kind == "wav" or self._options.one_file else 0
        needed = frames * self._channels * max(bits, DEPTHS[_SPOOL] if self._spooling else 0) // 8
        needed += needed if self._options.kind == "wav" and self._options.one_file else 0  # the tracks, and the file
        free = shutil.disk_usage(self._staging.folder).free
        if needed > free:
            raise TrackError(
                f"'{self._staging.root}': {needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free. "
                "Free some space, or use --format flac."
            )

    def _open(self, path: Path, tags: TrackTags, spool: bool) -> TrackEncoder:
        if spool:
            return open_track(path, "wav", _SPOOL, self._rate, self._channels, tags)
        if self._options.one_file:
            return open_track(path, "wav", self._depth or _SPOOL, self._rate, self._channels, tags)
        return open_track(path, self._options.kind, self._depth, self._rate, self._channels, tags)

    def write(self, stems: Stems) -> None:
        """Append a piece of every stem."""
        clamp = self._options.clip == "clamp"
        self._frames += stems.frames
        for names in self._sums:
            total = np.abs(sum(stems[name] for name in names))
            self._sum_peak = max(self._sum_peak, float(total.max(initial=0)))
            self._sum_beyond += int(np.count_nonzero(total > 1))
        try:
            with self._using:
                for name, track in self._tracks.items():
                    audio = stems[name]
                    track.write(np.clip(audio, -1, 1) if clamp else audio)
                    if clamp:
                        track.report.beyond_full_scale += int(np.count_nonzero(np.abs(audio) > 1))
        except OSError as error:
            raise unwritable(self._staging.root, error) from None

    def commit(self, about: dict[str, Any]) -> tuple[list[Path], list[TrackReport], Path | None]:
        """Complete all files and move them to their place.

        Parameters
        ----------
        about:
            What goes into ``stems.json`` before the tracks.

        Returns
        -------
        The paths of the tracks (of the one file, as often, where they are in one), what is to be said of them, and the
        path of the file or project that they are handed over as.
        """
        try:
            for track in self._tracks.values():
                track.encoder.close()
            peak = max(self._sum_peak, *(track.peak for track in self._tracks.values()))
            gain = 1 / peak if self._spooling and peak > 1 else 1.0
            if self._spooling:
                self._respool(gain)
            with ThreadPoolExecutor(len(self._tracks)) as pool:  # to hash them takes a while, and nothing else is to do
                reports = list(pool.map(lambda track: track.finish(gain), self._tracks.values()))
            for report in reports:
                unasked = self._options.clip == "none" and self._depth != "32f"
                report.saturated = unasked and report.beyond_full_scale > 0
            self._hand_over(reports)
            written = {
                "as": self._options.layout,
                "format": self._options.kind,
                "bit_depth": self._depth,
                "clip": self._options.clip,
            }
            content = {**about, "written": {**written, "gain": gain}, "stems": [report.as_dict() for report in reports]}
            if earlier := self._earlier():
                content["earlier"] = earlier
            path = self._staging.path(len(self._staging.targets) - 1)
            path.write_text(json.dumps(content, indent=1, ensure_ascii=True) + "\n", encoding="ascii")
            paths = self._staging.commit()[:-1]
            package = paths[-1] if self._options.package else None
            return (paths * len(reports) if self._options.one_file else paths[: len(reports)]), reports, package
        except OSError as error:
            raise unwritable(self._staging.root, error) from None

    def _hand_over(self, reports: list[TrackReport]) -> None:
        """Write the package, from the tracks that are whole by now."""
        package = self._options.package
        if not package:
            return
        tracks = tuple(
            Track(stem.capitalize(), color_of(stem), f"audio/{stem}.wav" if self._options.one_file else report.file)
            for stem, report in zip(self._tracks, reports, strict=True)
        )
        stems = tuple(Stem(stem, track.path) for stem, track in self._tracks.items())
        project = Project(
            self._song.stem, self._rate, self._channels, self._frames, tracks, self._start, self._options.tempo
        )
        path = self._staging.path(len(self._staging.targets) - 2)
        try:
            package.write(path, Content(project, stems, self._options.kind, self._depth))
        except TrackError as error:  # it knows the file by its name here only
            raise TrackError(str(error).replace(str(path), str(self._staging.targets[-2]))) from None
        if self._options.one_file:
            digest = sha256_of(path)
            for report, stem in zip(reports, stems, strict=True):
                report.sha256 = digest
                stem.path.unlink()  # the folder may become the result

    def _respool(self, gain: float) -> None:
        """Write the final files from the spooled floats, all with one gain."""
        import soundfile

        for track in self._tracks.values():
            spooled = track.path.with_name(track.path.name + ".spool")
            os.replace(track.path, spooled)
            track.encoder = self._open(track.path, track.tags, spool=False)
            for block in soundfile.blocks(spooled, 1 << 16, dtype="float32", always_2d=True):
                track.encoder.write(np.float32(gain) * block.T)
            track.encoder.close()
            spooled.unlink()

    def close(self) -> None:
        """Remove everything that was not committed."""
        with self._using:
            tracks, self._tracks = self._tracks, {}
            for track in tracks.values():
                with contextlib.suppress(OSError):  # the file is thrown away
                    track.encoder.close()
            self._staging.close()


def check_target(path: Path, song: Path, *, overwrite: bool) -> None:
    """Raise `OptionError` where a track cannot be written to ``path``: the song itself, a folder, a file to keep."""
    if path.exists() and song.exists() and path.samefile(song):
        raise OptionError(f"'{path}' is the song itself. Choose another output folder or --name.")
    if path.is_dir():
        raise OptionError(f"'{path}' is a folder, and a track of that name is to be written. Choose another.")
    if os.path.lexists(path) and not overwrite:
        raise OptionError(f"'{path}' exists. Use --overwrite to replace it, or another output folder.")
