"""The music of free games: Freedoom, OpenTTD, Simutrans and Planet Blupi."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ..midi import read_midi
from ..performance import perform
from ..songs import Job, Settings, Song, Studio

GAMES = Path("/usr/share/games")
FOLDERS = [
    ("openttd", GAMES / "openttd/baseset/openmsx", "GPL-2"),
    ("simutrans", GAMES / "simutrans/music", "Artistic-1.0"),
    ("planetblupi", Path("/usr/share/planetblupi/music"), "GPL-3+"),
]
LONGEST = 120  # seconds


def jobs(settings: Settings) -> Iterator[Job]:
    """Every piece once, in a mixed order."""
    found = [
        (f"freedoom-{hashlib.sha1(lump).hexdigest()[:8]}", lump, "BSD-3")
        for wad in sorted(GAMES.glob("doom/freedoom*.wad"))
        for lump in lumps(wad.read_bytes())
        if lump.startswith(b"MThd")
    ]
    for game, folder, licence in FOLDERS:
        found += [(f"{game}-{file.stem}", file.read_bytes(), licence) for file in sorted(folder.glob("*.mid"))]
    made: dict[str, Job] = {}
    for i in np.random.default_rng(settings.seed).permutation(len(found)):
        title, data, licence = found[i]
        name = "game-" + re.sub(r"[\W_]", "-", title.lower())
        if settings.permit(licence):
            made.setdefault(name, Job(name, 95, partial(make, data=data, licence=licence, title=name)))
    return iter(made.values())


def lumps(wad: bytes) -> Iterator[bytes]:
    """The files within a WAD of Doom: after its directory's entries, each place, size and a name of 8 characters."""
    entries, start = np.frombuffer(wad, "<i4", 2, 4)
    for place, size in np.frombuffer(wad, "<i4", 4 * entries, start).reshape(-1, 4)[:, :2]:
        yield wad[place : place + size]


def make(studio: Studio, data: bytes, licence: str, title: str) -> Song:
    return perform(read_midi(data, LONGEST), studio, title, licence)
