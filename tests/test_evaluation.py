"""Quality on real songs with true stems. Left out where ../shared/eval is missing."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from stemplug import Separator

MODELS = Path(__file__).parents[1] / "models"
# SDR in dB of the original Spleeter on the same songs: python models/training/evaluate.py SET --original CHECKPOINTS
ORIGINAL = Path(__file__).with_name("original_spleeter.json")


@pytest.fixture(scope="module")
def evaluate() -> ModuleType:
    """The script that scores models."""
    spec = importlib.util.spec_from_file_location("evaluate", MODELS / "training" / "evaluate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_vocals_of_an_instrumental_are_told_as_loud_as_they_are(evaluate: ModuleType) -> None:
    song = np.ones((2, 100), np.float32)
    assert evaluate.leak({"drums": song}, {"vocals": song / 10})["leak"] == pytest.approx(-20, abs=0.01)
    assert not evaluate.leak({"drums": song, "vocals": song}, {"vocals": song})
    assert not evaluate.leak({"drums": song}, {"drums": song})


@pytest.mark.eval
def test_no_song_is_worse_than_with_the_original_spleeter(
    evaluation: Path, spleeter: Separator, evaluate: ModuleType
) -> None:
    original = json.loads(ORIGINAL.read_text())
    vocals = []
    for name, true in evaluate.songs(evaluation):
        mixture = np.sum(list(true.values()), axis=0)
        stems = spleeter.separate(mixture, 44100)
        assert np.abs(stems.sum() - mixture).max() <= 1e-6
        scores = evaluate.score(true, dict(stems), "accompaniment")
        for stem, value in scores.items():
            assert value >= original[name][stem] - 0.01, (name, stem)
        vocals += [scores["vocals"]] if "vocals" in scores else []
    assert np.median(vocals) >= 7.5


@pytest.mark.eval
@pytest.mark.parametrize(("model", "profile"), [("stemplug-4s", "offline"), ("stemplug-live", "live")])
def test_four_stems_score_what_their_card_tells(
    evaluation: Path, evaluate: ModuleType, model: str, profile: str
) -> None:
    card = (MODELS / model / "CARD.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|((?: [-\d.]+ \|){4})$", card, re.MULTILINE)
    told = {
        name: dict(zip(("vocals", "drums", "bass", "other"), cells.split("|"), strict=False)) for name, cells in rows
    }
    separator = Separator(model, profile)
    scores = {}
    for name, true in evaluate.songs(evaluation):
        mixture = np.sum(list(true.values()), axis=0)
        stems = separator.separate(mixture, 44100)
        assert np.abs(stems.sum() - mixture).max() <= 1e-6
        scores[name] = evaluate.score(true, dict(stems), "other")
    assert told.keys() == scores.keys()
    for name, row in scores.items():
        assert {stem for stem, cell in told[name].items() if cell.strip() != "-"} == row.keys(), name
        assert all(float(told[name][stem]) == pytest.approx(value, abs=0.02) for stem, value in row.items()), name
