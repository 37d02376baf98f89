"""Arrays that are no audio are refused with a hint; odd ones that are audio work."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

import stemplug
from stemplug import Separator, Stems
from stemplug.audio import Audio
from stemplug.errors import AudioError, OptionError
from tests.conftest import RATE

NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 3000)).astype(np.float32)
NAN, INFINITE = NOISE.copy(), NOISE.copy()
NAN[1, 441] = np.nan
INFINITE[0, 882] = np.inf

BAD_ARRAYS = [
    *((np.zeros((2, 9), kind), rf"{kind}; expected float32.*{scale}") for kind, scale in (
        ("int8", r"astype\('float32'\)\) / 128"),
        ("int16", r"astype\('float32'\)\) / 32768"),
        ("int32", r"astype\('float32'\)\) / 2147483648"),
        ("int64", "/ 9223372036854775808"),
        ("uint8", r"astype\('float32'\) - 128\) / 128"),
        ("uint16", r"astype\('float32'\) - 32768\) / 32768"),
    )),
    (np.zeros((2, 9), bool), "audio is bool"),
    (np.zeros((2, 9), complex), "audio is complex128"),
    (np.zeros((2, 9), object), "audio is object"),
    (np.zeros((2, 9), "datetime64[s]"), "audio is datetime64"),
    (np.array(["a", "b"]), "audio is <U1"),
    ("song.wav", "audio is str"),
    (b"RIFF", "audio is bytes"),
    (None, "audio is NoneType"),
    ({"left": [0.0]}, "audio is object"),
    ([[0.0, 0.1], [0.2]], "no array"),
    (NOISE.T, r"3000 channels, expected 1 or 2\. Did you mean audio\.T\?"),
    (np.zeros((6, 100)), "6 channels, expected 1 or 2. Mix it down"),
    (np.zeros((2, 10, 3)), r"shape \(2, 10, 3\)"),
    (np.float32(0.5), r"shape \(\)"),
    (0.5, r"shape \(\)"),
    (NAN, r"sample nan in channel 2 at 0\.010 s"),
    (INFINITE, r"sample inf in channel 1 at 0\.020 s"),
    (np.where(NOISE > 0.499, 1e300, NOISE.astype(float)), r"sample inf in channel \d"),
]  # fmt: skip
EMPTY = [np.zeros((2, 0), np.float32), np.zeros(0), [], np.zeros((0, 0)), np.zeros((0, 100))]


def push(separator: Separator, audio: object) -> Stems:
    return separator.stream(RATE).push(audio)


def separate(separator: Separator, audio: object) -> Stems:
    return separator.separate(audio, RATE)


def assert_short(error: pytest.ExceptionInfo[BaseException]) -> None:
    assert len(str(error.value)) < 400 and "\n" not in str(error.value)


@pytest.mark.parametrize("take", [push, separate])
@pytest.mark.parametrize(("audio", "reason"), BAD_ARRAYS)
def test_what_is_no_audio_is_refused(
    passthrough: Separator, take: Callable[..., Stems], audio: object, reason: str
) -> None:
    with pytest.raises(AudioError, match=reason) as error:
        take(passthrough, audio)
    assert_short(error)


def test_the_short_call_refuses_too() -> None:
    with pytest.raises(AudioError, match="Did you mean audio.T?"):
        stemplug.separate(NOISE.T, RATE)


@pytest.mark.parametrize("audio", EMPTY)
def test_nothing_cannot_be_separated(passthrough: Separator, audio: object) -> None:
    with pytest.raises(AudioError, match="0 frames|0 channels"):
        passthrough.separate(audio, RATE)


def test_an_empty_block_may_be_pushed(passthrough: Separator) -> None:
    stream = passthrough.stream(RATE)
    pieces = [stream.push(block) for block in (NOISE[:, :0], NOISE, NOISE[:, :0])] + [stream.flush()]
    assert np.abs(sum(piece.frames for piece in pieces) - NOISE.shape[1]) == 0


def test_the_time_of_a_bad_sample_counts_from_the_start_of_the_stream(passthrough: Separator) -> None:
    stream = passthrough.stream(RATE)
    stream.push(np.zeros((2, RATE), np.float32))
    with pytest.raises(AudioError, match=r"channel 2 at 1\.010 s"):
        stream.push(NAN)


def test_a_stream_goes_on_after_a_refused_block(passthrough: Separator) -> None:
    stream = passthrough.stream(RATE, frames=2 * NOISE.shape[1])
    pieces = []
    for block in (NAN, NOISE, None, NOISE.astype(np.int16), NOISE):
        try:
            pieces.append(stream.push(block)["vocals"])
        except AudioError:
            continue
    pieces.append(stream.flush()["vocals"])
    expected = passthrough.separate(np.concatenate([NOISE, NOISE], axis=1), RATE)["vocals"]
    assert np.array_equal(np.concatenate(pieces, axis=1), expected)


@pytest.mark.parametrize("frames", [-1, 1.5, True, "100", float("nan")])
def test_a_length_that_is_none_is_refused(passthrough: Separator, frames: object) -> None:
    with pytest.raises(OptionError, match="frames .* expected a whole number"):
        passthrough.stream(RATE, frames=frames)  # type: ignore[arg-type]


def strided(audio: Audio) -> Audio:
    wide = np.zeros((4, 3 * audio.shape[1]), np.float32)
    wide[::2, ::3] = audio
    return wide[::2, ::3]


def read_only(audio: Audio) -> Audio:
    copy = audio.copy()
    copy.flags.writeable = False
    return copy


@pytest.mark.parametrize("take", [push, separate])
@pytest.mark.parametrize(
    ("make", "tolerance"),
    [
        (strided, 0),
        (read_only, 0),
        (np.asfortranarray, 0),
        (lambda audio: audio[:, ::-1][:, ::-1], 0),
        (lambda audio: audio.astype(">f4"), 0),
        (lambda audio: audio.astype(np.float64), 0),
        (lambda audio: audio.astype(np.longdouble), 0),
        (lambda audio: audio.astype(np.float16), 1e-3),
        (lambda audio: audio.tolist(), 1e-7),
        (np.ma.masked_array, 0),
    ],
)
def test_floats_of_any_layout_work_and_are_not_changed(
    passthrough: Separator, take: Callable[..., Stems], make: Callable[[Audio], object], tolerance: float
) -> None:
    made = make(NOISE)
    before = np.array(made)
    stems = take(passthrough, made)
    expected = take(passthrough, NOISE)
    for name, stem in stems.items():
        assert type(stem) is np.ndarray and stem.dtype == np.dtype("=f4")
        assert np.abs(stem - expected[name]).max(initial=0) <= tolerance
    assert np.array_equal(np.array(made), before)


def test_what_fits_no_memory_is_refused_at_once(passthrough: Separator) -> None:
    begin = time.monotonic()
    with pytest.raises(AudioError, match=r"need 26388 GB of memory.*Separator\.stream"):
        passthrough.separate(np.broadcast_to(np.float32(0), (2, 2**40)), RATE)
    assert time.monotonic() - begin < 1


@pytest.mark.parametrize(
    "rate", [0, -1, 7999, 192001, 1e6, 44100.5, float("nan"), float("inf"), None, "44100", True, [44100], 44100j]
)
@pytest.mark.parametrize("use", [Separator.stream, lambda separator, rate: separator.separate(NOISE, rate)])
def test_bad_sample_rates_are_refused(passthrough: Separator, use: Callable[..., object], rate: object) -> None:
    with pytest.raises(AudioError, match=r"expected a whole number of Hz from 8000 to 192000") as error:
        use(passthrough, rate)
    assert str(rate) in str(error.value)


@pytest.mark.parametrize("rate", [44100.0, np.int32(44100), np.float32(44100), np.array(44100)[()]])
def test_whole_sample_rates_of_any_type_work(passthrough: Separator, rate: object) -> None:
    stems = passthrough.separate(NOISE, rate)  # type: ignore[arg-type]
    assert stems.sample_rate == 44100 and type(stems.sample_rate) is int


def test_a_flushed_stream_takes_nothing_more(passthrough: Separator) -> None:
    stream = passthrough.stream(RATE)
    stream.push(NOISE)
    assert stream.flush().frames
    assert stream.flush().frames == 0
    with pytest.raises(OptionError, match=r"flushed; open another"):
        stream.push(NOISE)


def test_the_number_of_channels_may_not_change(passthrough: Separator) -> None:
    stream = passthrough.stream(RATE)
    stream.push(NOISE)
    with pytest.raises(AudioError, match="1 channels; the stream began with 2"):
        stream.push(NOISE[0])


@pytest.mark.parametrize("threads", [0, -1, 257, 10000, "2", 1.5, True])
def test_bad_numbers_of_threads_are_refused(passthrough_folder: str, threads: object) -> None:
    with pytest.raises(OptionError, match="whole number from 1 to 256"):
        Separator(passthrough_folder, threads=threads)  # type: ignore[arg-type]
