"""Loudness and true peak: measured, and brought to a target.

Loudness is that of ITU-R BS.1770-4 (pyloudnorm). True peak is the largest sample at 4 times the rate (BS.1770-4, annex
2, with soxr in place of its short filter).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np

from stemplug.audio import Audio, Resampler
from stemplug.errors import SessionError
from stemplug.session.schema import Loudness

OVERSAMPLING = 4
BLOCK_SECONDS = 0.4
"""Of which the loudness is made: shorter audio has none."""
TOLERANCE_LU = 0.1
_AIM_LU = 0.02
_AIM_DB = 0.02
"""How far below the ceiling the limiter aims: dither and rounding come after it."""
_LOOK_SECONDS = 0.005
_ATTEMPTS = 12
_STEP = 1 << 18


@dataclass(frozen=True)
class Level:
    """Integrated loudness (LUFS) and true peak (dBTP); minus infinity for silence."""

    lufs: float
    true_peak_db: float


@dataclass(frozen=True)
class Leveled:
    """What was done to reach a target: gain, by how much peaks were limited at most, why the target was missed."""

    gain_db: float = 0.0
    limited_db: float = 0.0
    missed: str | None = None


def measure(audio: Audio, sample_rate: int) -> Level:
    """The level of ``(channels, frames)``."""
    return Level(_lufs(audio, sample_rate), decibels(float(_true_peaks(audio, sample_rate).max(initial=0))))


def decibels(amplitude: float) -> float:
    """Amplitude, 1 at full scale, in dB."""
    return 20 * math.log10(amplitude) if amplitude > 0 else -math.inf


def normalize(audio: Audio, sample_rate: int, target: Loudness, *, lower_db: float = 0.0) -> tuple[Audio, Leveled]:
    """Bring audio to a loudness, below a ceiling, or by ``lower_db`` more below it.

    Where peaks would be above the ceiling they are limited, by at most ``target.limiter_db``; the gain is smaller where
    that is not enough, and the result says so.
    """
    lufs, peaks = _lufs(audio, sample_rate), _true_peaks(audio, sample_rate)
    if lufs == -math.inf:
        return audio, Leveled(missed="it has no loudness: silent, below the gate of -70 LUFS, or shorter than 0.4 s.")
    peak = decibels(float(peaks.max()))
    aim = target.true_peak_db - _AIM_DB - lower_db
    most = aim - peak + target.limiter_db
    gain, ceiling = target.lufs - lufs, aim
    for _ in range(_ATTEMPTS):
        held = gain >= most
        gain = min(gain, most)
        factor = np.float32(10 ** (gain / 20))
        made, limited = audio * factor, 0.0
        if gain + peak > ceiling:
            made, limited = _limit(made, peaks * factor, sample_rate, ceiling)
            level = measure(made, sample_rate)
        else:
            level = Level(_lufs(made, sample_rate), gain + peak)  # not lufs + gain: quiet blocks may pass the gate
        error, above = target.lufs - level.lufs, level.true_peak_db - aim
        if (held or abs(error) <= _AIM_LU) and above <= 0:
            break
        gain += 0 if held and error > 0 else error
        ceiling -= max(0.0, above)
    missed = None
    if abs(error) > TOLERANCE_LU or above > _AIM_DB:
        missed = (
            f"{level.lufs:.1f} LUFS in place of {target.lufs:g}: peaks would pass {target.true_peak_db:g} dBTP, "
            f"and limiter_db allows {target.limiter_db:g} dB of limiting. Raise it, or lower lufs."
        )
    return made, Leveled(gain, limited, missed)


def _limit(audio: Audio, peaks: Audio, sample_rate: int, ceiling_db: float) -> tuple[Audio, float]:
    """Turn down what is above the ceiling, from 5 ms before to 5 ms after; by how many dB at most.

    ``peaks`` are those of `_true_peaks`.
    """
    from scipy.ndimage import convolve1d, minimum_filter1d

    ceiling = 10 ** (ceiling_db / 20)
    needed = np.minimum(1, ceiling / np.maximum(peaks, 1e-9))
    look = max(1, round(_LOOK_SECONDS * sample_rate))
    window = np.hanning(2 * look + 3)[1:-1]
    # The mean over a window of minima over the same window is nowhere above what is needed.
    gain = convolve1d(minimum_filter1d(needed, 2 * look + 1), window / window.sum(), mode="nearest")
    return audio * gain.astype(np.float32), -decibels(float(gain.min()))


def _true_peaks(audio: Audio, sample_rate: int) -> Audio:
    """For each frame the largest amplitude of all channels, between this frame and the next too."""
    resampler = Resampler(sample_rate, OVERSAMPLING * sample_rate, len(audio))
    peaks: Audio = np.abs(audio).max(axis=0, initial=0)
    frames, done, rest = audio.shape[1], 0, np.zeros(0, np.float32)
    for start in range(0, frames, _STEP):  # or 4 times the song would be in memory
        block = np.asarray(audio[:, start : start + _STEP], np.float32)
        between = np.abs(resampler.push(block, last=start + _STEP >= frames)).max(axis=0, initial=0)
        rest = np.concatenate([rest, between])
        ready = min(len(rest) // OVERSAMPLING, frames - done)
        fine, rest = rest[: OVERSAMPLING * ready], rest[OVERSAMPLING * ready :]
        part = peaks[done : done + ready]
        np.maximum(part, fine.reshape(ready, OVERSAMPLING).max(axis=1, initial=0), out=part)
        done += ready
    return peaks


def _lufs(audio: Audio, sample_rate: int) -> float:
    try:
        import pyloudnorm
    except ImportError:
        raise SessionError("loudness needs pyloudnorm. Install it: pip install 'stemplug[session]'") from None
    if audio.shape[1] < BLOCK_SECONDS * sample_rate or not audio.any():
        return -math.inf
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing, where all is below the gate
        lufs = float(pyloudnorm.Meter(sample_rate).integrated_loudness(np.ascontiguousarray(audio.T, np.float64)))
    return lufs if math.isfinite(lufs) else -math.inf


def dithered(audio: Audio, bits: int) -> Audio:
    """Add triangular noise of one step to each side, the same in every render.

    Source: Lipshitz, Wannamaker, Vanderkooy, "Quantization and Dither", JAES 40 (5), 1992.
    """
    random = np.random.Generator(np.random.PCG64(0))
    noise = random.random(audio.shape, np.float32) - random.random(audio.shape, np.float32)
    return (audio + noise / (1 << (bits - 1))).astype(np.float32)
