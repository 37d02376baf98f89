"""Speed and memory, measured side by side in one process: the network alone, the engine, the whole command."""

from __future__ import annotations

import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stemplug.audio import AudioReader
from stemplug.engine import Separator
from stemplug.errors import OptionError
from stemplug.machine import describe_machine
from stemplug.tracks import FolderFormat, split
from stemplug.tracks.wav import TrackTags, WavWriter

RATE = 44100
MAX_SECONDS = 36_000
_PIECE = 1 << 20


@dataclass(frozen=True)
class BenchResult:
    """Medians over the rounds; times in seconds of wall clock, stages in seconds of processor time, memory in MB."""

    machine: str
    model: str
    provider: str
    threads: int
    song_seconds: float
    rounds: int
    inference: float
    separate: float
    split: float
    stages: dict[str, float]
    memory_loaded: float
    memory_peak: float

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, and the figures derived from them."""
        return {
            **asdict(self),
            "split_times_realtime": self.song_seconds / self.split,
            "separate_over_inference": self.separate / self.inference,
            "split_over_inference": self.split / self.inference,
        }

    def text(self) -> str:
        """Return a table for people."""
        rows = [
            f"machine: {self.machine}, {self.threads} threads, {self.provider}",
            f"song:    {self.song_seconds:.0f} s, model {self.model}, median of {self.rounds} rounds",
            "",
            f"{'':26}{'seconds':>9}{'x realtime':>12}{'over inference':>16}",
        ]
        for label, value in (
            ("network alone", self.inference),
            ("Separator.separate", self.separate),
            ("split: WAV to 24-bit WAVs", self.split),
        ):
            rows.append(f"{label:26}{value:9.2f}{self.song_seconds / value:12.1f}{value / self.inference:16.2f}")
        total = sum(self.stages.values())
        rows += ["", "processor time of the last split, over all threads:"]
        rows += [f"  {stage:12}{value:8.2f} s{100 * value / total:6.1f} %" for stage, value in self.stages.items()]
        beyond = total / self.stages["inference"] - 1
        rows += [f"all but inference: {100 * beyond:.0f} % of inference, which includes the context of windows"]
        rows += [
            "",
            f"memory: {self.memory_loaded:.0f} MB with the model, {self.memory_peak:.0f} MB at the peak of split",
        ]
        return "\n".join(rows)


def measure(
    song: Path | None = None,
    *,
    seconds: float = 240.0,
    rounds: int = 3,
    model: str = "default",
    threads: int | None = None,
    device: str = "auto",
) -> BenchResult:
    """Measure ``song``, or ``seconds`` of made noise (the time does not depend on what is heard).

    Raises what `Separator` and `split` raise, and `OptionError` for a length that is none.
    """
    if not 1 <= seconds <= MAX_SECONDS or rounds < 1:
        raise OptionError(f"{seconds} s, {rounds} rounds: expected 1 to {MAX_SECONDS} s and at least one round.")
    separator = Separator(model, threads=threads, device=device)
    separator.runner.infer_once()
    loaded = _peak_memory()
    times: dict[str, list[float]] = {"inference": [], "separate": [], "split": []}
    with tempfile.TemporaryDirectory(prefix="stemplug-bench-") as folder:
        path = song or _make_song(Path(folder, "song.wav"), seconds)
        out = Path(folder, "out")
        options = FolderFormat(overwrite=True)
        split(path, out, separator=separator, options=options)
        peak = _peak_memory()
        with AudioReader(path) as reader:
            rate, audio = reader.info.sample_rate, np.concatenate(list(reader.blocks()), axis=1)
        song_seconds = audio.shape[1] / rate
        for _ in range(rounds):
            times["inference"].append(song_seconds * _inference_speed(separator))
            times["separate"].append(_seconds(lambda: separator.separate(audio, rate)))
            separator.watch.seconds.clear()
            times["split"].append(_seconds(lambda: split(path, out, separator=separator, options=options)))
        stages = dict(separator.watch.seconds)
    return BenchResult(
        machine=describe_machine(),
        model=f"{separator.manifest.name} {separator.manifest.version}",
        provider=separator.provider,
        threads=separator.threads,
        song_seconds=song_seconds,
        rounds=rounds,
        stages=stages,
        memory_loaded=loaded,
        memory_peak=peak,
        **{name: statistics.median(values) for name, values in times.items()},
    )


def _inference_speed(separator: Separator) -> float:
    """Seconds that the network alone takes for a second of music, with all lanes busy to the end.

    The strictest measure for all else: no overlap, no transform, no copying, and no lane that waits for another.
    """
    windows = 3 * separator.lanes
    seconds = _seconds(lambda: separator.map(lambda _: separator.runner.infer_once(), range(windows)))
    return seconds * separator.manifest.sample_rate / (windows * separator.runner.geometry.window)


def _seconds(job: Callable[[], object]) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def _peak_memory() -> float:
    """Peak resident memory of this process in MB."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _make_song(path: Path, seconds: float) -> Path:
    """Write stereo noise as a 16-bit WAV file."""
    rng = np.random.default_rng(0)
    with WavWriter(path, RATE, 2, "16", TrackTags("noise", "noise", "made by stemplug bench")) as file:
        left = round(seconds * RATE)
        while left > 0:
            piece = rng.normal(0, 0.1, (2, min(left, _PIECE))).astype(np.float32)
            file.write(piece)
            left -= _PIECE
    return path
