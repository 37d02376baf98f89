"""Random mixtures of the stems of a library, made on the fly: every batch is new, and the same for the same seed.

The library is what render.py leaves. A mixture takes all stems from one passage of one song, or each from another
song; every stem is played at another speed, equalised, saturated, compressed, widened, put into a room and weighed,
each by chance. The mix bus compresses last, with one gain for all, so that stems always sum to the mixture.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from library.audio import RATE, Audio, widen
from library.effects import roughen
from numpy.random import Generator
from pedalboard import Compressor, LowShelfFilter, Reverb
from scipy import fft
from scipy.signal import butter, lfilter, sosfilt

STEMS = ("drums", "bass", "other", "vocals")
REFERENCE_DB = -11.6  # of the loudest passage, as `stemplug.engine.level` plays songs to networks
PASSAGE = 4096  # frames of a passage
SILENT = 1e-4
AS_THREE = np.float32(3**0.5)  # a song as it was recorded is as loud as three stems
HUM = 0.45  # of a drum stem's time: where its low band sounds longer, it is taken for a bass, and left out


@dataclass(frozen=True)
class Song:
    """A folder of a library: its stems, all equally long."""

    name: str
    stems: dict[str, Path]
    frames: int
    recorded: frozenset[str] = frozenset()
    """Which stems are recordings, or estimates of what they hold."""
    separated: bool = False
    """The stems are estimates: their sum is a recording."""


@dataclass(frozen=True)
class Library:
    """The songs of one split, and which of them have which stem."""

    songs: list[Song]
    having: dict[str, list[Song]] = field(init=False)
    recorded: dict[str, list[Song]] = field(init=False)
    separated: list[Song] = field(init=False)

    def __post_init__(self) -> None:
        having = {stem: [song for song in self.songs if stem in song.stems] for stem in STEMS}
        object.__setattr__(self, "having", having)
        recorded = {stem: [song for song in songs if stem in song.recorded] for stem, songs in having.items()}
        object.__setattr__(self, "recorded", recorded)
        object.__setattr__(self, "separated", [song for song in self.songs if song.separated])
        lacking = [stem for stem in STEMS[:3] if not having[stem]]
        if lacking:
            raise SystemExit(f"the library has no {lacking[0]}: render more")

    @staticmethod
    def read(folder: Path, split: str, separated: bool = False) -> Library:
        """Read the songs of a split, ``train`` or ``valid``; those that a model has parted if asked for."""
        songs = []
        for file in sorted(folder.glob("songs/*/song.json")):
            about = json.loads(file.read_text())
            if about["split"] != split:
                continue
            stems = {stem: next(file.parent.glob(f"{stem}.*")) for stem in about["stems"]}  # FLAC, or Ogg of a pack
            if "drums" in stems and hum(stems["drums"]) > HUM:
                del stems["drums"]
            sounds = {stem: about["stems"][stem]["sound"] for stem in stems}
            if stems and (separated or "separated" not in sounds.values()):
                frames = min(soundfile.info(path).frames for path in stems.values())
                recorded = frozenset(stem for stem in stems if sounds[stem] in ("recorded", "separated"))
                songs.append(Song(file.parent.name, stems, frames, recorded, "separated" in sounds.values()))
        return Library(songs)


def hum(path: Path) -> float:
    """For how much of the time, 0 to 1, the band below 150 Hz is within 12 dB of its loud moments."""
    audio, rate = soundfile.read(path, 20 * RATE, dtype="float32", always_2d=True)
    low = sosfilt(butter(4, 150, fs=rate, output="sos"), audio.mean(axis=1))
    cells = (low[: len(low) // 1024 * 1024].reshape(-1, 1024) ** 2).mean(axis=1)
    return float((cells > np.percentile(cells, 95) / 16).mean())


@dataclass(frozen=True)
class Chances:
    """How likely each thing is, and how far it goes."""

    coherent: float = 0.4  # all stems from one passage of one song
    absent: tuple[float, ...] = (0.15, 0.12, 0.06, 0.35)  # a stem is silent
    second: tuple[float, ...] = (0.08, 0.03, 0.45, 0.1)  # a stem is the sum of two
    level_db: tuple[float, ...] = (0.0, -1.0, -1.0, -1.0)  # against each other: mean
    spread_db: tuple[float, ...] = (5.5, 4.5, 4.5, 4.0)  # and standard deviation
    speed: float = 0.5
    octaves: tuple[tuple[float, float], ...] = ((-0.3, 0.3), (-0.7, 0.3), (-0.3, 0.3), (-0.3, 0.3))  # a stem's speeds
    deeper: float = 0.5  # a bass has more of its fundamental
    equalise: float = 0.6
    saturate: float = 0.3
    compress: float = 0.3
    reverb: float = 0.35
    rough: tuple[float, ...] = (0.35, 0.1, 0.1, 0.0)  # a stem is recorded in a live room, squashed, distorted
    width: float = 0.4
    bus: float = 0.4
    recorded: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)  # a clip is of a recording; else of any song
    # All stems are from a song that was parted, as it was recorded; only what is left out for its hum may be another's.
    untouched: float = 0.0
    quieter_db: float = 5.0  # than the reference level: scale of the half-normal distribution


class Mixer:
    """Makes mixtures of ``frames`` frames; the one of an index depends on the library, the seed and the index alone."""

    def __init__(self, library: Library, frames: int, seed: int, chances: Chances | None = None) -> None:
        self.library, self.frames, self.seed = library, frames, seed
        self.chances = chances or Chances()

    def __call__(self, index: int) -> Audio:
        """Return stems (4, 2, frames), in the order of `STEMS`; their sum is the mixture."""
        rng = np.random.default_rng((self.seed, index))
        chances = self.chances
        stems = np.zeros((len(STEMS), 2, self.frames), np.float32)
        speed = self._speed(rng)
        together = rng.random() < chances.coherent and self._passage(rng, speed)
        untouched = together and together[0].separated
        for number, stem in enumerate(STEMS):
            if together and stem in together[0].stems and (untouched or rng.random() > 0.1):
                audio = self._read(together[0], stem, together[1], speed)
                if untouched:
                    stems[number] = audio * AS_THREE
                    continue
            elif rng.random() < chances.absent[number] or not self.library.having[stem]:
                continue
            else:
                audio = self._clip(stem, self._speed(rng, stem), rng)
            if rng.random() < chances.second[number]:
                audio = _leveled(audio) + rng.uniform(0.3, 1) * _leveled(self._clip(stem, self._speed(rng, stem), rng))
            level = rng.normal(chances.level_db[number], chances.spread_db[number])
            stems[number] = _leveled(self._produced(audio, stem, rng)) * np.float32(10 ** (level / 20))
        return self._mastered(stems, rng)

    def _speed(self, rng: Generator, stem: str = "drums") -> float:
        slowest, fastest = self.chances.octaves[STEMS.index(stem)]
        return float(2 ** rng.uniform(slowest, fastest)) if rng.random() < self.chances.speed else 1.0

    def _passage(self, rng: Generator, speed: float) -> tuple[Song, int]:
        untouched = self.chances.untouched and rng.random() < self.chances.untouched and self.library.separated
        songs = untouched or self.library.songs
        song = songs[rng.integers(len(songs))]
        return song, int(rng.integers(max(1, song.frames - round(self.frames * speed))))

    def _clip(self, stem: str, speed: float, rng: Generator) -> Audio:
        """A random clip of a stem; silent ones are passed over, if others can be found."""
        songs, recorded = self.library.having[stem], self.library.recorded[stem]
        chance = self.chances.recorded[STEMS.index(stem)]
        if chance and recorded and rng.random() < chance:
            songs = recorded
        for _ in range(5):
            song = songs[rng.integers(len(songs))]
            audio = self._read(song, stem, int(rng.integers(max(1, song.frames - round(self.frames * speed)))), speed)
            if np.abs(audio).max() > 10 * SILENT:
                break
        return audio

    def _read(self, song: Song, stem: str, start: int, speed: float) -> Audio:
        count = round(self.frames * speed)
        audio, _ = soundfile.read(song.stems[stem], count, start, dtype="float32", always_2d=True)
        if speed != 1:
            audio = soxr.resample(audio, RATE * speed, RATE, "LQ")
        out = np.zeros((2, self.frames), np.float32)
        out[:, : len(audio)] = audio[: self.frames].T
        return out

    def _produced(self, audio: Audio, stem: str, rng: Generator) -> Audio:
        """What a producer might do to a stem."""
        chances = self.chances
        if rng.random() < 0.5:
            audio = audio[::-1]
        if rng.random() < chances.width:
            audio = widen(audio, rng.uniform(0, 0.5 if stem == "bass" else 1.5))
        if rng.random() < chances.saturate:
            drive = np.float32(rng.uniform(1, 6) / max(float(np.abs(audio).max()), SILENT))
            audio = np.tanh(audio * drive) / drive
        if rng.random() < chances.compress:
            compressor = Compressor(rng.uniform(-35, -15), rng.uniform(2, 6), rng.uniform(1, 30), rng.uniform(50, 300))
            audio = compressor(audio.astype(np.float32), RATE)
        if stem == "bass" and rng.random() < chances.deeper:
            audio = LowShelfFilter(rng.uniform(80, 160), rng.uniform(0, 14))(audio.astype(np.float32), RATE)
        if stem != "bass" and rng.random() < chances.reverb:
            room = Reverb(
                room_size=rng.uniform(0.1, 0.7), damping=rng.uniform(0.2, 0.9), wet_level=rng.uniform(0.05, 0.3)
            )
            audio = room(audio.astype(np.float32), RATE)
        if rng.random() < chances.rough[STEMS.index(stem)] and np.abs(audio).max() > SILENT:
            audio = roughen(audio.astype(np.float32), rng)
        if rng.random() < chances.equalise:
            audio = _equalised(audio, rng)
        return audio

    def _mastered(self, stems: Audio, rng: Generator) -> Audio:
        """Compress and set the level, by gains that are the same for all stems."""
        mixture = stems.sum(axis=0)
        if rng.random() < self.chances.bus:
            stems = stems * _bus_gain(mixture, rng)
            mixture = stems.sum(axis=0)
        power = (mixture**2).mean(axis=0)
        loudest = np.sqrt(power[: len(power) // PASSAGE * PASSAGE].reshape(-1, PASSAGE).mean(axis=1).max())
        level = REFERENCE_DB - abs(rng.normal(0, self.chances.quieter_db))
        return np.asarray(stems * np.float32(10 ** (level / 20) / max(float(loudest), SILENT)), np.float32)


def _leveled(audio: Audio) -> Audio:
    """At an RMS of -20 dBFS in its louder half; silence stays silent."""
    blocks = (audio**2).mean(axis=0)[: audio.shape[1] // PASSAGE * PASSAGE].reshape(-1, PASSAGE).mean(axis=1)
    level = float(np.sqrt(np.sort(blocks)[len(blocks) // 2 :].mean()))
    return audio * np.float32(0.1 / level) if level > SILENT else np.zeros_like(audio)


def _equalised(audio: Audio, rng: Generator) -> Audio:
    """A smooth random curve over octaves, at times with a steep end."""
    size = fft.next_fast_len(audio.shape[1], real=True)
    spectrum = fft.rfft(audio, size)
    octave = np.log2(np.maximum(np.linspace(0, RATE / 2, spectrum.shape[1]), 20) / 20)
    curve = np.interp(octave, np.linspace(0, 10.2, 8), rng.normal(0, 3, 8))
    if rng.random() < 0.15:
        curve -= 12 * np.maximum(0, octave - rng.uniform(7, 9.5))  # above 2.5 to 14 kHz
    shaped: Audio = fft.irfft(spectrum * (10 ** (curve / 20)).astype(np.float32), size)
    return shaped[:, : audio.shape[1]]


def _bus_gain(mixture: Audio, rng: Generator) -> Audio:
    """The gain of a bus compressor, (1, frames)."""
    cell = 256
    power = (mixture**2).mean(axis=0)
    cells = np.pad(power, (0, -len(power) % cell)).reshape(-1, cell).mean(axis=1)
    smoothing = np.exp(-cell / RATE / rng.uniform(0.02, 0.15))
    envelope = lfilter([1 - smoothing], [1, -smoothing], cells)
    over = 10 * np.log10(envelope / max(float(cells.mean()), 1e-12) + 1e-6)
    gain_db = -np.maximum(0, over - rng.uniform(-6, 2)) * (1 - 1 / rng.uniform(1.5, 5))
    gain = np.interp(np.arange(len(power)), np.arange(len(cells)) * cell, gain_db)
    return (10 ** (gain[np.newaxis] / 20)).astype(np.float32)


class Batches(torch.utils.data.IterableDataset[torch.Tensor]):
    """Batches (batch, 4, 2, frames) from ``first`` to before ``last``, the same whatever the number of workers."""

    def __init__(self, mixer: Mixer, size: int, first: int, last: int) -> None:
        self.mixer, self.size, self.first, self.last = mixer, size, first, last

    def __iter__(self) -> Iterator[torch.Tensor]:
        worker = torch.utils.data.get_worker_info()
        offset, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for batch in range(self.first + offset, self.last, step):
            items = [self.mixer(batch * self.size + number) for number in range(self.size)]
            yield torch.from_numpy(np.stack(items))
