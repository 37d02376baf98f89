"""Sampled instruments: recordings of single notes, found by key and velocity."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from . import audio as files
from .audio import RATE, Audio, Rng, one_of
from .midi import Note

STEPS = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
SHIFTS = {"s": 1, "b": -1, "": 0}


@dataclass(frozen=True)
class Sample:
    """One recording: the key at which it sounds as recorded, and the keys and velocities it serves."""

    audio: Audio
    key: int = 60
    keys: range = range(0)  # empty: those near to key
    velocities: tuple[float, float] = (0, 127)
    gain: float = 1.0


def read(path: Path) -> Audio:
    """Read a recording without the tail that lies 60 dB below its peak."""
    audio = files.read(path)
    peaks = np.abs(audio).max(axis=0, initial=0)
    loud = np.flatnonzero(peaks > 1e-3 * peaks.max(initial=0))
    return np.ascontiguousarray(audio[:, : loud[-1] + 1 if len(loud) else 1])


@lru_cache(maxsize=16)
def load(path: Path, octave: int = 0) -> list[Sample]:
    """Read an SFZ file, or a folder of files named by their notes; octave is the MIDI octave of the number 0."""
    return load_sfz(path) if path.suffix == ".sfz" else load_named(path, octave)


def load_named(folder: Path, octave: int) -> list[Sample]:
    """Read files named by their note, as ``e2_staccato_rr1`` or ``Gs3``."""
    samples = []
    for file in sorted(folder.glob("*.flac")):
        if found := re.match(r"([a-g])([bs]?)(\d)", file.name.lower()):
            samples.append(Sample(read(file), STEPS[found[1]] + SHIFTS[found[2]] + 12 * (int(found[3]) + octave)))
    return samples


def load_sfz(path: Path) -> list[Sample]:
    """Read keys, velocities and sample files of an SFZ; loops, envelopes and tuning are left out."""
    text = re.sub(r"//.*", "", path.read_text(encoding="utf-8", errors="ignore"))
    for name, value in re.findall(r"#define\s+(\$\w+)\s+(\S+)", text):
        text = text.replace(name, value)
    folder = found[1] if (found := re.search(r"default_path=(\S*)", text)) else ""
    regions: list[dict[str, str]] = []
    current = group = {}
    for header, name, value in re.findall(r"<(\w+)>|(\w+)=((?:(?!\s\w+=|\s*<|\s*$).)+)", text, re.M):
        if header == "region":
            current = dict(group)
            regions.append(current)
        elif header:
            current = group = {}
        else:
            current[name] = value.strip()
    return [sample for region in regions if (sample := _region(path.parent, folder, region))]


def _region(folder: Path, prefix: str, region: dict[str, str]) -> Sample | None:
    relative = Path((prefix + region.get("sample", "")).replace("\\", "/"))
    flac = relative.with_suffix(".flac")
    file = next((folder / name for name in (relative, flac, flac.name) if (folder / name).is_file()), None)
    if file is None or "release" in region.get("trigger", ""):
        return None
    key = int(region.get("key", -1))
    low, high, center = (int(region.get(name, key)) for name in ("lokey", "hikey", "pitch_keycenter"))
    velocities = int(region.get("lovel", 0)), int(region.get("hivel", 127))
    return Sample(read(file), center if center >= 0 else low, range(low, high + 1), velocities)


def pick(samples: list[Sample], key: int, velocity: int, rng: Rng) -> Sample:
    """Choose the sample for a key and a velocity, at random where several fit (round robin)."""
    distances = [0 if key in sample.keys else abs(sample.key - key) for sample in samples]
    nearest = min(distances)
    return layer([s for s, distance in zip(samples, distances, strict=True) if distance == nearest], velocity, rng)


def layer(samples: list[Sample], velocity: int, rng: Rng) -> Sample:
    """Choose one of the samples that serve a velocity, or else the last."""
    return one_of([s for s in samples if s.velocities[0] <= velocity <= s.velocities[1]] or samples[-1:], rng)


def transpose(audio: Audio, ratio: float, count: int) -> Audio:
    """Play at another speed, at most ``count`` frames; interpolates linearly."""
    if abs(ratio - 1) < 1e-4:
        return audio[:, :count]
    places = np.arange(min(count, int((audio.shape[1] - 2) / ratio))) * ratio
    whole = places.astype(np.int64)
    part = (places - whole).astype(np.float32)
    return audio[:, whole] * (1 - part) + audio[:, whole + 1] * part


def play(samples: list[Sample], notes: list[Note], frames: int, rng: Rng, release: float) -> Audio:
    """Play notes; release is the fade-out after a note's end in seconds."""
    out = np.zeros((2, frames), np.float32)
    for start, end, key, velocity in notes:
        sample = pick(samples, key, velocity, rng)
        first, count = int(start * RATE), int((end - start + release) * RATE)
        audio = transpose(sample.audio, 2 ** ((key - sample.key + rng.normal(0, 0.03)) / 12), count)
        fade = min(audio.shape[1], int(release * RATE))
        audio = audio[:, : max(0, frames - first)] * (sample.gain * (velocity / 127) ** 1.5)
        if fade and count - fade < audio.shape[1]:
            audio[:, count - fade :] *= np.linspace(1, 0, fade)[: audio.shape[1] - count + fade]
        out[:, first : first + audio.shape[1]] += audio
    return out
