"""Stems are a mapping of equal arrays that fold and sum."""

from __future__ import annotations

import numpy as np
import pytest

from stemplug import Stems
from stemplug.errors import AudioError, OptionError


@pytest.fixture
def stems() -> Stems:
    rng = np.random.default_rng(0)
    return Stems({n: rng.normal(0, 0.1, (2, 100)).astype(np.float32) for n in ("vocals", "drums", "other")}, 48000)


def test_folding_vocals_leaves_the_instrumental(stems: Stems) -> None:
    folded = stems.fold("vocals")
    assert list(folded) == ["vocals", "instrumental"]
    assert np.array_equal(folded["instrumental"], stems["drums"] + stems["other"])
    assert np.abs(folded.sum() - stems.sum()).max() <= 1e-6


def test_folding_another_stem_leaves_no_such_stem(stems: Stems) -> None:
    assert list(stems.fold("drums")) == ["drums", "no_drums"]


def test_a_single_stem_folds_against_silence() -> None:
    folded = Stems({"vocals": np.ones((1, 4), np.float32)}, 44100).fold("vocals")
    assert not folded["instrumental"].any()


def test_unknown_stems_are_told_with_the_nearest(stems: Stems) -> None:
    for attempt in (lambda: stems.fold("vocal"), lambda: stems.only(["vocal"])):
        with pytest.raises(OptionError, match="Choices: drums, other, vocals. Did you mean 'vocals'?"):
            attempt()
    with pytest.raises(KeyError, match="Did you mean 'vocals'?"):
        stems["vocal"]


def test_stems_are_a_mapping(stems: Stems) -> None:
    assert len(stems) == 3 and "drums" in stems and stems.get("bass") is None
    assert (stems.channels, stems.frames, stems.sample_rate) == (2, 100, 48000)
    assert repr(stems) == "Stems(vocals, drums, other; 2 channels, 100 frames, 48000 Hz)"
    assert list(stems.only(["other"])) == ["other"]


@pytest.mark.parametrize("shapes", [{}, {"a": (2, 3), "b": (2, 4)}, {"a": (3,)}])
def test_stems_have_one_shape(shapes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(AudioError, match="all \\(channels, frames\\) alike"):
        Stems({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, 44100)
