"""What splitting a track means, whichever program the project is of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stemplug.tracks.folder import FolderFormat

if TYPE_CHECKING:
    from stemplug.engine import Separator
    from stemplug.engine.separator import Progress


@dataclass(frozen=True)
class Splitter:
    """What takes audio apart: ``split(song, folder)`` writes a WAV for each of ``stems`` and returns their paths."""

    stems: tuple[str, ...]
    split: Callable[[Path, Path], Mapping[str, Path]]


@dataclass(frozen=True)
class SplitProject:
    """A project that was written, its new audio (beside it, or in it), and what people should know."""

    path: Path
    media: list[Path]
    notes: list[str]


def model_splitter(separator: Separator, fold: str | None = None, progress: Progress | None = None) -> Splitter:
    """A model as a splitter: WAV of the source's rate, channels and length, at least 24 bit; ``fold`` as in `split`."""
    from stemplug.tracks.job import Selection, split

    selection = Selection(fold=fold)

    def run(song: Path, folder: Path) -> dict[str, Path]:
        options = FolderFormat(name="{stem}")
        result = split(song, folder, separator=separator, selection=selection, options=options, progress=progress)
        return {track.stem: made for track, made in zip(result.tracks, result.paths, strict=True)}

    return Splitter(tuple(selection.names(separator.stems)), run)
