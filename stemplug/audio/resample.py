"""Streaming sample-rate conversion, linear phase, aligned to the sample: soxr, or live a short filter of our own."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Protocol

import numpy as np
import soxr

from stemplug.audio.checks import Audio

_QUALITY = "VHQ"
_PROBE_STEP = 16
_HALF = 32
_BETA = 8.0
_TRANSITION = 0.08
_GROUPS = range(32, 97)
"""Frames of output that are computed at a time."""
_MOST_FILTERS = 256
"""More than all usual pairs of rates have; where there are more still, they are made again."""


class _Stream(Protocol):
    def push(self, block: Audio, last: bool) -> Audio: ...


class Resampler:
    """A stream from one rate to another; does nothing where they are equal.

    Frame n of the output lies at the time of frame ``n * source / target`` of the input, and the output's bits do not
    depend on how the input is cut (tests/audio/test_resample.py). soxr trails by 20 to 40 ms, since it works in blocks;
    ``live`` by less than 2 ms, with a filter that falls off from 18 of 22 kHz on.
    """

    def __init__(self, source: int, target: int, channels: int, live: bool = False) -> None:
        self._stream: _Stream | None = None
        if source != target and live:
            self._stream = _Polyphase(source, target, channels)
        elif source != target:
            self._stream = _Soxr(source, target, channels)

    def push(self, block: Audio, last: bool = False) -> Audio:
        """Return what is ready, ``(channels, frames)``, after one more block; ``last`` flushes the filter."""
        return block if self._stream is None else self._stream.push(block, last)


class _Soxr:
    def __init__(self, source: int, target: int, channels: int) -> None:
        self._stream = soxr.ResampleStream(source, target, channels, "float32", _QUALITY)

    def push(self, block: Audio, last: bool) -> Audio:
        """See `Resampler`."""
        return np.ascontiguousarray(self._stream.resample_chunk(np.ascontiguousarray(block.T), last=last).T)


class _Polyphase:
    """A windowed sinc, sampled at every phase that occurs.

    Method: J. O. Smith, "Digital Audio Resampling", CCRMA, 1984-2020; Kaiser window. Frames of output are computed in
    groups, each a product of a piece of input with a matrix, of the same sizes always, so that the bits are as well.
    A group is a divisor or a multiple of the frames after which phases recur, where there is one of a fit length: then
    few matrices occur, which stay in the processor's cache.
    """

    def __init__(self, source: int, target: int, channels: int) -> None:
        divisor = math.gcd(source, target)
        self._up, self._down = target // divisor, source // divisor
        self._half, _ = _bank(self._up, self._down)
        self._group = _group_size(self._up)
        self._span = 2 * self._half + self._group * self._down // self._up + 1
        self._input = np.zeros((channels, self._half - 1), np.float32)  # from frame `_first` on
        self._first = 1 - self._half
        self._done = 0  # frames of output

    def push(self, block: Audio, last: bool) -> Audio:
        """See `Resampler`."""
        end = self._first + self._input.shape[1] + block.shape[1]
        # Frame n needs the input up to floor(n * down / up) + half; what a group lacks of it counts for later ones.
        ready = max(self._done, -(-(end if last else end - self._half) * self._up // self._down))
        unknown = np.zeros((len(block), self._span), np.float32)
        joined = np.concatenate([self._input, block, unknown], axis=1)
        size = self._group
        begin = self._done // size * size
        groups = [np.zeros((len(block), 0), np.float32)]
        for group in range(begin, ready, size):
            at, phase = divmod(group * self._down, self._up)
            at -= self._half - 1 + self._first
            groups.append(joined[:, at : at + self._span] @ _filters(self._up, self._down, phase))
        out = np.concatenate(groups, axis=1)[:, self._done - begin : ready - begin]
        self._done = ready
        keep = max(0, ready // size * size * self._down // self._up - self._half + 1 - self._first)
        self._input, self._first = joined[:, keep : -self._span], self._first + keep
        return out


@lru_cache(maxsize=16)
def _bank(up: int, down: int) -> tuple[int, Audio]:
    """Half the length of the filters, and those of all phases, ``(up, 2 * half)``."""
    wide = max(1.0, down / up)  # going down, the filter cuts lower and is longer
    half = math.ceil(_HALF * wide)
    offsets = np.arange(1 - half, half + 1) - np.arange(up)[:, np.newaxis] / up
    window = np.i0(_BETA * np.sqrt(np.maximum(0, 1 - (offsets / half) ** 2)))
    bank = np.sinc(offsets * (1 - _TRANSITION) / wide) * window
    return half, (bank / bank.sum(axis=1, keepdims=True)).astype(np.float32)


def _group_size(up: int) -> int:
    return max((size for size in _GROUPS if size % up == 0 or up % size == 0), default=64)


@lru_cache(maxsize=_MOST_FILTERS)
def _filters(up: int, down: int, phase: int) -> Audio:
    """From a piece of the input to the frames of a group whose first has this phase, ``(span, group)``."""
    half, bank = _bank(up, down)
    size = _group_size(up)
    shifts, phases = np.divmod(phase + np.arange(size) * down, up)
    filters = np.zeros((2 * half + size * down // up + 1, size), np.float32)
    for frame, (shift, taps) in enumerate(zip(shifts, bank[phases], strict=True)):
        filters[shift : shift + len(taps), frame] = taps
    return filters


@lru_cache(maxsize=64)
def resampler_lag(source: int, target: int, live: bool = False) -> int:
    """Return by how many frames of its output, at most, a `Resampler` trails behind its input.

    soxr works in blocks inside and does not tell their size, so this is measured: fed with short pieces until it
    has long settled.
    """
    if source == target:
        return 0
    resampler = Resampler(source, target, 1, live)
    piece = np.zeros((1, _PROBE_STEP), np.float32)
    ready, worst = 0, 0.0
    for step in range(1, source // _PROBE_STEP):
        ready += resampler.push(piece).shape[1]
        worst = max(worst, step * _PROBE_STEP * target / source - ready)
    return int(np.ceil(worst + _PROBE_STEP * target / source)) + 1
