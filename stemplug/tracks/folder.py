"""A folder of tracks: one file a stem, and ``stems.json`` that says how they were made."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import shutil
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stemplug.audio import Audio
from stemplug.closing import Closing
from stemplug.engine import Stems
from stemplug.errors import OptionError, TrackError, unknown
from stemplug.tracks.encode import TrackEncoder, check_format, check_rate_of, default_depth, open_track
from stemplug.tracks.naming import DEFAULT_NAME, check_template, track_path
from stemplug.tracks.staging import Staging
from stemplug.tracks.wav import DEPTHS, TrackTags

CLIP_MODES = ("none", "clamp", "rescale")
REPORT = "stems.json"
_SPOOL = "32f"


@dataclass(frozen=True)
class FolderFormat:
    """How tracks are written; raises `OptionError` for what does not exist or does not fit together.

    Attributes
    ----------
    format:
        "wav", "flac", "ogg" or "mp3".
    bit_depth:
        "16", "24", "32f"; None is the input's, and at least 24 bit.
    name:
        Path of a track below the output folder, without suffix, of the fields {song}, {stem}, {model}.
    clip:
        What becomes of samples beyond full scale. "none" changes nothing: floats keep them, integers saturate, and
        the report counts them. "clamp" limits floats too. "rescale" turns all stems of a song down by one gain.
    overwrite:
        Replace tracks that exist.
    """

    format: str = "wav"
    bit_depth: str | None = None
    name: str = DEFAULT_NAME
    clip: str = "none"
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_format(self.format, self.bit_depth)
        check_template(self.name)
        if self.clip not in CLIP_MODES:
            raise OptionError(unknown("clip mode", self.clip, CLIP_MODES))


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
    """A stem on its way to its file."""

    report: TrackReport
    path: Path
    tags: TrackTags
    encoder: TrackEncoder
    energy: float = 0.0
    peak: float = 0.0
    values: int = field(default=0)

    def write(self, audio: Audio) -> None:
        self.encoder.write(audio)
        self.energy += float(np.einsum("cf,cf->", audio, audio, dtype=np.float64))
        self.values += audio.size
        if audio.size:
            self.peak = max(self.peak, float(audio.max()), -float(audio.min()))
            if self.peak > 1:
                self.report.beyond_full_scale += int(np.count_nonzero(np.abs(audio) > 1))

    def finish(self, gain: float) -> TrackReport:
        """Close the report: levels are those of the file."""
        level = gain * (self.energy / max(1, self.values)) ** 0.5
        self.report.level_db, self.report.peak_db = decibels(level), decibels(gain * self.peak)
        with open(self.path, "rb") as file:
            self.report.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return self.report


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
        self._options, self._rate, self._channels = options, sample_rate, channels
        self._depth = options.bit_depth or default_depth(options.format, depth)
        check_rate_of(options.format, sample_rate)
        targets = [track_path(options.name, song, stem, model, options.format) for stem in stems]
        targets.append(self._report_path(song, model))
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
                path = self._staging.path(index)
                report = TrackReport(stem, os.path.relpath(targets[index], targets[-1].parent))
                self._tracks[stem] = _Track(report, path, tags, self._open(path, tags, spool=self._spooling))
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
    def depth(self) -> str | None:
        """The bit depth of the tracks; None where the format has none."""
        return self._depth

    def _report_path(self, song: Path, model: str) -> Path:
        """Beside the tracks: ``stems.json`` in a folder of the song's own, else with the song's name before it."""
        folders = self._options.name.split("/")[:-1]
        shared = "/".join(itertools.takewhile(lambda folder: "{stem}" not in folder, folders))
        parent = track_path(f"{shared}/x", song, "", model, "x").parent if shared else Path()
        return parent / (REPORT if "{song}" in shared else f"{song.stem}.{REPORT}")

    def _check_targets(self, folder: Path, targets: list[Path], song: Path) -> None:
        for target in targets:
            check_target(folder / target, song, overwrite=self._options.overwrite)
        # Under the lock it is looked at again, when all is written: see Staging.commit.

    def _check_space(self, frames: int) -> None:
        """What can be told beforehand: the size of WAV files, and of the floats that wait for `--clip rescale`."""
        bits = DEPTHS[self._depth or "24"] if self._options.format == "wav" else 0
        needed = frames * self._channels * max(bits, DEPTHS[_SPOOL] if self._spooling else 0) // 8
        free = shutil.disk_usage(self._staging.folder).free
        if needed > free:
            raise TrackError(
                f"'{self._staging.root}': {needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free. "
                "Free some space, or use --format flac."
            )

    def _open(self, path: Path, tags: TrackTags, spool: bool) -> TrackEncoder:
        if spool:
            return open_track(path, "wav", _SPOOL, self._rate, self._channels, tags)
        return open_track(path, self._options.format, self._depth, self._rate, self._channels, tags)

    def write(self, stems: Stems) -> None:
        """Append a piece of every stem."""
        clamp = self._options.clip == "clamp"
        try:
            with self._using:
                for name, track in self._tracks.items():
                    audio = stems[name]
                    track.write(np.clip(audio, -1, 1) if clamp else audio)
                    if clamp:
                        track.report.beyond_full_scale += int(np.count_nonzero(np.abs(audio) > 1))
        except OSError as error:
            raise unwritable(self._staging.root, error) from None

    def commit(self, about: dict[str, Any]) -> tuple[list[Path], list[TrackReport]]:
        """Complete all files and move them to their place.

        Parameters
        ----------
        about:
            What goes into ``stems.json`` before the tracks.

        Returns
        -------
        The paths of the tracks, and what is to be said of them.
        """
        try:
            for track in self._tracks.values():
                track.encoder.close()
            peak = max(track.peak for track in self._tracks.values())
            gain = 1 / peak if self._spooling and peak > 1 else 1.0
            if self._spooling:
                self._respool(gain)
            reports = [track.finish(gain) for track in self._tracks.values()]
            for report in reports:
                unasked = self._options.clip == "none" and self._depth != "32f"
                report.saturated = unasked and report.beyond_full_scale > 0
            written = {"format": self._options.format, "bit_depth": self._depth, "clip": self._options.clip}
            content = {**about, "written": {**written, "gain": gain}, "stems": [report.as_dict() for report in reports]}
            path = self._staging.path(len(reports))
            path.write_text(json.dumps(content, indent=1, ensure_ascii=True) + "\n", encoding="ascii")
            return self._staging.commit()[:-1], reports
        except OSError as error:
            raise unwritable(self._staging.root, error) from None

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


def unwritable(folder: Path, error: OSError) -> TrackError:
    """What the system said while tracks were written to ``folder``, with advice."""
    if isinstance(error, TrackError):
        return error
    reason = (error.strerror or str(error)).lower()
    if isinstance(error, FileExistsError) and str(error.filename).startswith(f"{folder}{os.sep}"):
        return TrackError(f"'{error.filename}' has appeared meanwhile. Use --overwrite to replace it.")
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = "Choose another folder, or free some space." if full else "Choose another folder or --name."
    return TrackError(f"cannot write to '{folder}': {reason}. {advice}")
