"""Demo songs of LMMS, composed and mixed by people, whose tracks LMMS itself renders one by one.

They are for validation: nobody's sounds or arrangements are like them in what is trained on. Taken are those whose
tracks tell by their names what they are.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ..audio import RATE, Audio, fit, read
from ..songs import PIECE, Job, Settings, Song, Stem, Studio

PROJECTS = Path("/usr/share/lmms/projects")
SONGS = [
    ("demos/CapDan/CapDan-ReggaeTry.mmpz", "Artistic-2.0"),
    ("demos/CapDan/CapDan-ReggaetonTry.mmpz", "Artistic-2.0"),
    ("demos/CapDan/CapDan-TwilightArea-OriginalByAlf42red.mmpz", "CC BY-SA 3.0"),
    ("demos/CapDan/CapDan-ZeroSumGame-OriginalByZakarra.mmpz", "Artistic-2.0"),
]
PATIENCE = 1800  # seconds; the longest takes seven minutes on one core
DRUMS = r"^(kick|bd)|\bbd\b|snare|hi+h?[ -]?hat|\bhh\b|clap|crash|ride|shaker|cymbal|noise clip"
BASS = r"bass|sub"


def jobs(settings: Settings) -> Iterator[Job]:
    """The beginning of every song."""
    for project, licence in SONGS:
        file = PROJECTS / project
        if file.exists() and settings.permit(licence):
            make_it = partial(make, file=file, licence=licence)
            yield Job(f"lmms-{file.stem.lower()}", PIECE, make_it, "valid")


def stem_of(track: str) -> str:
    """What a track is, by its name, as ``Snare 05``."""
    name = track.lower()
    return "drums" if re.search(DRUMS, name) else "bass" if re.search(BASS, name) else "other"


def make(studio: Studio, file: Path, licence: str) -> Song:
    """Sum the tracks of each stem, as loud as the project has them."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["lmms", "--allowroot", "rendertracks", str(file), "-o", folder, "-f", "wav", "-s", str(RATE)]
        environment = {**os.environ, "HOME": folder, "QT_QPA_PLATFORM": "offscreen"}  # and nobody's settings
        subprocess.run(command, env=environment, capture_output=True, check=True, timeout=PATIENCE)
        tracks = {track: read(track, 0, PIECE) for track in sorted(Path(folder).glob("*_*.wav"))}  # 3_Strings.wav
    frames = max(audio.shape[1] for audio in tracks.values())  # they end with their last note
    stems: dict[str, Audio] = {}
    for track, audio in tracks.items():
        stem = stem_of(track.stem.split("_", 1)[1])
        stems[stem] = stems.get(stem, np.float32(0)) + fit(audio.repeat(2 // len(audio), axis=0), frames)
    told = {stem: Stem(audio, file.stem, licence, "composed") for stem, audio in stems.items()}
    return Song(told, mixed=True)
