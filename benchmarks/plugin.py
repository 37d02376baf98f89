"""The VST3 plugin: offline overhead in pedalboard, loading, the worker's memory by instance, realtime separation.

``python benchmarks/plugin.py [SONG] [--rounds N] [--seconds S]``. Everything is measured side by side in one run; the
realtime part needs ``make native``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from stemplug import Separator, plugin
from stemplug.audio import Audio, AudioReader
from stemplug.machine import describe_machine

RATE, HOST_RATE = 44_100, 48_000
INSTANCES, SECONDS = 8, 240
# What is played in real time, and the values of the parameters Model and Latency.
PLAYED = (
    ("stemplug-live, low", 0.0, 0.0),
    ("stemplug-live, high", 0.0, 1.0),
    ("spleeter-2stems, low", 1 / 3, 0.0),
    ("spleeter-2stems, balanced", 1 / 3, 0.5),
    ("spleeter-2stems, high", 1 / 3, 1.0),
)


def read(path: Path, seconds: int) -> Audio:
    """The song at 44.1 kHz in stereo, again and again until it is long enough."""
    with AudioReader(path) as reader:
        song = np.concatenate(list(reader.blocks()), axis=1)
        rate = reader.info.sample_rate
    if rate != RATE:
        song = soxr.resample(song.T, rate, RATE).T
    frames = seconds * RATE
    song = np.broadcast_to(song, (2, song.shape[1]))
    return np.ascontiguousarray(np.tile(song, (1, -(-frames // song.shape[1])))[:, :frames], np.float32)


def noise(seconds: int) -> Audio:
    """Noise takes as long as music."""
    return np.random.default_rng(0).normal(0, 0.1, (2, seconds * RATE)).astype(np.float32)


def load(bundle: str) -> Any:
    import pedalboard

    return pedalboard.load_plugin(bundle)


def timed(action: Any) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def loading(bundle: str) -> float:
    """Milliseconds, the silent blocks that pedalboard sends included."""
    return statistics.median(timed(lambda: load(bundle)) for _ in range(10)) * 1e3


def overhead(bundle: str, song: Audio, rounds: int) -> tuple[float, float]:
    """Ratio of a render through the plugin to `Separator.separate`, and the seconds of the latter; medians."""
    separator, effect = Separator(), load(bundle)
    separator.separate(song, RATE)
    effect.process(song, RATE)  # starts the worker and loads the model
    pairs = []
    for number in range(rounds):
        jobs = [lambda: separator.separate(song, RATE), lambda: effect.process(song, RATE)]
        times = [timed(job) for job in (jobs if number % 2 == 0 else jobs[::-1])]
        pairs.append(times if number % 2 == 0 else times[::-1])
    return statistics.median(b / a for a, b in pairs), statistics.median(a for a, _ in pairs)


def worker_memory() -> tuple[float, float]:
    """MB of the worker: resident now, and its highest; those of libraries and shared pages included."""
    from stemplug.worker.client import ask

    status = Path("/proc", str((ask("status") or {})["pid"]), "status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024, int(fields["VmHWM"].split()[0]) / 1024


def memory(bundle: str, song: Audio) -> tuple[float, float]:
    """MB of the worker at its highest with one instance, and what each further one adds."""
    from stemplug.worker import client

    peaks = []
    for count in (1, INSTANCES):
        client.stop()
        effects = [load(bundle) for _ in range(count)]
        with ThreadPoolExecutor(count) as threads:
            list(threads.map(lambda effect: effect.process(song, RATE), effects))
        peaks.append(worker_memory()[1])
        del effects
    return peaks[0], (peaks[1] - peaks[0]) / (INSTANCES - 1)


def realtime(bundle: str, song: Audio, seconds: float, model: float, latency: float) -> dict[str, Any] | None:
    """What our own VST3 host sees in real time, 512 frames at 48 kHz, all buses on; and the worker's processor time."""
    host = Path(__file__).parents[1] / "build" / "host" / "testhost"
    if not host.is_file():
        return None
    with tempfile.NamedTemporaryFile(suffix=".f32") as file:
        soxr.resample(song.T, RATE, HOST_RATE).astype("<f4").tofile(file.name)
        command = [
            host, "render", bundle, "--input", file.name, "--rate", HOST_RATE, "--block", 512, "--mode", "realtime",
            "--pace", "realtime", "--warm", 20, "--warm-with", "input", "--seconds", seconds, "--set", f"10={latency}",
            "--set", f"12={model}",
        ]  # fmt: skip
        running = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
        time.sleep(seconds / 2)  # the model is loaded by then
        pair = worker_seconds(), time.monotonic()
        time.sleep(seconds / 3)
        share = (worker_seconds() - pair[0]) / (time.monotonic() - pair[1])
        found: dict[str, Any] = json.loads(running.communicate()[0])
    return found | {"worker": share}


def worker_seconds() -> float:
    """Processor time that the worker has taken, all its threads."""
    from stemplug.worker.client import ask

    fields = Path("/proc", str((ask("status") or {})["pid"]), "stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("song", nargs="?", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60, help="of each realtime run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as runtime:
        os.environ["STEMPLUG_RUNTIME_DIR"] = runtime
        bundle = str(plugin.path())
        song = read(options.song, SECONDS) if options.song else noise(SECONDS)
        print(f"on {describe_machine()}")
        print(f"load in pedalboard: {loading(bundle):.0f} ms")
        ratio, seconds = overhead(bundle, song, options.rounds)
        print(f"render of {SECONDS} s in pedalboard: {ratio:.2f} times Separator.separate ({seconds:.1f} s)")
        one, more = memory(bundle, song)
        print(f"memory of the worker, offline: {one:.0f} MB at its highest, {more:.0f} MB for each further instance")
        for name, model, value in PLAYED:
            found = realtime(bundle, song, options.seconds, model, value)
            if found is None:
                print("realtime: not measured; run `make native`", file=sys.stderr)
                break
            late = sum(entry["value"] == "overloaded" for entry in found["status"])
            blocks = found["process_us"]
            print(
                f"realtime {name}: latency {found['latency'] / HOST_RATE * 1e3:.0f} ms, {late} times late in "
                f"{options.seconds:.0f} s, worker {100 * found['worker']:.0f} % of a core, "
                f"process() {blocks['median']:.0f} us median, {blocks['longest']:.0f} us longest"
            )
        subprocess.run([sys.executable, "-m", "stemplug", "worker", "stop"], capture_output=True)


if __name__ == "__main__":
    main()
