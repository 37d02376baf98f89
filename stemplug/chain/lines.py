"""Stages at work: what a `Board` is made of once it processes audio.

A line takes whole songs, or a stream block by block. Frame n of its output always belongs to frame n of its input;
while it streams it may hold frames back, which `flush` gives. Latency is therefore nothing but frames that are held
back, and parallel lines are aligned by waiting for the slowest.
"""

from __future__ import annotations

import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pedalboard
from numpy.typing import NDArray

from stemplug.audio import Audio
from stemplug.errors import AudioError, StageError

Function = Callable[[Audio, float], Audio]
"""A stage in plain Python: float32 ``(channels, frames)`` and the sample rate in Hz to audio of the same shape."""

MAX_PREPARED = 1 << 16
_FLOAT32 = np.dtype(np.float32)
MAX_TAIL_SECONDS = 60
"""A plugin that still holds frames back after so much silence has lost them."""


class Line(ABC):
    """One stage, or several in series, with the state of a stream. Belongs to one thread."""

    @abstractmethod
    def whole(self, audio: Audio, sample_rate: float, buffer_size: int) -> Audio:
        """Process a whole song, ``(channels, frames)``, from a clean state; returns the same shape."""

    @abstractmethod
    def push(self, audio: Audio, sample_rate: float, buffer_size: int) -> Audio:
        """Process the next block of a stream; returns what is ready, maybe 0 frames."""

    @abstractmethod
    def flush(self) -> Audio | None:
        """End the stream and return the frames that were held back; None if no block was pushed."""

    @abstractmethod
    def drop(self) -> None:
        """Forget the stream, but not the state of plugins."""

    def reset(self) -> None:
        """Forget the stream and all state."""
        self.drop()


class TappedLine(Line):
    """A line that can tell its stems.

    Attributes
    ----------
    names:
        Those of the stems.
    """

    names: tuple[str, ...]

    def __init__(self) -> None:
        self._kept: list[dict[str, Audio]] | None = None

    @contextmanager
    def tapped(self) -> Iterator[Callable[[int], dict[str, Audio]]]:
        """Keep the stems of all calls within the ``with`` block; gives what returns them, for a number of channels."""
        pieces: list[dict[str, Audio]] = []
        self._kept = pieces

        def stems(channels: int) -> dict[str, Audio]:
            if len(pieces) == 1:
                return pieces[0]
            nothing = np.zeros((channels, 0), np.float32)
            return {name: np.concatenate([nothing, *(piece[name] for piece in pieces)], axis=1) for name in self.names}

        try:
            yield stems
        finally:
            self._kept = None

    def _keep(self, stems: dict[str, Audio]) -> None:
        if self._kept is not None:
            self._kept.append(stems)


class Native(Line):
    """pedalboard plugins in series, run by one call of pedalboard.

    Faults of pedalboard 0.9 when it streams are made good. It keeps the last frames: silence pushed after the song
    brings them out. A block longer than all before makes it prepare its plugins anew, which clears their state: so
    they are prepared for the longest block beforehand. External plugins forget that on reset: they are never given
    more at a time than in the first block. And plugins with latency are late if they go on after a whole song: they
    begin anew, while all others keep their tails, as in pedalboard.
    """

    def __init__(self, plugins: Sequence[pedalboard.Plugin | None]) -> None:
        self.replace(plugins)
        self._longest = 0  # frames that the plugins are prepared for; 0 before the first block
        self._prepared: tuple[int, float] | None = None  # channels and sample rate
        self.drop()

    def replace(self, plugins: Sequence[pedalboard.Plugin | None]) -> None:
        """Go on with other plugins, whatever the stream."""
        self._chain = pedalboard.Pedalboard(list(plugins))  # type: ignore[arg-type]
        self._external = any(isinstance(plugin, pedalboard.ExternalPlugin) for plugin in flatten(plugins))
        self._latent: bool | None = None  # not known

    def drop(self) -> None:
        """See `Line`."""
        self._channels = self._given = self._taken = 0
        self._sample_rate = 0.0

    def whole(self, audio: Audio, sample_rate: float, buffer_size: int) -> Audio:
        """See `Line`."""
        return self.as_pedalboard(audio, len(audio), sample_rate, buffer_size)

    def as_pedalboard(self, array: NDArray[Any], channels: int, sample_rate: float, buffer_size: int) -> Audio:
        """Process a whole song of any layout."""
        frames = max(array.shape)
        if self._latent is None and channels:
            self._prepare(channels, sample_rate, min(buffer_size, frames))
        result = self._chain(array, sample_rate, buffer_size, reset=True)
        self._longest, self._prepared = min(buffer_size, frames), (channels, sample_rate)
        return result

    def _prepare(self, channels: int, sample_rate: float, buffer_size: int) -> None:
        """Bring the plugins into a clean state, prepared for blocks of ``buffer_size``, 65536 at most."""
        self._chain.reset()
        buffer_size = min(max(buffer_size, 1), MAX_PREPARED)
        frames = max(buffer_size, channels + 1)  # or pedalboard would take frames for channels
        ready = self._chain(np.zeros((channels, frames), np.float32), sample_rate, buffer_size, reset=False)
        self._latent = ready.shape[1] < frames
        # Only to reset: the method reset() would forget the channels, too.
        self._chain(np.zeros((channels, 0), np.float32), sample_rate, buffer_size)
        self._longest, self._prepared = buffer_size, (channels, sample_rate)

    def push(self, audio: Audio, sample_rate: float, buffer_size: int) -> Audio:
        """See `Line`."""
        channels, frames = audio.shape
        if not frames or not channels:
            return audio
        if (channels, sample_rate) != (self._channels, self._sample_rate):
            if not self._longest or self._latent or self._prepared != (channels, sample_rate):
                self._prepare(channels, sample_rate, buffer_size)
                if self._external:
                    self._longest = min(self._longest, frames)
            self._given = self._taken = 0
            self._channels, self._sample_rate = channels, sample_rate
        return self.advance(audio, sample_rate, buffer_size)

    def continues(self, array: NDArray[Any]) -> bool:
        """Whether a block needs no more than `advance`: quickly told, since it is told for every block."""
        shape = array.shape if type(array) is np.ndarray and array.dtype is _FLOAT32 else ()
        return len(shape) == 2 and shape[0] == self._channels < shape[1]

    def advance(self, audio: Audio, sample_rate: float, buffer_size: int) -> Audio:
        """Process the next block of a stream that has begun. Plugins have locks of their own."""
        ready = self._chain(audio, sample_rate, min(buffer_size, self._longest), reset=False)
        self._given += audio.shape[1]
        self._taken += ready.shape[1]
        return ready

    def flush(self) -> Audio | None:
        """See `Line`."""
        if not self._channels:
            self.reset()
            return None
        held, silent = self._given - self._taken, 0
        pieces = [np.zeros((self._channels, 0), np.float32)]
        block = np.zeros((self._channels, self._longest), np.float32)
        while held > 0 and silent < MAX_TAIL_SECONDS * self._sample_rate:
            ready = self._chain(block, self._sample_rate, self._longest, reset=False)[:, :held]
            pieces.append(ready)
            held -= ready.shape[1]
            silent += self._longest
        pieces.append(np.zeros((self._channels, max(0, held)), np.float32))
        self.reset()
        return np.concatenate(pieces, axis=1)

    def reset(self) -> None:
        """See `Line`."""
        self.drop()
        self._longest, self._latent = 0, None
        self._chain.reset()

    @property
    def holds(self) -> bool:
        """Whether frames are held back."""
        return self._given != self._taken


def flatten(plugins: Iterable[pedalboard.Plugin | None]) -> Iterable[pedalboard.Plugin]:
    """All plugins, those in containers included."""
    for plugin in plugins:
        if plugin is not None:
            yield plugin
        if isinstance(plugin, pedalboard.PluginContainer):
            yield from flatten(plugin)


class Call(Line):
    """A function as a stage.

    Where it has an attribute ``latency_samples``, its output is taken to be late by so many frames, and put right.
    """

    def __init__(self, function: Function) -> None:
        self._function = function
        self._skip: int | None = None  # frames to throw away, once the stream has begun
        self.drop()

    @property
    def _latency(self) -> int:
        latency = getattr(self._function, "latency_samples", 0)
        if not isinstance(latency, numbers.Integral) or latency < 0:
            raise StageError(f"{self._function!r}: latency_samples {latency!r}; expected 0 or more frames.")
        return int(latency)

    def _call(self, audio: Audio, sample_rate: float) -> Audio:
        name = getattr(self._function, "__name__", repr(self._function))
        result = self._function(audio.copy(), sample_rate)  # it may change what it is given
        if not isinstance(result, np.ndarray) or result.dtype.kind != "f" or result.shape != audio.shape:
            found = f"{result.dtype} {result.shape}" if isinstance(result, np.ndarray) else type(result).__name__
            raise AudioError(f"{name}() returned {found}; expected floats of the shape it was given, {audio.shape}.")
        return np.array(result, np.float32)  # it may use the array again

    def whole(self, audio: Audio, sample_rate: float, buffer_size: int) -> Audio:
        """See `Line`."""
        late = self._latency
        return self._call(np.pad(audio, ((0, 0), (0, late))) if late else audio, sample_rate)[:, late:]

    def push(self, audio: Audio, sample_rate: float, buffer_size: int) -> Audio:
        """See `Line`."""
        if self._skip is None:
            self._skip = self._held = self._latency
        self._channels, self._sample_rate = len(audio), sample_rate
        if not audio.shape[1]:
            return audio
        ready = self._call(audio, sample_rate)
        skipped = min(self._skip, ready.shape[1])
        self._skip -= skipped
        return ready[:, skipped:]

    def flush(self) -> Audio | None:
        """See `Line`."""
        if self._skip is None:
            return None
        silence = np.zeros((self._channels, self._held), np.float32)
        tail = self.push(silence, self._sample_rate, 0)
        self.drop()
        return tail

    def drop(self) -> None:
        """See `Line`."""
        self._skip = None
        self._held = self._channels = 0
        self._sample_rate = 0.0


class Series(Line):
    """Lines one after the other."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = list(lines)
        self._settings: tuple[float, int] | None = None

    def whole(self, audio: Audio, sample_rate: float, buffer_size: int) -> Audio:
        """See `Line`."""
        for line in self.lines:
            audio = line.whole(audio, sample_rate, buffer_size)
        return audio

    def push(self, audio: Audio, sample_rate: float, buffer_size: int) -> Audio:
        """See `Line`."""
        self._settings = sample_rate, buffer_size
        for line in self.lines:
            audio = line.push(audio, sample_rate, buffer_size)
        return audio

    def flush(self) -> Audio | None:
        """See `Line`."""
        if not self._settings:
            return None
        tail: Audio | None = None
        for line in self.lines:
            ready = None if tail is None else line.push(tail, *self._settings)
            rest = line.flush()
            parts = [part for part in (ready, rest) if part is not None]
            tail = np.concatenate(parts, axis=1) if parts else None
        self._settings = None
        return tail

    def drop(self) -> None:
        """See `Line`."""
        self._settings = None
        for line in self.lines:
            line.drop()

    def reset(self) -> None:
        """See `Line`."""
        self._settings = None
        for line in self.lines:
            line.reset()
