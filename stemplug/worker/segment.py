"""The memory that an instance of the plugin shares with the worker. See cpp_shim/PROTOCOL.md.

Only the header is mapped. Audio is read and written by system calls, so it counts to the host's memory, not to ours.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stemplug.audio import Audio
from stemplug.closing import Closing
from stemplug.worker.protocol import Open, ProtocolError

MAGIC, VERSION = 0x474C5053, 1
HEADER_BYTES, MARKS, MARK_BYTES, MARK_OFFSET = 4096, 64, 32, 1024
_WRITTEN, _READ, _MARKS, _ORIGIN, _START = 8, 9, 10, 11, 12  # in words of 8 bytes
_FROM, _READY, _CONSUMED, _HEARTBEAT, _LOAD = 16, 17, 18, 19, 40  # _LOAD in words of 4
_SEALS = 1 | 2 | 4  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW; the module fcntl names them since 3.12 only
_F_GET_SEALS = 1034


@dataclass(frozen=True)
class Mark:
    """From ``frame`` on, the host's time is ``host + (n - frame)``, and whether it plays and captures."""

    frame: int
    host: int
    playing: bool
    capture: bool


class Segment(Closing):
    """One instance's shared memory. Takes over ``descriptor``; raises `ProtocolError` where it is not what was said."""

    def __init__(self, descriptor: int, request: Open) -> None:
        self._descriptor = descriptor
        self._channels, self._rows = request.channels, request.rows
        self._input_capacity, self._output_capacity = request.input_capacity, request.output_capacity
        self._output = HEADER_BYTES + 4 * self._channels * self._input_capacity
        size = self._output + 4 * self._rows * self._output_capacity
        try:
            if os.fstat(descriptor).st_size != size:
                raise ProtocolError(f"shared memory of {os.fstat(descriptor).st_size} bytes; expected {size}")
            if fcntl.fcntl(descriptor, _F_GET_SEALS) & _SEALS != _SEALS:
                raise ProtocolError("shared memory that could shrink")  # touching what is gone would kill us
            self._map = mmap.mmap(descriptor, HEADER_BYTES)
        except OSError as error:
            raise ProtocolError(f"no shared memory: {error.strerror}") from None
        self._longs = np.frombuffer(self._map, np.int64)
        fields = np.frombuffer(self._map, np.uint32, 4).tolist()
        capacities = self._longs[2:4].tolist()
        if fields != [MAGIC, VERSION, request.channels, request.rows] or capacities != [
            request.input_capacity,
            request.output_capacity,
        ]:
            raise ProtocolError("shared memory whose header does not fit")
        self._load = np.frombuffer(self._map, np.float32)
        self._seen_marks = 0

    @property
    def start(self) -> int:
        """First frame of the input; negative until the plugin begins."""
        return int(self._longs[_START])

    @property
    def origin(self) -> int:
        """Frame from which on there was silence until `start`."""
        return int(self._longs[_ORIGIN])

    def written(self, taken: int) -> int:
        """End of the input, of which ``taken`` was taken; raises `ProtocolError` where there was no room for it."""
        end = int(self._longs[_WRITTEN])
        if not 0 <= end - taken <= self._input_capacity:
            raise ProtocolError(f"input up to frame {end}, of which {taken} were taken")
        return end

    @property
    def wanted(self) -> int:
        """Stems before this frame are no longer needed."""
        return int(self._longs[_READ])

    def begin(self, origin: int) -> None:
        """Say that stems will come from frame ``origin`` on."""
        self._longs[_FROM] = origin
        self._longs[_READY] = origin

    def take(self, start: int, stop: int) -> Audio:
        """Return frames ``[start, stop)`` of the input, ``(channels, frames)``, and give their room back."""
        audio = np.empty((self._channels, stop - start), np.float32)
        for channel, row in enumerate(audio):
            for part, at in self._pieces(row, start, HEADER_BYTES, channel, self._input_capacity):
                if os.preadv(self._descriptor, [part.data], at) != part.nbytes:
                    raise ProtocolError("shared memory that cannot be read")
        self._longs[_CONSUMED] = stop
        return audio

    def room(self, stop: int) -> int:
        """Up to which frame stems may be written now, ``stop`` at most."""
        return min(stop, self.wanted + self._output_capacity)

    def give(self, start: int, stems: Audio) -> None:
        """Write stems, ``(rows, frames)``, from frame ``start`` on; what nobody needs any more is left out."""
        stop = start + stems.shape[1]
        first = min(max(start, self.wanted, stop - self._output_capacity), stop)
        for index, row in enumerate(stems[:, first - start :]):
            row = np.ascontiguousarray(row)
            for part, at in self._pieces(row, first, self._output, index, self._output_capacity):
                os.pwritev(self._descriptor, [part.data], at)
        self._longs[_READY] = stop

    def _pieces(
        self, row: NDArray[np.float32], start: int, base: int, index: int, capacity: int
    ) -> list[tuple[NDArray[np.float32], int]]:
        """Cut a row at the end of its ring: parts, and where in the file each lies."""
        offset, ring = start % capacity, base + 4 * index * capacity
        cut = min(len(row), capacity - offset)
        return [(part, at) for part, at in ((row[:cut], ring + 4 * offset), (row[cut:], ring)) if len(part)]

    def marks(self) -> list[Mark]:
        """Return the marks made since the last call."""
        count = int(self._longs[_MARKS])
        found = []
        for number in range(max(self._seen_marks, count - MARKS), count):
            at = MARK_OFFSET + number % MARKS * MARK_BYTES
            frame, host = np.frombuffer(self._map, np.int64, 2, at).tolist()
            flags = int(np.frombuffer(self._map, np.uint32, 1, at + 16)[0])
            found.append(Mark(frame, host, bool(flags & 1), bool(flags & 2)))
        self._seen_marks = count
        return found

    def beat(self, load: float) -> None:
        """Show that the worker lives, and what share of real time the instance takes."""
        self._load[_LOAD] = load
        self._longs[_HEARTBEAT] += 1

    def close(self) -> None:
        """Unmap and close."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
