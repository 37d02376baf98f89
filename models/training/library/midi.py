"""Scores: notes by instrument, read from MIDI files, changed, and played with soundfonts by FluidSynth."""

from __future__ import annotations

import io
import subprocess
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import mido
import numpy as np

from .audio import RATE, Audio, Rng, fit, read

DRUM_CHANNEL = 9
CHANNELS = [channel for channel in range(16) if channel != DRUM_CHANNEL]
CONTROLS = (1, 7, 10, 11, 64, 100, 101, 6, 38)  # modulation, volume, pan, expression, sustain, and the bend range


class Note(NamedTuple):
    """Start and end in seconds, MIDI key, velocity 1 to 127."""

    start: float
    end: float
    key: int
    velocity: int


@dataclass
class Part:
    """The notes of one instrument, with the controller and pitch wheel messages of its channel (seconds, message)."""

    program: int
    notes: list[Note]
    controls: list[tuple[float, mido.Message]] = field(default_factory=list)
    stem: str = "other"


@dataclass
class Score:
    """A song before it sounds."""

    parts: list[Part]
    seconds: float
    bpm: float


def read_midi(data: bytes, limit: float) -> Score:
    """Read the first ``limit`` seconds of a MIDI file: a part for every (track, channel, program)."""
    midi = mido.MidiFile(file=io.BytesIO(data), clip=True)
    events = [
        (tick, number, message)
        for number, track in enumerate(midi.tracks)
        for tick, message in zip(accumulate(message.time for message in track), track, strict=True)
    ]
    parts: dict[tuple[int, int, int], Part] = {}
    controls = defaultdict(list)
    programs, names, held = [0] * 16, {}, {}
    beat, last, elapsed = 0.5, 0, 0.0  # seconds per beat since the tick ``last``, and seconds times ticks per beat
    for tick, number, message in sorted(events, key=lambda event: event[0]):
        now = elapsed / midi.ticks_per_beat + (tick - last) * beat / midi.ticks_per_beat
        if now > limit:
            break
        if message.type == "set_tempo":
            elapsed += (tick - last) * beat
            beat, last = message.tempo / 1e6, tick
        elif message.type == "track_name":
            names[number] = message.name.lower()
        elif message.type == "program_change":
            programs[message.channel] = message.program
        elif message.type == "pitchwheel" or (message.type == "control_change" and message.control in CONTROLS):
            controls[message.channel].append((now, message))
        elif message.type in ("note_on", "note_off"):
            key = number, message.channel, message.note
            if key in held:
                start, velocity, program = held.pop(key)
                part = parts.setdefault((number, message.channel, program), Part(program, []))
                part.notes.append(Note(start, max(now, start + 0.03), message.note, velocity))
            if message.type == "note_on" and message.velocity:
                held[key] = now, message.velocity, programs[message.channel]
    for (number, channel, program), part in parts.items():
        part.controls = controls[channel]
        low = 32 <= program <= 39 or names.get(number, "").startswith(("bass", "walk"))
        part.stem = "drums" if channel == DRUM_CHANNEL else "bass" if low else "other"
    end = max((note.end for part in parts.values() for note in part.notes), default=0)
    return Score(list(parts.values()), min(limit, end) + 1.5, 60 / beat)


def write_midi(path: Path, parts: list[Part], channels: list[int]) -> None:
    """Write parts as a MIDI file whose tick is 0.1 ms."""
    events: list[tuple[float, int, mido.Message]] = []  # seconds, rank among those of the same time, message
    for part, channel in zip(parts, channels, strict=True):
        events.append((0, 0, mido.Message("program_change", channel=channel, program=part.program)))
        events += [(now, 1, message.copy(channel=channel)) for now, message in part.controls]
        for start, end, key, velocity in part.notes:
            events.append((start, 3, mido.Message("note_on", channel=channel, note=key, velocity=velocity)))
            events.append((end, 2, mido.Message("note_off", channel=channel, note=key)))
    track, last = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=1000000)]), 0
    for now, _, message in sorted(events, key=lambda event: event[:2]):
        tick = round(now * 10000)
        track.append(message.copy(time=tick - last))
        last = tick
    mido.MidiFile(type=0, ticks_per_beat=10000, tracks=[track]).save(path)


def fluid(bank: Path, parts: list[Part], frames: int, drums: bool = False) -> Audio:
    """Play parts with a soundfont, dry; at most 15, those with most notes."""
    parts = sorted(parts, key=lambda part: -len(part.notes))[: len(CHANNELS)]
    options = ["synth.reverb.active=0", "synth.chorus.active=0", "synth.dynamic-sample-loading=1"]
    with tempfile.TemporaryDirectory() as folder:
        midi, wav = Path(folder, "part.mid"), Path(folder, "part.wav")
        write_midi(midi, parts, [DRUM_CHANNEL] * len(parts) if drums else CHANNELS[: len(parts)])
        command = ["fluidsynth", "-niq", "-r", str(RATE), "-g", "0.5", "-O", "float", "-T", "wav", "-F", str(wav)]
        command += [word for option in options for word in ("-o", option)] + [str(bank), str(midi)]
        subprocess.run(command, check=True, timeout=150, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return fit(read(wav), frames)


def humanise(notes: list[Note], rng: Rng, jitter: float) -> list[Note]:
    """Move notes by ``jitter`` seconds (standard deviation) and vary their velocities."""
    scale, sigma = rng.uniform(0.75, 1.1), rng.uniform(2, 9)
    moved = []
    for start, end, key, velocity in notes:
        shift = max(-start, float(rng.normal(0, jitter)) if jitter else 0.0)
        loud = int(np.clip(velocity * scale + rng.normal(0, sigma), 8, 127))
        moved.append(Note(start + shift, max(end + shift, start + shift + 0.03), key, loud))
    return sorted(moved)


def fold(notes: list[Note], low: int, high: int) -> list[Note]:
    """Move notes by octaves into a range of more than an octave."""
    return [
        note._replace(key=int(np.clip(note.key, low + (note.key - low) % 12, high - (high - note.key) % 12)))
        for note in notes
    ]


def power_chords(notes: list[Note]) -> list[Note]:
    """Keep the lowest note of every chord, with fifth and octave: what a distorted guitar plays."""
    lowest: list[Note] = []
    for note in sorted(notes):
        if not lowest or note.start - lowest[-1].start > 0.03:
            lowest.append(note)
        elif note.key < lowest[-1].key:
            lowest[-1] = note
    return [note._replace(key=40 + (note.key - 40) % 12 + step) for note in lowest for step in (0, 7, 12)]
