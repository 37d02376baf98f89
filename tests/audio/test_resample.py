"""Resampling is aligned, complete, and does not depend on how the input is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemplug.audio import Audio, Resampler, resampler_lag

PAIRS = [(48000, 44100), (44100, 48000), (96000, 44100), (44100, 192000), (8000, 44100), (44100, 44100), (44099, 44100)]


def resample(audio: Audio, source: int, target: int, blocks: list[int]) -> Audio:
    resampler, pieces, position, turn = Resampler(source, target, audio.shape[0]), [], 0, 0
    while position < audio.shape[1]:
        size = blocks[turn % len(blocks)]
        pieces.append(resampler.push(audio[:, position : position + size]))
        position, turn = position + size, turn + 1
    pieces.append(resampler.push(audio[:, :0], last=True))
    return np.concatenate(pieces, axis=1)


@given(pair=st.sampled_from(PAIRS), blocks=st.lists(st.integers(1, 9000), min_size=1, max_size=5))
def test_bits_do_not_depend_on_blocks(pair: tuple[int, int], blocks: list[int]) -> None:
    audio = np.random.default_rng(0).normal(0, 0.1, (2, 20_000)).astype(np.float32)
    assert np.array_equal(resample(audio, *pair, blocks), resample(audio, *pair, [audio.shape[1]]))


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_there_and_back_is_aligned_and_whole(source: int, target: int) -> None:
    time = np.arange(source) / source
    tone = np.sin(2 * np.pi * 440 * time, dtype=np.float32)[np.newaxis] * np.hanning(source).astype(np.float32)
    back = resample(resample(tone, source, target, [4096]), target, source, [4096])
    assert abs(back.shape[1] - source) <= 1
    assert np.abs(back[:, : source - 1] - tone[:, : source - 1]).max() < 1e-4


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_output_trails_by_no_more_than_the_lag(source: int, target: int) -> None:
    resampler, lag, ready = Resampler(source, target, 1), resampler_lag(source, target), 0
    for step in range(1, 400):
        ready += resampler.push(np.zeros((1, 101), np.float32)).shape[1]
        assert ready >= step * 101 * target / source - lag
