"""The plugin under our own VST3 host (cpp_shim/tests), with a worker of its own a test."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import soxr

from stemplug import PluginError, plugin
from stemplug.audio import Audio
from stemplug.plugin import SETTINGS
from tests.conftest import RATE
from tests.hosts.conftest import missing
from tests.hosts.driver import ROOT, workers

SANITIZE = os.environ.get("STEMPLUG_SANITIZE", "")
"""A sanitizer with which host and plugin were built: see `make sanitize`."""
SUFFIX = f"-{SANITIZE}" if SANITIZE else ""

HOST_RATE = 48_000


def native(name: str) -> Path:
    """A program that `make native` compiles."""
    path = ROOT / "build" / f"host{SUFFIX}" / name
    if not path.is_file():
        missing("needs a C++ compiler, the VST3 SDK (juce-modules-source-data) and `make native`")
    return path


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


@dataclass
class Place:
    """A runtime folder, logs and captures of their own, for plugins and their worker."""

    runtime: Path
    folder: Path
    env: dict[str, str]
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def socket(self) -> Path:
        return self.runtime / "worker.sock"

    def workers(self) -> list[int]:
        return workers(self.runtime)

    def worker(self) -> int:
        """The process that listens on the socket, or soon will."""

        def listening() -> int | None:
            with socket.socket(socket.AF_UNIX) as connection, suppress(OSError):
                connection.connect(str(self.socket))
                return int(struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])
            return None

        return int(wait_until(listening, 20, "a worker"))

    def start_worker(self, *options: str, **env: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "stemplug.worker", *options]
        process = subprocess.Popen(command, env=self.env | env, cwd=ROOT, text=True, stderr=subprocess.PIPE)
        self.processes.append(process)
        wait_until(self.socket.exists, 15, "a socket")
        return process

    def stemplug(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "stemplug", *arguments]
        return subprocess.run(command, env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=120)

    def host(self, command: str, bundle: Path, *options: object) -> subprocess.Popen[str]:
        """Start our host; `finish` waits for it."""
        words = [str(native("testhost")), command, str(bundle), *map(str, options)]
        process = subprocess.Popen(
            words, env=self.env, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.processes.append(process)
        return process

    def log(self) -> str:
        return "".join(path.read_text() for path in sorted((self.folder / "state" / "stemplug").glob("*.log")))


def finish(process: subprocess.Popen[str], seconds: float = 120) -> dict[str, Any]:
    """What our host found; it must not have crashed."""
    out, err = process.communicate(timeout=seconds)
    assert process.returncode in (0, 1), f"ended with {process.returncode}\n{err[-3000:]}"
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.fixture(scope="session")
def bundle() -> Path:
    """The plugin, ready to load; under a sanitizer the one that was built with it."""
    try:
        plain_bundle = plugin.path()
    except PluginError as error:
        missing(str(error))
    if not SANITIZE:
        return plain_bundle
    found = ROOT / "build" / f"plugin{SUFFIX}" / plain_bundle.name
    (found / SETTINGS).parent.mkdir(exist_ok=True)
    (found / SETTINGS).write_bytes((plain_bundle / SETTINGS).read_bytes())
    return found


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    runtime = Path(tempfile.mkdtemp(prefix="sp-", dir="/tmp"))  # the path of a socket holds 107 bytes at most
    env = {
        **os.environ,
        "STEMPLUG_RUNTIME_DIR": str(runtime),
        "STEMPLUG_CAPTURE_DIR": str(tmp_path / "captures"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    found = Place(runtime, tmp_path, env)
    yield found
    for process in found.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()
    for pid in found.workers():
        os.kill(pid, signal.SIGKILL)
    for path in runtime.iterdir():
        path.unlink()
    runtime.rmdir()


@pytest.fixture(scope="session")
def song_file(song: Audio, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real music as our host reads it: float32, interleaved, 48 kHz."""
    path = tmp_path_factory.mktemp("song") / "song.f32"
    soxr.resample(song.T, RATE, HOST_RATE).astype("<f4").tofile(path)
    return path
