"""Captures: the stems of what the host plays, as tracks that know their place in the host's time.

Each stretch of playback becomes a folder ``DATE NAME`` of broadcast WAV files (the host's position is their time
reference) and a REAPER project. It is written beside its final place, under a hidden name, and appears there at once.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from stemplug.audio import Audio, Timeline
from stemplug.models import Manifest
from stemplug.tracks.project import Project, Track, color_of
from stemplug.tracks.reaper import write_reaper
from stemplug.tracks.wav import TrackTags, WavWriter
from stemplug.worker.segment import Mark

log = logging.getLogger("stemplug.worker")

FOLDER = "STEMPLUG_CAPTURE_DIR"
_STAGING = ".stemplug-capture-"
_NAME_LENGTH = 80
_SILENCE = 1 << 16


def capture_folder() -> Path:
    """Where captures are put: ``$STEMPLUG_CAPTURE_DIR``, or ``~/StemPlug Captures``."""
    own = os.environ.get(FOLDER)
    return Path(own).expanduser() if own else Path.home() / "StemPlug Captures"


class Captures:
    """Follows what the host's transport does and writes a `Take` for each stretch of playback with Capture on.

    Frames are those of the input. What cannot be written is told in the log and dropped: the stems still sound.
    """

    def __init__(self, name: str, manifest: Manifest, sample_rate: int, channels: int) -> None:
        self._name, self._manifest, self._rate, self._channels = name, manifest, sample_rate, channels
        self._takes: deque[Take] = deque()  # by their frames; only the last may still grow
        self._collected = -1
        self._end = 0  # of the input
        self._next: Mark | None = None  # where the next take begins unless the transport says otherwise

    @property
    def busy(self) -> bool:
        """Whether stems are still wanted."""
        return bool(self._takes)

    def note(self, marks: list[Mark]) -> None:
        """Take what the transport did."""
        if marks:
            self._next = None
        for mark in marks:
            growing = self._takes[-1] if self._takes and self._takes[-1].stop is None else None
            wanted = mark.playing and mark.capture
            if growing and wanted and mark.host - growing.host == mark.frame - growing.start:
                continue
            if growing:
                growing.stop = max(mark.frame, growing.start)
            if wanted:
                early = max(0, -mark.host)  # a preroll lies before the time that a file can tell
                self._takes.append(
                    Take(self._name, self._manifest, self._rate, self._channels, mark.frame + early, mark.host + early)
                )

    def push(self, mixture: Audio, start: int) -> None:
        """Take the input from frame ``start`` on."""
        if self._collected < 0:
            self._collected = start
        self._end = start + mixture.shape[1]
        if self._next:
            self.note([self._next])
        for take in self._takes:
            take.push(mixture, start)

    def collect(self, rows: Audio) -> None:
        """Take the next stems: estimated stems times channels, ``(rows, frames)``."""
        start, self._collected = self._collected, self._collected + rows.shape[1]
        for take in self._takes:
            take.write(rows, start)
        while self._takes and self._takes[0].stop is not None and self._takes[0].stop <= self._collected:
            self._takes.popleft().finish()

    def pause(self) -> None:
        """The host has stopped processing: complete what can be; what comes later is another take."""
        if self._takes and self._takes[-1].stop is None and self._takes[-1].complete:
            last = self._takes[-1]
            self.finish()
            self._next = Mark(self._end, last.host + self._end - last.start, True, True)

    def finish(self) -> None:
        """Complete what is there."""
        while self._takes:
            self._takes.popleft().finish()


class Take:
    """One stretch of playback, being written."""

    def __init__(self, name: str, manifest: Manifest, rate: int, channels: int, start: int, host: int) -> None:
        self.start, self.host = start, host
        self.stop: int | None = None
        self._name, self._manifest, self._rate, self._channels = name, manifest, rate, channels
        self._mixture = Timeline(channels)  # from `start` on
        self._first = start  # of what was pushed: a plugin that connected late has lost the beginning
        self._frames = 0  # taken
        self._silence = 0  # of them the last, which are not written yet
        self._sound_end = start  # of what was pushed
        self._staging: Path | None = None
        self._writers: dict[str, WavWriter] = {}
        self._failed = False

    def push(self, mixture: Audio, start: int) -> None:
        """Take the input from frame ``start`` on."""
        if not self._mixture.end:
            self._first = max(self.start, start)
        at = self._first + self._mixture.end
        stop = start + mixture.shape[1] if self.stop is None else min(self.stop, start + mixture.shape[1])
        if at < stop:
            self._mixture.append(mixture[:, at - start : stop - start])
            self._sound_end = max(self._sound_end, at + _sound_end(mixture[:, at - start : stop - start]))

    @property
    def complete(self) -> bool:
        """Whether all that sounded was written."""
        return self._first + self._frames >= self._sound_end

    def write(self, rows: Audio, start: int) -> None:
        """Take the stems from frame ``start`` on."""
        end = self._first + self._mixture.end
        first, last = max(start, self._first + self._frames), min(start + rows.shape[1], end)
        if first >= last or self._failed:
            return
        estimates = rows[:, first - start : last - start]
        rest = self._mixture.read(first - self._first, last - self._first).copy()
        self._mixture.forget(last - self._first)
        sounding = _sound_end(rest)
        stems = [stem for stem in self._manifest.stems if stem != self._manifest.residual]
        parts = dict(zip(stems, estimates.reshape(len(stems), self._channels, -1), strict=True))
        for part in parts.values():
            rest -= part
        parts[str(self._manifest.residual)] = rest
        self._frames += last - first
        if sounding:
            self._guard(lambda: self._append({stem: part[:, :sounding] for stem, part in parts.items()}))
            self._silence = 0
        self._silence += last - first - sounding

    def _append(self, parts: dict[str, Audio]) -> None:
        """Write stems, and before them the silence that was held back."""
        if not self._writers:
            self._open()
        for stem, part in parts.items():
            _write_silence(self._writers[stem], self._channels, self._silence)
            self._writers[stem].write(part)

    def _open(self) -> None:
        root = capture_folder()
        root.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(root)
        self._staging = root / f"{_STAGING}{os.getpid()}-{id(self)}"
        self._staging.mkdir()
        for stem in self._manifest.stems:
            text = f"{stem} of {self._name}, by StemPlug with {self._manifest.name}"
            tags = TrackTags(stem, self._name, text, self.host + self._first - self.start)
            path = self._staging / f"{stem}.wav"
            self._writers[stem] = WavWriter(path, self._rate, self._channels, "32f", tags)

    def finish(self) -> None:
        """Close the files and move them to their place; silence is dropped."""
        for writer in self._writers.values():
            if self.stop is not None:  # where the transport ended it; else it ends with its last sound
                self._guard(partial(_write_silence, writer, self._channels, self._silence))
            self._guard(writer.close)
        staging = self._staging
        if staging and not self._failed:
            self._guard(lambda: self._publish(staging))
        if staging:
            shutil.rmtree(staging, ignore_errors=True)

    def _publish(self, staging: Path) -> None:
        tracks = tuple(Track(stem.capitalize(), color_of(stem), f"{stem}.wav") for stem in self._manifest.stems)
        position = self.host + self._first - self.start
        frames = self._frames - (0 if self.stop is not None else self._silence)
        project = Project(self._name, self._rate, self._channels, frames, tracks, position)
        write_reaper(staging / "stems.rpp", project)
        for number in range(1, 1000):
            target = staging.parent / (_folder_name(self._name) + (f" {number}" if number > 1 else ""))
            if not target.exists():
                staging.rename(target)
                log.info("%s: captured %.1f s in '%s'", self._name, frames / self._rate, target)
                return

    def _guard(self, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            if not self._failed:
                log.error("%s: not captured: %s", self._name, error)
            self._failed = True


def _sound_end(audio: Audio) -> int:
    """The end of what is not digital silence."""
    sounding = np.flatnonzero(audio.any(axis=0))
    return int(sounding[-1]) + 1 if len(sounding) else 0


def _write_silence(writer: WavWriter, channels: int, frames: int) -> None:
    while frames > 0:
        count = min(frames, _SILENCE)
        writer.write(np.zeros((channels, count), np.float32))
        frames -= count


def _folder_name(name: str) -> str:
    """``DATE NAME`` with what file systems and people can bear: colons and slashes become dashes."""
    clean = re.sub(r'[\x00-\x1f\x7f/\\:*?"<>|]+', "-", name).strip(" .")[:_NAME_LENGTH]
    return f"{time.strftime('%Y-%m-%d %H.%M.%S')} {clean or 'StemPlug'}"


def _remove_abandoned(root: Path) -> None:
    """Remove what workers that were killed have left."""
    for folder in root.glob(f"{_STAGING}*"):
        owner = folder.name.removeprefix(_STAGING).split("-")[0]
        if not (owner.isdigit() and Path("/proc", owner).exists()):
            shutil.rmtree(folder, ignore_errors=True)
