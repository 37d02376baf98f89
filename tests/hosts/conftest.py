"""The plugin in real hosts, each in a child process, with a worker of its own a test."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import soxr

from stemplug import Separator, StemPlugError
from stemplug.audio import Audio
from tests.conftest import RATE
from tests.hosts.driver import ROOT, Result, run, workers


def missing(what: str) -> NoReturn:
    """Leave a test out, but not under `make test-hosts`, which has installed everything."""
    if os.environ.get("STEMPLUG_HOSTS"):
        pytest.fail(f"{what}, and STEMPLUG_HOSTS is set")
    pytest.skip(what)


@pytest.fixture(scope="session")
def bundle() -> Path:
    """The plugin, ready to load."""
    try:
        from stemplug import plugin
    except ImportError:
        missing("the plugin is not in this version")
    try:
        return Path(plugin.path())
    except StemPlugError as error:
        missing(str(error))


@dataclass(frozen=True)
class Hosts:
    """Runs hosts that share one worker."""

    bundle: Path
    runtime: Path
    """Holds the worker's socket and its lock."""
    folder: Path
    env: dict[str, str]

    def run(self, host: str, action: str, timeout: float = 120, **job: Any) -> Result:
        return run(host, action, self.folder, self.env, timeout, bundle=str(self.bundle), **job)

    def workers(self) -> list[int]:
        return workers(self.runtime)


@pytest.fixture
def hosts(bundle: Path, tmp_path: Path) -> Iterator[Hosts]:
    runtime = Path(tempfile.mkdtemp(prefix="sp-", dir="/tmp"))  # the path of a socket holds 107 bytes at most
    env = {
        **os.environ,
        "STEMPLUG_RUNTIME_DIR": str(runtime),
        "STEMPLUG_CAPTURE_DIR": str(tmp_path / "captures"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    yield Hosts(bundle, runtime, tmp_path, env)
    subprocess.run([sys.executable, "-m", "stemplug", "worker", "stop"], env=env, cwd=ROOT, capture_output=True)
    stop = time.monotonic() + 5
    while (left := workers(runtime)) and time.monotonic() < stop:
        time.sleep(0.05)
    for process in left:
        os.kill(process, signal.SIGKILL)
    shutil.rmtree(runtime)
    assert not left, "the worker did not stop when it was told to"


@pytest.fixture(scope="session")
def song_at(song: Audio) -> Callable[..., Audio]:
    """The song at any rate and length, played again where that is longer. It begins at once, and ends in silence.

    A host goes on with silence after the song, which `Separator.separate` does not know. Where the song is resampled
    and stops in full sound, that is a difference in its last second.
    """

    @functools.cache
    def at(rate: int, seconds: float = 12.0) -> Audio:
        frames = int(seconds * RATE)
        audio = np.tile(song, -(-frames // song.shape[1]) + 1)[:, 2 * RATE : 2 * RATE + frames].copy()
        audio[:, -RATE:] = 0
        if rate != RATE:
            audio = soxr.resample(audio.T, RATE, rate).T
        return np.ascontiguousarray(audio, dtype=np.float32)

    return at


@pytest.fixture(scope="session")
def stems_at(song_at: Callable[..., Audio]) -> Callable[..., dict[str, Audio]]:
    """What the plugin's aux outputs should carry of that song: the stems of the Separator."""

    @functools.cache
    def at(rate: int, seconds: float = 12.0, profile: str = "offline") -> dict[str, Audio]:
        stems = Separator(profile=profile, threads=2).separate(song_at(rate, seconds), rate)
        return {name.capitalize(): stem for name, stem in stems.items()}

    return at


def peak(audio: Audio) -> float:
    return float(np.abs(audio).max())


def below_db(error: Audio, audio: Audio) -> float:
    """How far an error lies below the audio it is in."""
    return float(10 * np.log10(np.sum(audio**2) / max(np.sum(error**2), 1e-30)))
