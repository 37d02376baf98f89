"""A subtractive and FM synthesizer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from .audio import RATE, Audio, Rng, one_of
from .midi import Note

Signal = NDArray[np.float64]


@dataclass(frozen=True)
class Patch:
    """A synthesizer sound. Times in seconds, cutoff in Hz, sweep in octaves above it at the note's start."""

    wave: str = "saw"  # saw, square, sine, fm, 808
    detune: tuple[float, ...] = (0.0,)  # cents, one oscillator each
    attack: float = 0.003
    decay: float = 0.3
    sustain: float = 0.7
    release: float = 0.05
    cutoff: float = 2000.0
    sweep: float = 0.0
    sweep_decay: float = 0.15
    resonance: float = 0.9
    glide: float = 0.0
    sub: float = 0.0
    fm: tuple[float, float] = (1.0, 2.0)  # ratio, index


def bass_patch(rng: Rng) -> Patch:
    """A random bass sound."""
    wave = str(rng.choice(["saw", "square", "sine", "fm", "808"], p=[0.28, 0.17, 0.15, 0.15, 0.25]))
    long = wave == "808"
    return Patch(
        wave=wave,
        detune=(0.0,) if rng.random() < 0.7 or wave in ("808", "sine") else (-rng.uniform(4, 12), rng.uniform(4, 12)),
        decay=rng.uniform(0.4, 1.5) if long else rng.uniform(0.1, 0.8),
        sustain=0.0 if long else one_of([0.0, 0.4, 0.8], rng),
        release=rng.uniform(0.02, 0.12),
        cutoff=float(np.exp(rng.uniform(np.log(150), np.log(2500)))),
        sweep=rng.uniform(0, 4),
        sweep_decay=rng.uniform(0.04, 0.4),
        resonance=rng.uniform(0.7, 4),
        glide=one_of([0.0, 0.015, 0.05], rng) if rng.random() < 0.5 else 0.0,
        sub=one_of([0.0, 0.5, 1.0], rng),
        fm=(one_of([0.5, 1, 2, 3], rng), rng.uniform(0.5, 4)),
    )


def poly_patch(rng: Rng, pad: bool) -> Patch:
    """A random sound for chords: slow and wide for pads, short for plucks and arpeggios."""
    return Patch(
        wave=str(rng.choice(["saw", "square", "fm"], p=[0.55, 0.2, 0.25])),
        detune=tuple(rng.uniform(-16, 16, int(rng.integers(1, 4)))),
        attack=rng.uniform(0.02, 0.5) if pad else 0.003,
        decay=rng.uniform(0.1, 0.7),
        sustain=rng.uniform(0.5, 1) if pad else one_of([0.0, 0.3], rng),
        release=rng.uniform(0.1, 0.5) if pad else rng.uniform(0.05, 0.3),
        cutoff=float(np.exp(rng.uniform(np.log(500), np.log(6000)))),
        sweep=rng.uniform(0, 1 if pad else 3),
        sweep_decay=rng.uniform(0.1, 0.5),
        resonance=rng.uniform(0.7, 3),
        fm=(one_of([1, 2, 3, 3.5, 7], rng), rng.uniform(0.3, 3)),
    )


def play(patch: Patch, notes: list[Note], frames: int) -> Audio:
    """Play notes as one voice (a note ends where the next begins); return mono audio, shape (frames,)."""
    notes = sorted(note for note in notes if int(note.start * RATE) < frames - 1)
    if not notes:
        return np.zeros(frames, np.float32)
    starts = np.array([int(note.start * RATE) for note in notes])
    counts = np.diff(starts, append=frames)
    since = (np.arange(starts[0], frames) - np.repeat(starts, counts)) / RATE
    gate = np.repeat([note.end - note.start for note in notes], counts)
    loud = np.repeat([(note.velocity / 127) ** 1.3 for note in notes], counts)
    pitch = np.repeat([note.key / 12.0 for note in notes], counts)
    if patch.glide:
        keep = np.exp(-1 / (patch.glide * RATE))
        pitch = lfilter([1 - keep], [1, -keep], pitch, zi=[keep * pitch[0]])[0]
    step = 440 * 2 ** (pitch - 69 / 12) / RATE
    if patch.wave == "808":
        step *= 1 + 1.5 * np.exp(-since / 0.02)
    amp = np.minimum(1, since / patch.attack) * (patch.sustain + (1 - patch.sustain) * np.exp(-since / patch.decay))
    amp *= loud * np.exp(-np.maximum(0, since - gate) / patch.release)
    amp = lfilter([0.015], [1, -0.985], amp)  # 1.5 ms: no clicks where a note cuts another
    raw = sum(_wave(patch, step * 2 ** (cents / 1200), since) for cents in patch.detune)
    if patch.sub:
        raw = raw + patch.sub * np.sin(2 * np.pi * np.cumsum(step))
    tone = _sweep(raw, patch, patch.sweep * np.exp(-since / patch.sweep_decay)) * amp
    out = np.zeros(frames, np.float32)
    out[starts[0] :] = np.tanh(2 * tone) if patch.wave == "808" else tone
    return out


def _wave(patch: Patch, step: Signal, since: Signal) -> Signal:
    phase = np.cumsum(step)
    if patch.wave in ("sine", "808"):
        return np.sin(2 * np.pi * phase)
    if patch.wave == "fm":
        ratio, index = patch.fm
        return np.sin(2 * np.pi * phase + index * (0.3 + np.exp(-since / 0.2)) * np.sin(2 * np.pi * ratio * phase))
    saw = _saw(phase % 1, step)
    return saw - _saw((phase + 0.5) % 1, step) if patch.wave == "square" else saw


def _saw(phase: Signal, step: Signal) -> Signal:
    """A sawtooth with its jump rounded over two samples (polyBLEP), or its aliases would be heard."""
    before, after = (phase - 1) / step, phase / step
    return 2 * phase - 1 + np.where(after < 1, (1 - after) ** 2, 0) - np.where(before > -1, (1 + before) ** 2, 0)


def _sweep(raw: Signal, patch: Patch, octaves: Signal) -> Signal:
    """Low-pass with a moving cutoff: fixed filters one octave apart, faded into each other."""
    if patch.wave in ("sine", "808"):
        return raw
    out = np.zeros_like(raw)
    for octave in range(int(octaves.max()) + 2):
        weight = np.clip(1 - np.abs(octaves - octave), 0, 1)
        omega = 2 * np.pi * min(patch.cutoff * 2**octave, 16000) / RATE
        alpha, cos = np.sin(omega) / (2 * patch.resonance), np.cos(omega)
        low = np.array([(1 - cos) / 2, 1 - cos, (1 - cos) / 2])
        out += weight * lfilter(low / (1 + alpha), np.array([1 + alpha, -2 * cos, 1 - alpha]) / (1 + alpha), raw)
    return out


def play_chords(patch: Patch, notes: list[Note], frames: int, rng: Rng, voices: int = 5) -> Audio:
    """Play overlapping notes, each in the voice that is free the longest, voices spread in the stereo picture."""
    lines: list[list[Note]] = [[] for _ in range(voices)]
    for note in sorted(notes):
        min(lines, key=lambda line: line[-1].end if line else -1.0).append(note)
    out = np.zeros((2, frames), np.float32)
    for line in filter(None, lines):
        left = rng.uniform(0.3, 1)
        out += np.outer([left, 1.3 - left], play(patch, line, frames)).astype(np.float32)
    return out
