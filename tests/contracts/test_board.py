"""What holds for every board: blocks, rates, latency, and the models inside."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pedalboard import (
    BrickwallLimiter,
    Chorus,
    Compressor,
    Convolution,
    Delay,
    Gain,
    HighpassFilter,
    LadderFilter,
    Limiter,
    NoiseGate,
    Pedalboard,
    Phaser,
    Reverb,
)
from pedalboard_native._internal import AddLatency

from stemplug import Board, Mute, Separator, StemSplit
from stemplug.audio import Audio
from tests.conftest import RATE

BLOCKS = [1, 64, 65, 441, 512, 1000, 4096, 8191, 8192, 50_000]


def look_ahead() -> Callable[[Audio, float], Audio]:
    """A function with state and latency, anew for each board."""
    kept: list[Audio] = []

    def function(audio: Audio, sample_rate: float) -> Audio:
        joined = np.concatenate([kept.pop() if kept else np.zeros((len(audio), 500), np.float32), audio], axis=1)
        kept.append(joined[:, -500:])
        return joined[:, :-500]

    function.latency_samples = 500  # type: ignore[attr-defined]
    return function


def boards(separator: Separator) -> dict[str, Callable[[], Board]]:
    """Boards of every kind; each call makes them anew."""
    split = lambda **branches: StemSplit(separator=separator, **branches)  # noqa: E731
    return {
        "one split": lambda: Board([split()]),
        "latency in the branches": lambda: Board(
            [split(vocals=AddLatency(3000), drums=[AddLatency(100), Pedalboard([AddLatency(7)])], other=look_ahead())]
        ),
        "two nested splits": lambda: Board(
            [split(vocals=Board([split(drums=AddLatency(50))])), split(rest=AddLatency(999), vocals=None)]
        ),
        "a split inside a branch of a branch": lambda: Board(
            [split(rest=[Gain(6), split(drums=[split(other=AddLatency(1))]), Gain(-6)], vocals=Board())]
        ),
    }


def busy(separator: Separator) -> Board:
    """A board that changes the sound, with most of pedalboard's plugins."""
    response = np.random.default_rng(0).normal(0, 0.01, (1, 5000)).astype(np.float32)
    return Board(
        [
            HighpassFilter(30),
            Chorus(),
            StemSplit(
                separator=separator,
                vocals=[Compressor(-18, 3), Reverb(0.2), BrickwallLimiter(-3)],
                drums=[Gain(2), Phaser(), lambda audio, sample_rate: audio * 0.9],
                other=Board([Delay(0.01), StemSplit(separator=separator, drums=Mute(), other=LadderFilter())]),
                gain_db={"vocals": 1.5},
            ),
            NoiseGate(-60),
            Convolution(response, 0.5, RATE),
            Limiter(-1),
            BrickwallLimiter(-1, true_peak=True),
        ]
    )


def streamed(board: Board, audio: Audio, sizes: Iterable[int], rate: int = RATE) -> Audio:
    """Push ``audio`` in blocks of the sizes in turn, then flush."""
    pieces, start, sizes = [], 0, list(sizes)
    for number in range(audio.shape[1]):
        if start >= audio.shape[1]:
            break
        block = audio[:, start : start + sizes[number % len(sizes)]]
        pieces.append(board(block, rate, reset=False))
        assert pieces[-1].shape[1] <= block.shape[1]  # as pedalboard: never more than was given
        start += block.shape[1]
    return np.concatenate([*pieces, board.flush()], axis=1)


@pytest.mark.parametrize("kind", [*boards(None)])  # type: ignore[arg-type]
@pytest.mark.parametrize("rate", [44100, 48000, 96000])
def test_branches_with_nothing_but_latency_null(passthrough: Separator, song: Audio, kind: str, rate: int) -> None:
    board = boards(passthrough)[kind]()
    assert np.abs(board(song, rate) - song).max() <= 1e-6
    assert np.abs(streamed(board, song, [4410], rate) - song).max() <= 1e-6


def test_every_model_nulls_in_a_board(separator: Separator, song: Audio) -> None:
    split = StemSplit(separator=separator, vocals=AddLatency(2000), rest=BrickwallLimiter(12))
    board = Board([split])
    audio = 0.5 * song
    assert np.abs(board(audio, RATE) - audio).max() <= 1e-6
    assert np.abs(streamed(board, audio, [10_000]) - audio).max() <= 1e-6


def test_a_look_ahead_limiter_in_a_branch_is_aligned(passthrough: Separator, song: Audio) -> None:
    split = StemSplit(separator=passthrough, vocals=BrickwallLimiter(12, lookahead_ms=50), drums=None)
    assert np.abs(Board([split])(song, RATE) - song).max() <= 1e-6


def test_board_and_separator_agree(separator: Separator, song: Audio) -> None:
    stems = separator.separate(song, RATE)
    for name in stems:
        mix, found = Board([StemSplit(separator=separator)]).split(song, RATE)
        assert np.abs(found[name] - stems[name]).max() <= 1e-5
        others = {other: Mute() for other in stems if other != name}
        solo = Board([StemSplit(separator=separator, **others)])(song, RATE)
        assert np.abs(solo - stems[name]).max() <= 1e-5


@pytest.mark.parametrize("block", BLOCKS)
def test_a_stream_and_its_flush_equal_one_call(passthrough: Separator, song: Audio, block: int) -> None:
    audio = song[:, : min(song.shape[1], 3000 * block)]
    reference = busy(passthrough)(audio, RATE)
    board = busy(passthrough)
    for _ in range(2):  # a flushed board begins anew
        assert np.abs(streamed(board, audio, [block]) - reference).max() <= 1e-6


@pytest.mark.parametrize("rate", [44100, 48000, 96000])
@given(sizes=st.lists(st.integers(1, 8192), min_size=1, max_size=30), mono=st.booleans(), frames=st.integers(1, 60_000))
def test_blocks_of_any_size_equal_one_call(
    passthrough: Separator, song: Audio, rate: int, sizes: list[int], mono: bool, frames: int
) -> None:
    audio = song[: 1 if mono else 2, 30_000 : 30_000 + max(frames, sum(sizes))]
    reference = busy(passthrough)(audio, rate)
    assert np.abs(streamed(busy(passthrough), audio, sizes, rate) - reference).max() <= 1e-6


@given(buffer_size=st.sampled_from([1, 64, 100, 512, 8192, 1 << 20]))
def test_the_buffer_size_does_not_matter(passthrough: Separator, song: Audio, buffer_size: int) -> None:
    audio = song[:, :20_000]
    assert np.abs(busy(passthrough)(audio, RATE, buffer_size) - busy(passthrough)(audio, RATE)).max() <= 1e-6


def test_after_its_latency_a_stream_gives_as_much_as_it_takes(passthrough: Separator, song: Audio) -> None:
    board = busy(passthrough)
    given = [board(song[:, start : start + 512], RATE, reset=False).shape[1] for start in range(0, 200_000, 512)]
    first = next(number for number, frames in enumerate(given) if frames == 512)
    assert set(given[first:]) == {512}
    assert set(given[: first - 2]) == {0}


def test_every_stem_of_a_stream_is_whole(passthrough: Separator, song: Audio) -> None:
    mix, stems = busy(passthrough).split(song, RATE)
    board = busy(passthrough)
    pieces = [board.split(song[:, start : start + 7000], RATE, reset=False) for start in range(0, song.shape[1], 7000)]
    pieces.append(board.flush_split())
    assert np.abs(np.concatenate([piece for piece, _ in pieces], axis=1) - mix).max() <= 1e-6
    for name in stems:
        whole = np.concatenate([piece[name] for _, piece in pieces], axis=1)
        assert np.abs(whole - stems[name]).max() <= 1e-6
