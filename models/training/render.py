"""Render a library of training songs, each a folder of stems, from MIDI, samples and synthesis.

    python models/training/render.py LIBRARY --material ../shared/training [--hours H] [--seed S] [--jobs N]
        [--sources groove,mma,game,songs,soundtracks,synth,tracker,lmms,voices] [--permissive-only]

Writes LIBRARY/songs/NAME/{drums,bass,other,vocals}.flac (what there is of them; 44.1 kHz, stereo, 16 bit, equally long,
at most 90 s) and song.json: the split, the tempo and for each stem its source, licence and sound. A stem's loudest 3 s
have an RMS of -20 dBFS unless its peak would pass -1 dBFS. Songs that exist are skipped; a source whose material is not
installed is left out. The same seed gives the same songs. Needs the extra ``[train]``.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from library.songs import Job, Settings, render
from library.sources import SOURCES


def interleave(settings: Settings, names: list[str], hours: float) -> Iterator[Job]:
    """Yield jobs so that every beginning of the list has the sources' shares."""
    lacking = {name: lack for name in names if (lack := SOURCES[name].lacks(settings))}
    for name, lack in lacking.items():
        print(f"{name}: left out, needs {lack}", flush=True)
    streams = {name: SOURCES[name].jobs(settings) for name in names if name not in lacking}
    seconds = dict.fromkeys(names, 0.0)
    while streams and sum(seconds.values()) < hours * 3600:
        name = min(streams, key=lambda name: seconds[name] / SOURCES[name].share)
        lacks = SOURCES[name].lacks(settings)
        if job := None if lacks else next(streams[name], None):
            seconds[name] += job.seconds
            yield job
        else:
            reason = (
                f"left out, needs {lacks}" if lacks else "all of it" if seconds[name] else "left out, nothing found"
            )
            print(f"{name}: {reason}", flush=True)
            del streams[name]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("library", type=Path)
    parser.add_argument("--material", type=Path, default=Path("../shared/training"))
    parser.add_argument("--hours", type=float, default=11)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="songs at a time")
    parser.add_argument("--sources", default=",".join(SOURCES))
    parser.add_argument("--permissive-only", action="store_true")
    args = parser.parse_args()
    settings = Settings(args.library, args.material, args.seed, args.permissive_only)
    jobs = list(interleave(settings, args.sources.split(","), args.hours))
    jobs = [job for job in jobs if not (args.library / "songs" / job.name).exists()]
    print(f"{len(jobs)} songs to render", flush=True)
    began, seconds = time.monotonic(), Counter[str]()
    with ProcessPoolExecutor(args.jobs) as pool:
        results = pool.map(partial(render, settings=settings), jobs)
        for i, (job, (length, fault)) in enumerate(zip(jobs, results, strict=True), 1):
            seconds[job.name.split("-")[0]] += length
            if fault:
                print(fault, flush=True)
            if i % 20 == 0 or i == len(jobs):
                hours = ", ".join(f"{name} {total / 3600:.2f} h" for name, total in sorted(seconds.items()))
                print(f"{i}/{len(jobs)} songs, {(time.monotonic() - began) / 60:.1f} min: {hours}", flush=True)


if __name__ == "__main__":
    main()
