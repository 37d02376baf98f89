"""What the tests share: real audio, the pass-through model, and every installed model in turn."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import settings

from stemplug.audio import Audio, AudioReader
from stemplug.engine import Separator, installed_models

RATE = 44100
EVAL = Path(__file__).parents[2] / "shared" / "eval"

PROFILES: dict[str, list[str]] = {"passthrough": ["offline", "live"]}
"""The profiles of every model."""
PROFILES.update({entry.name: list(entry.manifest["profiles"]) for entry in installed_models()})

settings.register_profile("stemplug", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("stemplug")

PASSTHROUGH = """
schema = 1
name = "passthrough"
version = "1"
licence = "GPL-3.0-or-later"
origin = "made by the tests"
family = "identity"
stems = ["vocals", "drums", "other"]
residual = "other"
sample_rate = {rate}
channels = {channels}

[settings.gains]
vocals = 0.5
drums = 0.25
other = 0.25

[profiles.offline]
hop = 4096
fade = 1000
left = 3000
right = 2000
step = 1024

[profiles.live.low]
hop = 300
fade = 0
left = 0
right = 0

[profiles.live.balanced]
hop = 1000
fade = 100
left = 2000
right = 50
"""


def write_passthrough(folder: Path, rate: int = RATE, channels: int = 2) -> Path:
    """Write a model whose stems are the mixture times 0.5, 0.25 and 0.25."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.toml").write_text(PASSTHROUGH.format(rate=rate, channels=channels))
    return folder


def example_song() -> Path:
    """The 6-second song with true stems inside the package stempeg, which the tests need anyway."""
    spec = importlib.util.find_spec("stempeg")
    assert spec and spec.origin
    return next(Path(spec.origin).parent.glob("data/*.stem.mp4"))


@pytest.fixture(scope="session")
def song() -> Audio:
    """Real music, stereo at 44.1 kHz, about 6 s."""
    with AudioReader(example_song()) as reader:
        return np.concatenate(list(reader.blocks()), axis=1)


@pytest.fixture(scope="session")
def passthrough_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_passthrough(tmp_path_factory.mktemp("models") / "passthrough")


@pytest.fixture(scope="session")
def passthrough(passthrough_folder: Path) -> Separator:
    """A separator that takes milliseconds."""
    return Separator(passthrough_folder, threads=2)


@pytest.fixture(scope="session")
def spleeter() -> Separator:
    return Separator("spleeter-2stems", threads=2)


@pytest.fixture(
    scope="session",
    params=[(name, profile) for name in PROFILES for profile in PROFILES[name]],
    ids=lambda param: "-".join(param),
)
def separator(request: pytest.FixtureRequest, passthrough_folder: Path) -> Separator:
    """Every model with every profile in turn."""
    name, profile = request.param
    return Separator(passthrough_folder if name == "passthrough" else name, profile, threads=2)


@pytest.fixture
def wav(tmp_path: Path, song: Audio) -> Path:
    """A second of real music as a 16-bit WAV file."""
    path = tmp_path / "song.wav"
    soundfile.write(path, song[:, RATE : 2 * RATE].T, RATE, subtype="PCM_16")
    return path


def probe(name: str) -> Path:
    """A test plugin (tests/probe), where `make native` could build it."""
    path = Path(__file__).parents[1] / "build" / "probe" / f"{name}.vst3"
    if not path.is_dir():
        pytest.skip("needs the test plugins: a C++ compiler, the VST3 SDK (juce-modules-source-data) and `make native`")
    return path


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(tmp_path: Path, passthrough_folder: Path) -> Command:
    """Run ``stemplug ARGUMENTS`` as a user would, in a process of its own, with the pass-through model at hand."""

    def run(
        *arguments: object, cwd: Path = tmp_path, env_models: Path = passthrough_folder.parent, **options: object
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "stemplug", *map(os.fspath, map(_path, arguments))],
            cwd=cwd,
            env={**os.environ, "STEMPLUG_MODELS": str(env_models), "COLUMNS": "100"},
            text=True,
            errors="surrogateescape",
            timeout=120,
            **{"capture_output": True, **options},  # type: ignore[call-overload]
        )

    return run


def _path(argument: object) -> str | bytes | os.PathLike[str]:
    return argument if isinstance(argument, (str, bytes, os.PathLike)) else str(argument)


def files_below(folder: Path) -> list[Path]:
    """All files and folders below ``folder``, hidden ones included."""
    return sorted(folder.rglob("*")) if folder.exists() else []


@pytest.fixture(scope="session")
def evaluation() -> Iterator[Path]:
    """The evaluation songs, where they are at hand."""
    if not EVAL.is_dir():
        pytest.skip("needs ../shared/eval: real songs with true stems, which users do not have")
    yield EVAL
