"""A VST3 plugin with a known latency in a board."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pedalboard import Gain, Reverb, load_plugin

from stemplug import Board, Separator, StemSplit
from stemplug.audio import Audio
from tests.conftest import RATE, probe
from tests.contracts.test_board import streamed


def late(samples: int) -> object:
    plugin = load_plugin(str(probe("LatencyProbe")))
    plugin.parameters["latency_samples"].raw_value = samples / 8191
    assert plugin.reported_latency_samples == samples
    return plugin


@pytest.mark.parametrize("block", [1, 100, 512, 8192, 50_000])
def test_its_latency_is_aligned(passthrough: Separator, song: Audio, block: int) -> None:
    split = StemSplit(separator=passthrough, vocals=[late(3000), late(7)], drums=late(100))
    board = Board([late(999), split, late(1)])
    audio = song[:, 30_000 : 30_000 + min(100_000, 200 * block)]
    assert np.abs(board(audio, RATE) - audio).max() <= 1e-6
    for _ in range(2):
        assert np.abs(streamed(board, audio, [block]) - audio).max() <= 1e-6


@pytest.mark.parametrize("sizes", [[1, 8192], [64, 4000, 1], [8192, 1, 500]])
def test_blocks_may_vary(passthrough: Separator, song: Audio, sizes: list[int]) -> None:
    audio = song[:, 30_000:80_000]
    for board in (Board([late(999), Gain(0)]), Board([StemSplit(separator=passthrough, vocals=late(500)), late(3)])):
        assert np.abs(streamed(board, audio, sizes) - audio).max() <= 1e-6


def test_it_can_be_saved_by_its_path(tmp_path: Path, song: Audio) -> None:
    path = str(probe("LatencyProbe"))
    described = {"VST3": {"path": path, "parameters": {"latency_samples": 4096}}}
    board = Board.from_dict({"chain": [described, "Reverb"]})
    samples = board[0].reported_latency_samples
    assert abs(samples - 4096) < 8  # pedalboard rounds
    board.save(tmp_path / "chain.yaml")
    copy = Board.load(tmp_path / "chain.yaml")
    assert copy[0].reported_latency_samples == samples
    assert np.array_equal(copy(song, RATE), Board([Reverb()])(song, RATE))
    with pytest.raises(ValueError, match="does not tell its path"):
        Board([late(3)]).to_dict()
