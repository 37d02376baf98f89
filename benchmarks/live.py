"""What the profile "live" costs: its latency, and the share of one core that it takes.

python benchmarks/live.py [MODEL]
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np

from stemplug import Separator
from stemplug.machine import describe_machine

RATES, BLOCK, SECONDS, ROUNDS = (44100, 48000), 512, 20, 3


def load(separator: Separator, rate: int) -> tuple[float, float]:
    """Processor time a second of music, and the longest that one block took in milliseconds."""
    noise = np.random.default_rng(0).normal(0, 0.1, (2, SECONDS * rate)).astype(np.float32)
    stream, longest, start = separator.stream(rate), 0.0, time.process_time()
    for at in range(0, noise.shape[1], BLOCK):
        before = time.perf_counter()
        stream.push(noise[:, at : at + BLOCK])
        longest = max(longest, time.perf_counter() - before)
    return (time.process_time() - start) / SECONDS, 1000 * longest


def main() -> None:
    model = sys.argv[1] if len(sys.argv) > 1 else "default"
    print(f"{describe_machine()}; {SECONDS} s of stereo in blocks of {BLOCK}, one thread, median of {ROUNDS} rounds")
    for latency in Separator(model, "live", latency="low").manifest.profiles["live"]:
        separator = Separator(model, "live", latency=latency)
        separator.runner.infer_once()
        for rate in RATES:
            milliseconds = 1000 * separator.stream(rate).latency_samples / rate
            rounds = [load(separator, rate) for _ in range(ROUNDS)]
            share, longest = (statistics.median(values) for values in zip(*rounds, strict=True))
            print(
                f"{latency:10}{rate:6} Hz{milliseconds:7.0f} ms late{100 * share:6.0f} % of a core,"
                f" {longest:.0f} ms for the longest block"
            )


if __name__ == "__main__":
    main()
