"""One active instance of the plugin: input from its shared memory, stems back into it."""

from __future__ import annotations

import time
from collections import deque

import numpy as np

from stemplug.audio import Audio
from stemplug.closing import Closing
from stemplug.engine import Separator
from stemplug.worker.capture import Captures
from stemplug.worker.lanes import InstanceLane, Lanes
from stemplug.worker.protocol import Open, ProtocolError
from stemplug.worker.segment import Mark, Segment

MOST = 1 << 16
"""Frames that are taken at a time, so that one instance does not keep the others waiting."""
PAUSE_SECONDS = 1.0
"""Without input, after which a capture ends."""
_OFFLINE_DUE = 1e9  # after all that is live
_EARLY = 0.85
"""Of the time that a block of input lasts: not sooner after it the next one is looked for."""
_BUSY_POLL, _CALM_POLL = 0.005, 0.03
_CALM_AFTER = 1.0
_LOAD_SECONDS = 2.0
_LONGEST_LEAD_SECONDS = 60


class Instance(Closing):
    """Moves audio between a `Segment` and a stream; `step` does what can be done now, and never waits."""

    def __init__(self, request: Open, segment: Segment, separator: Separator, lanes: Lanes) -> None:
        self.name, self.profile, self._segment = request.name, request.latency or request.profile, segment
        self._live = request.profile == "live"
        self._windows = 0
        self._lane = InstanceLane(lanes, self._due)
        self._stream = separator.stream(int(request.sample_rate), residual=False, executor=self._lane)
        self._rate, self._channels = request.sample_rate, request.channels
        stems = [stem for stem in separator.stems if stem != separator.manifest.residual]
        if request.rows != len(stems) * request.channels:
            raise ProtocolError(f"{request.rows} rows of stems; {separator.manifest.name} has {len(stems)} stems")
        if self._stream.latency_samples > request.latency_frames:
            raise ProtocolError(
                f"a latency of {request.latency_frames} frames; {self._stream.latency_samples} are needed. "
                "Run 'stemplug plugin install' again"
            )
        self._captures = Captures(request.name, separator.manifest, int(request.sample_rate), request.channels)
        self._taken = -1  # end of the input that the stream has; negative until it begins
        self._given = 0  # end of the stems in the segment
        self._dropping = 0  # frames of stems that belong to silence put before the input
        self._rows = request.rows
        self._sounds = not self._live  # whether the stream has begun
        self._marks: list[Mark] = []  # until then
        self._held: deque[Audio] = deque()  # stems for which there is no room yet
        self._moved = 0.0  # when input came
        self._acted = time.monotonic()  # when `step` found something to do
        self._block = 0.0  # frames of the host's blocks, nearly
        self._measured = (time.monotonic(), 0.0)
        self.load = 0.0

    @property
    def latency_frames(self) -> int:
        """Of the stream, in frames at the host's rate."""
        return self._stream.latency_samples

    @property
    def begun(self) -> bool:
        """Whether input has come."""
        return self._taken >= 0

    @property
    def patience(self) -> float:
        """Seconds after which to look again, unless a lane is done before.

        A host sends a block when the one before has sounded. The one that completes a live window is waited for.
        """
        now = time.monotonic()
        passed, wanted = now - self._moved, self._stream.frames_wanted
        if self._live and self.begun and passed < PAUSE_SECONDS and wanted <= self._block:
            return _EARLY * self._block / self._rate - passed
        return _CALM_POLL if now - self._acted > _CALM_AFTER else _BUSY_POLL

    @property
    def capturing(self) -> bool:
        """Whether closing takes a while, since stems are still to be written."""
        return self._captures.busy

    def _due(self) -> float:
        """Live: in the order of arrival, for all wait equally long. Offline: whoever had the fewest windows."""
        self._windows += 1
        return time.monotonic() if self._live else _OFFLINE_DUE + self._windows

    def step(self) -> bool:
        """Take input, give stems; returns whether there may be more to do at once.

        Live, input comes a block at a time, and a lane tells when it is done: looking again would cost a hundredth of
        a core. Offline, a host goes on as soon as there is room.

        Raises
        ------
        ProtocolError
            If the plugin's side of the memory makes no sense.
        ModelError
            If a window fails.
        """
        took, gave = self._take(), self._give()
        if took or gave:
            self._acted = time.monotonic()
        if self._live:
            return took == MOST or self._stream.unfinished < self._stream.in_flight
        return took > 0 or gave

    def beat(self) -> None:
        """Tell the plugin that the worker lives."""
        began, busy = self._measured
        passed = time.monotonic() - began
        if passed > _LOAD_SECONDS:
            self._measured = (began + passed, self._lane.busy)
            self.load = min(1.0, (self._lane.busy - busy) / passed)
        self._segment.beat(self.load)

    def _begin(self) -> None:
        origin, start = self._segment.origin, self._segment.start
        if not 0 <= origin <= start:
            raise ProtocolError(f"input that begins at frame {start}, counted from {origin}")
        self._taken = self._given = origin
        self._segment.begin(origin)

    def _take(self) -> int:
        """Take input; returns how many frames."""
        if not self.begun:
            if self._segment.start < 0:
                return 0
            self._begin()
        if self._stream.in_flight and self._lane.full:  # what is taken now would only lie here
            return 0
        start = self._segment.start
        if self._taken < start:  # silence, which the plugin did not send
            stop = min(start, self._taken + MOST)
            block = np.zeros((self._channels, stop - self._taken), np.float32)
        else:
            stop = min(self._segment.written(self._taken), self._taken + MOST)
            if stop == self._taken:
                if self._captures.busy and time.monotonic() - self._moved > PAUSE_SECONDS:
                    self._captures.pause()
                return 0
            self._moved = time.monotonic()
            block = self._segment.take(self._taken, stop)
            self._block = min(block.shape[1], 1.1 * self._block + 1)  # what came may be several
        marks = self._segment.marks()
        self._captures.note(marks)
        self._captures.push(block, self._taken)
        self._sounds = self._sounds or self._align(block, marks)
        if self._sounds:
            self._stream.feed(block)
        else:
            self._put(np.zeros((self._rows, block.shape[1]), np.float32))
        self._taken = stop
        return block.shape[1]

    def _align(self, block: Audio, marks: list[Mark]) -> bool:
        """Live: have the stream begin with the first sound, its windows on the grid that the host's time gives.

        So a passage gives the same stems whenever it is played.
        """
        self._marks += marks
        sounding = np.flatnonzero(block.any(axis=0))
        if not len(sounding):
            return False
        before = [mark for mark in self._marks if mark.frame <= self._taken + sounding[0]]
        ahead = before[-1].host - before[-1].frame if before else 0  # of the frames that are counted here
        if self._stream.period_samples < _LONGEST_LEAD_SECONDS * self._rate:
            self._dropping = self._stream.begin_after(self._taken + ahead)
            self._stream.feed(np.zeros((self._channels, self._dropping), np.float32))
        self._marks.clear()
        return True

    def _give(self) -> bool:
        if not self.begun:
            return False
        gave = self._stream.unfinished < self._stream.in_flight
        if gave:
            self._keep(self._stream.in_flight - 1)
        while self._held and self._segment.room(self._given + 1) > self._given:
            stems = self._held.popleft()
            frames = self._segment.room(self._given + stems.shape[1]) - self._given
            if frames < stems.shape[1]:
                self._held.appendleft(stems[:, frames:])
            self._segment.give(self._given, stems[:, :frames])
            self._given += frames
            gave = True
        return gave

    def _keep(self, in_flight: int) -> None:
        stems = self._stream.collect(in_flight)
        if stems.frames:
            first, *others = stems.values()
            rows = np.concatenate([first, *others]) if others else first
            dropped = min(self._dropping, rows.shape[1])
            self._dropping -= dropped
            self._put(rows[:, dropped:])

    def _put(self, rows: Audio) -> None:
        self._captures.collect(rows)
        self._held.append(rows)

    def close(self) -> None:
        """End the stream, complete what is being captured, and let go of the memory."""
        try:
            if self.begun and self._captures.busy:
                self._stream.end()
                self._keep(0)
            self._captures.finish()
        finally:
            self._stream.cancel()
            self._segment.close()
