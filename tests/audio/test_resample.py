"""Resampling is aligned, complete, and does not depend on how the input is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemplug.audio import Audio, Resampler, resampler_lag

PAIRS = [(48000, 44100), (44100, 48000), (96000, 44100), (44100, 192000), (8000, 44100), (44100, 44100), (44099, 44100)]


def resample(audio: Audio, source: int, target: int, blocks: list[int], live: bool) -> Audio:
    resampler, pieces, position, turn = Resampler(source, target, audio.shape[0], live), [], 0, 0
    while position < audio.shape[1]:
        size = blocks[turn % len(blocks)]
        pieces.append(resampler.push(audio[:, position : position + size]))
        position, turn = position + size, turn + 1
    pieces.append(resampler.push(audio[:, :0], last=True))
    return np.concatenate(pieces, axis=1)


@given(live=st.booleans(), pair=st.sampled_from(PAIRS), blocks=st.lists(st.integers(1, 9000), min_size=1, max_size=5))
def test_bits_do_not_depend_on_blocks(live: bool, pair: tuple[int, int], blocks: list[int]) -> None:
    audio = np.random.default_rng(0).normal(0, 0.1, (2, 20_000)).astype(np.float32)
    assert np.array_equal(resample(audio, *pair, blocks, live), resample(audio, *pair, [audio.shape[1]], live))


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_there_and_back_is_aligned_and_whole(source: int, target: int, live: bool) -> None:
    time = np.arange(source) / source
    tone = np.sin(2 * np.pi * 440 * time, dtype=np.float32)[np.newaxis] * np.hanning(source).astype(np.float32)
    back = resample(resample(tone, source, target, [4096], live), target, source, [4096], live)
    assert abs(back.shape[1] - source) <= 1
    assert np.abs(back[:, : source - 1] - tone[:, : source - 1]).max() < 1e-4


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_output_trails_by_no_more_than_the_lag(source: int, target: int, live: bool) -> None:
    resampler, lag, ready = Resampler(source, target, 1, live), resampler_lag(source, target, live), 0
    assert not live or lag / target < 0.002 + 2 / min(source, target) + 64 / min(source, target)
    for step in range(1, 400):
        ready += resampler.push(np.zeros((1, 101), np.float32)).shape[1]
        assert ready >= step * 101 * target / source - lag


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_the_short_filter_is_clean_up_to_its_edge(source: int, target: int) -> None:
    """A tone at 0.7 of the band passes; one that does not fit into the target rate is gone."""
    time, rate = np.arange(source // 2) / source, min(source, target)
    fade = np.hanning(len(time))
    tone = (fade * np.sin(2 * np.pi * 0.7 * rate / 2 * time)).astype(np.float32)
    there = np.sin(2 * np.pi * 0.7 * rate / 2 * np.arange(target // 2) / target)
    out = resample(tone[np.newaxis], source, target, [999], True)[0, : target // 2]
    envelope = np.interp(np.arange(len(out)) / target, time, fade)
    assert np.abs(out - envelope * there[: len(out)]).max() < 3e-4
    if target < 0.9 * source:
        above = (fade * np.sin(2 * np.pi * 0.53 * target * time)).astype(np.float32)
        assert np.abs(resample(above[np.newaxis], source, target, [999], True)).max() < 2e-2
