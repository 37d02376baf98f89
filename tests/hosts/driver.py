"""The side of a driver that all hosts share: a job comes as an .npz file, the result goes into another.

``python -m tests.hosts.drive_HOST JOB RESULT`` runs one job in a process of its own, so that a host that crashes or
hangs is a failed test and not a dead test run. What a driver prints is shown when its test fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Audio = NDArray[np.float32]
Result = dict[str, Any]

ROOT = Path(__file__).parents[2]


def serve(**actions: Callable[..., Result]) -> None:
    """Run the action that the job names, with the job's other entries and its arrays as arguments."""
    job_path, result_path = sys.argv[1:]
    with np.load(job_path) as file:
        arrays = {name: file[name] for name in file.files}
    job = json.loads(str(arrays.pop("job")))
    result = actions[job.pop("action")](**job, **arrays)
    np.savez(result_path, **result)


def run(host: str, action: str, folder: Path, env: dict[str, str], timeout: float, /, **job: Any) -> Result:
    """Run one job in a child process; its output is in the error if it fails."""
    arrays = {name: value for name, value in job.items() if isinstance(value, np.ndarray)}
    plain = {name: value for name, value in job.items() if name not in arrays}
    job_path, result_path, log_path = folder / "job.npz", folder / "result.npz", folder / "log.txt"
    result_path.unlink(missing_ok=True)
    np.savez(job_path, job=json.dumps({**plain, "action": action}), **arrays)
    command = [sys.executable, "-m", f"tests.hosts.drive_{host}", str(job_path), str(result_path)]
    with log_path.open("wb") as log:  # a file: a pipe would stay open in a worker that the plugin starts
        try:
            code: int | str = subprocess.run(
                command, cwd=ROOT, env=env, timeout=timeout, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            ).returncode
        except subprocess.TimeoutExpired:
            code = f"still running after {timeout:.0f} s"
    if code != 0:
        raise AssertionError(f"{host}, {action}: {code}\n{tail(log_path)}")
    with np.load(result_path) as file:
        return {name: file[name] for name in file.files}


def tail(path: Path, characters: int = 4000) -> str:
    return path.read_text(errors="replace")[-characters:]


def workers(runtime: Path) -> list[int]:
    """The processes that serve plugins in this runtime folder."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            command = (process / "cmdline").read_bytes()
            environment = (process / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or is another user's
            continue
        if b"stemplug.worker" in command and os.fsencode(f"STEMPLUG_RUNTIME_DIR={runtime}") in environment:
            found.append(int(process.name))
    return found


class Others:
    """How much of a processor all else on the machine takes, beside this process and the plugin's worker."""

    def __init__(self, runtime: Path) -> None:
        self._runtime = runtime
        self._start = time.monotonic()
        self._before = self._ticks()

    def load(self) -> float:
        """Since this object was made; 1 is one whole core."""
        passed = time.monotonic() - self._start
        return max(0.0, (self._ticks() - self._before) / os.sysconf("SC_CLK_TCK") / passed)

    def _ticks(self) -> int:
        cpu = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
        busy = sum(cpu[:8]) - cpu[3] - cpu[4]  # all but idle and waiting for disks; stolen time counts
        for process in [os.getpid(), *workers(self._runtime)]:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            busy -= int(fields[11]) + int(fields[12])
        return busy
