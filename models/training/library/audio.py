"""What all modules do with audio: float32, shape (channels, frames), at RATE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

RATE = 44100
Audio = NDArray[np.float32]
Rng = np.random.Generator
T = TypeVar("T")


def one_of(items: Sequence[T], rng: Rng) -> T:
    """Draw an item."""
    return items[int(rng.integers(len(items)))]


def read(path: Path | BinaryIO, start: float = 0, seconds: float | None = None) -> Audio:
    """Read ``seconds`` (all) of a file from ``start``, at RATE."""
    with soundfile.SoundFile(path) as file:
        rate = file.samplerate
        file.seek(min(int(start * rate), file.frames))
        audio = file.read(-1 if seconds is None else int(seconds * rate), dtype="float32", always_2d=True)
    return (soxr.resample(audio, rate, RATE) if rate != RATE else audio).T


def fit(audio: Audio, frames: int) -> Audio:
    """Cut or pad to a length; the last 50 ms fade out where something is cut."""
    if audio.shape[1] < frames:
        return np.pad(audio, ((0, 0), (0, frames - audio.shape[1])))
    audio = audio[:, :frames].copy()
    audio[:, -2205:] *= np.linspace(1, 0, 2205, dtype=np.float32)[-frames:]
    return audio


def level(audio: Audio) -> Audio:
    """Scale to an RMS of -20 dBFS over the parts that are not silent: the working level of the effects."""
    blocks = np.mean(audio[:, : audio.shape[1] // 4410 * 4410].reshape(-1, 4410) ** 2, axis=1)
    loud = blocks[blocks > 1e-4 * blocks.max()] if len(blocks) and blocks.max() > 0 else np.ones(1)
    return (audio * (0.1 / np.sqrt(loud.mean()))).astype(np.float32)


def widen(audio: Audio, width: float) -> Audio:
    """Scale the side signal."""
    middle, side = (audio[0] + audio[1]) / 2, (audio[0] - audio[1]) / 2 * width
    return np.stack([middle + side, middle - side])


def pan(audio: Audio, place: float) -> Audio:
    """Move to the left (-1) or the right (1)."""
    return audio * np.array([[1 - max(place, 0)], [1 + min(place, 0)]], np.float32)
