"""How long scripts wait: importing StemPlug, and splitting a 10-second clip from starting Python to the files.

python benchmarks/startup.py [RUNS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from stemplug.machine import describe_machine


def seconds(*arguments: str | Path) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "clip.wav")
        soundfile.write(clip, np.random.default_rng(0).normal(0, 0.1, (441_000, 2)), 44100)
        jobs: dict[str, list[str | Path]] = {
            "python -c pass": ["-c", "pass"],
            "import stemplug": ["-c", "import stemplug"],
            "split of a 10-second clip": ["-m", "stemplug", "split", clip, "--overwrite", "-o", folder],
        }
        print(f"{describe_machine()}; median of {runs} runs, side by side")
        times: dict[str, list[float]] = {name: [] for name in jobs}
        for _ in range(runs):
            for name, arguments in jobs.items():
                times[name].append(seconds(*arguments))
        for name, values in times.items():
            print(f"{name:28}{1000 * statistics.median(values):8.0f} ms")


if __name__ == "__main__":
    main()
