"""The recipes of both models, small: render, train, stop, go on, export, separate (`make train-smoke`)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stemplug import Separator
from tests.conftest import RATE
from tests.models.test_cascade import BANDS, sha256
from tests.training.conftest import ROOT

SCRIPTS = ROOT / "models" / "training"
# The third song of each is for validation. Drums that hum like a bass are left out, and which do depends on what kits a
# machine has: of the first, a song of each split keeps them where there are none, of the second where there are many.
SEEDS = 164, 15


def run(script: str, *arguments: object) -> str:
    """Run one of the recipe's commands as a user would; return what it prints."""
    command = [sys.executable, SCRIPTS / script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(f"$ {script} {' '.join(map(str, arguments))}", done.stdout, sep="\n")
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_recipe(checkpoints: Path, tmp_path: Path) -> None:
    for package in ("torch", "onnx", "mido", "matplotlib"):
        pytest.importorskip(package, reason=f"needs {package}: the extra [train]")
    library, training, bands, model = (tmp_path / name for name in ("library", "run", "bands", "model"))
    # Songs that need nothing but packages, then one of each source that this machine has more for.
    run("render.py", library, "--sources", "groove,mma,game", "--seed", SEEDS[0], "--hours", 0.03)
    for seed in SEEDS:
        run("render.py", tmp_path / str(seed), "--sources", "synth", "--seed", seed, "--hours", 3 * 64 / 3600)
        songs = sorted((tmp_path / str(seed) / "songs").iterdir())
        assert [json.loads((song / "song.json").read_text())["split"] for song in songs] == ["train", "train", "valid"]
        (library / "songs").mkdir(parents=True, exist_ok=True)
        for song in songs:
            song.rename(library / "songs" / f"{song.name}-{seed}")

    small = ["--steps", 4, "--batch", 1, "--frames", 64, "--every", 2, "--validation", 2, "--workers", 0]
    run("train.py", library, checkpoints, training, *small, "--minutes", 0)  # stops after a step
    assert "goes on after step 1" in run("train.py", library, checkpoints, training, *small)
    log = [json.loads(line) for line in (training / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [1, 2, 4]
    assert all(np.isfinite(row["loss"]) and {"drums", "bass", "other"} < row.keys() for row in log)
    assert (training / "curve.png").exists()

    few = ["--hours", 0.05, "--steps", 4, "--batch", 2, "--every", 2, "--validation", 1]
    run("bandsplit.py", library, bands, *few, "--minutes", 0)
    assert "goes on after step 1" in run("bandsplit.py", library, bands, *few)

    model.mkdir()
    first = sha256(ROOT / "models" / "spleeter-2stems" / "model.onnx")
    (model / "manifest.toml").write_text(BANDS.format(first=first))
    run("export.py", training / "last.pt", "--bands", bands / "last.pt", "--model", model)
    separates(model, library)

    live = tmp_path / "live"
    small = (*small, "--wait", 1)
    run("train_live.py", library, checkpoints, live, *small, "--minutes", 0)
    assert "goes on after step 1" in run("train_live.py", library, checkpoints, live, *small)
    run("train_live.py", library, checkpoints, tmp_path / "again", *small, "--start", live / "last.pt", "--seed", 1)
    model = tmp_path / "live-model"
    model.mkdir()
    manifest = (ROOT / "models" / "stemplug-live" / "manifest.toml").read_text()
    (model / "manifest.toml").write_text(manifest)
    run("export_live.py", live / "last.pt", tmp_path / "again" / "last.pt", "--model", model)
    assert sha256(model / "model.onnx") in (model / "manifest.toml").read_text()
    separates(model, library)


def separates(model: Path, library: Path) -> None:
    """A model takes a song of the library apart, all of it."""
    song = next(library.glob("songs/synth-*"))
    true = {file.stem: soundfile.read(file, 20 * RATE, dtype="float32")[0].T for file in sorted(song.glob("*.flac"))}
    mixture = 0.5 * np.sum(list(true.values()), axis=0)
    stems = Separator(model).separate(mixture, RATE)
    assert stems.keys() == {"vocals", *true} and np.abs(stems.sum() - mixture).max() < 1e-5
    for name, stem in true.items():
        error = np.square(stems[name] - 0.5 * stem).sum()
        print(f"{name}: SDR {10 * np.log10(np.square(0.5 * stem).sum() / error):.1f} dB after 4 steps")
        assert np.abs(stems[name]).max() > 1e-3
