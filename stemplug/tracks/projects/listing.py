"""What `show` tells of a project, whichever program it is of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Take:
    """What an item can play: ``kind`` is the program's word for its source, ``file`` as written there, "" for none."""

    name: str
    kind: str
    file: str
    active: bool


@dataclass(frozen=True)
class Item:
    """Something on a track: ``position`` and ``length`` in seconds; ``line`` of the project, 0 where it has none."""

    line: int
    position: float
    length: float
    takes: tuple[Take, ...]


@dataclass(frozen=True)
class Track:
    """A track: ``number`` counts from 1; ``depth`` counts the folders around it."""

    number: int
    name: str
    depth: int
    folder: bool
    muted: bool
    items: tuple[Item, ...]
