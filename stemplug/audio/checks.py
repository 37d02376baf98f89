"""What counts as audio: float32 ``(channels, frames)``, 1 or 2 channels, finite, 8 to 192 kHz."""

from __future__ import annotations

import numbers
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stemplug.errors import AudioError

Audio: TypeAlias = NDArray[np.float32]
"""float32, ``(channels, frames)``, nominal range [-1, 1]."""

MIN_RATE, MAX_RATE = 8_000, 192_000


def check_rate(sample_rate: object, where: str = "audio") -> int:
    """Return the sample rate in Hz as an int; whole floats such as 44100.0 are accepted.

    Raises
    ------
    AudioError
        If it is no number, not whole, or outside 8000 to 192000 Hz.
    """
    expected = f"expected a whole number of Hz from {MIN_RATE} to {MAX_RATE}"
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, numbers.Real):
        raise AudioError(f"{where}: sample rate {sample_rate!r} is no number; {expected}.")
    rate = float(sample_rate)
    if not rate.is_integer() or not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(f"{where}: sample rate {sample_rate} Hz; {expected}. Resample it first.")
    return int(rate)


def check_shape(audio: object) -> NDArray[Any]:
    """Return ``audio`` as a floating-point array ``(channels, frames)``, without a copy where there need be none.

    Raises
    ------
    AudioError
        For anything but floats with 1 or 2 channels in the first of at most two axes.
    """
    if audio is None or isinstance(audio, (str, bytes)):
        raise AudioError(f"audio is {type(audio).__name__}; expected a float array of shape (channels, frames).")
    try:
        array = np.asarray(audio)
    except ValueError as error:
        raise AudioError(f"audio is no array ({error}); expected floats of shape (channels, frames).") from None
    if array.dtype.kind in "iu":
        limits = np.iinfo(array.dtype)
        scale = (int(limits.max) + 1) // (2 if array.dtype.kind == "u" else 1)
        offset = f" - {scale}" if array.dtype.kind == "u" else ""
        raise AudioError(
            f"audio is {array.dtype}; expected float32 in [-1, 1]. "
            f"Scale it first: (audio.astype('float32'){offset}) / {scale}"
        )
    if array.dtype.kind != "f":
        raise AudioError(f"audio is {array.dtype}; expected float32 of shape (channels, frames).")
    if array.ndim == 1:
        array = array[np.newaxis]
    if array.ndim != 2:
        raise AudioError(f"audio has shape {array.shape}; expected (channels, frames), or (frames,) for mono.")
    if array.shape[0] not in (1, 2):
        hint = " Did you mean audio.T?" if array.shape[1] in (1, 2) else " Mix it down first."
        raise AudioError(f"audio has shape {array.shape}: {array.shape[0]} channels, expected 1 or 2.{hint}")
    return array


def as_audio(audio: object, sample_rate: int, start: int = 0) -> Audio:
    """Check ``audio`` and return it as float32 ``(channels, frames)``, a view where it is that already.

    Parameters
    ----------
    audio:
        Floats, ``(channels, frames)`` or ``(frames,)``; float64 is converted.
    sample_rate:
        Hz, to name the time of a bad sample.
    start:
        Number of the first frame, for the same.

    Raises
    ------
    AudioError
        For integers, more than two channels, or samples that are NaN or infinite.
    """
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, which is told below
        checked = np.asarray(check_shape(audio), dtype=np.float32)
    check_finite(checked, sample_rate, start)
    return checked


def check_finite(audio: Audio, sample_rate: int, start: int = 0, where: str = "audio") -> None:
    """Raise `AudioError`, naming channel and time, where a sample is NaN or infinite."""

    if np.isfinite(audio).all():
        return
    channel, frame = np.argwhere(~np.isfinite(audio))[0]
    raise AudioError(
        f"{where}: sample {audio[channel, frame]} in channel {channel + 1} at {(start + frame) / sample_rate:.3f} s; "
        "expected finite numbers. Repair the file, or replace such samples by 0 (numpy.nan_to_num)."
    )
