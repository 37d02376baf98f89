"""Board as a list, as a pedalboard, and where it differs from one."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
import weakref

import numpy as np
import pedalboard
import pytest
from pedalboard import Chain, Compressor, Delay, Gain, Invert, Mix, Pedalboard, Reverb
from pedalboard_native._internal import AddLatency

from stemplug import AudioError, Board, Mute, OptionError, Separator, StageError, StemSplit
from stemplug.audio import Audio
from tests.conftest import RATE


def double(audio: Audio, sample_rate: float) -> Audio:
    return audio * 2


def test_a_board_is_a_list() -> None:
    gain, reverb, delay = Gain(), Reverb(), Delay()
    board = Board([gain, reverb])
    board.append(delay)
    assert list(board) == [gain, reverb, delay] and len(board) == 3
    assert board[0] is gain and board[-1] is delay and reverb in board and board.index(reverb) == 1
    board.insert(0, double)
    assert board.pop(0) is double
    board[1] = Mute()
    del board[0]
    board += [gain]
    assert isinstance(board[0], Mute) and list(board[1:]) == [delay, gain] and isinstance(board[1:], Board)
    board.remove(delay)
    board.reverse()
    assert board[0] is gain and list(reversed(board))[1] is gain
    assert len(board + [reverb]) == 3 and len(board) == 2
    board.clear()
    assert len(board) == 0
    with pytest.raises(ValueError, match="not in list"):
        board.remove(delay)
    with pytest.raises(IndexError):
        board[0]


def test_a_board_shows_its_stages(passthrough: Separator) -> None:
    split = StemSplit(separator=passthrough, vocals=Gain(3), rest=Mute(), gain_db={"vocals": 1.5})
    shown = repr(Board([split, double]))
    for part in (
        "Board with 2 plugins",
        "StemSplit(vocals=[<pedalboard.Gain gain_db=3",
        "rest=[Mute()]",
        "1.5",
        "double",
    ):
        assert part in shown


@pytest.mark.parametrize(
    ("stage", "reason"),
    [
        (Reverb, "Reverb.* is no stage.*Put \\(\\) after it"),
        ([Gain()], r"list .* is no stage.*Write Board\(\[...\]\) around it"),
        ("Reverb", "str 'Reverb' is no stage; expected a plugin of pedalboard, a Board"),
        (3, "int '3' is no stage"),
    ],
)
def test_what_is_no_stage_is_refused(stage: object, reason: str) -> None:
    board = Board([Gain()])
    with pytest.raises(StageError, match=reason) as error:
        board.append(stage)  # type: ignore[arg-type]
    assert isinstance(error.value, TypeError) and isinstance(error.value, ValueError) and len(board) == 1
    with pytest.raises(TypeError):  # as in pedalboard
        Pedalboard([stage])
    with pytest.raises(StageError):
        Board([stage])  # type: ignore[list-item]
    with pytest.raises(StageError):
        board[0] = stage


@pytest.mark.parametrize("stages", [Gain(), 3, "abc"])
def test_a_board_takes_a_list(stages: object) -> None:
    with pytest.raises(StageError, match=r"Board takes a list of stages.*write Board\(\[...\]\)"):
        Board(stages)  # type: ignore[arg-type]


def test_a_board_cannot_stand_inside_itself(passthrough: Separator) -> None:
    inner = Board()
    outer = Board([StemSplit(separator=passthrough, vocals=inner)])
    for stage in (inner, outer, Board([outer])):
        with pytest.raises(StageError, match="inside itself"):
            inner.append(stage)


SHAPES = [(5000,), (1, 5000), (2, 5000), (5000, 1), (5000, 2), (2, 0), (0, 2), (0,), (6, 5000), (5000, 6)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("whole", [True, False])
def test_shapes_are_those_of_pedalboard(shape: tuple[int, ...], dtype: type, whole: bool) -> None:
    audio = np.random.default_rng(0).normal(0, 0.1, shape).astype(dtype)
    expected = Pedalboard([Gain(6.0206), Invert()])(audio, RATE)
    found = [Board([Gain(6.0206), Invert()]), Board([lambda a, sr: a * 10 ** (6.0206 / 20), Invert()])]
    for board in found:
        result = board(audio, RATE, reset=whole)
        assert result.shape == expected.shape and result.dtype == np.float32
        np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(5000,), (1, 5000), (2, 5000), (5000, 1), (5000, 2), (2, 0), (0,)])
def test_shapes_at_a_split_are_those_of_pedalboard(passthrough: Separator, shape: tuple[int, ...]) -> None:
    audio = np.random.default_rng(0).normal(0, 0.1, shape)
    board = Board([StemSplit(separator=passthrough)])
    np.testing.assert_allclose(board(audio, RATE), audio, atol=1e-6)
    mix, stems = board.split(audio, RATE)
    assert (
        mix.shape == shape
        and stems.frames == (0 if 0 in shape else max(shape))
        and stems.channels == (2 if 2 in shape else 1)
    )
    parts = [board(audio, RATE, reset=False), board.flush()]
    axis = 0 if len(shape) == 1 or shape[0] > 2 else 1
    np.testing.assert_allclose(np.concatenate(parts, axis=axis), audio, atol=1e-6)


@pytest.mark.parametrize("stages", [[], [Gain()], [double, Gain()]], ids=["empty", "native", "function"])
@pytest.mark.parametrize(
    "audio",
    [np.zeros((2, 100), np.int16), np.zeros((2, 100), np.float16), np.zeros((2, 2, 2), np.float32), [[0.0, 1.0]], None]
    + [np.zeros((3, 3), np.float32), np.float32(1)],
)
@pytest.mark.parametrize("reset", [True, False])
def test_errors_are_those_of_pedalboard(stages: list[object], audio: object, reset: bool) -> None:
    with pytest.raises((TypeError, RuntimeError)) as expected:
        Pedalboard([Gain()])(audio, RATE)
    with pytest.raises(expected.type):
        Board(stages)(audio, RATE, reset=reset)  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [0, -44100, float("nan"), float("inf"), 1e9])
def test_sample_rates_that_crash_pedalboard_are_refused(rate: float) -> None:
    with pytest.raises(AudioError, match="sample rate .*; expected 1 to 1000000 Hz"):
        Board([Reverb()])(np.zeros((2, 100), np.float32), rate)


def test_other_settings_are_refused(passthrough: Separator) -> None:
    audio = np.zeros((2, 100), np.float32)
    with pytest.raises(OptionError, match="buffer_size 0; expected at least 1"):
        Board([Gain()])(audio, RATE, buffer_size=0)
    with pytest.raises(TypeError):
        Board([Gain()])(audio, None)  # type: ignore[arg-type]
    with pytest.raises(AudioError, match="6 channels, expected 1 or 2"):
        Board([StemSplit(separator=passthrough)])(np.zeros((6, 100)), RATE)
    with pytest.raises(AudioError, match="44100.5"):
        Board([StemSplit(separator=passthrough)])(audio, 44100.5)
    audio[1, 50] = np.nan
    with pytest.raises(AudioError, match="nan in channel 2 at 0.001 s"):
        Board([StemSplit(separator=passthrough)])(audio, RATE)


def test_a_plugin_stands_once_in_a_board(passthrough: Separator) -> None:
    reverb, audio = Reverb(), np.zeros((2, 100), np.float32)
    split = StemSplit(separator=passthrough, vocals=reverb, drums=[Mix([reverb])])
    for board in (Board([reverb, reverb]), Board([split]), Board([reverb, Board([double, reverb])])):
        with pytest.raises(RuntimeError, match="same plugin instance is being used multiple times"):
            board(audio, RATE)


def test_a_board_of_plugins_stands_wherever_a_pedalboard_can(song: Audio) -> None:
    nested = Board([Mix([Board([Delay(0.1), Gain(-3)]), Chain([Board([Compressor(-20, 2)])])]), Board([Reverb()])])
    plain = Pedalboard([Mix([Pedalboard([Delay(0.1), Gain(-3)]), Compressor(-20, 2)]), Reverb()])
    assert nested.native and np.array_equal(nested(song, RATE), plain(song, RATE))
    nested[1].append(Gain(-6))
    plain.append(Gain(-6))
    assert np.array_equal(nested(song, RATE), plain(song, RATE))


@pytest.mark.parametrize("container", [Pedalboard, Chain, Mix])
def test_other_boards_are_not_left_out_in_silence(passthrough: Separator, container: type, song: Audio) -> None:
    board = Board([Gain(), StemSplit(separator=passthrough)])
    with pytest.raises(RuntimeError):
        container([board])(song, RATE)
    for kept in ([board], [Gain(), Board([Mute()])]):  # the latter is gone for Python, and lives on in C++
        with pytest.raises(StageError, match=f"stem split or a function stands inside {container.__name__}"):
            Board([container(kept)])(song, RATE)
        kept.clear()
    with pytest.raises(StageError, match="stands inside"):
        Board([Gain(), container([Gain(), Board([Mute()])])])(song, RATE)


def test_a_function_gets_what_it_may_change(song: Audio) -> None:
    before = song.copy()

    def spoil(audio: Audio, sample_rate: float) -> Audio:
        assert audio.shape == song.shape and audio.dtype == np.float32 and sample_rate == RATE
        audio[:] = 0
        return audio

    assert not Board([spoil])(song, RATE).any()
    assert np.array_equal(song, before)


@pytest.mark.parametrize("result", [None, np.zeros((2, 3), np.float32), np.zeros((2, 100), np.int16), 1.0])
def test_a_function_must_return_what_it_got(result: object) -> None:
    def wrong(audio: Audio, sample_rate: float) -> Audio:
        return result  # type: ignore[return-value]

    with pytest.raises(
        AudioError, match=r"wrong\(\) returned .*; expected floats of the shape it was given, \(2, 100\)"
    ):
        Board([wrong])(np.zeros((2, 100), np.float32), RATE)


def test_tails_go_on_after_a_first_block_with_reset(song: Audio) -> None:
    """`reset=(block is the first)` is how many streams are written."""
    for boards in (
        [Board([Reverb()]), Pedalboard([Reverb()])],
        [Board([double, Reverb()]), Pedalboard([Gain(6.0206), Reverb()])],
    ):
        blocks = [
            [board(song[:, at : at + 30_000], RATE, reset=at == 0) for at in range(0, 120_000, 30_000)]
            for board in boards
        ]
        np.testing.assert_allclose(np.concatenate(blocks[0], axis=1), np.concatenate(blocks[1], axis=1), atol=1e-5)


def test_reset_forgets_everything(passthrough: Separator, song: Audio) -> None:
    board = Board([Reverb(), StemSplit(separator=passthrough, vocals=Delay(0.5))])
    clean = board(song, RATE)
    for _ in range(3):
        board(song[:, :50_000], RATE, reset=False)
        board.reset()
    pieces = [board(song, RATE, reset=False), board.flush()]
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), clean, atol=1e-6)


def test_flush_without_a_stream_gives_nothing(passthrough: Separator, song: Audio) -> None:
    board = Board([StemSplit(separator=passthrough)])
    assert board.flush().size == 0
    board(song, RATE)
    assert board.flush().size == 0
    with pytest.raises(OptionError, match="there is no stream to end"):
        board.flush_split()
    board(song[:, :0], RATE, reset=False)
    assert board.flush().shape == (2, 0)


def test_parameters_may_change_while_streaming(song: Audio) -> None:
    boards = [Board([Gain(0), Reverb()]), Pedalboard([Gain(0), Reverb()])]
    for number in range(20):
        found = []
        for board in boards:
            board[0].gain_db = -number
            found.append(board(song[:, number * 512 : number * 512 + 512], RATE, reset=False))
        assert np.array_equal(*found)


def test_plugins_may_come_while_streaming_but_not_splits(passthrough: Separator, song: Audio) -> None:
    boards = [Board([Reverb()]), Pedalboard([Reverb()])]
    for number in range(10):
        found = [board(song[:, number * 512 : number * 512 + 512], RATE, reset=False) for board in boards]
        assert np.array_equal(*found)
        for board in boards:
            board.append(Gain(-1))
    board = Board([StemSplit(separator=passthrough, vocals=Gain(0))])
    board(song, RATE, reset=False)
    board[0]["vocals"].append(Gain(1))
    with pytest.raises(OptionError, match=r"changed while it streams and holds frames back. Undo that to go on"):
        board(song, RATE, reset=False)
    board[0]["vocals"].pop()
    assert board(song, RATE, reset=False).shape[1] + board.flush().shape[1] > song.shape[1]


def test_a_stream_that_failed_says_so(passthrough: Separator, song: Audio) -> None:
    def fail(audio: Audio, sample_rate: float) -> Audio:
        raise ZeroDivisionError("on purpose")

    board = Board([StemSplit(separator=passthrough), fail])
    with pytest.raises(ZeroDivisionError):
        board(song, RATE, reset=False)
        board(song, RATE, reset=False)
    for call in (lambda: board(song, RATE, reset=False), board.flush):
        with pytest.raises(OptionError, match=r"the stream has failed \(on purpose\). Call reset\(\)"):
            call()
    board.pop()
    board.reset()
    assert board(song, RATE, reset=False).shape[1] + board.flush().shape[1] == song.shape[1]


def test_errors_in_branches_reach_the_caller(passthrough: Separator, song: Audio) -> None:
    def fail(audio: Audio, sample_rate: float) -> Audio:
        raise ZeroDivisionError("on purpose")

    with pytest.raises(ZeroDivisionError):
        Board([StemSplit(separator=passthrough, drums=fail)])(song, RATE)


def test_no_branch_goes_on_after_an_error(passthrough: Separator, song: Audio) -> None:
    """It would push old sound into plugins that were reset."""
    broken = True

    def slow(audio: Audio, sample_rate: float) -> Audio:
        time.sleep(0.1)
        return audio

    def fail(audio: Audio, sample_rate: float) -> Audio:
        if broken:
            raise ZeroDivisionError("on purpose")
        return audio

    board = Board([StemSplit(separator=passthrough, vocals=fail, drums=[slow, Delay(0.05, 0.9, 1.0)])])
    with pytest.raises(ZeroDivisionError):
        for start in range(0, song.shape[1], 20_000):
            board(song[:, start : start + 20_000], RATE, reset=False)
    broken = False
    board.reset()
    silence = [board(0 * song[:, :20_000], RATE, reset=False) for _ in range(8)]
    assert not np.concatenate([*silence, board.flush()], axis=1).any()


def test_a_function_may_use_its_array_again(passthrough: Separator, song: Audio) -> None:
    kept: dict[tuple[int, ...], Audio] = {}

    def reuse(audio: Audio, sample_rate: float) -> Audio:
        array = kept.setdefault(audio.shape, np.empty_like(audio))
        array[:] = audio
        return array

    board = Board([StemSplit(separator=passthrough, vocals=reuse, drums=AddLatency(3000))])
    pieces = [board(song[:, at : at + 1000], RATE, reset=False) for at in range(0, song.shape[1], 1000)]
    np.testing.assert_allclose(np.concatenate([*pieces, board.flush()], axis=1), song, atol=1e-6)
    pieces = [Board([reuse])(song[:, at : at + 1000], RATE, reset=False) for at in range(0, 60_000, 1000)]
    assert np.array_equal(np.concatenate(pieces, axis=1), song[:, :60_000])


@pytest.mark.parametrize("stages", [[], [Gain(0)], [None]])
def test_the_result_is_never_the_input_itself(stages: list[object], song: Audio) -> None:
    for reset in (True, False):
        assert not np.may_share_memory(Board(stages)(song, RATE, reset=reset), song)  # type: ignore[arg-type]


@pytest.mark.parametrize("latency", [-5, None, "a", 1.5])
def test_a_latency_that_is_none_is_told(latency: object, song: Audio) -> None:
    def wrong(audio: Audio, sample_rate: float) -> Audio:
        return audio

    wrong.latency_samples = latency  # type: ignore[attr-defined]
    with pytest.raises(StageError, match="wrong.*latency_samples .*expected 0 or more frames"):
        Board([wrong])(song, RATE)


def test_another_format_before_leaves_nothing_behind(song: Audio) -> None:
    def stream(board: Board) -> Audio:
        pieces, start = [], 0
        for size in (64, 512, 3000, 8000):
            pieces.append(board(song[:1, 40_000 + start : 40_000 + start + size], RATE, reset=False))
            start += size
        return np.concatenate([*pieces, board.flush()], axis=1)

    expected = stream(Board([Delay(0.05, 0.5, 0.5), Reverb()]))
    for before in ((song, RATE), (song[:1], 48000), (song[:, :100], RATE)):
        board = Board([Delay(0.05, 0.5, 0.5), Reverb()])
        board(*before)
        assert np.array_equal(stream(board), expected)


def test_a_refused_flush_leaves_the_stream_alone(passthrough: Separator, song: Audio) -> None:
    board = Board([StemSplit(separator=passthrough)])
    pieces = [board(song, RATE, reset=False)]
    board.append(Mute())
    with pytest.raises(OptionError, match="Undo that to go on, or call reset"):
        board.flush()
    board.pop()
    pieces.append(board.flush())
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), song, atol=1e-6)


def test_a_plugin_that_holds_frames_back_stays(song: Audio) -> None:
    board = Board([AddLatency(3000)])
    board(song[:, :10_000], RATE, reset=False)
    del board[0]
    with pytest.raises(OptionError, match="changed while it streams and holds frames back"):
        board(song[:, 10_000:20_000], RATE, reset=False)


def test_a_stream_of_large_blocks_that_become_small_keeps_up(passthrough: Separator, song: Audio) -> None:
    board, given, taken = Board([StemSplit(separator=passthrough)]), 0, 0
    for size in (100_000, *[1000] * 100):
        taken += board(song[:, given : given + size], RATE, reset=False).shape[1]
        given += size
    stream = passthrough.stream(RATE)
    assert given - taken <= stream.latency_samples + stream.hop_samples + 512


def test_a_large_buffer_takes_no_more_memory(song: Audio) -> None:
    tracemalloc.start()
    assert Board([Reverb()])(song, RATE, buffer_size=2**31 - 1).shape == song.shape
    assert Board([Reverb()])(song, RATE, buffer_size=2**31 - 1, reset=False).shape == song.shape
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6


def test_a_board_goes_as_soon_as_nobody_holds_it(passthrough: Separator, song: Audio) -> None:
    gc.collect()
    gc.disable()
    try:
        board = Board([StemSplit(separator=passthrough, vocals=[Gain(), Board([double])])])
        board(song, RATE)
        board.split(song, RATE, reset=False)
        gone = weakref.ref(board)
        del board
        assert gone() is None
    finally:
        gc.enable()


def test_a_branch_may_ask_its_board(passthrough: Separator, song: Audio) -> None:
    def ask(audio: Audio, sample_rate: float) -> Audio:
        assert board.stem_names == ("vocals", "drums", "other")
        return audio

    board = Board([StemSplit(separator=passthrough, vocals=ask)])
    board(song, RATE)


def test_a_song_of_two_frames_after_a_reset(passthrough: Separator, song: Audio) -> None:
    board = Board([StemSplit(separator=passthrough, vocals=Gain(0))])
    for frames in (2, 1, 5000, 2):
        board.reset()
        assert board(song[:, :frames], RATE).shape == (2, frames)


def test_floats_of_any_byte_order_work(song: Audio) -> None:
    for board in (Board([Gain(0)]), Board([double, Gain(-6.0206)])):
        np.testing.assert_allclose(board(song.astype(">f4"), RATE), song, atol=1e-5)


def test_the_rate_of_a_stream_stays(passthrough: Separator, song: Audio) -> None:
    board = Board([StemSplit(separator=passthrough)])
    board(song, RATE, reset=False)
    with pytest.raises(OptionError, match="a block at 48000 Hz; the stream began with 44100 Hz"):
        board(song, 48000, reset=False)


def test_threads_may_share_a_board(passthrough: Separator, song: Audio) -> None:
    board = Board([Reverb(), StemSplit(separator=passthrough, vocals=AddLatency(100))])
    expected, found = board(song, RATE), []
    threads = [threading.Thread(target=lambda: found.append(board(song, RATE))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(np.array_equal(each, expected) for each in found)


def test_branches_run_side_by_side(passthrough: Separator, song: Audio) -> None:
    meeting = threading.Barrier(3, timeout=20)

    def meet(audio: Audio, sample_rate: float) -> Audio:
        meeting.wait()
        return audio

    Board([StemSplit(separator=passthrough, vocals=meet, drums=meet, other=meet)])(song, RATE)


def test_native_stages_are_one_call_of_pedalboard(song: Audio, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = pedalboard.Pedalboard.__call__
    monkeypatch.setattr(
        pedalboard.Pedalboard,
        "__call__",
        lambda self, *args, **kwargs: calls.append(len(self)) or original(self, *args, **kwargs),
    )
    board = Board([Gain(), Reverb(), double, Gain(), Board([Gain()]), Invert()])
    board(song, RATE)
    calls.clear()
    board(song, RATE)
    assert calls == [2, 3]
