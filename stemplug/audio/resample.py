"""Streaming sample-rate conversion, linear phase, aligned to the sample: soxr, or live a short filter of our own."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Protocol

import numpy as np
import soxr
from numpy.lib.stride_tricks import sliding_window_view

from stemplug.audio.checks import Audio

_QUALITY = "VHQ"
_PROBE_STEP = 16
_HALF = 32
_BETA = 8.0
_TRANSITION = 0.08


class _Stream(Protocol):
    def resample_chunk(self, block: Audio, last: bool) -> Audio: ...


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
            self._stream = soxr.ResampleStream(source, target, channels, "float32", _QUALITY)

    def push(self, block: Audio, last: bool = False) -> Audio:
        """Return what is ready, ``(channels, frames)``, after one more block; ``last`` flushes the filter."""
        if self._stream is None:
            return block
        return np.ascontiguousarray(self._stream.resample_chunk(np.ascontiguousarray(block.T), last=last).T)


class _Polyphase:
    """A windowed sinc, sampled at every phase that occurs; (frames, channels) in and out, as soxr.

    Method: J. O. Smith, "Digital Audio Resampling", CCRMA, 1984-2020; Kaiser window.
    """

    def __init__(self, source: int, target: int, channels: int) -> None:
        divisor = math.gcd(source, target)
        self._up, self._down = target // divisor, source // divisor
        wide = max(1.0, source / target)  # going down, the filter cuts lower and is longer
        self._half = math.ceil(_HALF * wide)
        offsets = np.arange(1 - self._half, self._half + 1) - np.arange(self._up)[:, np.newaxis] / self._up
        window = np.i0(_BETA * np.sqrt(np.maximum(0, 1 - (offsets / self._half) ** 2)))
        bank = np.sinc(offsets * (1 - _TRANSITION) / wide) * window
        self._bank = (bank / bank.sum(axis=1, keepdims=True)).astype(np.float32)
        self._input = np.zeros((self._half - 1, channels), np.float32)  # from frame `_first` on
        self._first = 1 - self._half
        self._done = 0  # frames of output

    def resample_chunk(self, block: Audio, last: bool) -> Audio:
        """Return what is ready after one more block."""
        joined = np.concatenate([self._input, block])
        end = self._first + len(joined)
        if last:
            joined = np.concatenate([joined, np.zeros((self._half, joined.shape[1]), np.float32)])
        # Frame n needs the input up to floor(n * down / up) + half.
        ready = max(self._done, -(-(end if last else end - self._half) * self._up // self._down))
        at = np.arange(self._done, ready) * self._down
        self._done = ready
        index, phase = at // self._up - self._half + 1 - self._first, at % self._up
        out, filters = np.empty((len(at), joined.shape[1]), np.float32), self._bank[phase]
        for channel in range(joined.shape[1] if len(at) else 0):
            pieces = sliding_window_view(joined[:, channel], 2 * self._half)[index]
            np.einsum("nt,nt->n", pieces, filters, out=out[:, channel])
        keep = max(0, ready * self._down // self._up - self._half + 1 - self._first)
        self._input, self._first = joined[keep:], self._first + keep
        return out


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
