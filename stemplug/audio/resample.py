"""Streaming sample-rate conversion: soxr, very high quality, linear phase, aligned to the sample."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import soxr

from stemplug.audio.checks import Audio

_QUALITY = "VHQ"
_PROBE_STEP = 16


class Resampler:
    """A stream from one rate to another; does nothing where they are equal.

    soxr removes its filter's delay: frame n of the output lies at the time of frame ``n * source / target`` of the
    input, and the output's bits do not depend on how the input is cut (tests/audio/test_resample.py).
    """

    def __init__(self, source: int, target: int, channels: int) -> None:
        self._stream = None if source == target else soxr.ResampleStream(source, target, channels, "float32", _QUALITY)

    def push(self, block: Audio, last: bool = False) -> Audio:
        """Return what is ready, ``(channels, frames)``, after one more block; ``last`` flushes the filter."""
        if self._stream is None:
            return block
        return np.ascontiguousarray(self._stream.resample_chunk(np.ascontiguousarray(block.T), last=last).T)


@lru_cache(maxsize=64)
def resampler_lag(source: int, target: int) -> int:
    """Return by how many frames of its output, at most, a `Resampler` trails behind its input.

    soxr works in blocks inside and does not tell their size, so this is measured: fed with short pieces until it
    has long settled.
    """
    if source == target:
        return 0
    resampler = Resampler(source, target, 1)
    piece = np.zeros((1, _PROBE_STEP), np.float32)
    ready, worst = 0, 0.0
    for step in range(1, source // _PROBE_STEP):
        ready += resampler.push(piece).shape[1]
        worst = max(worst, step * _PROBE_STEP * target / source - ready)
    return int(np.ceil(worst + _PROBE_STEP * target / source)) + 1
