"""What Board and SplitGraph cost over what they stand on, side by side in one process.

python benchmarks/chain.py [ROUNDS]
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dawdreamer
import numpy as np
from pedalboard import Compressor, Gain, Limiter, Pedalboard, Reverb

from stemplug import Board, Separator, StemSplit
from stemplug.dawdreamer import SplitGraph
from stemplug.machine import describe_machine

RATE, SECONDS, BLOCK = 44100, 120, 512
RENDERS = 1000


def seconds(job: Callable[[], object]) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def in_blocks(board: Pedalboard, song: np.ndarray) -> None:
    for start in range(0, song.shape[1], BLOCK):
        board(song[:, start : start + BLOCK], RATE, reset=False)


def compare(title: str, rounds: int, jobs: dict[str, Callable[[], object]]) -> None:
    """Print the median of each job and of its ratio to the first, round by round."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for job in jobs.values():
        job()
    for number in range(rounds):
        for name in list(jobs) if number % 2 else list(jobs)[::-1]:
            times[name].append(seconds(jobs[name]))
    first = next(iter(times.values()))
    print(f"\n{title}")
    for name, values in times.items():
        ratio = statistics.median(value / base for value, base in zip(values, first, strict=True))
        print(f"  {name:44}{1000 * statistics.median(values):9.1f} ms{ratio:8.3f}")


def graph(separator: Separator, song: np.ndarray) -> Callable[[], None]:
    engine = dawdreamer.RenderEngine(RATE, BLOCK)
    made = SplitGraph(engine)
    made.add(engine.make_playback_processor("song", song))
    made.split("split", "song", separator=separator)
    names = [f"split.{stem}" for stem in separator.stems]
    made.add(engine.make_add_processor("master", [1.0] * len(names)), names)
    return lambda: made.render(song.shape[1] / RATE)


def plugins() -> list[object]:
    return [Compressor(-18, 3), Reverb(0.2), Gain(-3), Limiter(-1)]


def memory() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def growth(render: Callable[[], object]) -> float:
    """MB by which memory grows over the renders, after the first hundred."""
    before = 0.0
    for number in range(RENDERS + 100):
        if number == 100:
            before = memory()
        render()
    return memory() - before


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    song = np.random.default_rng(0).normal(0, 0.1, (2, SECONDS * RATE)).astype(np.float32)
    separator = Separator("spleeter-2stems")  # the quicker model: what is added to it shows more
    split = Board([StemSplit(separator=separator)])
    print(f"{describe_machine()}; {SECONDS} s of stereo, median of {rounds} rounds, and of the ratio to the first line")
    compare(
        "with one stem split, branches empty",
        rounds,
        {
            "Separator.separate": lambda: separator.separate(song, RATE),
            "Board": lambda: split(song, RATE),
            "Board, streamed in blocks of a second": lambda: [
                *(split(song[:, start : start + RATE], RATE, reset=False) for start in range(0, song.shape[1], RATE)),
                split.flush(),
            ],
            "SplitGraph": graph(separator, song),
        },
    )
    plain, board = Pedalboard(plugins()), Board(plugins())  # type: ignore[arg-type]
    compare(
        "compressor, reverb, gain, limiter",
        rounds,
        {"Pedalboard": lambda: plain(song, RATE), "Board": lambda: board(song, RATE)},
    )
    compare(
        f"the same in blocks of {BLOCK}",
        rounds,
        {"Pedalboard": lambda: in_blocks(plain, song), "Board": lambda: in_blocks(board, song)},
    )
    light, light_board = Pedalboard([Gain(-3)]), Board([Gain(-3)])
    compare(
        "gain alone",
        rounds,
        {"Pedalboard": lambda: light(song, RATE), "Board": lambda: light_board(song, RATE)},
    )
    compare(
        f"gain alone in blocks of {BLOCK}",
        rounds,
        {"Pedalboard": lambda: in_blocks(light, song), "Board": lambda: in_blocks(light_board, song)},
    )
    short = song[:, : RATE // 2]
    print(f"\nmemory after {RENDERS} renders of half a second:")
    print(f"  Board        {growth(lambda: split(short, RATE)):+6.1f} MB")
    print(f"  SplitGraph   {growth(graph(separator, short)):+6.1f} MB")


if __name__ == "__main__":
    main()
