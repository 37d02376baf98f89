"""Which axis of an array is which, told as pedalboard tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pedalboard
from numpy.typing import NDArray

from stemplug.audio import Audio


@dataclass(frozen=True)
class Layout:
    """How the caller's arrays lie: 1-D, ``(channels, frames)``, or interleaved ``(frames, channels)``."""

    axes: int
    interleaved: bool

    @staticmethod
    def of(array: NDArray[Any], sample_rate: float, known: Layout | None = None, channels: int = 0) -> Layout:
        """Tell the layout of a block.

        As in pedalboard the smaller axis holds the channels, and a stream goes on as it began. Where that does not
        decide, a block of one or two rows is ``(channels, frames)``; pedalboard takes ``(2, 1)`` for two frames.

        Parameters
        ----------
        array:
            The block, not yet checked.
        sample_rate:
            Hz, handed to pedalboard where it shall refuse the array.
        known, channels:
            Layout and channels of the stream, if it has begun.

        Raises
        ------
        TypeError, RuntimeError
            What pedalboard raises for arrays that are no audio.
        """
        shape = getattr(array, "shape", ())
        if len(shape) not in (1, 2) or array.dtype.kind != "f" or array.dtype.itemsize not in (4, 8):
            pedalboard.Pedalboard()(array, sample_rate)
            raise TypeError(f"audio is {type(array).__name__}; expected a float array (channels, frames).")
        if len(shape) == 1:
            return Layout(1, False)
        rows, columns = array.shape
        if known and known.axes == 2 and channels in (rows, columns):
            return Layout(2, known.interleaved if rows == columns else columns == channels)
        if 0 in shape:
            return Layout(2, rows == 0)
        if rows == columns and rows > 2:
            pedalboard.Pedalboard()(array, sample_rate)  # raises: it cannot tell either
        return Layout(2, columns < rows and (rows > 2 or columns == 0))

    def channels(self, array: NDArray[Any]) -> int:
        """Channels of the caller's block."""
        return 1 if self.axes == 1 else int(array.shape[1 if self.interleaved else 0])

    def inward(self, array: NDArray[Any]) -> Audio:
        """The caller's block as float32 ``(channels, frames)``, contiguous; a view where it is that already."""
        if self.axes == 1:
            array = array[np.newaxis]
        return np.ascontiguousarray(array.T if self.interleaved else array, dtype=np.float32)

    def outward(self, audio: Audio) -> Audio:
        """``(channels, frames)`` in the caller's layout."""
        if self.axes == 1:
            mono: Audio = audio[0]
            return mono
        return np.ascontiguousarray(audio.T) if self.interleaved else audio
