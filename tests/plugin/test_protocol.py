"""The worker's side of cpp_shim/PROTOCOL.md; cpp_shim/tests/protocol_test.cpp holds the plugin to the same bytes."""

from __future__ import annotations

import fcntl
import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemplug.worker.protocol import (
    MAX_FRAME,
    FrameReader,
    Hello,
    Open,
    ProtocolError,
    Wake,
    encode_frame,
    parse_message,
)
from stemplug.worker.segment import Mark, Segment

GOLDEN = Path(__file__).parents[2] / "cpp_shim" / "tests" / "golden"


def golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


def frames(content: bytes) -> list[dict[str, object]]:
    return list(FrameReader().push(content))


def request() -> Open:
    found = parse_message(frames(golden("open.bin"))[0])
    assert isinstance(found, Open)
    return found


def memory(content: bytes, seals: bool = True) -> int:
    descriptor = os.memfd_create("stemplug-test", os.MFD_ALLOW_SEALING)
    os.write(descriptor, content)
    if seals:
        fcntl.fcntl(descriptor, 1033, 1 | 2 | 4)
    return descriptor


def test_frames_of_the_plugin_are_understood() -> None:
    assert parse_message(frames(golden("hello.bin"))[0]) == Hello(type="hello", protocol=1, client="plugin")
    assert parse_message(frames(golden("wake.bin"))[0]) == Wake(type="wake")
    opened = request()
    assert (opened.model, opened.profile, opened.latency) == ("spleeter-2stems", "live", "balanced")
    assert (opened.sample_rate, opened.channels, opened.rows) == (48000.0, 2, 2)
    assert (opened.latency_frames, opened.name) == (8000, "Groß")


def test_frames_for_the_plugin_are_the_golden_ones() -> None:
    assert encode_frame({"type": "opened", "latency_frames": 7972}) == golden("opened.bin")
    assert encode_frame({"type": "error", "message": "of another version"}) == golden("error.bin")


def test_frames_come_in_any_pieces() -> None:
    content = golden("hello.bin") + golden("open.bin") + golden("wake.bin")
    reader = FrameReader()
    found = [frame for byte in content for frame in reader.push(bytes([byte]))]
    assert [frame["type"] for frame in found] == ["hello", "open", "wake"]


def test_a_segment_of_the_plugin_is_understood_and_answered() -> None:
    descriptor = memory(golden("segment_plugin.bin"))
    copy = os.dup(descriptor)
    with Segment(descriptor, request()) as segment:
        assert (segment.origin, segment.start, segment.written(5), segment.wanted) == (3, 5, 11, 4)
        assert segment.marks() == [Mark(3, 1000, playing=True, capture=True)]
        assert segment.marks() == []
        audio = segment.take(5, 11)
        np.testing.assert_array_equal(audio, [[1, 2, 3, 4, 5, 6], [-1, -2, -3, -4, -5, -6]])
        segment.begin(3)
        assert segment.room(100) == 12
        stems = np.array([[10, 20, 30, 40, 50, 60], [-10, -20, -30, -40, -50, -60]], np.float32)
        segment.give(3, stems)
        segment.beat(0.25)
        found = os.pread(copy, 1 << 16, 0)
    os.close(copy)
    assert found == golden("segment_worker.bin")


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("size", lambda content: content + b"\0"),
        ("magic", lambda content: b"XXXX" + content[4:]),
        ("version", lambda content: content[:4] + struct.pack("<I", 2) + content[8:]),
        ("rows", lambda content: content[:12] + struct.pack("<I", 3) + content[16:]),
        ("capacity", lambda content: content[:16] + struct.pack("<Q", 1 << 40) + content[24:]),
    ],
)
def test_a_segment_that_is_not_what_was_said_is_refused(name: str, broken: object) -> None:
    descriptor = memory(broken(golden("segment_plugin.bin")))  # type: ignore[operator]
    with pytest.raises(ProtocolError):
        Segment(descriptor, request())
    os.close(descriptor)


def test_memory_that_could_shrink_is_refused(tmp_path: Path) -> None:
    for descriptor in (
        memory(golden("segment_plugin.bin"), seals=False),
        os.open("/dev/null", os.O_RDWR),
        os.open(tmp_path, os.O_RDONLY),
    ):
        with pytest.raises(ProtocolError):
            Segment(descriptor, request())
        os.close(descriptor)


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<I", 0),
        struct.pack("<I", MAX_FRAME + 1),
        struct.pack("<I", 0xFFFFFFFF) + b"{}",
        struct.pack("<I", 4) + b"null",
        struct.pack("<I", 2) + b"[]",
        struct.pack("<I", 4) + b"\xff\xfe{}",
        struct.pack("<I", 60000) + b"[" * 60000,
    ],
)
def test_what_is_no_frame_is_refused(content: bytes) -> None:
    with pytest.raises(ProtocolError):
        frames(content)


@pytest.mark.parametrize(
    "change",
    [
        {"type": "nonsense"},
        {"sample_rate": 0.0},
        {"sample_rate": 1e6},
        {"sample_rate": "48000"},
        {"channels": 6},
        {"rows": 0},
        {"profile": "other"},
        {"latency": "none"},
        {"input_capacity": 1 << 40},
        {"output_capacity": -1},
        {"model": None},
        {"name": "x" * 1000},
    ],
)
def test_a_request_out_of_range_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        parse_message(frames(golden("open.bin"))[0] | change)


def test_what_a_newer_plugin_adds_is_ignored() -> None:
    assert parse_message(frames(golden("open.bin"))[0] | {"colour": "red"}) == request()


@settings(max_examples=int(os.environ.get("STEMPLUG_FUZZ", 300)), deadline=None)
@given(st.sampled_from(["hello.bin", "open.bin", "wake.bin"]), st.data())
def test_any_other_bytes_are_a_message_or_a_protocol_error(name: str, data: st.DataObject) -> None:
    content = bytearray(golden(name))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
        if not content:
            break
    try:
        for frame in FrameReader().push(bytes(content)):
            parse_message(frame)
    except ProtocolError as error:
        json.dumps(str(error))
