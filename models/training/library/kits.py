"""Drum kits: those of Hydrogen, and electronic ones of one-shots, some of which are synthesised here."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt

from .audio import RATE, Audio, Rng, one_of, pan
from .midi import Note
from .samples import Sample, layer, read, transpose

Kit = dict[str, list[list[Sample]]]  # drum family -> instruments -> layers of velocity

SONIC_PI = Path("/usr/share/sonic-pi/samples")
# Family: its GM keys, what tells it by an instrument's name, and what may stand in for it.
FAMILIES: dict[str, tuple[tuple[int, ...], str, tuple[str, ...]]] = {
    "kick": ((35, 36), r"kick|bass ?drum", ()),
    "stick": ((37,), r"stick|rim click", ("snare",)),
    "snare": ((38, 40), r"snare", ()),
    "clap": ((39,), r"clap", ("snare",)),
    "low tom": ((41, 43), r"\btom.?(low|floor)|floor|low tom", ("mid tom", "high tom")),
    "mid tom": ((45, 47), r"\btom.?(mid|2)|middle tom", ("high tom", "low tom")),
    "high tom": ((48, 50), r"\btom.?(hi|1)|high tom", ("mid tom", "low tom")),
    "closed": ((42,), r"(hat|hh)(?!.*\bop).*(clos|cl$|dirty|low)|closed (hh|hat)|side hh", ()),
    "pedal": ((44,), r"(hat|hh).*(pedal|pd)|pedal h", ("closed",)),
    "open": ((46,), r"(hat|hh|ohh).*op|open", ("closed",)),
    "crash": ((49, 57), r"^(?!.*bell)(.*crash|(?!.*(ride|china|splash)).*cymbal)", ("ride", "open")),
    "china": ((52,), r"china", ("crash",)),
    "splash": ((55,), r"splash", ("crash",)),
    "ride": ((51, 59), r"^(?!.*(bell|cup)).*ride", ("crash", "closed")),
    "bell": ((53,), r"(?<!cow)bell|cup", ("ride",)),
    "tambourine": ((54,), r"tambourine", ()),
    "cowbell": ((56,), r"cow", ()),
}
FAMILY = {key: family for family, (keys, _, _) in FAMILIES.items() for key in keys}
LEFT_OUT = r"roll|swish|choke|fx|zap"
SHOTS = {  # of an electronic kit: peak level, Sonic Pi's recordings
    "kick": (0.9, "bd_*|drum_heavy_kick*"),
    "snare": (0.8, "sn_*|drum_snare*|elec_*snare*"),
    "clap": (0.7, "perc_snap*"),
    "closed": (0.4, "drum_cymbal_closed*|elec_tick*|drum_cymbal_pedal*"),
    "open": (0.4, "drum_cymbal_open*"),
    "crash": (0.5, "drum_splash*|drum_cymbal_hard*|elec_cymbal*"),
    "cowbell": (0.4, "drum_cowbell*|elec_bell*"),
    "low tom": (0.9, "drum_tom_lo*|elec_fuzz_tom*"),
    "mid tom": (0.9, "drum_tom_mid*"),
    "high tom": (0.9, "drum_tom_hi*"),
}
NOISES = {  # of an electronic kit: the shortest and the longest, seconds, and the cutoff that is drawn for it
    "snare": (0.15, 0.35, 0),
    "clap": (0.2, 0.4, 1),
    "closed": (0.05, 0.12, 2),
    "open": (0.3, 0.8, 2),
}


@lru_cache(maxsize=6)
def load_hydrogen(folder: Path) -> Kit:
    """Read a Hydrogen kit, its instruments sorted into families by their names."""
    text = (folder / "drumkit.xml").read_text(encoding="utf-8", errors="ignore")
    kit: Kit = {}
    for instrument in ElementTree.fromstring(re.sub(r'\sxmlns="[^"]*"', "", text, count=1)).iter("instrument"):
        name = (instrument.findtext("name") or "").lower()
        families = [family for family, (_, pattern, _) in FAMILIES.items() if re.search(pattern, name)]
        family = families[0] if families and not re.search(LEFT_OUT, name) else ""
        layers = []
        for element in list(instrument.iter("layer")) or [instrument]:
            file = folder / (element.findtext("filename") or "-")
            if family and file.is_file():
                softest, loudest = (float(element.findtext(edge) or i) for i, edge in enumerate(("min", "max")))
                gain = float(element.findtext("gain") or 1) * float(instrument.findtext("volume") or 1)
                layers.append(Sample(read(file), velocities=(127 * softest, 127 * loudest), gain=gain))
        if layers:
            kit.setdefault(family, []).append(layers)
    return kit


def electro_kit(rng: Rng) -> Kit:
    """A kit of one-shots: Sonic Pi's where they are installed, else (and half of the time) made here."""
    kit: Kit = {}
    for family, (peak, patterns) in SHOTS.items():
        files = sorted(file for pattern in patterns.split("|") for file in SONIC_PI.glob(pattern))
        if family in ("kick", *NOISES) and (not files or rng.random() < 0.5):
            shot = make_kick(rng) if family == "kick" else make_noise(family, rng)
        elif files:
            shot = read(one_of(files, rng))
        else:
            continue
        gain = peak * 10 ** (rng.normal(0, 2) / 20)
        kit[family] = [[Sample(shot, gain=gain / max(1e-3, float(np.abs(shot).max())))]]
    return kit


def play(kit: Kit, notes: list[Note], frames: int, rng: Rng) -> tuple[Audio, list[Note]]:
    """Play a kit with one instrument a family; return the audio and the notes that the kit has nothing for."""
    chosen = {family: one_of(instruments, rng) for family, instruments in kit.items()}
    places = {family: 0.0 if family in ("kick", "snare") else rng.uniform(-0.6, 0.6) for family in FAMILY.values()}
    tune, spread, curve = rng.normal(1, 0.03), rng.uniform(0, 0.015), rng.uniform(0.8, 1.8)
    hats = np.array([note.start for note in notes if FAMILY.get(note.key) in ("closed", "pedal", "open")] + [1e9])
    out, rest = np.zeros((2, frames), np.float32), []
    for note in notes:
        family = FAMILY.get(note.key, "")
        family = next((name for name in (family, *FAMILIES.get(family, ((), "", ()))[2]) if name in chosen), "")
        if not family:
            rest.append(note)
            continue
        sample, first = layer(chosen[family], note.velocity, rng), int(note.start * RATE)
        count = frames - first
        if family == "open":  # the next hi-hat stroke closes it
            count = min(count, int((hats[np.searchsorted(hats, note.start + 0.02)] - note.start) * RATE))
        shot = transpose(sample.audio, tune * rng.normal(1, spread), max(count, 0))
        shot = shot * (sample.gain * (note.velocity / 127) ** curve * 10 ** (rng.normal(0, 0.5) / 20))
        fade = min(shot.shape[1], 600)
        shot[:, shot.shape[1] - fade :] *= np.linspace(1, 0, fade)
        out[:, first : first + shot.shape[1]] += pan(shot, places[family])
    return out, rest


def decay(seconds: float, length: float) -> NDArray[np.float64]:
    """An exponential of ``length`` seconds."""
    return np.exp(-np.arange(int(length * RATE)) / (seconds * RATE))


def make_kick(rng: Rng) -> Audio:
    """A kick of the 808/909 kind: a sine that falls in pitch, a click, some overdrive."""
    length = rng.uniform(0.25, 0.9)
    pitch = rng.uniform(42, 62) * (1 + rng.uniform(1, 5) * decay(rng.uniform(0.01, 0.05), length))
    body = np.sin(2 * np.pi * np.cumsum(pitch) / RATE) * decay(length / 4, length)
    click = rng.standard_normal(len(body)) * decay(0.002, length) * rng.uniform(0, 0.5)
    return np.tanh((body + click) * rng.uniform(1, 4))[None].astype(np.float32)


def make_noise(family: str, rng: Rng) -> Audio:
    """A snare, clap or hi-hat of filtered noise, with a tone in the snare, with repeats in the clap."""
    shortest, longest, cutoff = NOISES[family]
    length = rng.uniform(shortest, longest)
    noise = rng.standard_normal(int(length * RATE))
    cutoffs = rng.uniform([500, 700, 5000], [2500, 1200, 9000])
    noise = sosfilt(butter(2, cutoffs[cutoff], "high", fs=RATE, output="sos"), noise) * decay(length / 4, length)
    if family == "snare":
        tone = rng.uniform(160, 240) * (1 + 0.6 * decay(0.015, length))
        noise += np.sin(2 * np.pi * np.cumsum(tone) / RATE) * decay(0.06, length) * rng.uniform(0.5, 2)
    if family == "clap":
        noise = sosfilt(butter(1, rng.uniform(2500, 6000), fs=RATE, output="sos"), noise)
        for delay in (0.011, 0.021, 0.03):
            noise[int(delay * RATE) :] += rng.uniform(0.5, 0.9) * noise[: -int(delay * RATE)]
    return (noise / np.abs(noise).max())[None].astype(np.float32)
