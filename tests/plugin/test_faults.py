"""Nothing that a worker does can hang or crash the host: dry and aligned at once, stems again when it can run again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.plugin.conftest import HOST_RATE, Place, finish, wait_until

PATIENCE = 10
"""Seconds that an offline block waits without progress, at most."""
RECOVERY = 5
BOUNCE = 160
"""Seconds of input until which an offline stream has stems."""


def realtime(place: Place, bundle: Path, song: Path, seconds: float) -> subprocess.Popen[str]:
    return place.host(
        "render", bundle, "--input", song, "--rate", HOST_RATE, "--block", 512, "--mode", "realtime", "--pace",
        "realtime", "--seconds", seconds,
    )  # fmt: skip


def offline(place: Place, bundle: Path, song: Path, seconds: float) -> subprocess.Popen[str]:
    return place.host(
        "render", bundle, "--input", song, "--rate", HOST_RATE, "--block", 4096, "--mode", "offline", "--pace", "none",
        "--seconds", seconds,
    )  # fmt: skip


def assert_nulls(found: dict[str, Any]) -> None:
    assert found["main_error"] <= 1e-6 and found["aux_error"] <= 1e-6


def seen(found: dict[str, Any]) -> list[str]:
    return [entry["value"] for entry in found["status_seen"]]


def streams(place: Place) -> int:
    """How many streams workers have begun, live or offline."""
    return sum(place.log().count(f"{model}, ") for model in ("stemplug-live", "stemplug-4s"))


def settled(place: Place) -> int:
    """Wait until the worker serves; returns its process."""
    worker = place.worker()
    wait_until(lambda: streams(place) > 0, 20, "a stream")
    return worker


def last_ready(found: dict[str, Any]) -> float:
    """Seconds at which stems came (back) for good, counted from the first block."""
    ready = [entry["frame"] for entry in found["status_seen"] if entry["value"] == "ready"]
    return float(ready[-1]) / HOST_RATE


def test_a_worker_that_is_killed_in_real_time_is_replaced(place: Place, bundle: Path, song_file: Path) -> None:
    process = realtime(place, bundle, song_file, 14)
    worker = settled(place)
    time.sleep(2)
    os.kill(worker, signal.SIGKILL)
    killed = time.monotonic()
    wait_until(lambda: streams(place) >= 2, RECOVERY, "a new stream")
    assert time.monotonic() - killed < RECOVERY
    found = finish(process)
    assert_nulls(found)
    assert seen(found)[-1] in ("ready", "overloaded")  # a busy machine may be late at the last block
    assert place.worker() != worker


def test_a_worker_that_hangs_is_left_and_taken_again_when_it_goes_on(
    place: Place, bundle: Path, song_file: Path
) -> None:
    process = realtime(place, bundle, song_file, 16)
    worker = settled(place)
    time.sleep(1)
    os.kill(worker, signal.SIGSTOP)
    time.sleep(5)
    os.kill(worker, signal.SIGCONT)
    wait_until(lambda: streams(place) >= 2, RECOVERY, "a new stream")
    found = finish(process)
    assert_nulls(found)
    assert "dry" in seen(found) and seen(found)[-1] in ("ready", "overloaded")
    assert place.worker() == worker


def without_python(bundle: Path, folder: Path, python: str = "/nowhere/python") -> Path:
    copy = folder / bundle.name
    shutil.copytree(bundle, copy)
    settings = copy / "Contents" / "Resources" / "stemplug.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"python": python}))
    return copy


@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/false", "/bin/true"])
def test_without_a_worker_the_input_passes(place: Place, bundle: Path, song_file: Path, python: str) -> None:
    copy = without_python(bundle, place.folder, python)
    live = realtime(place, copy, song_file, 3)
    began = time.monotonic()
    bounced = finish(offline(place, copy, song_file, BOUNCE))
    assert time.monotonic() - began < PATIENCE + 5
    for found in (bounced, finish(live)):
        assert_nulls(found)
        assert "ready" not in seen(found)
    assert seen(bounced)[-1] == "dry"


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"python": 3}', b'{"python": "x", "models": [{"name": 1}]}'])
def test_without_usable_settings_the_input_passes_without_delay(
    place: Place, bundle: Path, song_file: Path, content: bytes | None
) -> None:
    copy = without_python(bundle, place.folder)
    settings = copy / "Contents" / "Resources" / "stemplug.json"
    settings.unlink() if content is None else settings.write_bytes(content)
    found = finish(offline(place, copy, song_file, BOUNCE))
    assert_nulls(found)
    assert found["latency"] == 0


def test_a_worker_that_is_killed_while_a_bounce_waits_is_replaced(place: Place, bundle: Path, song_file: Path) -> None:
    process = offline(place, bundle, song_file, BOUNCE)
    worker = settled(place)
    time.sleep(0.3)
    os.kill(worker, signal.SIGKILL)
    found = finish(process, 150)
    assert_nulls(found)
    assert seen(found)[-1] == "ready"


def test_a_worker_that_hangs_holds_a_bounce_for_ten_seconds_at_most(
    place: Place, bundle: Path, song_file: Path
) -> None:
    process = offline(place, bundle, song_file, BOUNCE)
    worker = settled(place)
    time.sleep(0.2)
    os.kill(worker, signal.SIGSTOP)
    stopped = time.monotonic()
    found = finish(process, 60)
    assert time.monotonic() - stopped < PATIENCE + 8  # the host's own work beside
    assert_nulls(found)
    assert seen(found)[-1] == "dry"


def test_a_realtime_plugin_that_renders_waits_ten_seconds_at_most(place: Place, bundle: Path, song_file: Path) -> None:
    """As Ardour exports: set up for real time, and each block says offline."""
    process = place.host(
        "render", bundle, "--input", song_file, "--rate", HOST_RATE, "--block", 512, "--pace", "realtime", "--seconds",
        12, "--activate-only-as", "realtime", "--blocks-say", "offline",
    )  # fmt: skip
    worker = settled(place)
    time.sleep(2)
    os.kill(worker, signal.SIGSTOP)
    time.sleep(4)
    os.kill(worker, signal.SIGCONT)
    found = finish(process)
    assert_nulls(found)
    assert found["process_us"]["longest"] < (PATIENCE + 0.5) * 1e6
    assert seen(found)[-1] == "ready"


class Impostor:
    """Something else that listens on the worker's socket."""

    def __init__(self, path: Path, behave: Callable[[socket.socket], None]) -> None:
        self.served = 0
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(path))
        self._listening.listen(8)
        self._behave = behave
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.served += 1
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        try:
            self._behave(connection)
        except OSError:
            pass
        finally:
            connection.close()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept
        self._listening.close()


def frame(content: bytes) -> bytes:
    return struct.pack("<I", len(content)) + content


def _say(*frames: bytes) -> Callable[[socket.socket], None]:
    def behave(connection: socket.socket) -> None:
        for content in frames:
            connection.recv(65536)
            connection.sendall(content)
        while connection.recv(65536):  # until the plugin hangs up
            pass

    return behave


HELLO = frame(b'{"type":"hello","protocol":1,"version":"0","pid":1}')
OPENED = frame(b'{"type":"opened","latency_frames":100}')
IMPOSTORS: dict[str, Callable[[socket.socket], None]] = {
    "refuses": lambda connection: connection.close(),
    "is silent": _say(),
    "sends garbage": _say(os.urandom(4000)),
    "sends a frame of 4 GB": _say(b"\xff\xff\xff\xff{}"),
    "sends no object": _say(frame(b"[1]")),
    "is nested": _say(frame(b'{"a":' + b"[" * 30000 + b"]" * 30000 + b"}")),
    "has wrong types": _say(frame(b'{"type":7,"protocol":"x"}')),
    "is of another version": _say(frame(b'{"type":"hello","protocol":99}')),
    "says error": _say(frame(b'{"type":"error","message":"go away"}')),
    "hangs up after the greeting": lambda connection: connection.sendall(HELLO),
    "opens and never separates": _say(HELLO, OPENED),
    "opens and then talks nonsense": _say(HELLO, OPENED + b"\0\0\0\0"),
}


@pytest.mark.parametrize("name", IMPOSTORS)
def test_whatever_a_worker_says_the_input_passes(place: Place, bundle: Path, song_file: Path, name: str) -> None:
    impostor = Impostor(place.socket, IMPOSTORS[name])
    found = finish(realtime(place, bundle, song_file, 2.5))
    impostor.close()
    assert impostor.served
    assert_nulls(found)
    assert "ready" not in seen(found)


def test_two_live_plugins_share_a_worker(place: Place, bundle: Path, song_file: Path) -> None:
    processes = [realtime(place, bundle, song_file, 6) for _ in range(2)]
    for process in processes:
        found = finish(process)
        assert_nulls(found)
        assert "ready" in seen(found)
    assert place.log().count("stemplug 0.1.0, pid") == 1


def test_a_worker_that_was_not_there_is_found_within_five_seconds(place: Place, bundle: Path, song_file: Path) -> None:
    """The plugin cannot start one; somebody else does."""
    copy = without_python(bundle, place.folder)
    process = realtime(place, copy, song_file, 12)
    time.sleep(3)
    place.start_worker()
    wait_until(lambda: streams(place) > 0, RECOVERY + 2, "a stream")
    found = finish(process)
    assert_nulls(found)
    assert "ready" in seen(found)
