"""Captures: the stems of what the host plays, written as tracks that know their place in the host's time."""

from __future__ import annotations

from stemplug.audio import Audio
from stemplug.models import Manifest
from stemplug.worker.segment import Mark


class Captures:
    def __init__(self, name: str, manifest: Manifest, sample_rate: int, channels: int) -> None:
        self.busy = False

    def note(self, marks: list[Mark]) -> None: ...

    def push(self, mixture: Audio, start: int) -> None: ...

    def collect(self, rows: Audio) -> None: ...

    def finish(self) -> None: ...
