"""Human drumming: the Groove MIDI data set (Gillick et al., "Learning to groove with inverse sequence
transformations", ICML 2019)."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ..midi import Part, Score, read_midi
from ..performance import perform
from ..songs import Job, Settings, Song, Studio

TD11 = {22: 42, 26: 46, 40: 38, 48: 50, 45: 47, 58: 43, 55: 49, 52: 57, 59: 51}  # Roland's keys to GM
SHORTEST, WINDOW = 20, 80  # seconds


def jobs(settings: Settings) -> Iterator[Job]:
    """Windows of the longer performances, each with its own kit, in a mixed order."""
    table = settings.material / "groove-midi" / "info.csv"
    made = []
    for row in csv.DictReader(table.open()) if table.exists() else ():
        seconds, file = float(row["duration"]), table.parent / row["midi_filename"]
        pieces = int(seconds // WINDOW) + 1
        for i in range(pieces if seconds > SHORTEST and file.exists() else 0):
            start, stop = seconds * i / pieces, seconds * (i + 1) / pieces
            window = partial(make, file=file, start=start, stop=stop, bpm=float(row["bpm"]))
            name = f"groove-{row['id'].replace('/', '-')}-w{i}"
            made.append(Job(name, stop - start, window, "valid" if row["split"] == "test" else "train"))
    return (made[i] for i in np.random.default_rng(settings.seed).permutation(len(made)))


def make(studio: Studio, file: Path, start: float, stop: float, bpm: float) -> Song:
    score = read_midi(file.read_bytes(), stop)
    notes = [
        note._replace(start=note.start - start, end=note.end - start, key=TD11.get(note.key, note.key))
        for part in score.parts
        for note in part.notes
        if note.start >= start
    ]
    score = Score([Part(0, notes, stem="drums")], min(stop, score.seconds) - start, bpm)
    return perform(score, studio, "Groove MIDI", "CC BY 4.0", jitter=False)
