"""Quality on real songs with true stems. Left out where ../shared/eval is missing."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from stemplug import Separator

# SDR in dB of the original Spleeter on the same songs: python models/training/evaluate.py SET --original CHECKPOINTS
ORIGINAL = Path(__file__).with_name("original_spleeter.json")


@pytest.mark.eval
def test_no_song_is_worse_than_with_the_original_spleeter(evaluation: Path, spleeter: Separator) -> None:
    script = Path(__file__).parents[1] / "models" / "training" / "evaluate.py"
    spec = importlib.util.spec_from_file_location("evaluate", script)
    assert spec and spec.loader
    evaluate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(evaluate)
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
