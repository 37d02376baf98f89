"""What holds for the stream of every model: bits do not depend on blocks, and the latency is true."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemplug import Separator, Stems
from stemplug.audio import Audio
from stemplug.engine.stream import next_hop
from stemplug.models import Geometry
from tests.conftest import RATE


def pushed(separator: Separator, audio: Audio, rate: int, blocks: list[int], told: bool = True) -> Stems:
    """Push ``audio`` in blocks of the sizes given, over and over, and join what comes; ``told`` how long it is."""
    stream = separator.stream(rate, frames=audio.shape[1] if told else None)
    pieces, position, turn = [], 0, 0
    while position < audio.shape[1]:
        size = blocks[turn % len(blocks)]
        pieces.append(stream.push(audio[:, position : position + size]))
        position, turn = position + size, turn + 1
    pieces.append(stream.flush())
    return Stems({name: np.concatenate([p[name] for p in pieces], axis=1) for name in separator.stems}, rate)


def same(first: Stems, second: Stems) -> bool:
    return all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("rate", [RATE, 48000])
@pytest.mark.parametrize("blocks", [[64], [65], [128], [8191], [8192], [44100], [1, 5000, 333], [10**7]])
def test_bits_do_not_depend_on_block_sizes(separator: Separator, song: Audio, blocks: list[int], rate: int) -> None:
    audio = song[:, :100_000]
    assert same(pushed(separator, audio, rate, blocks), separator.separate(audio, rate))


def test_single_samples_give_the_same_bits(passthrough: Separator, song: Audio) -> None:
    audio = song[:, 50_000:53_000]
    assert same(pushed(passthrough, audio, RATE, [1]), passthrough.separate(audio, RATE))


@given(
    blocks=st.lists(st.integers(0, 20_000), min_size=1, max_size=8).filter(any),
    frames=st.integers(1, 50_000),
    rate=st.sampled_from([8000, 22050, 44100, 48000, 96000]),
    told=st.booleans(),
)
def test_bits_do_not_depend_on_any_blocks(
    passthrough: Separator, song: Audio, blocks: list[int], frames: int, rate: int, told: bool
) -> None:
    audio = song[:, 10_000 : 10_000 + frames]
    whole = passthrough.separate(audio, rate) if told else pushed(passthrough, audio, rate, [frames], told)
    assert same(pushed(passthrough, audio, rate, blocks, told), whole)


@pytest.mark.parametrize("rate", [8000, 44100, 48000, 192000])
def test_output_never_trails_by_more_than_the_latency(passthrough: Separator, rate: int) -> None:
    stream = passthrough.stream(rate)
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 777)).astype(np.float32)
    latency, pushed_frames, out = stream.latency_samples, 0, 0
    while pushed_frames < 3 * latency:
        out += stream.push(noise).frames
        pushed_frames += noise.shape[1]
        assert stream.latency_samples == latency
        assert out >= pushed_frames - latency
    assert out + stream.flush().frames == pushed_frames


@pytest.mark.parametrize("rate", [44100, 48000])
def test_output_depends_on_no_input_beyond_the_latency(passthrough: Separator, rate: int) -> None:
    rng = np.random.default_rng(0)
    latency = passthrough.stream(rate).latency_samples
    first = rng.normal(0, 0.1, (2, 3 * latency)).astype(np.float32)
    known = 2 * latency
    second = first.copy()
    second[:, known:] = rng.normal(0, 0.3, second[:, known:].shape)
    one, other = passthrough.separate(first, rate), passthrough.separate(second, rate)
    for name in one:
        assert np.array_equal(one[name][:, : known - latency], other[name][:, : known - latency])


def test_the_caller_may_reuse_its_buffer(passthrough: Separator, song: Audio) -> None:
    stream, buffer, pieces = passthrough.stream(RATE), np.empty((2, 4000), np.float32), []
    for start in range(0, 80_000, 4000):
        buffer[:] = song[:, start : start + 4000]
        pieces.append(stream.push(buffer)["vocals"])
    pieces.append(stream.flush()["vocals"])
    assert np.array_equal(np.concatenate(pieces, axis=1), passthrough.separate(song[:, :80_000], RATE)["vocals"])


def test_a_stream_of_nothing_gives_nothing(separator: Separator) -> None:
    assert separator.stream(RATE).flush().frames == 0


@pytest.mark.parametrize(("seconds", "windows"), [(82, 4), (35, 2)], ids=["several", "a lane each"])
def test_windows_leave_no_seam(spleeter: Separator, song: Audio, seconds: int, windows: int) -> None:
    """Several windows against one pass over the whole song: the context is the network's whole reach."""
    sounding = song[:, 30_000:-30_000]  # a window knows nothing of the silence that the engine keeps
    audio = np.tile(sounding, 20)[:, : seconds * RATE]
    joins = np.cumsum(hops(spleeter.runner.geometry, audio.shape[1], 0, spleeter.lanes))[:-1]
    assert len(joins) == windows - 1
    chunked = spleeter.separate(audio, RATE)["vocals"]
    whole = whole_pass(spleeter, audio)
    difference = chunked - whole
    assert ratio_db(difference, whole) <= -80
    for join in joins:
        around = slice(join - 2205, join + 2205)
        assert ratio_db(difference[:, around], whole[:, around]) <= -60


@pytest.mark.parametrize("told", [1.0, 0.4, 1.7], ids=["right", "too short", "too long"])
def test_what_is_told_of_the_length_changes_no_stem(spleeter: Separator, song: Audio, told: float) -> None:
    audio = np.tile(song[:, 30_000:-30_000], 20)[:, : 62 * RATE]
    expected = spleeter.separate(audio, RATE)["vocals"]
    stream = spleeter.stream(RATE, frames=round(told * audio.shape[1]))
    found = [stream.push(audio[:, start : start + 99_999])["vocals"] for start in range(0, audio.shape[1], 99_999)]
    stem = np.concatenate([*found, stream.flush()["vocals"]], axis=1)
    assert stem.shape == audio.shape
    assert np.linalg.norm(stem - expected) <= 1e-4 * np.linalg.norm(expected)
    assert np.array_equal(stem, expected) == (told == 1)


@given(
    steps=st.integers(1, 9),
    step=st.integers(1, 40),
    whole_only=st.booleans(),
    context=st.integers(0, 100),
    frames=st.integers(0, 2000),
    started=st.integers(0, 9),
    lanes=st.integers(1, 4),
)
def test_hops_cover_the_song_evenly(
    steps: int, step: int, whole_only: bool, context: int, frames: int, started: int, lanes: int
) -> None:
    hop = steps * step
    geometry = Geometry(hop=hop, fade=0, left=context, right=0, step=0 if whole_only else step)
    found = hops(geometry, frames, started, lanes)
    unit = hop if whole_only else step
    assert frames <= sum(found) < frames + unit
    assert all(length <= hop and length % unit == 0 for length in found)
    assert len(found) - -(-frames // hop) < lanes
    if not whole_only and frames > lanes * hop > 2 * lanes * context:
        assert max(found) - min(found) <= unit
        assert (started + len(found)) % lanes == 0


def hops(geometry: Geometry, frames: int, started: int, lanes: int) -> list[int]:
    """Those of all windows of a song."""
    found: list[int] = []
    while (rest := frames - sum(found)) > 0:
        found.append(next_hop(geometry, rest, started + len(found), lanes))
    return found


def whole_pass(separator: Separator, audio: Audio) -> Audio:
    """Vocals from one run of the network over all frames, at the level of the engine."""
    from stemplug.engine.level import LevelFollower, envelope
    from stemplug.models.spleeter import extend_mask

    runner = separator.runner
    level = LevelFollower(separator.manifest.reference_level_db)
    level.push(audio)
    level.end()
    gain = envelope(level.gains(0, audio.shape[1]), 0, audio.shape[1])
    frames = audio.shape[1] // 1024 + 4
    padded = np.zeros((2, 3072 + frames * 1024 + 4096), np.float32)
    padded[:, 3072 : 3072 + audio.shape[1]] = audio * gain
    pieces = np.lib.stride_tricks.sliding_window_view(padded, 4096, axis=1)[:, ::1024][:, :frames]
    window = np.hanning(4097)[:-1].astype(np.float32)
    spectrum = np.fft.rfft(pieces * window)
    count = -(-(frames - 1) // 64) * 64
    magnitude = np.zeros((2, count, 1024), np.float32)
    magnitude[:, : frames - 1] = np.abs(spectrum[:, 1:, :1024])  # the first frame with sound is cut, as at any edge
    heard = np.zeros(magnitude.shape, np.complex64)
    heard[:, : frames - 1] = spectrum[:, 1:, :1024]
    masks = runner.network(magnitude, heard, (False, False))[0, :, : frames - 1]
    masks = extend_mask(np.concatenate([masks[:, :1], masks], axis=1), 2049)
    synthesis = np.fft.irfft(spectrum * masks) * (window / 1.5)
    out = np.zeros_like(padded)
    for index in range(frames):
        out[:, index * 1024 : index * 1024 + 4096] += synthesis[:, index]
    return out[:, 3072 : 3072 + audio.shape[1]] / gain


def ratio_db(error: Audio, reference: Audio) -> float:
    return float(20 * np.log10(np.linalg.norm(error) / np.linalg.norm(reference)))
