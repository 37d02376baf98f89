"""StemSplit: which stems go where."""

from __future__ import annotations

import gc
import math
import weakref
from pathlib import Path

import numpy as np
import pytest
from pedalboard import Gain, Invert, Pedalboard

from stemplug import AudioError, Board, ModelError, Mute, OptionError, Separator, StageError, StemSplit
from stemplug.audio import Audio
from stemplug.engine import shared_separator
from tests.conftest import RATE, write_passthrough

SHARES = {"vocals": 0.5, "drums": 0.25, "other": 0.25}  # of the pass-through model


@pytest.mark.parametrize(
    "branch",
    [Invert(), [Invert()], (Invert(),), Pedalboard([Invert()]), Board([Invert()]), lambda audio, sample_rate: -audio],
    ids=["plugin", "list", "tuple", "Pedalboard", "Board", "function"],
)
def test_a_branch_may_be_anything_that_processes(passthrough: Separator, song: Audio, branch: object) -> None:
    mix, stems = Board([StemSplit(separator=passthrough, drums=branch)]).split(song, RATE)
    np.testing.assert_allclose(stems["drums"], -0.25 * song, atol=1e-6)
    np.testing.assert_allclose(mix, 0.5 * song, atol=1e-6)


def test_rest_takes_what_has_no_branch(passthrough: Separator, song: Audio) -> None:
    split = StemSplit(separator=passthrough, vocals=None, rest=Invert())
    mix, stems = Board([split]).split(song, RATE)
    assert list(stems) == ["vocals", "rest"] == list(split.branches)
    np.testing.assert_allclose(stems["rest"], -0.5 * song, atol=1e-6)
    np.testing.assert_allclose(mix, 0 * song, atol=1e-6)


@pytest.mark.parametrize("gain_db", [6.0, -3, 0.0, -math.inf])
def test_gains_come_after_the_branches(passthrough: Separator, song: Audio, gain_db: float) -> None:
    split = StemSplit(separator=passthrough, drums=Invert(), gain_db={"drums": gain_db, "rest": gain_db})
    mix, stems = Board([split]).split(song, RATE)
    factor = 10 ** (gain_db / 20)
    np.testing.assert_allclose(stems["drums"], -0.25 * factor * song, atol=1e-5)
    np.testing.assert_allclose(stems["rest"], 0.75 * factor * song, atol=1e-5)
    np.testing.assert_allclose(mix, stems.sum(), atol=1e-6)
    split.gain_db["drums"] = -math.inf
    assert not Board([split]).split(song, RATE)[1]["drums"].any()


def test_gains_are_checked_whenever_they_are_set(passthrough: Separator) -> None:
    split = StemSplit(separator=passthrough, rest=Gain(0), gain_db={"vocals": np.float32(1)})
    split.gain_db["rest"] = np.int64(-3)
    assert dict(split.gain_db) == {"vocals": 1.0, "rest": -3.0}
    with pytest.raises(OptionError, match="gain_db: Unknown branch 'drums'. Choices: rest, vocals"):
        split.gain_db["drums"] = 1
    for gain in ("loud", None, True, math.nan, math.inf, 1000):
        with pytest.raises(OptionError, match="gain_db: vocals .*expected decibels, at most 120"):
            split.gain_db["vocals"] = gain


def test_mute_mutes(passthrough: Separator, song: Audio) -> None:
    mix, stems = Board([StemSplit(separator=passthrough, vocals=Mute())]).split(song, RATE)
    assert not stems["vocals"].any()
    np.testing.assert_allclose(mix, 0.5 * song, atol=1e-6)


def test_the_stems_are_those_before_what_follows(passthrough: Separator, song: Audio) -> None:
    mix, stems = Board([StemSplit(separator=passthrough), Gain(-6.0206)]).split(song, RATE)
    np.testing.assert_allclose(mix, 0.5 * stems.sum(), atol=1e-5)


def test_a_stem_that_the_model_lacks_is_told_with_those_it_has(passthrough: Separator) -> None:
    with pytest.raises(OptionError, match="Unknown stem 'vocal'. Choices: drums, other, vocals. Did you mean 'vocals'"):
        StemSplit(separator=passthrough, vocal=Gain())
    with pytest.raises(OptionError, match="Unknown stem 'piano'.*rest= takes all"):
        StemSplit(separator=passthrough, gain_db={"piano": 1})
    with pytest.raises(OptionError, match="Unknown stem 'drums'. Choices: accompaniment, vocals"):
        StemSplit(model="spleeter-2stems", drums=Gain())


def test_other_options_are_refused(passthrough: Separator) -> None:
    with pytest.raises(OptionError, match="rest= has no stem left"):
        StemSplit(separator=passthrough, vocals=None, drums=None, other=None, rest=Gain())
    for gain in (math.nan, math.inf, "3", None):
        with pytest.raises(OptionError, match="gain_db: vocals .*expected decibels"):
            StemSplit(separator=passthrough, gain_db={"vocals": gain})  # type: ignore[dict-item]
    with pytest.raises(StageError, match="int '3' is no stage"):
        StemSplit(separator=passthrough, vocals=3)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="Unknown model 'spleter"):
        StemSplit(model="spleter-2stems")
    with pytest.raises(KeyError, match="Unknown branch 'bass'"):
        StemSplit(separator=passthrough)["bass"]


@pytest.mark.parametrize("splits", [0, 2])
def test_split_needs_one_split(passthrough: Separator, song: Audio, splits: int) -> None:
    board = Board([Gain(), *(StemSplit(separator=passthrough) for _ in range(splits))])
    for call in (lambda: board.split(song, RATE), board.flush_split, lambda: board.stem_names):
        with pytest.raises(OptionError, match="the stems are those of one StemSplit; the board has (none|2) in series"):
            call()


def test_a_split_inside_a_nested_board_gives_its_stems(passthrough: Separator, song: Audio) -> None:
    board = Board([Gain(0), Board([StemSplit(separator=passthrough, drums=Invert())])])
    assert board.stem_names == ("vocals", "drums", "other") == tuple(board.split(song, RATE)[1])


def test_stages_with_one_model_share_it_as_long_as_it_is_used(tmp_path: Path) -> None:
    folder = write_passthrough(tmp_path / "model")
    first, second = StemSplit(model=folder, vocals=Gain()), StemSplit(model=folder, rest=Mute())
    assert first.separator is second.separator is shared_separator(folder)
    gone = weakref.ref(first.separator)
    del first
    assert gone() is second.separator
    del second
    gc.collect()
    assert gone() is None


def test_nothing_of_a_call_is_kept(passthrough: Separator, song: Audio) -> None:
    board = Board([StemSplit(separator=passthrough)])
    board.split(song, RATE)
    with pytest.raises(AudioError):
        board.split(np.full((2, 100), np.nan, np.float32), RATE)
    board(song, RATE)
    line = board._compiled[1].lines[0]  # type: ignore[index]
    assert line._kept is None  # type: ignore[attr-defined]


def test_live_a_board_is_late_by_the_streams_latency_alone(passthrough_folder: Path, song: Audio) -> None:
    separator = Separator(passthrough_folder, "live")
    board, block = Board([StemSplit(separator=separator, vocals=Gain(0))]), 256
    taken = [board(song[:, at : at + block], RATE, reset=False) for at in range(0, 100_000, block)]
    frames = sum(each.shape[1] for each in taken)
    assert 0 <= len(taken) * block - frames - separator.stream(RATE).latency_samples < block
    assert taken[-1].shape[1] == block
    np.testing.assert_allclose(np.concatenate(taken, axis=1), song[:, :frames], atol=1e-6)
