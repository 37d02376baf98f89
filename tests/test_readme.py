"""Every example in the README runs, and does what it says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stemplug import PluginError, plugin
from stemplug.audio import Audio
from stemplug.tracks.project import Project, Track
from stemplug.tracks.reaper import write_reaper
from tests.conftest import RATE

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
PYTHON = [code for kind, code in BLOCKS if kind == "python"]
CHAINS = {code.split()[1]: code for kind, code in BLOCKS if kind == "yaml"}  # the first line is "# NAME"
COMMANDS = [line for kind, code in BLOCKS if kind == "sh" for line in code.splitlines() if line.startswith("stemplug ")]


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A worker of the test's own, for examples that use the plugin."""
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as runtime:
        monkeypatch.setenv("STEMPLUG_RUNTIME_DIR", runtime)
        yield
        subprocess.run([sys.executable, "-m", "stemplug", "worker", "stop"], capture_output=True)


def needs_plugin(example: str) -> None:
    if "stemplug.plugin" in example or "plugin " in example:
        try:
            plugin.path()
        except PluginError as error:
            pytest.skip(str(error))


@pytest.fixture
def folder(tmp_path: Path, song: Audio, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the examples name."""
    (tmp_path / "album").mkdir()
    for name in ("song.flac", "song.wav", "other.flac", "album/one.flac"):
        soundfile.write(tmp_path / name, song.T, RATE)
    tracks = (Track("Live take", (1, 2, 3), "song.wav"),)
    write_reaper(tmp_path / "band.rpp", Project("band", RATE, 2, song.shape[1], tracks))
    for name, code in CHAINS.items():
        (tmp_path / name).write_text(code)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_examples() -> None:
    assert len(PYTHON) >= 4 and len(COMMANDS) >= 6 and len(CHAINS) >= 1


@pytest.mark.parametrize("code", PYTHON)
def test_python_examples_run(folder: Path, worker: None, code: str) -> None:
    needs_plugin(code)
    namespace: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), namespace)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_run(folder: Path, worker: None, line: str) -> None:
    needs_plugin(line)
    done = subprocess.run(
        [sys.executable, "-m", "stemplug", *shlex.split(line)[1:]], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for path in done.stdout.splitlines():
        if path.endswith((".wav", ".flac", ".mp3")) and Path(path).exists():
            assert np.isfinite(soundfile.read(path)[0]).all()


def test_python_examples_are_typed(folder: Path) -> None:
    for number, code in enumerate(PYTHON):
        path = folder / f"example_{number}.py"
        path.write_text(code)
        done = subprocess.run(
            [sys.executable, "-m", "mypy", "--ignore-missing-imports", path],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout
