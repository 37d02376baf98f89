"""A song of the library: what it is made with, what it is when made, and how it is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree, which

import numpy as np
import soundfile

from .audio import RATE, Audio, Rng
from .sounds import Sound

PIECE = 90  # seconds, the longest song written
PERMISSIVE = ("CC0", "MIT", "BSD", "CC BY 3", "CC BY 4", "own")
VALIDATION = 0.06  # the share of songs whose source does not tell the split


@dataclass(frozen=True)
class Settings:
    """What every song needs to know."""

    library: Path
    material: Path
    seed: int
    permissive: bool

    def permit(self, licence: str) -> bool:
        """Tell whether ``--permissive-only`` allows a licence."""
        return not self.permissive or (licence.startswith(PERMISSIVE) and "SA" not in licence)

    def offer(self, sound: Sound, split: str = "") -> bool:
        """Tell whether a sound can be played, is permitted and meant for a split."""
        here = (self.material / sound.path).exists() and (sound.kind not in ("fluid", "kit0") or which("fluidsynth"))
        return bool(here) and sound.only in ("", split) and self.permit(sound.licence)


@dataclass(frozen=True)
class Studio:
    """What one song is made with."""

    settings: Settings
    split: str  # train or valid
    rng: Rng

    def choose(self, sounds: list[Sound]) -> Sound:
        """Draw one of the sounds that may be used."""
        sounds = [sound for sound in sounds if self.settings.offer(sound, self.split)]
        weights = np.array([sound.weight for sound in sounds])
        return sounds[int(self.rng.choice(len(sounds), p=weights / weights.sum()))]


@dataclass(frozen=True)
class Stem:
    """A stem, and what song.json tells of it."""

    audio: Audio
    source: str
    licence: str
    sound: str


def played(audio: Audio, source: str, licence: str, sounds: list[Sound]) -> Stem:
    """A stem of notes under one licence that was played with sounds under others."""
    licences = ", ".join(dict.fromkeys(sound.licence for sound in sounds))
    names = " + ".join(sound.name for sound in sounds)
    return Stem(audio, source, f"{licence} (notes), {licences} (sound)", names)


@dataclass(frozen=True)
class Song:
    """Stems of the same length."""

    stems: dict[str, Stem]
    bpm: float | None = None
    mixed: bool = False
    """The stems sum to a mix as it is heard: they stay as loud as they are against each other."""


@dataclass(frozen=True)
class Job:
    """A song to make. Its name seeds all that is random in it."""

    name: str
    seconds: float  # about
    make: Callable[[Studio], Song]
    split: str = ""  # drawn where the source does not tell


def render(job: Job, settings: Settings) -> tuple[float, str]:
    """Make and write one song; return the seconds written and what went wrong."""
    seed = hashlib.sha256(f"{settings.seed} {job.name}".encode()).digest()
    split = job.split or ("valid" if seed[0] < VALIDATION * 256 else "train")
    try:
        song = job.make(Studio(settings, split, np.random.default_rng(list(seed))))
        assert any(np.abs(stem.audio).max() > 1e-3 for stem in song.stems.values()), "silent"
        assert all(np.isfinite(stem.audio).all() for stem in song.stems.values()), "not finite"
    except Exception as error:  # one bad song must not end the run
        return 0, f"{job.name}: {type(error).__name__}: {str(error)[:150]}"
    frames = next(iter(song.stems.values())).audio.shape[1]
    pieces = -(-frames // (PIECE * RATE))
    for i in reversed(range(pieces)):  # the first piece last: it tells that all is there
        target = settings.library / "songs" / (job.name if i == 0 else f"{job.name}-{i + 1}")
        write(target, song, split, slice(frames * i // pieces, frames * (i + 1) // pieces))
    return frames / RATE, ""


def write(target: Path, song: Song, split: str, piece: slice) -> None:
    """Write a piece under another name, then rename it; stems below -60 dBFS are left out."""
    stems = {name: stem for name, stem in song.stems.items() if np.sqrt(np.mean(stem.audio[:, piece] ** 2)) > 1e-3}
    if not stems:
        return
    temporary = target.with_name(f".{target.name}")
    rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    parts = {name: stem.audio[:, piece] for name, stem in stems.items()}
    common = gain(np.sum(list(parts.values()), axis=0)) if song.mixed else None
    for name, part in parts.items():
        audio = part * (gain(part) if common is None else common)
        soundfile.write(temporary / f"{name}.flac", audio.T, RATE, subtype="PCM_16")
    told = {name: {"source": s.source, "licence": s.licence, "sound": s.sound} for name, s in stems.items()}
    (temporary / "song.json").write_text(json.dumps({"split": split, "bpm": song.bpm, "stems": told}, indent=1))
    rmtree(target, ignore_errors=True)
    temporary.rename(target)


def gain(audio: Audio) -> np.float64:
    """That with which the loudest 3 s have -20 dBFS RMS, or the peak -1 dBFS if that is less."""
    power = np.cumsum(np.pad((audio.astype(np.float64) ** 2).mean(axis=0), (1, 0)))
    window = min(3 * RATE, audio.shape[1])
    rms = np.sqrt((power[window:] - power[:-window]).max() / window)
    return np.float64(min(0.1 / rms, 10 ** (-1 / 20) / float(np.abs(audio).max())))
