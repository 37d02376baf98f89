"""``make demo``: a real song, its stems' levels, and how good they are."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).parents[1] / "examples" / "demo.py"


def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, DEMO, *map(str, arguments)], cwd=folder, capture_output=True, text=True)


def test_the_example_song_is_split_and_scored(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    scores = {stem: float(value) for stem, value in re.findall(r"(\w+)\.wav: .*SDR ([-\d.]+) dB", done.stdout)}
    assert scores.keys() == {"vocals", "drums", "bass", "other"} and scores["vocals"] > 4 and scores["drums"] > 4
    assert all(Path(tmp_path, path).exists() for path in re.findall(r"^ +(.*\.wav):", done.stdout, re.MULTILINE))


def test_a_song_of_ones_own_is_split(tmp_path: Path, wav: Path) -> None:
    done = run(tmp_path, wav)
    assert done.returncode == 0 and done.stdout.count("level") == 4 and "SDR" not in done.stdout


def test_a_missing_song_is_told(tmp_path: Path) -> None:
    done = run(tmp_path, "nothing.wav")
    assert done.returncode != 0 and "nothing.wav" in done.stderr and "Traceback" not in done.stderr
