"""Play a score: each stem with sounds of its own."""

from __future__ import annotations

from . import kits, samples, synthesizer
from .audio import RATE, Audio, level, one_of
from .effects import amplifier, blend, produce_bass, produce_drums, produce_other
from .midi import Note, Part, Score, fluid, fold, humanise, power_chords
from .songs import Song, Studio, played
from .sounds import BANKS, BASSES, DRUMS, ELECTRIC_GUITAR, FLUID_R3, KEYS, Sound

GUITARS = range(24, 32)
POOLS = [GUITARS, GUITARS, range(8), range(16, 21), range(48, 55), range(80, 96)]  # guitars, pianos, organs, ...


def play_drums(notes: list[Note], sound: Sound, frames: int, studio: Studio) -> Audio:
    """Play drum notes (GM) with a kit; what it lacks is played with another one."""
    program = one_of(sound.programs, studio.rng)
    if sound.kind == "fluid":
        return fluid(sound.path, [Part(program, notes)], frames, drums=True)
    if sound.kind == "kit0":
        rest = [note for note in notes if not 35 <= note.key <= 59]
        audio = fluid(sound.path, [Part(0, [note for note in notes if 35 <= note.key <= 59])], frames)
    else:
        kit = kits.load_hydrogen(sound.path) if sound.kind == "hydrogen" else kits.electro_kit(studio.rng)
        audio, rest = kits.play(kit, notes, frames, studio.rng)
    if rest and len(rest) < len(notes) and studio.settings.offer(FLUID_R3):
        audio = level(audio) + 0.4 * level(fluid(FLUID_R3.path, [Part(0, rest)], frames, drums=True))
    return audio


def play_bass(notes: list[Note], sound: Sound, frames: int, studio: Studio) -> Audio:
    """Play a bass line, moved to E1 and the octave above, seldom higher."""
    rng = studio.rng
    notes = fold(notes, 28, one_of([40, 40, 43, 48, 55], rng))
    if sound.kind == "fluid":
        return fluid(sound.path, [Part(one_of(sound.programs, rng), notes)], frames)
    if sound.kind == "synth":
        return synthesizer.play(synthesizer.bass_patch(rng), notes, frames)[None]
    return play_sampled(notes, sound, frames, studio, rng.uniform(0.03, 0.12))


def play_sampled(notes: list[Note], sound: Sound, frames: int, studio: Studio, release: float) -> Audio:
    """Play notes with a sampled instrument; release in seconds."""
    instrument = samples.load(studio.settings.material / sound.path, sound.octave)
    return samples.play(instrument, notes, frames, studio.rng, release)


def play_other(parts: list[Part], frames: int, studio: Studio) -> tuple[Audio, list[Sound]]:
    """Play what is not bass or drums: guitars one by one through amps, a sampled part, the rest in two groups."""
    rng = studio.rng
    used = [bank := studio.choose(BANKS)]
    if rng.random() < 0.35:
        for part in parts:
            part.program = one_of(one_of(POOLS, rng), rng)
    layers: list[Audio] = []
    parts = sorted(parts, key=lambda part: -len(part.notes))
    amplified = rng.choice([0.0, 1.0], p=[0.4, 0.6])
    if rng.random() < 0.3 and any(studio.settings.offer(sound, studio.split) for sound in KEYS):
        used.append(sound := studio.choose(KEYS))
        audio = play_sampled(parts.pop(0).notes, sound, frames, studio, rng.uniform(0.1, 0.3))
        electric = sound == ELECTRIC_GUITAR and rng.random() < 0.6
        layers.append((amplifier if electric else produce_other)(audio, rng))
    guitars = [part for part in parts if part.program in GUITARS][:2]
    for part in guitars:
        effect = produce_other
        if rng.random() < amplified:
            effect = amplifier
            part.program = one_of([25, 26, 27, 27, 28, 29, 30], rng)
            part.notes = power_chords(part.notes) if rng.random() < 0.4 else part.notes
        layers.append(effect(fluid(bank.path, [part], frames), rng))
    rest = [part for part in parts if part not in guitars]
    cut = len(rest) if rng.random() < 0.4 else len(rest) // 2
    layers += [produce_other(fluid(bank.path, group, frames), rng) for group in (rest[:cut], rest[cut:]) if group]
    return blend(layers, frames, rng), used


def perform(score: Score, studio: Studio, source: str, licence: str, jitter: bool = True) -> Song:
    """Turn a score into stems."""
    rng, frames = studio.rng, int(score.seconds * RATE)
    stems = {}
    drums, bass, other = (
        [part for part in score.parts if part.stem == stem and part.notes] for stem in ("drums", "bass", "other")
    )
    for part in score.parts:
        part.notes = humanise(part.notes, rng, rng.uniform(0.004, 0.012) if jitter else 0)
    if drums:
        sound = studio.choose(DRUMS)
        audio = play_drums(sorted(note for part in drums for note in part.notes), sound, frames, studio)
        stems["drums"] = played(produce_drums(audio, rng), source, licence, [sound])
    if bass:
        sound = studio.choose(BASSES)
        notes = sorted(note for part in bass for note in part.notes)
        audio = play_bass(notes, sound, frames, studio)
        stems["bass"] = played(produce_bass(audio, rng), source, licence, [sound])
        if rng.random() < 0.15:  # a guitar riff along with the bass
            other.append(Part(29, power_chords(notes)))
    if other:
        audio, sounds = play_other(other, frames, studio)
        stems["other"] = played(audio, source, licence, sounds)
    return Song(stems, score.bpm)
