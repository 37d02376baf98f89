"""Speech made into singing: the WORLD vocoder takes it apart, a melody and another throat put it together again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from types import ModuleType

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy.ndimage import binary_closing, gaussian_filter1d, uniform_filter1d
from scipy.signal import find_peaks

from .audio import RATE, Audio, Rng, one_of

Values = NDArray[np.float64]
SPEECH, SUNG = 16000, 32000  # Hz: what speech is analysed at, what is synthesised
FRAME = 0.005  # seconds
PERIOD = 1000 * FRAME
WINDOW = 1024  # samples at SPEECH, of the spectra
BINS = WINDOW + 1  # of a spectrum at SUNG, twice as many as at SPEECH
TOP = 6800  # Hz: above, speech of 16 kHz holds little, so the envelope is continued from there
LEAD = 30  # frames before the first beat, for consonants
SCALES = [
    (0, 2, 4, 5, 7, 9, 11),
    (0, 2, 3, 5, 7, 8, 10),
    (0, 2, 3, 5, 7, 9, 10),
    (0, 2, 4, 5, 7, 9, 10),
    (0, 2, 4, 7, 9),
    (0, 3, 5, 7, 10),
]


@cache
def world() -> ModuleType:
    """The functions of pyworld; its ``__init__`` wants pkg_resources, which setuptools no longer has."""
    package = find_spec("pyworld")
    spec = PathFinder.find_spec("pyworld.pyworld", package.submodule_search_locations) if package else None
    if not spec or not spec.loader:
        raise ModuleNotFoundError("pyworld")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Unit:
    """What one note is sung on, about a syllable; all in frames."""

    start: int
    onset: int  # where the voice sets in: this comes on the beat
    first: int  # from here
    last: int  # to here it can be held
    stop: int


@dataclass(frozen=True)
class Phrase:
    """Speech taken apart; f0 is 0 where it is unvoiced."""

    f0: Values
    envelope: Values  # log power, (frames, bins)
    aperiodicity: Values
    units: list[Unit]


@dataclass(frozen=True)
class Note:
    """A unit's beat and length in seconds, and its pitch (of a rap: what the speech is moved by)."""

    start: float
    seconds: float
    key: float
    unit: Unit


@dataclass(frozen=True)
class Throat:
    """How somebody sings."""

    spoken: bool
    warp: float  # of the formants
    breath: float  # 0 to 1: noise in place of harmonics
    tilt: float  # how steeply the power falls above TOP
    glide: float  # seconds from note to note
    vibrato: float  # Hz
    depth: float  # of the vibrato, in semitones
    drift: float  # semitones


def draw_throat(rng: Rng) -> Throat:
    return Throat(
        rng.random() < 0.2,
        rng.uniform(0.85, 1.2),
        rng.uniform(0.1, 0.6) if rng.random() < 0.3 else 0,
        rng.uniform(2, 6),
        rng.uniform(0.04, 0.12),
        rng.uniform(4.5, 6.5),
        rng.uniform(0, 0.6),
        rng.uniform(0.03, 0.12),
    )


def analyse(speech: Values) -> Phrase:
    """Take mono speech at SPEECH apart."""
    f0, places = world().dio(speech, SPEECH, f0_floor=65, f0_ceil=500, frame_period=PERIOD)
    f0 = fill(world().stonemask(speech, f0, places, SPEECH))
    envelope = np.log(world().cheaptrick(speech, f0, places, SPEECH, fft_size=WINDOW) + 1e-16)
    return Phrase(f0, envelope, world().d4c(speech, f0, places, SPEECH, fft_size=WINDOW), find_units(f0, envelope))


def fill(f0: Values) -> Values:
    """Voice what is unvoiced for up to 20 ms: within a vowel that is held it would become a long hole."""
    voiced = f0 > 0
    if not voiced.any():
        return f0
    places = np.arange(len(f0))
    between = np.interp(places, places[voiced], f0[voiced])
    return np.where(binary_closing(voiced, np.ones(5)), between, f0)


def find_units(f0: Values, envelope: Values) -> list[Unit]:
    """Voiced runs, cut where the voice dips, with the consonants before and after them."""
    loudness = gaussian_filter1d(np.logaddexp.reduce(envelope[:, 6:256], axis=1) * 4.34, 3)  # dB
    edges = np.flatnonzero(np.diff(np.pad(f0 > 0, 1).astype(int)))
    vowels: list[tuple[int, int]] = []
    for start, stop in edges.reshape(-1, 2):
        if stop - start < 8 or loudness[start:stop].max() < loudness.max() - 25:
            continue
        dips = find_peaks(-loudness[start:stop], prominence=2.5, distance=16)[0]
        cuts = [start, *(start + dip for dip in dips if 12 <= dip <= stop - start - 12), stop]
        vowels += [(int(a), int(b)) for a, b in zip(cuts, cuts[1:], strict=False)]
    units = []
    for i, (a, b) in enumerate(vowels):
        before = a - vowels[i - 1][1] if i else a
        after = vowels[i + 1][0] - b if i + 1 < len(vowels) else len(f0) - b
        start, stop = a - min(before * 2 // 3, 28), b + min(after - after * 2 // 3, 14)
        units.append(Unit(start, a, a + (b - a) * 3 // 10, max(b - (b - a) // 5, a + 1), stop))
    return units


def register(phrases: list[Phrase]) -> float:
    """The speaker's median pitch as a key of MIDI."""
    f0 = np.concatenate([phrase.f0[phrase.f0 > 0] for phrase in phrases])
    return float(69 + 12 * np.log2(np.median(f0) / 440))


@dataclass(frozen=True)
class Melody:
    """The tones and the tempo of a song."""

    scale: tuple[int, ...]
    center: float  # key
    beat: float  # seconds

    def key(self, degree: int) -> float:
        """The pitch of a degree of the scale, 0 being in the middle of the register."""
        octave, tone = divmod(degree, len(self.scale))
        return self.center + 12 * octave + self.scale[tone]


def draw_melody(middle: float, rng: Rng) -> Melody:
    """Around a speaker's pitch, from a fourth below to an octave above, within what can be sung."""
    center = float(np.clip(middle + rng.uniform(-5, 12), 41, 72))
    return Melody(one_of(SCALES, rng), float(round(center)) + rng.normal(0, 0.1), 60 / rng.uniform(70, 150))


def line(phrase: Phrase, melody: Melody, spoken: bool, rng: Rng) -> list[tuple[int, Note]]:
    """Some units in a row as notes with their degrees: a walk of mostly steps, the last note longer."""
    count = min(int(rng.integers(3, 15)), len(phrase.units))
    first = int(rng.integers(len(phrase.units) - count + 1))
    units = phrase.units[first : first + count]
    step = melody.beat * one_of([0.25, 0.5], rng)
    degree, place, notes = int(rng.integers(-3, 4)), 0.0, []
    for i, unit in enumerate(units):
        seconds = melody.beat * float(rng.choice([0.5, 1, 1.5, 2, 4], p=[0.42, 0.34, 0.1, 0.1, 0.04]))
        if i == count - 1:
            seconds = melody.beat * float(rng.choice([1, 2, 3, 4]))
        if spoken:
            seconds = step * max(1, round((unit.stop - unit.start) * FRAME * 0.9 / step))
        notes.append((degree, Note(place, seconds, melody.key(degree), unit)))
        place += seconds
        degree += int(rng.choice([0, 1, -1, 2, -2, 3, -3, 4], p=[0.16, 0.27, 0.27, 0.1, 0.1, 0.04, 0.04, 0.02]))
        degree = int(np.clip(degree, -5, 6))
    return notes


def time_map(notes: list[Note]) -> tuple[Values, list[int]]:
    """For each frame of a line the frame of speech, and where the units begin; vowels are held, consonants are not."""
    starts = [LEAD + round(note.start / FRAME) - min(note.unit.onset - note.unit.start, 24) for note in notes]
    starts.append(LEAD + round((notes[-1].start + notes[-1].seconds) / FRAME))
    pieces = [np.full(starts[0], float(notes[0].unit.start))]
    for note, begin, end in zip(notes, starts, starts[1:], strict=False):
        unit, frames = note.unit, max(end - begin, 4)
        head, tail = unit.first - unit.start, unit.stop - unit.last
        short = min(1, 0.8 * frames / (head + tail))
        known = [0, head * short, frames - tail * short, frames]
        pieces.append(np.interp(np.arange(frames), known, [unit.start, unit.first, unit.last, unit.stop]))
    return np.concatenate(pieces)[: starts[-1]], starts


def curve(notes: list[Note], starts: list[int], throat: Throat, rng: Rng) -> Values:
    """The sung pitch of each frame in keys: glides, vibrato that comes in late, drift and jitter."""
    frames = starts[-1]
    keys, since, left = np.empty(frames), np.empty(frames), np.empty(frames)
    bounds = [0, *(LEAD + round(note.start / FRAME) for note in notes[1:]), frames]
    for note, begin, end in zip(notes, bounds, bounds[1:], strict=False):
        keys[begin:end] = note.key
        since[begin:end] = np.arange(end - begin) * FRAME
        left[begin:end] = note.seconds
    keys = gaussian_filter1d(keys, throat.glide / FRAME / 3, mode="nearest")
    depth = throat.depth * np.clip((since - 0.25) / 0.4, 0, 1) * (left > 0.35)
    rate = throat.vibrato * (1 + 0.05 * wander(frames, 60, rng))
    keys += depth * np.sin(2 * np.pi * np.cumsum(rate) * FRAME + rng.uniform(0, 6))
    return keys + throat.drift * wander(frames, 60, rng) + rng.uniform(0.01, 0.04) * wander(frames, 1, rng)


def wander(frames: int, width: float, rng: Rng) -> Values:
    """Noise of unit variance that turns within about ``width`` frames."""
    noise = gaussian_filter1d(rng.standard_normal(frames + int(8 * width)), width)
    return noise[-frames:] / (noise.std() + 1e-9)


def dynamics(notes: list[Note], starts: list[int], rng: Rng) -> Values:
    """The gain of each frame: accents, notes that swell or fade, silence before the first one and after the last."""
    gain = np.zeros(starts[-1])
    for note, begin, end in zip(notes, starts, starts[1:], strict=False):
        accent, slope = rng.normal(0, 1.5), rng.uniform(-5, 2) * min(note.seconds, 1.5)
        gain[begin:end] = 10 ** ((accent + slope * np.linspace(0, 1, max(end - begin, 1))[: end - begin]) / 20)
    gain = uniform_filter1d(gain, 7, mode="nearest")
    fade = min(int(rng.uniform(8, 40)), len(gain))
    gain[-fade:] *= np.cos(np.linspace(0, np.pi / 2, fade))
    return gain


def transform(values: Values, throat: Throat, fall: bool) -> Values:
    """A log envelope or an aperiodicity at SUNG: formants moved; above TOP continued, falling if so asked."""
    wanted = np.arange(BINS) * (SUNG / 2 / (BINS - 1)) / throat.warp
    places = np.minimum(wanted, TOP) / (SPEECH / 2) * (values.shape[1] - 1)
    low = np.minimum(places.astype(int), values.shape[1] - 2)
    part = places - low
    out = np.ascontiguousarray(values[:, low] * (1 - part) + values[:, low + 1] * part)
    above = wanted > TOP
    last = round(TOP / (SPEECH / 2) * (values.shape[1] - 1))
    out[:, above] = values[:, last - 60 : last].mean(axis=1, keepdims=True)
    if fall:
        out[:, above] -= throat.tilt * np.log(wanted[above] / TOP)
    return out


def perform(phrase: Phrase, notes: list[Note], throat: Throat, rng: Rng) -> Audio:
    """Sing (or speak) a line; mono at SUNG, its first beat LEAD frames after its beginning."""
    index, starts = time_map(notes)
    held = np.clip(index + 1.2 * wander(len(index), 4, rng), 0, len(phrase.f0) - 1)  # held frames alike would buzz
    low = np.minimum(held.astype(int), len(phrase.f0) - 2)
    part = (held - low)[:, None]
    envelope = phrase.envelope[low] * (1 - part) + phrase.envelope[low + 1] * part
    nearest = np.clip(np.rint(index).astype(int), 0, len(phrase.f0) - 1)
    noisy = np.clip(transform(phrase.aperiodicity[nearest], throat, False), 1e-3, 1 - 1e-6)
    frequency = np.linspace(0, SUNG / 2, BINS)
    noisy += throat.breath * (1 - noisy) * frequency / (frequency + 1500)
    spoken = phrase.f0[nearest]
    if throat.spoken:
        f0 = spoken * 2 ** (notes[0].key / 12)
    else:
        f0 = np.where(spoken > 0, 440 * 2 ** ((curve(notes, starts, throat, rng) - 69) / 12), 0)
    gain = dynamics(notes, starts, rng)
    power = np.exp(transform(envelope, throat, True)) * gain[:, None] ** 2 + 1e-16
    return world().synthesize(f0, power, noisy, SUNG, PERIOD).astype(np.float32)


@dataclass(frozen=True)
class Part:
    """A voice of a song: how far it is off in degrees and semitones, late in seconds, its place and its gain."""

    throat: Throat
    degrees: int = 0
    semitones: float = 0
    late: float = 0
    place: float = 0
    gain: float = 1


def draw_parts(throat: Throat, scale: int, rng: Rng) -> list[Part]:
    """The voice, and in a third of songs one or two that double it or sing a harmony: off, late, aside, quieter."""
    parts = [Part(throat)]
    if rng.random() < 1 / 3:
        degrees = 0 if throat.spoken else one_of([0, 0, 2, 2, 4, -3, scale, -scale], rng)
        side = one_of([-1, 1], rng)
        for place in (side, -side)[: int(rng.integers(1, 3))]:
            cents, late = rng.uniform(5, 15) * one_of([-1, 1], rng), rng.uniform(0.01, 0.03)
            other = replace(throat, warp=throat.warp * rng.uniform(0.96, 1.04), depth=throat.depth * rng.uniform(0, 1))
            gain = 10 ** (rng.uniform(-12, -3) / 20)
            parts.append(Part(other, degrees, cents / 100, late, place * rng.uniform(0.4, 1), gain))
    return parts


def compose(phrases: list[Phrase], seconds: float, rng: Rng) -> tuple[list[tuple[float, Audio]], float]:
    """The voices of a song, each a place from -1 to 1 and mono audio at RATE, and the tempo."""
    throat = draw_throat(rng)
    melody = draw_melody(register(phrases), rng)
    moved = rng.uniform(-5, 5)  # what a rap's pitch is moved by
    parts = draw_parts(throat, len(melody.scale), rng)
    out = np.zeros((len(parts), int((seconds + 40) * SUNG)), np.float32)
    place = rng.uniform(0.2, 3)
    while place < seconds - 1:
        phrase = one_of(phrases, rng)
        written = line(phrase, melody, throat.spoken, rng)
        for track, part in zip(out, parts, strict=True):
            keys = [moved if throat.spoken else melody.key(degree + part.degrees) for degree, _ in written]
            notes = [replace(n, key=key + part.semitones) for key, (_, n) in zip(keys, written, strict=True)]
            sung = perform(phrase, notes, part.throat, rng) * np.float32(part.gain)
            begin = max(int((place + part.late - LEAD * FRAME) * SUNG), 0)
            track[begin : begin + len(sung)] += sung
        last = written[-1][1]
        rest = float(np.exp(rng.uniform(np.log(0.3), np.log(4))))
        place += last.start + last.seconds + np.ceil(rest / melody.beat * 2) / 2 * melody.beat  # lines begin on beats
    tracks = soxr.resample(out[:, : int(seconds * SUNG)].T, SUNG, RATE).T
    return [(part.place, track) for part, track in zip(parts, tracks, strict=True)], 60 / melody.beat
