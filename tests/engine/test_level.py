"""The gain depends on the song alone, and brings its loudest passage to the reference."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stemplug.audio import Audio
from stemplug.engine.level import CELL, LOOK_AHEAD, MAX_GAIN_DB, LevelFollower, envelope

REFERENCE = -11.6


def gain_db(audio: Audio, start: int, stop: int, blocks: int = 4096) -> Audio:
    level = LevelFollower(REFERENCE)
    for at in range(0, audio.shape[1], blocks):
        level.push(audio[:, at : at + blocks])
    level.end()
    return 20 * np.log10(envelope(level.gains(start, stop), start, stop - start))


def tone(seconds: float, rms_db: float) -> Audio:
    wave = np.sin(np.arange(round(seconds * 44100)) * 0.1) * 2**0.5 * 10 ** (rms_db / 20)
    return np.repeat(wave[np.newaxis], 2, axis=0).astype(np.float32)


def test_a_steady_song_comes_to_the_reference() -> None:
    gain = gain_db(tone(10, -30), 0, 441_000)
    assert np.abs(gain - (REFERENCE + 30)).max() < 0.1


def test_a_quiet_bar_in_a_loud_song_is_not_raised() -> None:
    song = np.concatenate([tone(5, -12), tone(3, -50), tone(5, -12)], axis=1)
    assert np.abs(gain_db(song, 0, song.shape[1]) - (REFERENCE + 12)).max() < 0.2


def test_a_long_quiet_part_is_raised_slowly() -> None:
    song = np.concatenate([tone(20, -12), tone(40, -40)], axis=1)
    gain = gain_db(song, 0, song.shape[1])
    assert gain[10 * 44100] < 2 and gain[50 * 44100] > 27
    assert np.abs(np.diff(gain)).max() * 44100 < 30  # dB a second


def test_silence_is_raised_no_further_than_the_limit() -> None:
    assert np.allclose(gain_db(np.zeros((2, 9000), np.float32), 0, 9000), MAX_GAIN_DB, atol=0.01)


@given(
    scale_db=st.floats(-60, 20),
    seed=st.integers(0, 999),
    blocks=st.integers(1, 9000),
    start=st.integers(-300, 250).map(lambda cell: cell * CELL + 77),
)
def test_gains_scale_exactly_and_do_not_depend_on_blocks(scale_db: float, seed: int, blocks: int, start: int) -> None:
    rng = np.random.default_rng(seed)
    song = (rng.normal(0, 0.1, (2, 200_000)) * np.repeat(rng.uniform(0.01, 1, 20), 10_000)).astype(np.float32)
    scale = np.float32(10 ** (scale_db / 20))
    stop = start + 20_000
    gain = gain_db(song, start, stop, blocks)
    assert np.array_equal(gain, gain_db(song, start, stop))
    assert np.abs(gain_db(scale * song, start, stop) + scale_db - gain).max() < 1e-3


@given(stop=st.integers(1, 400_000))
def test_nothing_beyond_the_look_ahead_matters_and_the_past_may_be_forgotten(stop: int) -> None:
    rng = np.random.default_rng(1)
    song = rng.normal(0, 0.1, (1, 900_000)).astype(np.float32) * np.repeat(rng.uniform(0, 1, 90), 10_000)[np.newaxis]
    song = song.astype(np.float32)
    whole, part = LevelFollower(REFERENCE), LevelFollower(REFERENCE)
    whole.push(song)
    part.push(song[:, : stop + LOOK_AHEAD])
    start = max(0, stop - 50_000)
    part.forget(start)
    assert np.array_equal(whole.gains(start, stop), part.gains(start, stop))


def test_without_a_reference_nothing_is_changed() -> None:
    level = LevelFollower(None)
    level.push(tone(1, -30))
    assert level.look_ahead == 0 and np.array_equal(envelope(level.gains(5, 9000), 5, 8995), np.ones(8995))


@given(
    scale_db=st.floats(-40, 20),
    seed=st.integers(0, 99),
    blocks=st.integers(1, 9000),
    cell=st.integers(8, 150),
    offset=st.integers(0, 1023),
)
def test_live_gains_know_the_past_alone(scale_db: float, seed: int, blocks: int, cell: int, offset: int) -> None:
    """A window hears one gain, whatever follows it and however it was cut; it scales exactly."""
    rng, stop = np.random.default_rng(seed), cell * 1024 + offset
    song = (rng.normal(0, 0.1, (2, 200 * 1024)) * np.linspace(0.1, 1, 200 * 1024)).astype(np.float32)
    until, whole, scaled = (LevelFollower(-12.0, live=True) for _ in range(3))
    for start in range(0, stop, blocks):
        until.push(song[:, start : min(start + blocks, stop)])
    whole.push(song)
    scaled.push(song * np.float32(10 ** (scale_db / 20)))
    gains = until.gains(stop - 4096, stop)
    assert until.look_ahead == 0 and len(set(gains.tolist())) == 1
    assert np.array_equal(whole.gains(stop - 4096, stop), gains)
    np.testing.assert_allclose(scaled.gains(stop - 4096, stop) * 10 ** (scale_db / 20), gains, rtol=1e-4)
