"""What every project format says of stems: tracks with a name, a colour and one piece of audio at a position."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

COLORS = {
    "vocals": (235, 94, 85),
    "drums": (245, 176, 65),
    "bass": (88, 177, 123),
    "guitar": (93, 142, 214),
    "piano": (158, 115, 199),
    "other": (140, 140, 140),
}
"""Red, green, blue, 0 to 255."""


def color_of(stem: str) -> tuple[int, int, int]:
    """The colour of a stem; that of "other" for stems without one."""
    return COLORS.get(stem.lower(), COLORS["other"])


@dataclass(frozen=True)
class Track:
    """A stem as a track.

    Attributes
    ----------
    name:
        Of the stem.
    color:
        Red, green, blue, 0 to 255.
    media:
        Where its audio lies, seen from the project's folder, "/" between folders.
    """

    name: str
    color: tuple[int, int, int]
    media: str


@dataclass(frozen=True)
class Project:
    """Stems of one song on a timeline; ``position`` and ``frames`` count frames, ``tempo`` is in beats a minute."""

    title: str
    sample_rate: int
    channels: int
    frames: int
    tracks: tuple[Track, ...]
    position: int = 0
    tempo: float = 120.0


@dataclass(frozen=True)
class Stem:
    """A stem's audio as a file that is whole: ``path`` is a WAV, all of a song of one rate, width and length."""

    name: str
    path: Path
