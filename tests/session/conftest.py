"""A folder with songs, a model and a session in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from stemplug.audio import Audio
from stemplug.session import Rendered, render
from tests.conftest import RATE, write_passthrough


@pytest.fixture
def folder(tmp_path: Path, song: Audio) -> Path:
    """2 s of music as song.wav (float, so that it nulls), another as other.wav, speech.wav in mono, and a model."""
    folder = tmp_path / "session"
    folder.mkdir()
    for name, audio in (
        ("song.wav", song[:, RATE : 3 * RATE]),
        ("other.wav", song[:, 3 * RATE : 5 * RATE]),
        ("speech.wav", song[:1, RATE : 3 * RATE]),
    ):
        soundfile.write(folder / name, audio.T, RATE, subtype="FLOAT")
    write_passthrough(folder / "model")
    return folder


Render = Callable[..., Rendered]


@pytest.fixture
def rendered(folder: Path, tmp_path: Path) -> Render:
    """Render a session given as text or data, with a cache of the test's own."""

    def run(session: str | dict[str, Any], **options: Any) -> Rendered:
        path = folder / "session.yaml"
        path.write_text(session if isinstance(session, str) else json.dumps(session))
        return render(path, options.pop("output", tmp_path / "out"), **{"cache": tmp_path / "cache", **options})

    return run


def one_track(track: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A session of a track, and a mix as floats."""
    mix = {"mix": {"bit_depth": "32f"}}
    return {"version": 1, "tracks": {"song": {"clips": [{"file": "song.wav"}], **track}}, "deliverables": mix, **more}


def heard(result: Rendered, index: int = 0) -> Audio:
    """What was written, ``(channels, frames)``."""
    return np.ascontiguousarray(soundfile.read(result.paths[index], dtype="float32", always_2d=True)[0].T)
