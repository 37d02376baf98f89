"""What producers do to stems, each thing by chance; all at the working level of `audio.level`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pedalboard import (
    Chorus,
    Compressor,
    Delay,
    Distortion,
    HighpassFilter,
    HighShelfFilter,
    LowpassFilter,
    LowShelfFilter,
    PeakFilter,
    Pedalboard,
    Phaser,
    Plugin,
    Reverb,
)
from scipy.signal import lfilter, oaconvolve

from .audio import RATE, Audio, Rng, level, pan, widen


def through(audio: Audio, effects: list[Plugin]) -> Audio:
    """Run effects over audio brought to the working level."""
    return Pedalboard(effects)(level(audio), RATE)


def perhaps(rng: Rng, *choices: tuple[float, Callable[[Rng], Plugin]]) -> list[Plugin]:
    """Make each effect with its chance."""
    return [make(rng) for chance, make in choices if rng.random() < chance]


def equaliser(rng: Rng, decibels: float) -> list[Plugin]:
    """Two shelves and a peak of random gain."""
    gains = rng.normal(0, decibels / 2, 3)
    peak = PeakFilter(float(np.exp(rng.uniform(5.5, 8.5))), gains[2], rng.uniform(0.4, 2))
    return [LowShelfFilter(rng.uniform(80, 250), gains[0]), HighShelfFilter(rng.uniform(3000, 9000), gains[1]), peak]


def compressor(rng: Rng) -> Plugin:
    return Compressor(rng.uniform(-30, -16), rng.uniform(2, 6), rng.uniform(1, 40), rng.uniform(50, 300))


def room(rng: Rng) -> Plugin:
    """A short to middling reverb, mostly dry."""
    wet = rng.uniform(0.03, 0.25)
    return Reverb(rng.uniform(0.05, 0.75), rng.uniform(0.2, 0.9), wet, 1 - wet, rng.uniform(0.5, 1))


def overdrive(rng: Rng) -> Plugin:
    return Distortion(rng.uniform(0, 10))


def chorus(rng: Rng) -> Plugin:
    return Chorus(rng.uniform(0.3, 2), mix=rng.uniform(0.2, 0.5))


def phaser(rng: Rng) -> Plugin:
    return Phaser(rng.uniform(0.1, 1.5), mix=rng.uniform(0.2, 0.5))


def echo(rng: Rng) -> Plugin:
    return Delay(rng.uniform(0.1, 0.6), rng.uniform(0, 0.5), rng.uniform(0.05, 0.3))


def soften(audio: Audio, ceiling: float) -> Audio:
    """Round off peaks at the working level, or one stroke that sticks out keeps the whole stem quiet."""
    return np.tanh(level(audio) / ceiling) * ceiling


def produce_drums(audio: Audio, rng: Rng) -> Audio:
    """Equaliser, compression, saturation, room; the stereo picture narrowed or widened."""
    effects = equaliser(rng, 5) + perhaps(rng, (0.5, compressor), (0.3, overdrive), (0.4, room))
    audio = soften(through(audio, effects), rng.uniform(0.6, 1.5))
    return widen(audio, rng.uniform(0.4, 1.4))


def produce_bass(audio: Audio, rng: Rng) -> Audio:
    """Mono in the centre: compression, a driven copy through a dull cabinet, equaliser; seldom a chorus."""
    mono = audio.mean(axis=0, keepdims=True)
    if rng.random() < 0.6:
        mono = through(mono, [compressor(rng)])
    if rng.random() < 0.35:
        cutoff = rng.uniform(2000, 5000)
        driven = through(
            mono,
            [Distortion(rng.uniform(6, 22)), LowpassFilter(cutoff), LowpassFilter(cutoff)],
        )
        share = rng.uniform(0.2, 1)
        mono = level(mono) * (1 - share) + level(driven) * share
    out = np.repeat(soften(through(mono, equaliser(rng, 6)), 1), 2, axis=0)
    return through(out, [Chorus(rng.uniform(0.3, 2), mix=rng.uniform(0.1, 0.4))]) if rng.random() < 0.12 else out


def produce_other(audio: Audio, rng: Rng) -> Audio:
    """Keys, pads, strings: chorus or phaser, delay, compression, room, tremolo, place."""
    effects = equaliser(rng, 6)
    effects += perhaps(rng, (0.2, chorus)) or perhaps(rng, (0.12, phaser))
    effects += perhaps(rng, (0.15, echo), (0.3, compressor), (0.55, room))
    audio = through(audio, effects)
    if rng.random() < 0.1:
        beat = np.sin(2 * np.pi * rng.uniform(2, 8) * np.arange(audio.shape[1]) / RATE)
        audio = audio * (1 - rng.uniform(0.1, 0.4) * (1 + beat)).astype(np.float32)
    return pan(widen(audio, rng.uniform(0.5, 1.3)), rng.normal(0, 0.25))


def amplifier(audio: Audio, rng: Rng) -> Audio:
    """A guitar through amp and cabinet, half of the time doubled: another take on the other side, late and detuned."""
    mono = audio.mean(axis=0, keepdims=True)
    driven = through(mono, [HighpassFilter(rng.uniform(60, 250)), Distortion(rng.uniform(5, 35))])[0]
    left = oaconvolve(driven, cabinet(rng))[: len(driven)]
    if rng.random() >= 0.5:
        return pan(np.stack([left, left]), rng.uniform(-0.7, 0.7))
    places = np.arange(len(driven)) / RATE
    late, rate, phase = rng.uniform(0.01, 0.025), rng.uniform(0.1, 0.6), rng.uniform(0, 6)
    twin = np.interp(places - (late + 0.002 * np.sin(2 * np.pi * rate * places + phase)), places, driven)
    right = oaconvolve(twin, cabinet(rng))[: len(driven)]
    return widen(level(np.stack([left, right])), rng.uniform(0.5, 1))


def cabinet(rng: Rng) -> Audio:
    """An impulse response of a guitar cabinet, (1024,): a band of 100 Hz to 5 kHz with a few resonances."""
    frequency = np.fft.rfftfreq(2048, 1 / RATE)
    low, high = rng.uniform(70, 130), rng.uniform(3500, 6000)
    gain = 1 / (1 + (low / np.maximum(frequency, 1)) ** 4) / (1 + (frequency / high) ** rng.uniform(6, 12))
    for _ in range(6):
        center = np.exp(rng.uniform(np.log(100), np.log(5000)))
        gain *= 10 ** (rng.normal(0, 4) / 20 * np.exp(-((np.log2((frequency + 1) / center)) ** 2) / 0.2))
    ripple = 1 + 0.3 * np.fft.rfft(rng.standard_normal(2048) * np.exp(-np.arange(2048) / 120)) / 10
    return np.roll(np.fft.irfft(gain * ripple), 64)[:1024].astype(np.float32)


def roughen(audio: Audio, rng: Rng) -> Audio:
    """What a live room, a hard compressor and a worn tape or an old sampler do to a recording, each by chance."""
    if rng.random() < 0.6:
        audio = live_room(audio, rng)
    if rng.random() < 0.5:
        squash = Compressor(rng.uniform(-45, -25), rng.uniform(4, 20), rng.uniform(0.5, 10), rng.uniform(30, 200))
        audio = through(audio, [squash])
    if rng.random() < 0.5:
        drive = 10 ** (rng.uniform(0, 30) / 20)
        ends = [HighpassFilter(rng.uniform(20, 150)), LowpassFilter(float(np.exp(rng.uniform(7.3, 9.6))))]
        audio = through(np.tanh(level(audio) * drive).astype(np.float32), ends)
    return level(audio)


def live_room(audio: Audio, rng: Rng) -> Audio:
    """Microphones far away: dense decaying noise, duller as it decays, 14 dB below to 3 dB above the rest."""
    seconds = np.exp(rng.uniform(np.log(0.1), np.log(1.2)))  # to -60 dB
    frames = int(seconds * RATE)
    places = np.arange(frames) / RATE
    bright = rng.standard_normal((2, frames)) * np.exp(-6.9 * places / seconds)
    dull = lfilter([0.08], [1, -0.92], rng.standard_normal((2, frames))) * np.exp(-5 * places / seconds) * 4
    response = np.roll(bright * rng.uniform(0.1, 1) + dull, int(rng.uniform(0, 0.02) * RATE), axis=1)
    wet = np.stack([oaconvolve(channel, tail)[: audio.shape[1]] for channel, tail in zip(audio, response, strict=True)])
    return level(audio) + level(wet) * np.float32(10 ** (rng.uniform(-14, 3) / 20))


def blend(layers: list[Audio], frames: int, rng: Rng) -> Audio:
    """Sum layers at random levels, sometimes compressed together."""
    layers = [layer for layer in layers if np.abs(layer).max() > 1e-4]
    out = sum((level(layer) * 10 ** (rng.uniform(-8, 2) / 20) for layer in layers), np.zeros((2, frames), np.float32))
    return through(out, [compressor(rng)]) if layers and rng.random() < 0.4 else out.astype(np.float32)
