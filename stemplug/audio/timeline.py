"""A sliding piece of an endless signal, addressed by absolute frame numbers."""

from __future__ import annotations

from collections import deque

import numpy as np

from stemplug.audio.checks import Audio


class Timeline:
    """Blocks of audio in the order in which they came, read by absolute position.

    Frames before 0 and, once `pad` was called, after the end read as silence. What lies before the last `forget` is
    gone. Blocks are kept, not copied, until they are read.
    """

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.start = 0
        self.end = 0
        self._blocks: deque[Audio] = deque()

    def append(self, block: Audio) -> None:
        """Add ``block``, ``(channels, frames)``, at the end."""
        if block.shape[1]:
            self._blocks.append(block)
            self.end += block.shape[1]

    def pad(self, frames: int) -> None:
        """Add ``frames`` frames of silence at the end."""
        self.append(np.zeros((self.channels, frames), np.float32))

    def read(self, start: int, stop: int) -> Audio:
        """Return frames ``[start, stop)``; those before 0 are silent. A view where one block holds them all."""
        pieces = self.views(start, stop)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)

    def views(self, start: int, stop: int) -> list[Audio]:
        """Return frames ``[start, stop)`` as one or more consecutive pieces, without copying."""
        lead = max(0, min(-start, stop - start))
        pieces = [np.zeros((self.channels, lead), np.float32)] if lead or start >= stop else []
        position = self.start
        for block in self._blocks:
            if position >= stop:
                break
            first, last = max(start, position), min(stop, position + block.shape[1])
            if first < last:
                pieces.append(block[:, first - position : last - position])
            position += block.shape[1]
        return pieces

    def forget(self, before: int) -> None:
        """Let go of the blocks that end at or before frame ``before``."""
        while self._blocks and self.start + self._blocks[0].shape[1] <= before:
            self.start += self._blocks.popleft().shape[1]
