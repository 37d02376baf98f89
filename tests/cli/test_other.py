"""``stemplug`` itself, ``models``, ``doctor`` and ``bench``."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import stemplug
from stemplug.cli.program import run as run_command
from stemplug.engine import installed_models, model_info
from stemplug.models import find_model
from tests.conftest import Command, write_passthrough


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run_command(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"stemplug {stemplug.__version__}\n", "")


@pytest.mark.parametrize("arguments", [[], ["split"], ["models"], ["doctor"], ["bench"], ["models", "verify"]])
def test_help_fits_a_screen(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code, out, _ = run(capsys, *arguments, "--help")
    assert code == 0 and 5 < len(out.splitlines()) <= 60


def test_help_of_split_names_the_stems_of_the_default_model(capsys: pytest.CaptureFixture[str]) -> None:
    *stems, last = json.loads(run(capsys, "models", "info")[1])["stems"]
    told = " ".join(run(capsys, "split", "--help")[1].split())
    assert f"The default model makes {', '.join(stems)} and {last}" in told


def test_without_a_command_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys)
    assert code == 2 and "split" in out


def test_models_are_listed_described_and_verified(capsys: pytest.CaptureFixture[str]) -> None:
    names = [entry.name for entry in installed_models()]
    code, out, _ = run(capsys, "models", "list")
    assert code == 0 and len(out.splitlines()) == len(names) and out.count("(default)") == 1
    assert out.count("(default, live)") == 1
    listed = json.loads(run(capsys, "models", "list", "--json")[1])
    assert [entry["name"] for entry in listed] == names
    default = next(entry for entry in listed if entry["default"])
    assert json.loads(run(capsys, "models", "info")[1])["residual"] in default["stems"]
    code, out, _ = run(capsys, "models", "verify")
    assert code == 0 and out.count(": ok (") == len(names)


def test_models_are_found_by_environment_and_path(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_passthrough(tmp_path / "passthrough")
    assert run(capsys, "models", "verify", str(folder))[0] == 0
    assert run(capsys, "models", "verify", "passthrough")[0] == 4
    monkeypatch.setenv("STEMPLUG_MODELS", str(tmp_path))
    assert run(capsys, "models", "verify", "passthrough")[0] == 0


def test_doctor_tries_models_devices_and_formats(command: Command) -> None:
    done = command("doctor", "--json")
    report = json.loads(done.stdout)
    facts = report["facts"]
    assert (done.returncode, report["problems"], report["exit_code"]) == (0, [], 0), done.stderr
    assert facts["device cpu"].startswith("works (CPUExecutionProvider")
    assert facts["formats"].startswith("wav, flac, ogg, mp3")
    for name in ("spleeter-2stems", "stemplug-4s", "stemplug-live"):
        assert facts[f"model {name}"].startswith(f"{model_info(name).version}, ok")
    text = command("doctor").stdout.splitlines()
    assert len({line.index(":", 0, 40) for line in text if ":" in line}) > 1  # aligned values, not keys
    assert len({len(line) - len(line.partition(":")[2].lstrip()) for line in text}) == 1


def test_doctor_tells_a_damaged_model(command: Command, tmp_path: Path, passthrough_folder: Path) -> None:
    folder = tmp_path / "models" / "spleeter-2stems"
    folder.mkdir(parents=True)
    source = find_model("spleeter-2stems").path
    (folder / "manifest.toml").write_bytes((source / "manifest.toml").read_bytes())
    (folder / "model.onnx").write_bytes((source / "model.onnx").read_bytes()[:1000])
    done = command("doctor", env_models=folder.parent)
    assert done.returncode == 4
    assert "problem: " in done.stdout and "damaged" in done.stdout and "Traceback" not in done.stderr


def test_a_model_is_told_apart_by_its_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy under another name is neither listed nor verified in place of the original."""
    write_passthrough(tmp_path / "copy")
    monkeypatch.setenv("STEMPLUG_MODELS", str(tmp_path))
    assert "passthrough" not in run(capsys, "models", "list")[1]
    code, _, err = run(capsys, "models", "verify", "copy")
    assert code == 4 and "Rename the folder" in err
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STEMPLUG_MODELS")
    assert run(capsys, "models", "verify", "copy")[0] == 0  # as a folder that is given


@pytest.mark.parametrize("seconds", ["nan", "inf", "-3", "0"])
def test_bench_refuses_lengths_that_are_none(capsys: pytest.CaptureFixture[str], seconds: str) -> None:
    code, _, err = run(capsys, "bench", "--seconds", seconds)
    assert code == 2 and "expected 1 to" in err


@pytest.mark.parametrize("arguments", [["models", "list"], ["--version"]])
def test_a_full_stdout_is_told(command: Command, arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = command(*arguments, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 6 and "cannot print the result" in done.stderr


def test_bench_tells_speed_stages_and_memory(command: Command) -> None:
    done = command("bench", "--seconds", "5", "--rounds", "1", "--json")
    result = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert result["song_seconds"] == pytest.approx(5) and result["rounds"] == 1
    assert set(result["stages"]) >= {"decode", "stft", "inference", "istft", "encode"}
    assert result["memory_peak"] >= result["memory_loaded"] > 50
    assert result["split_over_inference"] == pytest.approx(result["split"] / result["inference"])
    assert "x realtime" in command("bench", "--seconds", "2", "--rounds", "1").stdout
