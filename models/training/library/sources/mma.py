"""Random arrangements by MMA (Musical MIDI Accompaniment), in the styles of its standard library."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

from ..audio import one_of
from ..chords import chord_loop
from ..midi import read_midi
from ..performance import perform
from ..songs import PIECE, Job, Settings, Song, Studio

STYLES = Path("/usr/share/mma/lib/stdlib")
LICENCE = "GPL-2+"
ROOTS = ["C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B"]
SHORT = ("intro", "end", "metronome", "intro1")  # grooves of a bar or two


def jobs(settings: Settings) -> Iterator[Job]:
    """Endless arrangements."""
    grooves = {}
    for file in sorted(STYLES.glob("*.mma")) if settings.permit(LICENCE) else ():
        names = re.findall(r"^\s*defgroove[ \t]+(\S+)", file.read_text(errors="ignore"), re.I | re.M)
        if names := [name for name in names if not name.lower().endswith(SHORT)]:
            grooves[file.stem] = names
    return (Job(f"mma-{i:05}", 65, partial(make, grooves=grooves)) for i in (count() if grooves else ()))


def make(studio: Studio, grooves: dict[str, list[str]]) -> Song:
    """Two styles at most, four grooves, eight bars each."""
    rng = studio.rng
    styles = [str(style) for style in rng.choice(list(grooves), int(rng.integers(1, 3)), replace=False)]
    key, bpm = int(rng.integers(12)), rng.uniform(70, 170)
    lines = [f"Tempo {bpm:.0f}", f"RndSeed {int(rng.integers(1 << 30))}"]
    for section in range(4):
        lines.append(f"Groove {one_of(grooves[one_of(styles, rng)], rng)}")
        chords = chord_loop(rng, key)
        for bar in range(8 * section, 8 * section + 8):
            root, quality = chords[bar % 4]
            lines.append(f"{bar + 1} {ROOTS[root]}{quality}")
    with tempfile.TemporaryDirectory() as folder:
        chart, midi = Path(folder, "song.mma"), Path(folder, "song.mid")
        chart.write_text("\n".join(lines))
        done = subprocess.run(["mma", "-f", midi, chart], capture_output=True, timeout=60, text=True, cwd=folder)
        if not midi.exists():
            raise RuntimeError(f"mma: {done.stdout.strip().splitlines()[-1:]}")
        score = read_midi(midi.read_bytes(), PIECE)
    score.bpm = bpm
    return perform(score, studio, f"mma {' '.join(styles)}", LICENCE)
