"""The main job: songs in, stems out as tracks."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import stemplug
from stemplug.audio import AudioReader
from stemplug.audio.reader import PathLike
from stemplug.background import WriteBehind
from stemplug.engine import FileSeparation, Separator, Stems
from stemplug.engine.separator import Progress
from stemplug.engine.stems import folded_names
from stemplug.errors import OptionError, unknown
from stemplug.tracks.folder import FolderFormat, FolderWriter, TrackReport, targets_of
from stemplug.tracks.naming import check_unique, find_songs

WRITE_BEHIND = 4


@dataclass(frozen=True)
class Selection:
    """Which part of which stems is written: ``fold`` a stem against the rest, then ``stems`` of those; seconds."""

    stems: tuple[str, ...] | None = None
    fold: str | None = None
    start: float | None = None
    end: float | None = None

    def names(self, made: Iterable[str]) -> list[str]:
        """The stems that are written, of those that the model makes; raises `OptionError` for unknown ones."""
        known = list(made) if self.fold is None else list(folded_names(self.fold, made))
        if self.stems is None:
            return known
        if not self.stems or len(set(self.stems)) < len(self.stems):
            raise OptionError(f"stems {', '.join(self.stems) or '(none)'}: name one or more, each once.")
        for stem in self.stems:
            if stem not in known:
                raise OptionError(unknown("stem", stem, known))
        return list(self.stems)

    def apply(self, stems: Stems) -> Stems:
        """Fold and choose."""
        folded = stems if self.fold is None else stems.fold(self.fold)
        return folded if self.stems is None else folded.only(self.stems)


@dataclass(frozen=True)
class SplitResult:
    """A song that was split: the tracks' paths and reports, and its length in seconds.

    ``package`` is the file or project that the tracks are handed over as, ``note`` what is unusual about them in it.
    """

    song: Path
    paths: list[Path]
    tracks: list[TrackReport]
    seconds: float
    package: Path | None = None
    note: str | None = None


def split(
    song: PathLike,
    folder: PathLike,
    *,
    separator: Separator | None = None,
    selection: Selection | None = None,
    options: FolderFormat | None = None,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
) -> SplitResult:
    """Split a song into a folder of tracks of the song's rate, channels and length, with a ``stems.json``.

    Decoding, separation and encoding overlap. All files appear at the end, together; after an error or a cancelled
    run there are none.

    Parameters
    ----------
    song:
        An audio file.
    folder:
        Where the tracks go: by default ``folder/SONG/STEM.wav``.
    separator:
        The loaded model; by default the default one, loaded for this call.
    selection:
        Which stems, which part; by default all.
    options:
        Format and names of the tracks.
    progress, cancel:
        As in `Separator.separate`.

    Raises
    ------
    AudioError
        If the song cannot be read.
    OptionError
        If a setting is wrong, or a track exists already.
    TrackError
        If the tracks cannot be written.
    Cancelled
        If ``cancel`` was set.
    """
    separator, selection, options = separator or Separator(), selection or Selection(), options or FolderFormat()
    path, output = Path(os.fsdecode(song)), Path(os.fsdecode(folder))
    names = selection.names(separator.stems)
    with separator.separate_file(
        path, start=selection.start, end=selection.end, progress=progress, cancel=cancel
    ) as pieces:
        info = pieces.info
        first = round((selection.start or 0) * info.sample_rate)
        with FolderWriter(
            output,
            path,
            names,
            sample_rate=info.sample_rate,
            channels=info.channels,
            depth=info.depth,
            frames=info.frames,
            model=separator.manifest.name,
            options=options,
            start=first,
        ) as writer:
            digest = pieces.sha256()
            frames = _separate(pieces, writer, separator, selection)
            about = _provenance(separator, selection, pieces, frames, digest)
            with separator.watch("encode"):
                paths, tracks, package = writer.commit(about)
    notes = [options.package.note(names) if options.package else None, writer.cut]
    note = ". ".join(note for note in notes if note) or None
    return SplitResult(path, paths, tracks, frames / info.sample_rate, package, note)


def _separate(pieces: FileSeparation, writer: FolderWriter, separator: Separator, selection: Selection) -> int:
    """Feed the writer, on a thread of its own; returns the frames written."""
    frames = 0

    def write(stems: Stems) -> None:
        with separator.watch("encode"):
            writer.write(selection.apply(stems))

    with WriteBehind(write, WRITE_BEHIND) as behind:
        for stems in pieces:
            behind.put(stems)
            frames += stems.frames
    return frames


def _provenance(
    separator: Separator, selection: Selection, pieces: FileSeparation, frames: int, digest: str
) -> dict[str, Any]:
    """What ``stems.json`` says of how the tracks were made."""
    manifest, info = separator.manifest, pieces.info
    return {
        "stemplug": stemplug.__version__,
        "song": {
            "file": info.path.name,
            "sha256": digest,
            "format": info.format,
            "depth": info.depth,
            "sample_rate": info.sample_rate,
            "channels": info.channels,
            "frames": frames,
        },
        "model": {
            "name": manifest.name,
            "version": manifest.version,
            "licence": manifest.licence,
            "files": {file.place: file.sha256 for file in manifest.files.values()},
        },
        "settings": {
            "profile": separator.profile,
            "latency": separator.latency,
            "threads": separator.threads,
            "provider": separator.provider,
            "consistent": separator.consistent,
            "fold": selection.fold,
            "start": selection.start,
            "end": selection.end,
        },
    }


def duration(song: PathLike, selection: Selection) -> float:
    """Return how many seconds of a song would be split, by its header; raises what `split` raises for the file."""
    with AudioReader(song, selection.start, selection.end) as reader:
        return reader.info.frames / reader.info.sample_rate


def check_apart(songs: Iterable[Path], folder: Path, names: list[str], options: FolderFormat, model: str) -> None:
    """Raise `OptionError` where a track of one song would replace another song of the same run."""
    inputs = {(found.st_dev, found.st_ino): song for song in songs if (found := _stat(song))}
    for song in songs:
        for target in targets_of(options, song, names, model):
            found = _stat(folder / target)
            other = inputs.get((found.st_dev, found.st_ino)) if found else None
            if other and other != song:  # a song that would replace itself is what `split` refuses
                raise OptionError(
                    f"a track of '{song}' would replace the song '{other}'. Choose another output folder or --name."
                )


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def plan(songs: Iterable[PathLike], options: FolderFormat, model: str) -> list[Path]:
    """Return the songs to split, folders searched through, having checked that no two share an output name."""
    found = find_songs(songs)
    if not found:
        raise OptionError("no song was given.")
    check_unique(found, options.template, model)
    return found
