"""Recorded songs: the CC0 songs of "Everything is free", a singer of vocadito, and the guitars of Frets on Fire."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import soundfile

from ..audio import fit, read
from ..songs import PIECE, Job, Settings, Song, Stem, Studio

FRETS = Path("/usr/share/games/fretsonfire/data/songs")


def jobs(settings: Settings) -> Iterator[Job]:
    """Pieces of the songs; Rubidium, the only one with all stems, is for validation."""
    for name, files, licence in songs(settings):
        if not files or not settings.permit(licence):
            continue
        duration = soundfile.info(next(iter(files.values()))).duration
        for i in range(max(1, round(duration / PIECE + 0.4))):
            seconds = min(PIECE, duration - i * PIECE)
            if seconds > 10:
                piece = partial(make, name=name, files=files, licence=licence, start=i * PIECE)
                split = "valid" if "rubidium" in name else "train"
                yield Job(name if i == 0 else f"{name}-{i + 1}", seconds, piece, split)


def songs(settings: Settings) -> Iterator[tuple[str, dict[str, Path], str]]:
    """Name, stems and licence."""
    for folder in sorted((settings.material / "everything-is-free").glob("*/")):
        files = {file.stem: file for file in sorted(folder.glob("*.ogg"))}
        if "bass" not in files:  # their bass is in other: it would teach that bass is other
            files.pop("other", None)
        yield f"free-{folder.name.split('.')[-1].lower()}", files, "CC0"
    for file in (settings.material / "vocadito").glob("*.flac"):
        yield "vocadito", {"vocals": file}, "CC BY 4.0"
    for file in sorted(FRETS.glob("*/*/guitar.ogg")):
        licence = "CC BY-SA 3.0" if "muldjord" in file.parts else "MIT"
        yield f"fof-{file.parent.name.lower().replace(' ', '-')}", {"other": file}, licence


def make(studio: Studio, name: str, files: dict[str, Path], licence: str, start: float) -> Song:
    """A piece as it was recorded, mono made stereo."""
    stems = {stem: read(file, start, PIECE) for stem, file in files.items()}
    frames = max(audio.shape[1] for audio in stems.values())
    return Song(
        {
            stem: Stem(fit(audio.repeat(2 // len(audio), axis=0), frames), name, licence, "recorded")
            for stem, audio in stems.items()
        }
    )
