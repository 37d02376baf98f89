"""A song through a board, from file to file, in constant memory."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import stemplug
from stemplug.audio import Audio, AudioReader
from stemplug.audio.reader import PathLike
from stemplug.background import read_ahead
from stemplug.chain import Board
from stemplug.closing import Closing
from stemplug.engine import Stems
from stemplug.engine.separator import READ_AHEAD, Progress
from stemplug.errors import Cancelled, ChainError, OptionError, TrackError
from stemplug.tracks.encode import FORMATS, TrackEncoder, check_format, check_rate_of, default_depth, open_track
from stemplug.tracks.folder import REPORT, FolderFormat, FolderWriter, TrackReport, check_target, decibels
from stemplug.tracks.staging import Staging, unwritable
from stemplug.tracks.wav import TrackTags


@dataclass(frozen=True)
class ChainResult:
    """A song that went through a board: the mix and how loud its peak is, the stems' tracks, its length in seconds."""

    song: Path
    path: Path
    peak_db: float
    beyond_full_scale: int
    saturated: bool
    stem_paths: list[Path]
    stem_tracks: list[TrackReport]
    seconds: float


def run_chain(
    board: Board,
    song: PathLike,
    output: PathLike,
    *,
    stems: PathLike | None = None,
    bit_depth: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
) -> ChainResult:
    """Process a song with a board and write the result, of the song's rate, channels and length.

    Parameters
    ----------
    board:
        Used as a stream: what it was streaming is forgotten.
    song:
        An audio file.
    output:
        The file to write; its suffix says the format: .wav, .flac, .ogg or .mp3.
    stems:
        A folder for the processed stems, in the same format; the board must have one `StemSplit`.
    bit_depth:
        "16", "24", "32f"; None is the song's, and at least 24 bit.
    overwrite:
        Replace files that exist.
    progress, cancel:
        As in `Separator.separate`.

    Raises
    ------
    AudioError
        If the song cannot be read.
    OptionError
        If a setting is wrong, or a file exists already.
    TrackError
        If the files cannot be written.
    """
    path, target = Path(os.fsdecode(song)), Path(os.fsdecode(output))
    format = target.suffix.lower().lstrip(".")
    if format not in FORMATS:
        raise OptionError(f"'{target}': expected a name that ends in .{', .'.join(FORMATS)}.")
    check_format(format, bit_depth)
    check_target(target, path, overwrite=overwrite)
    if stems:
        _check_apart(target, Path(os.fsdecode(stems)), path, board.stem_names)
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(AudioReader(path))
        mix = stack.enter_context(_MixWriter(target, path, reader, format, bit_depth, overwrite))
        folder = stack.enter_context(_stem_writer(board, path, reader, mix, stems, overwrite)) if stems else None
        frames = _process(board, reader, mix, folder, progress, cancel)
        mix.finish()
        about = {"stemplug": stemplug.__version__, "song": {"file": path.name, "frames": frames}}
        paths, tracks, _ = folder.commit({**about, "chain": _described(board)}) if folder else ([], [], None)
        mix.commit()
    return ChainResult(
        path,
        target,
        decibels(mix.peak),
        mix.beyond_full_scale,
        mix.depth != "32f" and mix.beyond_full_scale > 0,
        paths,
        tracks,
        frames / reader.info.sample_rate,
    )


def _process(
    board: Board,
    reader: AudioReader,
    mix: _MixWriter,
    folder: FolderWriter | None,
    progress: Progress | None,
    cancel: threading.Event | None,
) -> int:
    """Stream the song through the board into the writers; returns its frames."""
    rate, frames, written = reader.info.sample_rate, 0, 0

    def write(out: Audio, stems: Stems | None = None) -> None:
        nonlocal written
        mix.write(out)
        written += out.shape[1]
        if folder and stems and stems.frames:
            folder.write(stems)
        if cancel is not None and cancel.is_set():
            raise Cancelled("cancelled.")
        if progress:
            progress(min(1.0, written / max(1, reader.info.frames)), "chain")

    board.reset()
    blocks = read_ahead(reader.blocks(), READ_AHEAD)
    with contextlib.closing(blocks):
        for block in blocks:
            frames += block.shape[1]
            write(*(board.split(block, rate, reset=False) if folder else (board(block, rate, reset=False),)))
    write(*(board.flush_split() if folder else (board.flush(),)))
    return frames


def _stem_writer(
    board: Board, song: Path, reader: AudioReader, mix: _MixWriter, stems: PathLike, overwrite: bool
) -> FolderWriter:
    info = reader.info
    options = FolderFormat(mix.format, mix.depth, "{stem}", overwrite=overwrite)
    return FolderWriter(
        Path(os.fsdecode(stems)),
        song,
        list(board.stem_names),
        sample_rate=info.sample_rate,
        channels=info.channels,
        depth=info.depth,
        frames=info.frames,
        model="chain",
        options=options,
    )


def _check_apart(target: Path, folder: Path, song: Path, stems: Iterable[str]) -> None:
    """Raise `OptionError` where mix and stems would get into each other's way."""
    mix, parts = target.resolve(), folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"'{folder}' is a file; --stems takes a folder.")
    if mix == parts or mix in parts.parents:
        raise OptionError(f"'{target}' is to be a file, and '{folder}' a folder. Choose another for the stems.")
    names = [*(f"{stem}{target.suffix.lower()}" for stem in stems), f"{song.stem}.{REPORT}"]
    if mix.parent == parts and mix.name in names:
        raise OptionError(f"'{target}' is the file of a stem as well. Choose another name, or another folder.")


def _described(board: Board) -> Any:
    """The board for the report, where it can be described."""
    try:
        return board.to_dict()["chain"]
    except ChainError:
        return repr(board)


class _MixWriter(Closing):
    """Writes one file; it appears at `commit`."""

    def __init__(
        self, target: Path, song: Path, reader: AudioReader, format: str, depth: str | None, overwrite: bool
    ) -> None:
        info = reader.info
        check_rate_of(format, info.sample_rate)
        self.format, self.depth = format, depth or default_depth(format, info.depth)
        self.peak, self.beyond_full_scale = 0.0, 0
        self._folder = target.parent
        self._encoder: TrackEncoder | None = None
        try:
            self._staging = Staging(target.parent, [Path(target.name)], overwrite=overwrite)
        except OSError as error:
            raise unwritable(self._folder, error) from None
        tags = TrackTags("mix", song.stem, f"{song.stem}, processed by StemPlug", 0)
        try:
            with self._told():
                self._encoder = open_track(
                    self._staging.path(0), format, self.depth, info.sample_rate, info.channels, tags
                )
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Say what the system says as a `TrackError`."""
        try:
            yield
        except OSError as error:
            raise unwritable(self._folder, error) from None

    def write(self, audio: Audio) -> None:
        """Append ``(channels, frames)``."""
        if audio.size:
            self.peak = max(self.peak, float(np.abs(audio).max()))
            self.beyond_full_scale += int(np.count_nonzero(np.abs(audio) > 1))
        with self._told():
            assert self._encoder
            self._encoder.write(audio)

    def finish(self) -> None:
        """Complete the file; from here on little can go wrong."""
        with self._told():
            assert self._encoder
            self._encoder.close()

    def commit(self) -> None:
        """Move the file to its place."""
        with self._told():
            self._staging.commit()

    def close(self) -> None:
        """Remove what was not committed."""
        if self._encoder:
            with contextlib.suppress(OSError, TrackError):
                self._encoder.close()
        self._staging.close()
