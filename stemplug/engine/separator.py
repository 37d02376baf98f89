"""The Separator: a loaded model, ready to take any number of songs and streams apart."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np

from stemplug.audio import Audio, AudioReader, check_rate
from stemplug.audio.checks import check_shape
from stemplug.audio.reader import PathLike, ReaderInfo
from stemplug.background import read_ahead
from stemplug.closing import Closing
from stemplug.engine.stems import Stems
from stemplug.engine.stream import StemStream
from stemplug.errors import AudioError, Cancelled, OptionError
from stemplug.models import LIVE, find_model, load_runner
from stemplug.models.runner import RunnerOptions
from stemplug.models.scratch import Scratch
from stemplug.timing import Stopwatch

MAX_THREADS = 256
MAX_LANES = 4
DEFAULT_LATENCY = "balanced"
READ_AHEAD = 4
FEED = 1 << 18
"""Frames that are checked and counted at a time."""

Progress = Callable[[float, str], None]
"""Called with the fraction done, 0 to 1, and the stage, at least twice a second."""


class Separator:
    """A loaded model. May be shared by threads.

    Parameters
    ----------
    model:
        A name of the catalogue, the path of a model's folder, or "default".
    profile:
        "offline"; or "live", which separates short windows as they come, somewhat worse.
    latency:
        "low", "balanced" (the default) or "high", with the profile "live": the longer, the better, or the less
        load; that depends on the model. `StemStream.latency_samples` says how long.
    threads:
        1 to 256; by default as many as the process may use, and live 1. Windows are separated side by side, each on its
        lane of threads, but live; the same number of threads gives the same bits.
    device:
        "auto", "cpu", "cuda", "coreml" or "directml"; `provider` says what runs.
    consistent:
        True lets the residual stem take what the model does not explain, so that the stems sum to the input; False
        gives the model's raw estimates.

    Raises
    ------
    ModelError
        If the model or the device cannot be used.
    OptionError
        If ``threads`` is out of range.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "default",
        profile: str = "offline",
        threads: int | None = None,
        device: str = "auto",
        *,
        latency: str | None = None,
        consistent: bool = True,
    ) -> None:
        live = profile == LIVE
        if latency is not None and not live:
            raise OptionError(f"latency '{latency}' with profile '{profile}': only the profile '{LIVE}' has latencies.")
        self.latency = (latency or DEFAULT_LATENCY) if live else None
        self.threads = (1 if live else usable_threads()) if threads is None else threads
        if isinstance(threads, bool) or not isinstance(self.threads, int) or not 1 <= self.threads <= MAX_THREADS:
            raise OptionError(f"threads {threads!r}: expected a whole number from 1 to {MAX_THREADS}.")
        self.consistent = consistent
        self.watch = Stopwatch(stopped=live)  # of a hundred windows a second the clock would take its share
        self._folder = find_model(model, live=live)
        self.manifest = self._folder.manifest
        # Windows can be at work side by side: a lane a window scales better than several threads in one window.
        # Calls share the session's pool, to which each lane adds its own thread.
        # Live, a window is wanted before the next has come.
        self.lanes = 1 if live else min(self.threads, MAX_LANES)
        options = RunnerOptions(profile, self.latency, self.threads - self.lanes + 1, device)
        self.runner = load_runner(self._folder, options)
        if self.runner.geometry.remembers:  # a window waits for the one before
            self.lanes = 1
        self.profile = profile
        self._scratch = Scratch()
        self._executor = ThreadPoolExecutor(self.lanes, thread_name_prefix="stemplug-lane")

    @property
    def stems(self) -> tuple[str, ...]:
        """Names of the stems that the model makes."""
        return tuple(self.manifest.stems)

    @property
    def provider(self) -> str:
        """What runs the model, in ONNX Runtime's words."""
        return self.runner.provider

    def stream(
        self, sample_rate: int, *, frames: int | None = None, residual: bool = True, executor: Executor | None = None
    ) -> StemStream:
        """Open a stream at ``sample_rate`` Hz. It belongs to one thread; any number may be open.

        ``frames`` tells how long the song is, about: then all lanes end at the same time, if windows may be shorter.
        Without ``residual`` that stem is left to the caller, who has the mixture. ``executor`` runs the windows in
        place of the separator's lanes, and must begin them in order. Raises `OptionError` for ``frames`` that are none.
        """
        return StemStream(
            self.runner,
            self.manifest,
            executor or self._executor,
            sample_rate=sample_rate,
            frames=frames,
            lanes=self.lanes,
            scratch=self._scratch,
            consistent=self.consistent,
            residual=residual,
            live=self.latency is not None,
            watch=self.watch,
        )

    def separate(
        self,
        audio: object,
        sample_rate: int,
        *,
        progress: Progress | None = None,
        cancel: threading.Event | None = None,
    ) -> Stems:
        """Take a song apart.

        Parameters
        ----------
        audio:
            Floats ``(channels, frames)``, mono or stereo, or ``(frames,)``.
        sample_rate:
            Hz, 8000 to 192000.
        progress:
            Called with the fraction done and "separate".
        cancel:
            Setting it makes the call raise `Cancelled` within one window.

        Returns
        -------
        Stems of the input's frames, channels and rate, float32, which sum to the input.

        Raises
        ------
        AudioError
            For what is no such audio, holds NaN, or does not fit into memory.
        """
        checked, rate = check_shape(audio), check_rate(sample_rate)
        channels, frames = checked.shape
        if not frames:
            raise AudioError(f"audio has shape {checked.shape}: 0 frames. Give at least one.")
        try:
            result = {name: np.empty((channels, frames), np.float32) for name in self.stems}
        except MemoryError:
            size = len(self.stems) * channels * frames * 4 / 1e9
            raise AudioError(
                f"audio has shape {checked.shape}: its stems need {size:.0f} GB of memory. "
                "Use Separator.stream or separate_file, which need little."
            ) from None
        done = 0
        blocks = (checked[:, at : at + FEED] for at in range(0, frames, FEED))
        for stems in self._run(blocks, rate, frames, progress, cancel):
            for name, stem in stems.items():
                result[name][:, done : done + stems.frames] = stem
            done += stems.frames
        return Stems(result, rate)

    def separate_file(
        self,
        path: PathLike,
        *,
        start: float | None = None,
        end: float | None = None,
        progress: Progress | None = None,
        cancel: threading.Event | None = None,
    ) -> FileSeparation:
        """Open a song and separate it piece by piece, in constant memory.

        Iterate over the result for consecutive `Stems`, or call its `read` for all at once; decoding runs ahead on a
        thread of its own. ``start`` and ``end`` are seconds. Raises `AudioError` if the file cannot be read, at once
        or, where its end is bad, on the way.
        """
        return FileSeparation(self, AudioReader(path, start, end), progress, cancel)

    def map(self, job: Callable[[int], object], items: Iterable[int]) -> None:
        """Run ``job`` for every item on the separator's lanes, and wait."""
        for _ in self._executor.map(job, items):
            pass

    def _run(
        self,
        blocks: Iterable[object],
        sample_rate: int,
        frames: int,
        progress: Progress | None,
        cancel: threading.Event | None,
    ) -> Generator[Stems, None, None]:
        """Push ``blocks`` through a stream, keeping all lanes busy, and yield what is ready."""
        stream = self.stream(sample_rate, frames=frames)
        queued = self.lanes + 1  # one more than can run, so that no lane waits for the next
        done = 0

        def waiting() -> None:
            if cancel is not None and cancel.is_set():
                raise Cancelled("cancelled.")
            if progress:
                progress(min(1.0, done / max(1, frames)), "separate")

        try:
            waiting()
            for block in blocks:
                stream.feed(block)
                while stream.in_flight > queued:
                    stems = stream.collect(stream.in_flight - 1, waiting)
                    done += stems.frames
                    waiting()
                    if stems.frames:
                        yield stems
            stream.end()
            while True:
                stems = stream.collect(max(0, stream.in_flight - 1), waiting)
                done += stems.frames
                waiting()
                if stems.frames:
                    yield stems
                if not stream.in_flight:
                    break
        finally:
            stream.cancel()


class FileSeparation(Closing):
    """A song being separated: iterate over it once, use it in a ``with`` statement, or `read` it whole."""

    def __init__(
        self, separator: Separator, reader: AudioReader, progress: Progress | None, cancel: threading.Event | None
    ) -> None:
        self.info: ReaderInfo = reader.info
        self.stems = separator.stems
        self._separator, self._reader = separator, reader
        self._progress, self._cancel = progress, cancel
        self._blocks: Generator[Audio, None, None] | None = None
        self._closed = False

    def __iter__(self) -> Iterator[Stems]:
        if self._blocks or self._closed:
            raise OptionError(f"'{self.info.path}' was read or closed already; open it again.")
        self._blocks = read_ahead(self._decoded(), READ_AHEAD)
        return self._pieces(self._blocks)

    def _pieces(self, blocks: Iterable[Audio]) -> Iterator[Stems]:
        info, run = self.info, self._separator._run
        try:
            with closing(run(blocks, info.sample_rate, info.frames, self._progress, self._cancel)) as pieces:
                for stems in pieces:
                    yield stems
                    if self._closed:
                        raise OptionError(f"'{info.path}' was closed while it was read.")
        finally:
            self.close()

    def _decoded(self) -> Iterator[Audio]:
        iterator = self._reader.blocks()
        while True:
            with self._separator.watch("decode"):
                block = next(iterator, None)
            if block is None:
                return
            yield block

    def read(self) -> Stems:
        """Return all stems of the song at once."""
        pieces = list(self)
        joined = {name: np.concatenate([p[name] for p in pieces], axis=1) for name in self.stems}
        return Stems(joined, self.info.sample_rate)

    def sha256(self) -> str:
        """The hash of the song's file; to be asked before iterating, which closes the file."""
        if self._closed:
            raise OptionError(f"'{self.info.path}' was closed already; open it again.")
        return self._reader.sha256()

    def close(self) -> None:
        """End decoding and close the file."""
        self._closed = True
        if self._blocks:
            self._blocks.close()  # the thread that decodes must end before what it reads is closed
        self._reader.close()


def usable_threads() -> int:
    """How many threads this process may run at once, 1 to `MAX_THREADS`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_THREADS)


_loaded: WeakValueDictionary[Path, Separator] = WeakValueDictionary()
_last: list[Separator] = []
_loading = threading.Lock()


def shared_separator(model: str | os.PathLike[str] = "default") -> Separator:
    """Return a `Separator` with default settings, the same as long as anyone uses it."""
    folder = find_model(model).path
    with _loading:
        separator = _loaded.get(folder)
        if separator is None:
            separator = _loaded[folder] = Separator(folder)
        return separator


def separate(audio: object, sample_rate: int, *, model: str | os.PathLike[str] = "default") -> Stems:
    """Take a song apart with a model that stays loaded: `Separator.separate` in one call."""
    separator = shared_separator(model)
    _last[:] = [separator]  # one at a time: who needs more makes Separators
    return separator.separate(audio, sample_rate)
