"""What holds for every model: the contracts of the engine (DESIGN.md, 2)."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemplug import Cancelled, Separator, Stems
from stemplug.audio import Audio
from tests.conftest import RATE

RATES = [8000, 11025, 22050, 32000, 44100, 48000, 88200, 96000, 176400, 192000]


def level(audio: Audio) -> float:
    return float(np.sqrt(np.mean(np.square(audio, dtype=np.float64))))


def decibels(error: Audio, reference: Audio) -> float:
    return 20 * np.log10(max(level(error), 1e-12) / level(reference))


def resampled(song: Audio, rate: int) -> Audio:
    import soxr

    return np.ascontiguousarray(soxr.resample(song.T, RATE, rate).T, dtype=np.float32)


def assert_consistent(stems: Stems, mixture: Audio, rate: int) -> None:
    assert stems.sample_rate == rate
    assert all(stem.shape == mixture.shape and stem.dtype == np.float32 for stem in stems.values())
    assert np.abs(stems.sum() - mixture).max() <= 1e-6


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("channels", [1, 2])
def test_stems_have_the_inputs_shape_and_sum_to_it_at_every_rate(
    separator: Separator, song: Audio, rate: int, channels: int
) -> None:
    mixture = resampled(song[:channels, : RATE // 2], rate)
    assert_consistent(separator.separate(mixture, rate), mixture, rate)


@pytest.mark.parametrize("frames", [1, 2, 63, 64, 65, 4095, 4096, 4097, 30001])
def test_any_length_from_one_frame_on_comes_back(separator: Separator, song: Audio, frames: int) -> None:
    mixture = song[:, 60000 : 60000 + frames]
    assert_consistent(separator.separate(mixture, RATE), mixture, RATE)


def test_a_one_dimensional_array_is_mono(separator: Separator, song: Audio) -> None:
    stems = separator.separate(song[0, :9000], RATE)
    assert {stem.shape for stem in stems.values()} == {(1, 9000)}


def test_an_impulse_stays_on_its_sample(separator: Separator) -> None:
    mixture = np.zeros((2, 60000), np.float32)
    mixture[:, 31415] = 0.9
    for stem in separator.separate(mixture, RATE).values():
        if level(stem) > 1e-4:
            assert np.abs(stem).max(axis=0).argmax() == 31415


def test_silence_gives_silence(separator: Separator) -> None:
    stems = separator.separate(np.zeros((2, 100_000), np.float32), RATE)
    assert not any(stem.any() for stem in stems.values())


@pytest.mark.parametrize("rate", [RATE, 48000])
def test_silence_within_a_song_stays_silent(separator: Separator, song: Audio, rate: int) -> None:
    mixture = resampled(song, rate)
    mixture[:, 100_000:160_000] = 0
    for stem in separator.separate(mixture, rate).values():
        assert not stem[:, 100_000 + 64 : 160_000 - 64].any()


def test_a_silent_channel_stays_silent(separator: Separator, song: Audio) -> None:
    mixture = song.copy()
    mixture[1] = 0
    assert not any(stem[1].any() for stem in separator.separate(mixture, RATE).values())


def test_equal_channels_give_the_stems_of_mono(separator: Separator, song: Audio) -> None:
    mono = song[:1]
    alone = separator.separate(mono, RATE)
    both = separator.separate(np.repeat(mono, 2, axis=0), RATE)
    for name, stem in alone.items():
        assert np.abs(both[name].mean(axis=0) - stem[0]).max() <= 1e-6


@pytest.mark.parametrize("gain_db", [-40, -20, 12])
def test_level_does_not_matter(separator: Separator, song: Audio, gain_db: float) -> None:
    gain = np.float32(10 ** (gain_db / 20))
    reference, scaled = separator.separate(song, RATE), separator.separate(gain * song, RATE)
    for name, stem in reference.items():
        assert decibels(scaled[name] / gain - stem, stem) <= -60


def test_the_same_input_gives_the_same_bits(separator: Separator, song: Audio) -> None:
    first, second = separator.separate(song, RATE), separator.separate(song, RATE)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_raw_estimates_differ_in_the_residual_stem_alone(
    passthrough_folder: Path, spleeter: Separator, song: Audio
) -> None:
    passthrough = Separator(passthrough_folder, threads=2)
    for model, consistent in ((passthrough_folder, passthrough), ("spleeter-2stems", spleeter)):
        raw = Separator(model, threads=2, consistent=False).separate(song, RATE)
        expected = consistent.separate(song, RATE)
        assert tuple(raw) == consistent.stems
        for name in raw:
            tolerance = 1e-6 if name != consistent.manifest.residual else 2e-3
            assert np.abs(raw[name] - expected[name]).max() <= tolerance


def test_content_above_the_models_band_is_not_lost(separator: Separator, song: Audio) -> None:
    rate = 96000
    mixture = resampled(song, rate)
    time_ = np.arange(mixture.shape[1]) / rate
    mixture += (0.1 * np.sin(2 * np.pi * 30_000 * time_)).astype(np.float32)
    assert_consistent(separator.separate(mixture, rate), mixture, rate)


def test_arrays_are_not_changed(separator: Separator, song: Audio) -> None:
    mixture = song.copy()
    separator.separate(mixture, RATE)
    assert np.array_equal(mixture, song)


def test_threads_may_share_a_separator(separator: Separator, song: Audio) -> None:
    expected = separator.separate(song, RATE)
    results: list[Stems] = []
    threads = [threading.Thread(target=lambda: results.append(separator.separate(song, RATE))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(np.array_equal(stems[name], expected[name]) for stems in results for name in expected)


def test_progress_rises_to_one(separator: Separator, song: Audio) -> None:
    fractions: list[float] = []
    separator.separate(np.tile(song, 10), RATE, progress=lambda fraction, stage: fractions.append(fraction))
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_progress_comes_twice_a_second_however_slow_the_model(passthrough_folder: Path, song: Audio) -> None:
    separator = Separator(passthrough_folder, threads=1)
    run = separator.runner.__class__.__call__

    class Slow(separator.runner.__class__):  # type: ignore[misc]
        def __call__(self, *arguments: object) -> object:
            time.sleep(1.5)
            return run(self, *arguments)

    separator.runner.__class__ = Slow
    calls = 0

    def progress(fraction: float, stage: str) -> None:
        nonlocal calls
        calls += 1

    start = time.monotonic()
    separator.separate(song[:, :9000], RATE, progress=progress)
    assert calls >= 2 * (time.monotonic() - start)


def test_cancelling_stops_within_a_window(separator: Separator, song: Audio) -> None:
    cancel = threading.Event()
    seen: list[float] = []

    def progress(fraction: float, stage: str) -> None:
        seen.append(fraction)
        if fraction > 0:
            cancel.set()

    with pytest.raises(Cancelled):
        separator.separate(np.tile(song, 40), RATE, progress=progress, cancel=cancel)
    assert seen[-1] < 0.9


@given(data=st.data(), rate=st.sampled_from(RATES), channels=st.integers(1, 2), frames=st.integers(1, 40_000))
def test_any_noise_at_any_rate_sums_back(
    passthrough: Separator, data: st.DataObject, rate: int, channels: int, frames: int
) -> None:
    seed = data.draw(st.integers(0, 2**32 - 1))
    mixture = np.random.default_rng(seed).uniform(-1, 1, (channels, frames)).astype(np.float32)
    stems = passthrough.separate(mixture, rate)
    assert_consistent(stems, mixture, rate)
    if rate >= RATE == 44100 and rate == RATE:
        assert np.abs(stems["vocals"] - 0.5 * mixture).max() <= 1e-6
