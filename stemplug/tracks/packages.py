"""What stems are handed over as beside a folder of tracks: one file that holds them all, or a project of a DAW."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stemplug.tracks.dawproject import write_dawproject
from stemplug.tracks.encode import FORMATS
from stemplug.tracks.multichannel import write_multichannel
from stemplug.tracks.project import Project, Stem
from stemplug.tracks.reaper import write_reaper
from stemplug.tracks.stem_mp4 import CODECS, RATES, assign_slots, write_stem_mp4


@dataclass(frozen=True)
class Content:
    """A song's stems, whole: ``format`` and ``depth`` are what was chosen, ``depth`` None where there is no choice."""

    project: Project
    stems: tuple[Stem, ...]
    format: str
    depth: str | None


@dataclass(frozen=True)
class Package:
    """A way to hand stems over.

    Attributes
    ----------
    suffix:
        Of its file, without the first dot.
    formats:
        What the stems may be encoded as in it; the first is the default.
    keeps_tracks:
        Whether the stems stay files of their own beside it.
    sums:
        Which of the stems, by name, are summed in it, so that the sums must not pass full scale either.
    rates:
        Sample rates that it can hold, in Hz; none says that all are fine.
    write:
        Makes the file.
    note:
        What is unusual about stems of these names in it, for the user.
    """

    suffix: str
    formats: tuple[str, ...]
    keeps_tracks: bool
    write: Callable[[Path, Content], None]
    note: Callable[[list[str]], str | None] = lambda names: None
    sums: Callable[[list[str]], list[tuple[str, ...]]] = lambda names: []
    rates: tuple[int, ...] = ()


PACKAGES = {
    "multichannel": Package(
        "stems.wav",
        ("wav",),
        False,
        lambda path, content: write_multichannel(path, content.project, content.stems, content.depth or "24"),
    ),
    "stem.mp4": Package(
        "stem.mp4",
        CODECS,
        False,
        lambda path, content: write_stem_mp4(path, content.stems, content.project.title, content.format),
        lambda names: assign_slots(names).note,
        lambda names: [tuple(names), *(slot for slot in assign_slots(names).stems if len(slot) > 1)],
        RATES,
    ),
    "reaper": Package("rpp", FORMATS, True, lambda path, content: write_reaper(path, content.project)),
    "dawproject": Package(
        "dawproject",
        ("wav",),
        False,
        lambda path, content: write_dawproject(path, content.project, content.stems),
    ),
}
LAYOUTS = ("folder", *PACKAGES)
