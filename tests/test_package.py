"""The package as a whole: what it exports, what importing it costs, how it installs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import stemplug

ROOT = Path(__file__).parents[1]
EMBEDDED = ("spleeter-2stems", "stemplug-4s", "stemplug-live")
HEAVY = ("torch", "onnxruntime", "dawdreamer", "pedalboard", "numpy", "soundfile", "av", "pydantic", "rich")


def python(code: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={**os.environ, **environment}
    ).stdout


def test_what_is_exported_is_what_all_says() -> None:
    assert sorted(stemplug.__all__) == dir(stemplug)
    for name in stemplug.__all__:
        assert getattr(stemplug, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        stemplug.nothing  # noqa: B018


def test_everything_public_has_a_docstring() -> None:
    for name in stemplug.__all__:
        assert name == "__version__" or getattr(stemplug, name).__doc__


def test_importing_loads_nothing_heavy() -> None:
    """So it takes some 10 ms; benchmarks/startup.py measures it."""
    loaded = python("import sys, stemplug; print(*sys.modules)").split()
    assert not set(HEAVY) & set(loaded)


def test_separating_does_not_change_the_state_of_the_process() -> None:
    """ONNX Runtime can switch off denormal numbers for the calling thread: other people's code would notice."""
    code = """
import numpy as np, logging, warnings, signal
from stemplug import Separator
before = (list(warnings.filters), logging.root.handlers[:], signal.getsignal(signal.SIGTERM))
Separator().separate(np.ones((2, 5000), np.float32), 44100)
assert before == (list(warnings.filters), logging.root.handlers[:], signal.getsignal(signal.SIGTERM))
assert np.float32(1e-40) * np.float32(0.5) != 0
"""
    python(code)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built on a machine without a compiler."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--quiet", "-w", folder, ROOT]
    environment = {**os.environ, "CXX": "/nowhere/c++", "CC": "/nowhere/cc"}
    done = subprocess.run(build, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_package_and_models_without_a_compiler(wheel: Path) -> None:
    assert wheel.name == f"stemplug-{stemplug.__version__}-py3-none-any.whl" or "py3-none-" in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    assert "stemplug/py.typed" in names
    for model in EMBEDDED:
        files = {f"stemplug/embedded/{model}/{file}" for file in ("model.onnx", "manifest.toml", "CARD.md")}
        assert files <= set(names)
    assert not [n for n in names if "training" in n or n.startswith(("tests", "examples"))]


def test_the_installed_wheel_finds_its_model(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = "import stemplug; from stemplug.cli.program import run; print(stemplug.__file__); run(['models', 'verify'])"
    out = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = [{str(tmp_path)!r}, *{sys.path!r}]; {code}"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    ).stdout
    assert all(f"{model}: ok ({tmp_path}" in out for model in EMBEDDED)


def test_no_path_of_a_machine_and_no_large_file_is_committed() -> None:
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, files):
        path = ROOT / name
        if name.startswith("models/") or not path.exists():
            continue
        assert path.stat().st_size < 1_000_000, name
        assert not re.search(rb"(^|[^\w.])/(work|home)/", path.read_bytes()), name
