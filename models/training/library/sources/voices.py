"""Sung and spoken voices: recorded prompts and speech synthesis, sung to random melodies by `library.voices`."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr
from pedalboard import HighpassFilter

from ..audio import RATE, Audio, Rng, fit, level, one_of, pan
from ..effects import compressor, echo, equaliser, perhaps, room, through
from ..songs import Job, Settings, Song, Studio, played
from ..sounds import VOICES, Sound
from ..voices import SPEECH, Phrase, Values, analyse, compose

SECONDS = 60
PHRASES, UNITS = 6, 3  # how many phrases a song is made of, and the fewest syllables in one
SHORTEST, LONGEST = 1.5, 15  # seconds of a recording
LANGUAGES = ["en", "en-us", "en-gb-scotland", "de", "fr", "es", "it", "pt", "nl", "sv", "pl", "fi", "el", "tr", "sw"]
VARIANTS = ["f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "klatt", "klatt2", "klatt4"]
WORDS = """
    love heart night day light dark moon sun star sky rain wind fire water river ocean sea wave shore mountain
    valley road street city town home house door window room bed floor wall garden flower rose tree leaf bird
    wing stone sand dust gold silver blue red green black white grey summer winter spring autumn morning
    evening midnight tomorrow yesterday today never always forever again away alone together closer higher
    over under inside outside around through without before after baby darling honey angel friend lover
    stranger mother father brother sister child boy girl woman man king queen dream sleep wake breathe cry
    laugh smile dance sing run walk fall fly burn shine hold break leave stay follow call hear feel touch kiss
    tell know believe remember forget wonder wander whisper shout hope fear pain tear joy soul mind body hand
    eye face mouth voice song music radio melody rhythm story letter word name time hour moment memory picture
    mirror shadow thunder lightning heaven highway train engine money diamond candle wild lonely broken crazy
    golden tender slowly
"""
FILLERS = """
    I you we they my your our the a and but so when if to of in on with for all no oh yeah is are was can will
"""


def jobs(settings: Settings) -> Iterator[Job]:
    """Endless songs, of the splits that there are speakers for."""
    splits = [split for split in ("train", "valid") if any(settings.offer(voice, split) for voice in VOICES)]
    split = "" if len(splits) == 2 else "".join(splits)
    return (Job(f"voices-{i:05}", SECONDS, make, split) for i in (count() if splits else ()))


def make(studio: Studio) -> Song:
    """A minute of one speaker."""
    rng, speaker = studio.rng, studio.choose(VOICES)
    voices, bpm = compose(phrases(speaker, studio), SECONDS, rng)
    frames = SECONDS * RATE
    audio = sum((pan(np.stack([mono, mono]), place) for place, mono in voices), np.zeros((2, frames), np.float32))
    return Song({"vocals": played(fit(produce(audio, rng), frames), "voices", "own", [speaker])}, bpm)


def produce(audio: Audio, rng: Rng) -> Audio:
    """A high-pass, equaliser, compression, echo and room."""
    effects = [HighpassFilter(rng.uniform(60, 120)), *equaliser(rng, 5)]
    return level(through(audio, effects + perhaps(rng, (0.7, compressor), (0.2, echo), (0.6, room))))


def phrases(speaker: Sound, studio: Studio) -> list[Phrase]:
    """Different phrases of a speaker."""
    rng, found = studio.rng, []
    accent = f"{one_of(LANGUAGES, rng)}+{one_of(VARIANTS, rng)}"
    options = ["-v", accent, "-p", str(rng.integers(20, 80))]  # of the one program with more voices than a few
    say = {
        "recorded": partial(recording, speaker.path),
        "flite": partial(flite, speaker.name.split()[-1]),
        "espeak": partial(espeak, options),
    }[speaker.kind]
    for _ in range(3 * PHRASES):
        phrase = analyse(say(rng))
        if len(phrase.units) >= UNITS:
            found.append(phrase)
        if len(found) == PHRASES:
            break
    return found


def recording(folder: Path, rng: Rng) -> Values:
    """One of the recordings in a folder, raw G.722 of 8,000 bytes a second."""
    files = [file for file in sorted(folder.rglob("*.g722")) if file.parent.name != "silence"]
    file = one_of([file for file in files if SHORTEST <= file.stat().st_size / 8000 <= LONGEST], rng)
    with av.open(file, format="g722") as container:
        speech = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    return speech / 32768


def sentence(rng: Rng) -> str:
    """Words without a meaning."""
    count = int(rng.integers(5, 11))
    return " ".join(one_of((FILLERS if rng.random() < 0.4 else WORDS).split(), rng) for _ in range(count))


def flite(voice: str, rng: Rng) -> Values:
    """A sentence said by flite."""
    stretch = f"duration_stretch={rng.uniform(0.9, 1.3):.2f}"
    return synthesised(["flite", "-voice", voice, "--setf", stretch, "-t", sentence(rng), "-o"])


def espeak(options: list[str], rng: Rng) -> Values:
    """A sentence said by eSpeak NG."""
    return synthesised(["espeak-ng", *options, "-s", str(rng.integers(110, 170)), sentence(rng), "-w"])


def synthesised(command: list[str]) -> Values:
    """Run a command that ends with the name of the file to write; return that at SPEECH."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "speech.wav")
        subprocess.run([*command, file], check=True, capture_output=True, timeout=60)
        audio, rate = soundfile.read(file)
    return soxr.resample(audio, rate, SPEECH)
