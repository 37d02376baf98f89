"""A stream of audio in, a stream of aligned stems out: resampling, windows, fades and consistency, once for all."""

from __future__ import annotations

import math
import numbers
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from stemplug.audio import Audio, Resampler, Timeline, as_audio, check_rate, resampler_lag
from stemplug.engine.level import CELL, LevelFollower, envelope
from stemplug.engine.stems import Stems
from stemplug.errors import AudioError, OptionError
from stemplug.models import Geometry, Handover, Manifest, Runner, fade_in
from stemplug.models.scratch import Scratch
from stemplug.timing import Stopwatch

SILENCE_CELL = 64
"""Frames of the grid on which digital silence is kept: a cell of zeros in the mixture is zeros in every stem."""

RINGING = 0.1
"""Seconds of silence that follow a song, so that its end rings in the resamplers as it does where a stream goes on."""


def stream_latency(geometry: Geometry, look_ahead: int, model_rate: int, sample_rate: int, live: bool = False) -> int:
    """Return the latency of a stream in frames at ``sample_rate``, summed from its parts."""
    to_model = resampler_lag(sample_rate, model_rate, live)
    from_model = resampler_lag(model_rate, sample_rate, live)
    resampled = 0 if sample_rate == model_rate else 1  # both ends round to whole frames
    model = (geometry.latency + look_ahead + to_model) * sample_rate / model_rate
    return math.ceil(model) + from_model + resampled + SILENCE_CELL - 1


def next_hop(geometry: Geometry, rest: int, started: int, lanes: int) -> int:
    """The hop of the next window, where ``rest`` frames are left: all that follow are as long, within a step.

    They are as many as keep all lanes busy to the end, unless they were shorter than their context, which would hardly
    spare the other lanes work. ``started`` counts the windows before.
    """
    step = geometry.step or geometry.hop
    least = -(-rest // geometry.hop)
    even = least + -(started + least) % lanes
    windows = max(least, min(even, rest // max(1, geometry.left + geometry.right)))
    return -(-rest // (windows * step)) * step


class StemStream:
    """Separate audio as it comes; one thread at a time.

    Made by `Separator.stream`. Output frame n belongs to input frame n; at least ``pushed - latency_samples`` frames
    are out after each `push`, and `flush` gives the rest, so that output and input have the same length. The bits do
    not depend on the sizes of the blocks.

    Attributes
    ----------
    sample_rate:
        Hz, of input and output.
    latency_samples:
        Constant. Output frame n depends on input frames up to n + latency_samples.
    hop_samples:
        What each window that `collect` leaves at work adds to the latency, at most.
    period_samples:
        Streams that begin so many frames apart, or a multiple, cut the same song into the same windows.
    """

    def __init__(
        self,
        runner: Runner,
        manifest: Manifest,
        executor: Executor,
        *,
        sample_rate: int,
        frames: int | None,
        lanes: int,
        scratch: Scratch,
        consistent: bool,
        residual: bool,
        live: bool,
        watch: Stopwatch,
    ) -> None:
        self.sample_rate = check_rate(sample_rate)
        geometry = runner.geometry
        # Windows begin and end on cells, so that what they are told does not depend on what else has come.
        self._cell = math.gcd(CELL, geometry.hop, geometry.step, geometry.fade + geometry.right)
        self._level = LevelFollower(manifest.reference_level_db, live, self._cell if live else CELL)
        self.latency_samples = stream_latency(
            geometry, self._level.look_ahead, manifest.sample_rate, self.sample_rate, live
        )
        hop = Fraction(geometry.hop * self.sample_rate, manifest.sample_rate)
        self.hop_samples, self.period_samples, self._period_windows = math.ceil(hop), hop.numerator, hop.denominator
        self._geometry, self._runner, self._manifest = geometry, runner, manifest
        self._windows = runner.begin()
        self._executor, self._lanes, self._scratch = executor, lanes, scratch
        self._live, self._watch = live, watch
        self._estimated = [s for s in manifest.stems if not (consistent and s == manifest.residual)]
        self._subtracts = consistent and residual
        self._rings = math.ceil(RINGING * sample_rate) if sample_rate != manifest.sample_rate else 0
        self._expected = 0  # frames at the model's rate
        if frames is not None:
            if isinstance(frames, bool) or not isinstance(frames, numbers.Integral) or frames < 0:
                raise OptionError(f"frames {frames!r}: expected a whole number, 0 or more, or None.")
            self._expected = math.ceil((int(frames) + self._rings) * manifest.sample_rate / sample_rate)
        self._channels = 0
        self._pushed = 0
        self._flushed = False
        self._failure: BaseException | None = None

    def begin_after(self, silence: int) -> int:
        """Count windows as if ``silence`` frames of it had been pushed, whole periods of them; before the first push.

        Returns how many of those frames are still to be pushed, less than `period_samples`. Then a passage is cut into
        the windows, and is treated as, it would be in a song that begins where the silence does.
        """
        periods, rest = divmod(silence, self.period_samples)
        self._windows = self._runner.begin(periods * self._period_windows)
        return rest

    def push(self, block: object) -> Stems:
        """Take a block, floats ``(channels, frames)`` of any length; return the stems that are ready (maybe 0 frames).

        Raises
        ------
        AudioError
            For integers, a changed number of channels, or samples that are NaN or infinite.
        OptionError
            After `flush`.
        """
        self.feed(block, copy=True)
        return self.collect()

    def flush(self) -> Stems:
        """Return all that is held back. The stream ends: open another for other audio."""
        self.end()
        return self.collect()

    def feed(self, block: object, *, copy: bool = False) -> None:
        """Take a block and start the windows that it completes, without waiting for them.

        Without ``copy`` the block must not change until its stems are out.
        """
        self._check_usable()
        if self._flushed:
            raise OptionError("this stream was flushed; open another with Separator.stream().")
        audio = as_audio(block, self.sample_rate, self._pushed)
        if not self._channels:
            self._open(audio.shape[0])
        if audio.shape[0] != self._channels:
            raise AudioError(f"a block of {audio.shape[0]} channels; the stream began with {self._channels}.")
        if copy and np.may_share_memory(audio, np.asarray(block)):
            audio = audio.copy()
        self._take(audio, last=False)

    def end(self) -> None:
        """Start the last windows, without waiting for them."""
        self._check_usable()
        if self._flushed:
            return
        if not self._channels:
            self._open(self._manifest.channels)
        self._flushed = True
        self._take(np.zeros((self._channels, 0), np.float32), last=True)

    def collect(self, in_flight: int = 0, waiting: Callable[[], None] | None = None) -> Stems:
        """Return the stems that are ready, leaving up to ``in_flight`` windows at work.

        ``waiting`` is called about three times a second; what it raises ends the wait.
        """
        self._check_usable()
        try:
            while len(self._pending) > in_flight:
                future = self._pending[0]
                while not future.done():
                    if waiting:
                        waiting()
                    _wait(future, 0.3)
                self._overlap(future.result())
                self._pending.popleft()
            return self._emit(last=self._flushed and not self._pending)
        except BaseException as error:
            self._failure = error  # a window is missing: what followed would be out of place
            self.cancel()
            raise

    def _check_usable(self) -> None:
        if self._failure:
            raise OptionError(f"this stream has failed ({self._failure}); open another with Separator.stream().")

    @property
    def in_flight(self) -> int:
        """Windows at work."""
        return len(self._pending) if self._channels else 0

    @property
    def unfinished(self) -> int:
        """Windows at work less those that `collect` need not wait for."""
        pending = self._pending if self._channels else ()
        return next((len(pending) - done for done, future in enumerate(pending) if not future.done()), 0)

    @property
    def frames_wanted(self) -> int:
        """About how many frames must still come before the next window can begin."""
        if not self._channels:
            return 0
        missing = self._known(self._geometry.hop) - self._input.end
        return max(0, math.ceil(missing * self.sample_rate / self._manifest.sample_rate))

    def cancel(self) -> None:
        """Drop the windows that have not begun."""
        for future in self._pending if self._channels else ():
            future.cancel()

    def _open(self, channels: int) -> None:
        """Set up all state, once the number of channels is known."""
        rate, rows = self._manifest.sample_rate, len(self._estimated) * channels
        self._mixture = Timeline(channels)  # at the stream's rate, kept until emitted, for the residual
        self._sounds = SoundingCells(channels, SILENCE_CELL)
        self._model_sounds = SoundingCells(channels, self._cell)
        self._input = Timeline(channels)  # at the model's rate, kept until no window needs it
        self._output = Timeline(rows)  # estimates at the stream's rate: stems times channels
        self._to_model = Resampler(self.sample_rate, rate, channels, self._live)
        self._from_model = Resampler(rate, self.sample_rate, rows, self._live)
        self._pending: deque[Future[Audio]] = deque()
        self._started = 0  # windows
        self._covered = self._overlapped = self._emitted = 0  # frames
        fade = self._geometry.fade
        self._tail = np.zeros((rows, fade), np.float32)
        self._ramp = fade_in(fade)
        self._last_work: Future[Audio] | None = None
        self._last_handover: Handover | None = None  # with the window before, unless that is silent
        self._last_hop = 0
        self._channels = channels

    def _take(self, audio: Audio, last: bool) -> None:
        self._pushed += audio.shape[1]
        self._sounds.push(audio)
        if self._subtracts:
            self._mixture.append(audio)
        with self._watch("resample"):
            if last and self._rings:
                audio = np.zeros((self._channels, self._rings), np.float32)
            resampled = self._to_model.push(audio)
        self._input.append(resampled)
        self._model_sounds.push(resampled)
        self._level.push(resampled)
        if last:
            self._input_frames = self._input.end  # with what rings behind the song
            self._level.end()
        while hop := self._next_hop(last):
            self._start(hop)

    def _known(self, hop: int) -> int:
        """The end of the input that the next window needs."""
        return self._covered + hop + self._geometry.fade + self._geometry.right + self._level.look_ahead

    def _next_hop(self, last: bool) -> int:
        """The hop of a window that can begin now, or 0: its share of the song's rest, or up to silence."""
        covered, hop = self._covered, self._geometry.hop
        rest = (self._input_frames if last else self._expected) - covered
        if last and rest <= 0:
            return 0
        if self._expected and rest > 0:
            hop = self._even(rest)
        known = self._known(hop)
        if last:
            known = min(known, self._input_frames)
        elif known > self._input.end:
            return 0
        sound = self._model_sounds.sound_end(covered, known) - covered
        if last and not sound:
            return self._even(min(hop, rest))  # silence gives a window as well, its last
        return self._even(sound) if 0 < sound < hop else hop

    def _even(self, rest: int) -> int:
        return next_hop(self._geometry, rest, self._started, self._lanes)

    def _start(self, hop: int) -> None:
        """Have the next window separated."""
        geometry = self._geometry
        start, stop = self._covered - geometry.left, self._covered + hop + geometry.fade + geometry.right
        self._input.pad(max(0, stop - self._input.end))
        if geometry.remembers or self._model_sounds.sound_end(self._covered, stop) > self._covered:
            pieces, gains = self._input.views(start, stop), self._level.gains(start, stop)
            before = self._last_work if geometry.remembers else None
            handover = Handover(self._last_handover, self._last_hop)
            work = self._last_work = self._executor.submit(self._run, pieces, gains, start, stop, before, handover)
            work.add_done_callback(handover.close)  # so that, were it cancelled, no window waits for what it hands on
            self._last_handover = handover
        else:
            work, self._last_handover = Future(), None
            work.set_result(np.zeros((self._tail.shape[0], hop + geometry.fade), np.float32))
        self._pending.append(work)
        self._started, self._last_hop = self._started + 1, hop
        self._covered += hop
        self._input.forget(self._covered - geometry.left)
        self._model_sounds.forget(self._covered)
        self._level.forget(self._covered - geometry.left)

    def _run(
        self, pieces: list[Audio], gains: Audio, start: int, stop: int, before: Future[Audio] | None, handover: Handover
    ) -> Audio:
        """Pieces of (channels, frames) at the model's rate to (stems * channels, hop + fade). On a lane's thread.

        Where the network remembers, the window ``before`` must be done; it has begun, since lanes begin in order.
        """
        if before is not None:
            before.result()
        geometry, channels, frames = self._geometry, self._manifest.channels, stop - start
        gain = envelope(gains, start, frames)
        window = self._scratch("window", (self._channels, frames), np.float32)
        np.multiply(np.concatenate(pieces, axis=1, out=window), gain, out=window)
        pieces.clear()  # a queue of windows holds on to them
        batch = window.reshape(-1, 1, frames)
        if channels == 2:  # a mono song is a stereo song with equal channels
            batch = np.broadcast_to(batch.swapaxes(0, 1), (1, 2, frames))
        stems = self._windows(batch, self._estimated, self._watch, handover)
        inner = slice(geometry.left, frames - geometry.right)
        audio = np.divide(stems[..., inner], gain[inner], out=stems[..., inner])
        if channels == 2 and len(window) == 1:
            audio = audio.mean(axis=2, keepdims=True)
        # (batch, stems, channels, frames): a stereo song in a mono model is a batch of two
        return audio.transpose(1, 0, 2, 3).reshape(self._tail.shape[0], -1)

    def _overlap(self, inner: Audio) -> None:
        """Cross-fade a window's output with the one before and append it, back at the stream's rate."""
        fade = self._geometry.fade
        hop = inner.shape[1] - fade
        done, tail = inner[:, :hop], inner[:, hop:].copy()
        if self._overlapped and fade:
            done[:, :fade] *= self._ramp
            done[:, :fade] += self._tail * (1 - self._ramp)
        self._tail = tail
        last = self._flushed and self._overlapped + hop == self._covered
        if last:
            done = done[:, : self._input_frames - self._overlapped]
        self._overlapped += hop
        with self._watch("resample"):
            self._output.append(self._from_model.push(done, last))

    def _emit(self, last: bool) -> Stems:
        """Cut what is ready, keep silence silent, and give the residual stem what the others leave."""
        ready = min(self._output.end, self._pushed)
        stop = ready - ready % SILENCE_CELL
        if last:
            stop = self._pushed
            self._output.pad(max(0, stop - self._output.end))
        start, frames = self._emitted, stop - self._emitted
        estimates = self._output.read(start, stop).reshape(len(self._estimated), self._channels, frames)
        # A mask spreads a sound over the transform's window: without this a stem would begin before the song does.
        silent = ~self._sounds.read(start, stop)
        if silent.any():
            whole = frames // SILENCE_CELL
            cells = estimates[..., : whole * SILENCE_CELL].reshape(*estimates.shape[:2], whole, SILENCE_CELL)
            cells[:, silent[:, :whole]] = 0
            estimates[..., whole * SILENCE_CELL :][:, silent[:, whole:].any(axis=1)] = 0
        stems = dict(zip(self._estimated, estimates, strict=True))
        if self._subtracts:
            stems[self._manifest.residual] = rest = np.concatenate(self._mixture.views(start, stop), axis=1)
            for stem in estimates:
                rest -= stem
        self._sounds.forget(stop)
        self._mixture.forget(stop)
        self._output.forget(stop)
        self._emitted = stop
        return Stems({name: stems[name] for name in self._manifest.stems if name in stems}, self.sample_rate)


def _wait(future: Future[Audio], seconds: float) -> None:
    try:
        future.exception(timeout=seconds)
    except TimeoutError:
        return


class SoundingCells:
    """Which cells of a stream are not digital silence, channel by channel."""

    def __init__(self, channels: int, size: int) -> None:
        self._size = size
        self._first = 0  # cells that were forgotten
        self._cells = np.zeros((channels, 0), bool)
        self._partial = np.zeros((channels, 0), bool)  # frames of the last cell

    def push(self, block: Audio) -> None:
        """Take the next block, ``(channels, frames)``."""
        frames = np.concatenate([self._partial, block != 0], axis=1)
        whole = frames.shape[1] // self._size * self._size
        cells = frames[:, :whole].reshape(len(frames), -1, self._size).any(axis=-1)
        self._cells, self._partial = np.concatenate([self._cells, cells], axis=1), frames[:, whole:]

    def read(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Return the cells that cover frames ``[start, stop)``, ``(channels, cells)``; what has not come is missing."""
        last = -(-stop // self._size) - self._first
        found = self._cells[:, start // self._size - self._first : last]
        if last > self._cells.shape[1] and self._partial.size:
            found = np.concatenate([found, self._partial.any(axis=1, keepdims=True)], axis=1)
        return found

    def sound_end(self, start: int, stop: int) -> int:
        """Return the end of the last cell in ``[start, stop)`` that sounds, ``start`` where none does."""
        sounding = np.flatnonzero(self.read(start, stop).any(axis=0))
        return (start // self._size + int(sounding[-1]) + 1) * self._size if len(sounding) else start

    def forget(self, before: int) -> None:
        """Let go of the cells that end at or before frame ``before``."""
        gone = max(0, before // self._size - self._first)
        self._cells = self._cells[:, gone:]
        self._first += gone
