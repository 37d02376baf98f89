"""Models that hear frame by frame and remember: exact however windows are cut, each stream for itself."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, checker, helper

from stemplug import Separator, Stems
from stemplug.audio import Audio
from stemplug.errors import ModelError
from stemplug.timing import Stopwatch
from tests.conftest import RATE
from tests.models.test_bad_models import refused, write_model

CAUSAL = """
schema = 1
name = "small"
version = "1"
licence = "MIT"
origin = "made by the tests"
family = "causal"
stems = ["vocals", "accompaniment"]
residual = "accompaniment"
sample_rate = 44100
channels = 2

[files.model]
path = "{path}"
sha256 = "{sha256}"

[settings]
fft = 256
stft_hop = 64
bins = 64
period = 4
memory = 64

[profiles.offline]
frames = 8

[profiles.live.low]
"""
FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64
End = tuple[str, int, list[object]]
MAGNITUDE: End = ("magnitude", FLOAT, [1, 2, 1, 64])
FRAME: End = ("frame", INT, [])
MASK: End = ("mask", FLOAT, [1, 2, 1, 64])
HEARD: End = ("heard", FLOAT, [1, 2, 1, 64])
NEXT: End = ("heard_next", FLOAT, [1, 2, 1, 64])
MASKING = [
    # What was heard, half forgotten with every frame, is the mask where it is more than what is heard now.
    helper.make_node("Constant", [], ["half"], value_float=0.5),
    helper.make_node("Constant", [], ["little"], value_float=1e-6),
    helper.make_node("Mul", ["heard", "half"], ["faded"]),
    helper.make_node("Add", ["faded", "magnitude"], ["heard_next"]),
    helper.make_node("Add", ["heard_next", "little"], ["some"]),
    helper.make_node("Div", ["faded", "some"], ["mask"]),
]


def graph(
    inputs: tuple[End, ...] = (MAGNITUDE, FRAME, HEARD),
    outputs: tuple[End, ...] = (MASK, NEXT),
    nodes: list[object] = MASKING,
) -> bytes:
    """An ONNX graph with these ends."""
    ends = ([helper.make_tensor_value_info(*end) for end in side] for side in (inputs, outputs))
    model = helper.make_model(
        helper.make_graph(nodes, "small", *ends), opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    )
    content: bytes = model.SerializeToString()
    return content


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checker.check_model(graph())
    return write_model(tmp_path_factory.mktemp("causal") / "small", graph(), CAUSAL)


def same(first: Stems, second: Stems, tolerance: float = 0) -> bool:
    return all(np.abs(first[name] - second[name]).max() <= tolerance for name in first)


@pytest.mark.parametrize("profile", ["offline", "live"])
def test_where_all_is_one_stem_the_mixture_comes_back(tmp_path: Path, song: Audio, profile: str) -> None:
    whole = [
        helper.make_node("Identity", ["heard"], ["heard_next"]),
        helper.make_node("Constant", [], ["one"], value_float=1.0),
        helper.make_node("Constant", [], ["none"], value_float=0.0),
        helper.make_node("Mul", ["magnitude", "none"], ["silent"]),
        helper.make_node("Add", ["silent", "one"], ["mask"]),
    ]
    folder = write_model(tmp_path / "whole", graph(nodes=whole), CAUSAL)
    stems = Separator(folder, profile, latency="low" if profile == "live" else None, consistent=False).separate(
        song, RATE
    )
    # Above the network's bins a mask falls off to half: what is lower is whole.
    low = np.fft.rfftfreq(song.shape[1], 1 / RATE) < RATE * 50 / 256
    error = np.fft.rfft(stems["vocals"] - song)[:, low]
    assert np.linalg.norm(error) <= 1e-4 * np.linalg.norm(np.fft.rfft(song)[:, low])
    assert np.abs(stems.sum() - song).max() <= 1e-5


@pytest.mark.parametrize("frames", [1, 2, 3, 8, 50])
def test_windows_of_any_length_give_the_same_stems(small: Path, tmp_path: Path, song: Audio, frames: int) -> None:
    other = write_model(tmp_path / "other", graph(), CAUSAL.replace("frames = 8", f"frames = {frames}"))
    audio = song[:, 50_000:90_000]
    assert Separator(other).stream(RATE).period_samples == 64 * frames
    assert same(Separator(other).separate(audio, RATE), Separator(small).separate(audio, RATE), 1e-6)


def test_stems_come_two_hops_late_and_no_later(small: Path) -> None:
    stream = Separator(small, "live", latency="low").stream(RATE)
    assert stream.latency_samples == 2 * 64 - 1 + 63  # and what silence is counted in
    assert stream.period_samples == 64


def test_streams_remember_each_for_itself(small: Path, song: Audio) -> None:
    separator = Separator(small, "live", latency="low")
    songs = [song[:, start : start + 30_000] for start in (40_000, 90_000)]
    streams = [separator.stream(RATE) for _ in songs]
    pieces: list[list[Audio]] = [[], []]
    for at in range(0, 30_000, 1000):
        for audio, stream, piece in zip(songs, streams, pieces, strict=True):
            piece.append(stream.push(audio[:, at : at + 1000])["vocals"])
    for audio, stream, piece in zip(songs, streams, pieces, strict=True):
        piece.append(stream.flush()["vocals"])
        assert np.array_equal(np.concatenate(piece, axis=1), separator.separate(audio, RATE)["vocals"])


def test_windows_wait_for_those_before_however_many_threads_there_are(small: Path, song: Audio) -> None:
    separator = Separator(small, threads=4)
    audio = song[:, 40_000:60_000]
    expected = separator.separate(audio, RATE)["vocals"]
    assert separator.lanes == 1
    run, begun = separator.runner.separate, []

    def late_at_first(*arguments: object) -> object:
        begun.append(arguments)
        time.sleep(0.05 if len(begun) < 4 else 0)
        return run(*arguments)

    separator.runner.separate = late_at_first  # type: ignore[method-assign]
    with ThreadPoolExecutor(4) as pool:
        stream = separator.stream(RATE, executor=pool)
        stream.feed(audio)
        stream.end()
        assert np.array_equal(stream.collect()["vocals"], expected)
    assert len(begun) > 4


@pytest.mark.parametrize(("rate", "silence"), [(44_100, 16_384 * 5 + 7), (48_000, 12_345_678), (96_000, -100_001)])
def test_a_stream_that_begins_after_silence_gives_what_it_would_have_given(
    song: Audio, rate: int, silence: int
) -> None:
    """At no cost: of a host's time there may be hours. The deepest level hears every 32nd frame."""
    separator = Separator("stemplug-live", "live")
    audio = song[:, 40_000:100_000]
    whole, part = separator.stream(rate), separator.stream(rate)
    before = silence % (32 * whole.period_samples)  # after which all is alike
    rest = part.begin_after(silence)
    assert rest < part.period_samples
    found = part.push(np.pad(audio, ((0, 0), (rest, 0))))["drums"][:, rest:]
    expected = whole.push(np.pad(audio, ((0, 0), (before, 0))))["drums"][:, before:]
    frames = min(found.shape[1], expected.shape[1])
    assert frames > 50_000
    np.testing.assert_allclose(found[:, :frames], expected[:, :frames], atol=1e-6)


def test_silence_is_heard_as_long_as_anything_is_remembered() -> None:
    runner, rng, watch = Separator("stemplug-live", "live").runner, np.random.default_rng(0), Stopwatch()
    histories, sound = rng.normal(0, 0.1, (2, 40, 1, 2, 4096)), rng.normal(0, 0.1, (40, 1, 2, 4096))
    masks, runs = runner.masks, []  # type: ignore[attr-defined]
    runner.masks = lambda *arguments: runs.append(1) or masks(*arguments)  # type: ignore[attr-defined]
    results = []
    for history in histories.astype(np.float32):
        windows = runner.begin()
        runs.clear()
        for window in [*history, *np.zeros((352, 1, 2, 4096), np.float32)]:
            windows(window, ["drums"], watch)
        assert len(runs) == 40 + 288
        results.append([windows(window, ["drums"], watch) for window in sound.astype(np.float32)])
    np.testing.assert_allclose(results[0], results[1], atol=1e-6)


@given(cut=st.integers(1, 29_999), gap=st.integers(0, 5000))
def test_what_comes_later_changes_nothing_before(small: Path, song: Audio, cut: int, gap: int) -> None:
    separator = Separator(small, "live", latency="low")
    audio = song[:, 40_000:70_000].copy()
    latency = separator.stream(RATE).latency_samples
    before = separator.separate(audio, RATE)
    audio[:, cut : cut + gap] = 0
    audio[:, cut + gap :] *= -2
    after = separator.separate(audio, RATE)
    known = max(0, cut - latency)
    assert all(np.array_equal(after[name][:, :known], before[name][:, :known]) for name in before)


WRONG_GRAPHS = {
    "forgets": graph(outputs=(MASK,)),
    "another name": graph(
        outputs=(MASK, ("heard_then", FLOAT, [1, 2, 1, 64])),
        nodes=[*MASKING, helper.make_node("Identity", ["heard_next"], ["heard_then"])],
    ),
    "no frame": graph(inputs=(MAGNITUDE, HEARD)),
    "no mask": graph(outputs=(NEXT,)),
    "a mask too few": graph(outputs=(("mask", FLOAT, [1, 1, 1, 64]), NEXT)),
    "other bins": graph(inputs=(("magnitude", FLOAT, [1, 2, 1, 32]), FRAME, HEARD)),
    "endless memory": graph(inputs=(MAGNITUDE, FRAME, ("heard", FLOAT, ["any", 2, 1, 64]))),
    "a sea of memory": graph(
        inputs=(MAGNITUDE, FRAME, HEARD, ("sea", FLOAT, [1 << 20, 1 << 20])),
        outputs=(MASK, NEXT, ("sea_next", FLOAT, [1 << 20, 1 << 20])),
        nodes=[*MASKING, helper.make_node("Identity", ["sea"], ["sea_next"])],
    ),
    "whole numbers": graph(
        inputs=(MAGNITUDE, FRAME, HEARD, ("count", INT, [1])),
        outputs=(MASK, NEXT, ("count_next", INT, [1])),
        nodes=[*MASKING, helper.make_node("Identity", ["count"], ["count_next"])],
    ),
}


@pytest.mark.parametrize("case", WRONG_GRAPHS)
def test_a_graph_of_another_kind_is_refused(tmp_path: Path, case: str) -> None:
    refused(write_model(tmp_path / "small", WRONG_GRAPHS[case], CAUSAL), "do(es)? not fit|cannot load|failed")


@pytest.mark.parametrize(
    ("good", "bad", "reason"),
    [
        ("fft = 256", "fft = 100", "do not fit"),
        ("bins = 64", "bins = 4000", "do not fit"),
        ("period = 4", "period = 0", "period"),
        ("period = 4\n", "", "period"),
        ("memory = 64\n", "", "memory"),
        ("memory = 64", "memory = 0", "memory"),
        ("period = 4", "period = 4\nstride = 1", "stride"),
        ("frames = 8", "frames = 0", "frames"),
        ("frames = 8", "hop = 8", "hop"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, good: str, bad: str, reason: str) -> None:
    refused(write_model(tmp_path / "small", graph(), CAUSAL.replace(good, bad)), reason)


def test_a_run_that_fails_is_told_in_a_line(tmp_path: Path, song: Audio) -> None:
    # The shape that it promises is not that of what it remembers.
    grows = [*MASKING[:3], helper.make_node("Add", ["faded", "magnitude"], ["new"])]
    grows += [helper.make_node("Concat", ["new", "new"], ["heard_next"], axis=2), *MASKING[4:]]
    grows[-2] = helper.make_node("Add", ["new", "little"], ["some"])
    folder = write_model(tmp_path / "small", graph(nodes=grows, outputs=(MASK, ("heard_next", FLOAT, None))), CAUSAL)
    with pytest.raises(ModelError, match="small: .*"):
        Separator(folder).separate(song[:, :9000], RATE)
