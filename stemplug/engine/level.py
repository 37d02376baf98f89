"""The level at which a model hears a song: the same for every song, however loud it was mastered.

Networks are not level-invariant: Spleeter's masks lose 2 dB SDR on songs 12 dB down, all of it 40 dB down. So the
input is raised to a reference level by a gain that follows the loudest passage within some seconds, and the stems are
lowered by the same gain. The gain depends on the song alone, not on how it is cut into windows, so neighbouring windows
agree; it is exact under scaling; and it is slow, so the dynamics within a phrase stay as they were.

The rule and its constants were chosen on songs outside the evaluation set; see models/spleeter-2stems/CARD.md.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from stemplug.audio import Audio

CELL = 1024
"""Frames over which energy is counted."""
BACK, AHEAD, SMOOTH = 430, 192, 96
"""Cells before and after that are searched for the loudest passage, and to each side over which it is averaged."""
LOUD = 4
"""Cells whose mean energy is the level of a passage: 93 ms at 44.1 kHz."""
MAX_GAIN_DB = 140.0
_PIECE = 16 * CELL  # few frames at a time: intermediate results stay in the processor's cache
LOOK_AHEAD = (AHEAD + SMOOTH + LOUD + 1) * CELL
"""Frames of input that must be known beyond the frame whose gain is asked."""


class LevelFollower:
    """Follows the level of a stream, ``push`` by ``push``, and tells the gain at any frame that was looked ahead of.

    Parameters
    ----------
    reference_db:
        The level in dBFS (RMS of the loudest passage) at which the model hears the song; None leaves it as it is.
    live:
        Whether to follow the past alone.
    cell:
        Frames over which energy is counted, a divisor of `CELL`; live, windows end on such cells.
    """

    def __init__(self, reference_db: float | None, live: bool = False, cell: int = CELL) -> None:
        self._reference_db = reference_db
        self._live, self._cell, self._fine = live, cell, CELL // cell
        self._energy = np.zeros(0)  # mean square of each cell since `_first`
        self._first = 0
        self._partial = np.zeros(0)  # squares of the cell that is not full yet

    @property
    def look_ahead(self) -> int:
        """Frames of input needed beyond the frame whose gain is asked."""
        return 0 if self._reference_db is None or self._live else LOOK_AHEAD

    def push(self, block: Audio) -> None:
        """Take the next block, ``(channels, frames)``."""
        if self._reference_db is None:
            return
        cells = [self._energy]
        for start in range(0, block.shape[1], _PIECE):
            piece = block[:, start : start + _PIECE]
            mean = np.einsum("cf,cf->f", piece, piece, dtype=np.float64) / len(piece)
            squares = np.concatenate([self._partial, mean])
            whole = len(squares) // self._cell * self._cell
            cells.append(squares[:whole].reshape(-1, self._cell).mean(axis=1))
            self._partial = squares[whole:]
        self._energy = np.concatenate(cells)

    def end(self) -> None:
        """Say that nothing follows."""
        if len(self._partial):
            self._energy = np.append(self._energy, self._partial.sum() / self._cell)
            self._partial = np.zeros(0)

    def forget(self, before: int) -> None:
        """Let go of what is not needed for frames from ``before`` on."""
        keep = max(0, before // CELL - BACK - SMOOTH - LOUD - 1) * self._fine
        if keep > self._first:
            self._energy = self._energy[keep - self._first :]
            self._first = keep

    def gains(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the gain at the borders of the cells that cover frames ``[start, stop)``, as amplitudes.

        Between borders the gain is meant to be interpolated: see `envelope`. Where there is but one, which live
        windows have, it holds throughout; ``stop`` is that of a window then.
        """
        if self._reference_db is None or not len(self._energy):
            return np.ones(1, np.float32)
        if self._live:
            loudest = np.array([self._loudest_until(stop // self._cell)])
        else:
            loudest = self._loudest(np.arange(start // CELL - SMOOTH, -(-stop // CELL) + SMOOTH + 1))
        decibels = 10 * np.log10(np.maximum(loudest, 1e-30))
        if not self._live:
            decibels = sliding_window_view(decibels, 2 * SMOOTH + 1).mean(axis=-1)
        gain_db = np.minimum(self._reference_db - decibels, MAX_GAIN_DB)
        return np.asarray(10 ** (gain_db / 20), dtype=np.float32)

    def _loudest_until(self, end: int) -> float:
        """Energy of the loudest passage of the last cells before cell ``end``.

        Live there is no look-ahead, so a window hears one gain throughout: where a song sets in, it has set in for the
        whole window.
        """
        known = self._energy[max(0, end - BACK * self._fine - self._first) : max(0, end - self._first)]
        loud = LOUD * self._fine
        passages = np.convolve(known, np.full(loud, 1 / loud))[: len(known)] if len(known) else known
        return float(passages.max(initial=0))

    def _loudest(self, cells: NDArray[np.int64]) -> NDArray[np.float64]:
        """Energy of the loudest passage around each of ``cells``; outside the song that of the nearest inside."""
        end = self._first + len(self._energy)
        inside = np.clip(cells, 0, end - 1)
        low, high = inside[0] - BACK, inside[-1] + AHEAD + 1
        around = np.zeros(high - low + LOUD - 1)
        known = slice(max(low, self._first), min(high + LOUD - 1, end))
        energy = self._energy[known.start - self._first : known.stop - self._first]
        around[known.start - low : known.stop - low] = energy
        passages = sliding_window_view(around, LOUD).mean(axis=-1)
        highest = sliding_window_view(passages, BACK + AHEAD + 1).max(axis=-1)
        return np.asarray(highest[inside - inside[0]])


def envelope(gains: NDArray[np.float32], start: int, frames: int) -> NDArray[np.float32]:
    """Interpolate what `LevelFollower.gains` gave for ``[start, start + frames)`` to one gain a frame."""
    if len(gains) == 1:
        return np.broadcast_to(gains, frames)
    ramp = np.arange(CELL, dtype=np.float32) / CELL
    smooth = np.multiply.outer(np.diff(gains), ramp)
    smooth += gains[:-1, np.newaxis]
    offset = start % CELL
    return np.asarray(smooth.reshape(-1)[offset : offset + frames], dtype=np.float32)
