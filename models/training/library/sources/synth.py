"""Electronic and pop music composed here. Needs nothing but Python packages; kits and samples make it richer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from .. import synthesizer
from ..audio import RATE, Rng, one_of
from ..chords import SHAPES, Chord, chord_loop
from ..effects import blend, produce_bass, produce_drums, produce_other
from ..midi import Note, humanise
from ..performance import play_bass, play_drums, play_sampled
from ..songs import Job, Settings, Song, Studio, played
from ..sounds import BASSES, DRUMS, KEYS, SYNTH, Sound

STYLES = {  # tempo, then 16 steps of kick, snare (or clap), hats; x = hit, o = open hat, . = rest, ? = perhaps
    "house": ((116, 130), "x...x...x...x...", "....x.......x...", "..o...o...o...o."),
    "techno": ((125, 142), "x...x...x...x..?", "....x..?....x..?", "x.o.x.o.x.o.xxo."),
    "trap": ((125, 155), "x.....?x..x...?.", "........x.......", "xxxxxxxxxxxxxxxx"),
    "hiphop": ((78, 102), "x..?..?x..x.....", "....x.......x..?", "x.x.x.x.x.x.x.x."),
    "breakbeat": ((105, 172), "x.x.......xx..?.", "....x..x.x..x..?", "x.x.x.x.x.x.x.o."),
    "funk": ((88, 114), "x..x..x...?..x..", "....x..?.?..x..?", "xxxxxxxoxxxxxxxx"),
    "rock": ((95, 165), "x.....?.x.x.....", "....x.......x...", "x.x.x.x.x.x.x.x."),
    "pop": ((84, 126), "x.....x...?.x...", "....x.......x...", "x.x.x.x.x.x.x.xo"),
}
PLAYED = ("funk", "rock", "pop", "breakbeat")  # with real drums too
ELECTRIC = ("electro", "electronic", "808", "Electro", "Electric", "Vari", "Audiophob", "rumpf", "BJA")
KICK, CLOSED, OPEN, CRASH = 36, 42, 46, 49


@dataclass(frozen=True)
class Tune:
    """What drums, bass and chords have in common: bars of 16 steps, each of ``step`` seconds, a chord each."""

    style: str
    bpm: float
    swing: float  # how late every second step is, in steps
    loop: list[Chord]

    @property
    def step(self) -> float:
        return 15 / self.bpm

    @property
    def bars(self) -> int:
        """As many fours of bars as there are within 64 s."""
        return int(64 / (16 * self.step)) // 4 * 4

    def at(self, bar: int, step: int) -> float:
        """Where a step begins, in seconds."""
        return (bar * 16 + step + (self.swing if step % 2 else 0)) * self.step


def jobs(settings: Settings) -> Iterator[Job]:
    """Endless songs."""
    return (Job(f"synth-{i:05}", 64, make) for i in count())


def make(studio: Studio) -> Song:
    """About a minute of drums, bass and two or three other parts."""
    rng = studio.rng
    style = one_of(list(STYLES), rng)
    bpm, late = rng.uniform(*STYLES[style][0]), rng.uniform(0.05, 0.33)
    swing = float(rng.choice([0.0, late], p=[0.65, 0.35]))
    tune = Tune(style, bpm, swing, chord_loop(rng, int(rng.integers(12))))
    frames = int((tune.bars * 16 * tune.step + 1.5) * RATE)

    notes = humanise(beat(tune, rng), rng, one_of([0, 0.003], rng))
    kit = studio.choose(kits(style))
    drums = produce_drums(play_drums(notes, kit, frames, studio), rng)

    bass = studio.choose([replace(s, weight=s.weight * (12 if s.kind == "synth" else 0.7)) for s in BASSES])
    notes = humanise(bass_line(tune, rng), rng, 0.003)
    low = produce_bass(play_bass(notes, bass, frames, studio), rng)

    layers, sounds = [], [SYNTH]
    for kind in rng.choice(["pad", "stab", "arp", "lead", "stab", "sampled"], int(rng.integers(2, 4)), replace=False):
        notes = humanise(chord_part(tune, "stab" if kind == "sampled" else kind, rng), rng, 0.004)
        sound = studio.choose([*KEYS, SYNTH]) if kind == "sampled" else SYNTH
        if sound == SYNTH:
            layer = synthesizer.play_chords(synthesizer.poly_patch(rng, kind == "pad"), notes, frames, rng)
        else:
            layer = play_sampled(notes, sound, frames, studio, 0.15)
            sounds.append(sound)
        layers.append(produce_other(layer, rng))
    parts = {"drums": (drums, [kit]), "bass": (low, [bass]), "other": (blend(layers, frames, rng), sounds)}
    return Song({stem: played(audio, f"synth {style}", "own", used) for stem, (audio, used) in parts.items()}, bpm)


def kits(style: str) -> list[Sound]:
    """The kits for a style, electronic ones first."""
    fit = [kit for kit in DRUMS if style in PLAYED or any(word in kit.name for word in ELECTRIC)]
    electronic = {"electro", "FluidR3 electronic kits"}
    return [replace(kit, weight=kit.weight * (8 if kit.name in electronic else 1)) for kit in fit]


def beat(tune: Tune, rng: Rng) -> list[Note]:
    """Programme drums; a section of four bars may lack an instrument, every fourth bar has a fill now and then."""
    notes: list[Note] = []
    snare, step = one_of([38, 39, 40], rng), tune.step
    for bar in range(tune.bars):
        if bar % 4 == 0:
            silent = {row for row, chance in enumerate((0.08, 0.08, 0.12)) if rng.random() < chance}
            if not silent and rng.random() < 0.4:
                notes.append(Note(tune.at(bar, 0), tune.at(bar, 0) + 1, CRASH, 90))
        for row, (key, pattern) in enumerate(zip((KICK, snare, CLOSED), STYLES[tune.style][1:], strict=True)):
            for i, mark in enumerate(pattern if row not in silent else ""):
                if mark == "." or (mark == "?" and rng.random() < 0.6):
                    continue
                start = tune.at(bar, i)
                velocity = 60 if mark == "?" and row == 1 else 105 if i % 4 == 0 or row < 2 else 78
                notes.append(Note(start, start + step, OPEN if mark == "o" else key, velocity))
                if tune.style == "trap" and row == 2 and rng.random() < 0.08:  # a roll
                    rolls = (start + step / 3, start + 2 * step / 3)
                    notes += [Note(at, at + 0.05, CLOSED, 70) for at in rolls]
        if bar % 4 == 3 and rng.random() < 0.35:
            fill = [(i, one_of([snare, 45, 43, 48], rng)) for i in range(12, 16)]
            notes += [Note((bar * 16 + i) * step, (bar * 16 + i + 1) * step, key, 8 * i - 26) for i, key in fill]
    return notes


def bass_line(tune: Tune, rng: Rng) -> list[Note]:
    """One of two riffs of a bar on the chords' roots, with octaves, fifths and pauses."""
    density = {"trap": 0.2, "hiphop": 0.3, "house": 0.5}.get(tune.style, rng.uniform(0.25, 0.7))

    def riff() -> list[tuple[int, int, float]]:
        """Steps, semitones above the root, lengths in steps."""
        places = [0] + [i for i in range(2, 16) if rng.random() < density * (1 if i % 2 == 0 else 0.35)]
        lengths = np.diff([*places, 16]) * rng.uniform(0.5, 1)
        above = [one_of([0, 0, 0, 12, 7, -2], rng) if i else 0 for i in places]
        return list(zip(places, above, lengths, strict=True))

    riffs, notes = [riff(), riff()], []
    for bar in range(tune.bars):
        if bar % 4 == 0:
            silent, shape = rng.random() < 0.1, riffs[int(rng.random() < 0.3)]
        root = 28 + (tune.loop[bar % 4][0] - 4) % 12
        for i, above, length in shape if not silent else []:
            start = tune.at(bar, i)
            notes.append(Note(start, start + length * tune.step, root + above, int(rng.integers(80, 115))))
    return notes


def chord_part(tune: Tune, kind: str, rng: Rng) -> list[Note]:
    """Pads (whole bars), stabs (a rhythm), arpeggios or a lead melody over the chords."""
    notes: list[Note] = []
    octave = one_of([48, 60] if kind == "pad" else [48, 60, 60, 72], rng)
    rhythm = [0] + [i for i in range(1, 16) if rng.random() < (0.3 if kind == "stab" else 0.45)]
    melody = rng.integers(0, 7, 32)
    for bar in range(tune.bars):
        if bar % 4 == 0:
            silent = rng.random() < 0.2
        if silent:
            continue
        root, quality = tune.loop[bar % 4]
        tones = [octave + (root + tone) % 12 for tone in SHAPES[quality]]
        run = [*tones, *[tone + 12 for tone in tones]]
        scale = sorted([*tones, tones[0] + 12, tones[0] + 14, tones[-1] + 12])
        played = {  # steps, lengths in steps, keys, velocity
            "pad": [(0, 15.8, tone, 80) for tone in tones],
            "stab": [(i, 1.5, tone, 85) for i in rhythm for tone in tones],
            "arp": [(i, 1, run[i * 3 % len(run)], 85) for i in range(16)],
            "lead": [(i, 2, scale[melody[bar % 2 * 16 + i] % len(scale)], 90) for i in rhythm],
        }[kind]
        start = bar * 16 * tune.step
        notes += [Note(start + i * tune.step, start + (i + n) * tune.step, key, loud) for i, n, key, loud in played]
    return notes
