"""Chord loops."""

from __future__ import annotations

import re

from .audio import Rng, one_of

Chord = tuple[int, str]  # root 0..11, quality
SHAPES = {"": (0, 4, 7), "m": (0, 3, 7), "7": (0, 4, 7, 10), "m7": (0, 3, 7, 10), "M7": (0, 4, 7, 11)}
# Semitones above the key's root, and the quality; in major and in minor.
MAJOR = "0 7 9m 5|0 5 7 5|0 9m 5 7|0 9m 2m 7|0 2m7 5 77|0M7 5M7 2m7 77|0 10 5 0|0 4m 5 7|07 57 07 77"
MINOR = "0m 8 3 10|0m 10 8 7|0m 5m 0m 7|0m 3 10 5|0m7 5m7 8M7 7|0m 8 5m 7|0m 0m 8 10|0m7 57 0m7 57"


def chord_loop(rng: Rng, key: int) -> list[Chord]:
    """Draw a loop of four chords in a key, 0..11."""
    loop = one_of((MINOR if rng.random() < 0.45 else MAJOR).split("|"), rng)
    # "77" is a seventh chord on the fifth
    return [((key + int(root)) % 12, quality) for root, quality in re.findall(r"(10|\d)(\S*)", loop)]
