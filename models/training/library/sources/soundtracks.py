"""Recorded and produced music of free games. It has no stems, so `stemplug-4s` parts it, its teacher's faults included.

None of it is sung, so what the teacher takes for vocals is other: where the sum is heard as it was, that much is true.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import BinaryIO
from zipfile import ZipFile

import numpy as np
import soundfile

from stemplug import Separator

from ..audio import RATE, read
from ..songs import Job, Settings, Song, Stem, Studio

SHARE = Path("/usr/share")
FOLDERS = [
    ("extremetuxracer", "games/etr/music", "GPL-2+"),
    ("hedgewars", "games/hedgewars/Data/Music", "GPL-2"),
    ("hyperrogue", "hyperrogue/music", "CC BY-SA 3.0"),
    ("mars", "games/marsshooter/audio/music", "CC BY-SA 3.0"),
    ("megaglest", "games/megaglest", "CC BY-SA 3.0"),
    ("nexuiz", "games/nexuiz/data/music.pk3", "GPL-2+"),
    ("pushover", "pushover/themes", "GPL-3+"),
    ("singularity", "games/singularity/music", "CC BY-SA 3.0"),
    ("supertux", "games/supertux2/music", "GPL-2+"),
    ("supertuxkart", "games/supertuxkart/data/music", "CC BY-SA 3.0, GPL-2+"),
    ("ufoai", "games/ufoai/base/0music.pk3", "GPL-2+, CC BY-SA 3.0"),
    ("xmoto", "games/xmoto/Textures/Musics", "GPL-2+"),
]
SHORTEST, LONGEST = 40.0, 75.0  # seconds; the middle of what is longer
SUNG = 0.3  # of the energy: what has more that sounds like a voice may well have one


def jobs(settings: Settings) -> Iterator[Job]:
    """Every piece once, in a mixed order."""
    found = [piece for folder in FOLDERS if settings.permit(folder[2]) for piece in pieces(*folder)]
    made = set()
    for index in np.random.default_rng(settings.seed).permutation(len(found)):
        name, file, inside, licence = found[index]
        seconds = duration(file, inside)
        if seconds > SHORTEST and name not in made:
            made.add(name)
            start = max(0.0, (seconds - LONGEST) / 2)
            make_it = partial(make, name=name, file=file, inside=inside, licence=licence, start=start)
            yield Job(name, min(seconds, LONGEST), make_it, "train")  # of no piece are the true stems known


def duration(file: Path, inside: str) -> float:
    """Seconds of a piece; 0 of what cannot be read."""
    try:
        with opened(file, inside) as audio:
            return float(soundfile.info(audio).duration)
    except (OSError, soundfile.LibsndfileError) as error:
        print(f"{file} {inside}: {error}", flush=True)
        return 0.0


def pieces(game: str, place: str, licence: str) -> Iterator[tuple[str, Path, str, str]]:
    """Name, file, its name within the file if that is an archive, and licence."""
    path = SHARE / place
    if path.suffix == ".pk3" and path.exists():
        names = [(path, name) for name in sorted(ZipFile(path).namelist()) if name.endswith(".ogg")]
    else:
        names = [(file, "") for file in sorted(path.rglob("*.ogg"))]
    for file, inside in names:
        title = re.sub(r"\W+|_", "-", Path(inside or file).stem.lower())
        yield f"soundtrack-{game}-{title}", file, inside, licence


def opened(file: Path, inside: str) -> BinaryIO:
    return io.BytesIO(ZipFile(file).read(inside)) if inside else file.open("rb")


@cache
def teacher() -> Separator:
    return Separator("stemplug-4s", threads=1)


def make(studio: Studio, name: str, file: Path, inside: str, licence: str, start: float) -> Song:
    with opened(file, inside) as handle:
        audio = read(handle, start, LONGEST)
    audio = np.ascontiguousarray(audio.repeat(2 // len(audio), axis=0))
    parts = teacher().separate(audio, RATE)
    power = {stem: float(np.square(parts[stem]).mean()) for stem in parts}
    if power["vocals"] > SUNG * sum(power.values()):
        raise ValueError("may be sung")
    stems = {"drums": parts["drums"], "bass": parts["bass"], "other": audio - parts["drums"] - parts["bass"]}
    return Song({stem: Stem(part, name, licence, "separated") for stem, part in stems.items()}, mixed=True)
