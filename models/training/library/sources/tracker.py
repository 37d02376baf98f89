"""The tracker music of free games: composed by people, with drums and basses that they sampled.

An instrument is known by its name, as ``Kick 3``, or by how it sounds and is played; one that neither tells is left
out. The songs of some games are held out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..audio import RATE, Audio
from ..songs import Job, Settings, Song, Stem, Studio
from ..tracker import Module

SHARE = Path("/usr/share")
FOLDERS = [
    ("ballz", "games/ballz", "GPL-3+"),
    ("bb", "bb", "GPL-2+"),
    ("biniax2", "games/biniax2/music", "LGPL-2.1+"),
    ("black-box", "black-box/sound", "GPL-2+"),
    ("bomberclone", "games/bomberclone/music", "GPL-2"),
    ("bugsquish", "games/bugsquish/music", "GPL-2"),
    ("ceferino", "games/ceferino/music", "GPL-2+"),
    ("circuslinux", "games/circuslinux/data/music", "GPL-2"),
    ("criticalmass", "games/criticalmass", "GPL-2+"),
    ("dodgindiamond2", "games/dodgindiamond2", "GPL-2+"),
    ("flobopuyo", "games/flobopuyo/sfx", "GPL-2+"),
    ("gl-117", "games/gl-117/music", "GPL-2"),
    ("gltron", "games/gltron/music", "GPL-2"),
    ("gweled", "sounds/gweled", "GPL-2+"),
    ("heroes", "games/heroes/mod", "GPL-2+"),
    ("ironseed", "games/ironseed/sound", "GPL-3+"),
    ("madbomber", "games/madbomber/music", "GPL-2"),
    ("monsterz", "games/monsterz/sound", "public domain"),
    ("njam", "games/njam/data", "GPL-2+"),
    ("open-invaders", "open-invaders", "GPL-2+"),
    ("pachi", "pachi/music", "GPL-2+"),
    ("pathogen", "pathogen", "GPL-2+"),
    ("pekka-kana-2", "games/pekka-kana-2/data/music", "BSD-2"),
    ("penguin-command", "games/penguin-command/sound", "GPL-2+"),
    ("pingus", "games/pingus/data/music", "GPL-2+"),
    ("rafkill", "games/rafkill/music", "LGPL-2"),
    ("ri-li", "games/ri-li/Ri-li", "GPL-2"),
    ("rockdodger", "rockdodger", "GPL-2+"),
    ("solarwolf", "games/solarwolf/data/music", "LGPL-2.1"),
    ("tecnoballz", "games/tecnoballz/musics", "GPL-3+"),
    ("tuxtype", "tuxtype/sounds", "GPL-2"),
    ("vectoroids", "games/vectoroids/music", "GPL-2"),
    ("vodovod", "games/vodovod", "GPL-2+"),
    ("vor", "vor", "GPL-2+"),
]
HELD_OUT = ("bb", "criticalmass", "gltron", "pekka-kana-2", "ri-li")
ENDINGS = (".mod", ".s3m", ".xm", ".it")
SHORTEST, LONGEST = 20.0, 270.0  # seconds
DRUMS = re.compile(
    r"drum|kick|\bbd|bdr|snare|\bsn\b|\bsd|\bhats?\b|hi.?hat|\b[co]?hh|\bhih|cymb|\bcym\b|crash|\bride|tom\d*\b|toms\b|clap"
    r"|perc|conga|bongo|shaker|tamb|\brim|break|beat|[89]0[89]|clave|cowbell|tabla|kettle|maraca|timbale|stick|tick\b",
    re.IGNORECASE,
)
BASS = re.compile(r"bass|\bbas\b|baz\b|tb-?30", re.IGNORECASE)
BASS_DRUM = re.compile(r"bass? ?-?dr|drum.?bass|bassd|bass ?kick", re.IGNORECASE)
HEARD = 90.0, 22_050  # seconds of an instrument, and Hz, by which it is known


def jobs(settings: Settings) -> Iterator[Job]:
    """Every song once, in a mixed order."""
    found: dict[bytes, tuple[str, str, str]] = {}
    for game, place, licence in FOLDERS:
        for file in sorted((SHARE / place).rglob("*")):
            if file.suffix.lower() in ENDINGS and settings.permit(licence):
                name = f"tracker-{game}-" + re.sub(r"\W+|_", "-", file.stem.lower())
                found.setdefault(file.read_bytes(), (game, name, licence))
    songs = list(found.items())
    for index in np.random.default_rng(settings.seed).permutation(len(songs)):
        data, (game, name, licence) = songs[index]
        try:
            seconds = min(Module(data).seconds, LONGEST)
        except ValueError as error:
            print(f"{name}: {error}", flush=True)
            continue
        if seconds >= SHORTEST:
            make_it = partial(make, data=data, name=name, licence=licence)
            yield Job(name, seconds, make_it, "valid" if game in HELD_OUT else "train")


@dataclass(frozen=True)
class Traits:
    """How an instrument sounds and is played in its song; shares are of its energy, or of the time that it sounds."""

    low: float  # below 150 Hz
    middle: float  # 150 to 600 Hz
    high: float  # above 3 kHz
    noise: float  # flatness of the spectrum, 0 to 1
    sustain: float  # within 12 dB of what is loud
    active: float  # of the whole song, within 30 dB of it
    notes: int
    pitches: int  # that it often has

    @staticmethod
    def of(audio: Audio, notes: Counter[int]) -> Traits:
        """Look at an instrument alone, (2, frames)."""
        _, rate = HEARD
        mono = audio.mean(axis=0) if np.abs(audio.mean(axis=0)).max() > 1e-6 else audio[0]
        power = np.abs(np.fft.rfft(mono[: len(mono) // 2048 * 2048].reshape(-1, 2048) * np.hanning(2048))) ** 2
        hertz = np.fft.rfftfreq(2048, 1 / rate)
        total, loud = power.sum(axis=0), power.sum(axis=1)
        tones = power[loud > 0.05 * loud.max()][:, (hertz > 100) & (hertz < 8000)] + 1e-12
        cells = (mono[: len(mono) // 512 * 512].reshape(-1, 512) ** 2).mean(axis=1)
        level = np.percentile(cells[cells > 1e-4 * cells.max()], 95)
        share = partial(np.average, weights=total)
        often = max(2, 0.03 * notes.total())
        return Traits(
            low=float(share(hertz < 150)),
            middle=float(share((hertz >= 150) & (hertz < 600))),
            high=float(share(hertz > 3000)),
            noise=float((np.exp(np.log(tones).mean(axis=1)) / tones.mean(axis=1)).mean()),
            sustain=float((cells > level / 16).mean() / (cells > level / 1e4).mean()),
            active=float((cells > level / 1e3).mean()),
            notes=notes.total(),
            pitches=sum(count >= often for count in notes.values()),
        )


def stem_of(name: str, traits: Traits) -> str:
    """What an instrument is, or nothing where that is not clear."""
    it = traits
    bass = BASS.search(name) and not BASS_DRUM.search(name)
    drums = DRUMS.search(name) and not bass
    if bass:
        return "bass" if it.high < 0.15 and it.low + it.middle > 0.5 else ""
    if drums:
        return "drums" if it.pitches < 5 or it.noise >= 0.02 else ""
    if it.pitches <= 3 and it.noise >= 0.05 and it.low < 0.5 or it.pitches <= 2 and it.high >= 0.3:
        return "drums"  # snares, cymbals
    if it.pitches <= 2 and it.noise >= 0.03 and it.sustain < 0.7 and it.notes >= 16:
        return "drums"  # toms
    if it.pitches <= 2 and it.low >= 0.5 and it.active < 0.6 and it.sustain < 0.92 and it.notes >= 16:
        return "drums"  # kicks, again and again
    if it.pitches >= 3 and it.low >= 0.35 and it.low + it.middle >= 0.85 and it.noise < 0.03:
        return "bass"
    if it.low < 0.25 and it.noise < 0.12 and it.pitches >= 3 or it.low < 0.1 and it.noise < 0.03 and it.sustain >= 0.8:
        return "other"
    return ""


def make(studio: Studio, data: bytes, name: str, licence: str) -> Song:
    """Play the instruments of each stem."""
    module = Module(data)
    seconds, rate = HEARD
    instruments: dict[str, list[int]] = {"drums": [], "bass": [], "other": []}
    for number, notes in module.notes.items():
        audio = module.play([number], rate, seconds)
        stem = stem_of(module.names[number], Traits.of(audio, notes)) if np.abs(audio).max(initial=0) > 1e-3 else ""
        if stem:
            instruments[stem].append(number)
    width = studio.rng.uniform(0.2, 1)  # of Amiga's four channels two are wholly left, two right
    length = min(module.seconds, LONGEST)
    stems = {stem: module.play(numbers, RATE, length, width) for stem, numbers in instruments.items() if numbers}
    return Song({stem: Stem(audio, name, licence, "tracked") for stem, audio in stems.items()}, mixed=True)
