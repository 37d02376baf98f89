"""Memory is bounded by the window, not by the song."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

from tests.conftest import RATE

# Peak resident memory in MB, after the model was loaded and after a song was split.
CODE = """
import resource, sys
from stemplug import Separator, split
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
separator = Separator(threads=2)
separator.runner.infer_once()
loaded = peak()
split(sys.argv[1], sys.argv[2], separator=separator)
print(loaded, peak())
"""


def memory(folder: Path, minutes: float) -> tuple[float, float]:
    song = folder / f"{minutes}.flac"
    noise = np.random.default_rng(0).normal(0, 0.05, (60 * RATE // 4, 2)).astype(np.float32)
    with soundfile.SoundFile(song, "w", RATE, 2, "PCM_16") as file:
        for _ in range(round(4 * minutes)):
            file.write(noise)
    done = subprocess.run([sys.executable, "-c", CODE, song, folder / song.stem], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded, peak = map(float, done.stdout.split())
    return loaded, peak


def test_a_longer_song_takes_no_more_memory(tmp_path: Path) -> None:
    loaded, short = memory(tmp_path, 3)
    _, long = memory(tmp_path, 9)
    assert short - loaded < 1000
    assert long - short < 100
