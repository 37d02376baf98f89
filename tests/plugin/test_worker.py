"""The worker as a process: one a user, ended in order, and what a client sends harms nobody else."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from stemplug import Separator
from stemplug.audio import Audio
from stemplug.worker.instance import Instance
from stemplug.worker.lanes import Lanes
from stemplug.worker.protocol import FrameReader, Open, encode_frame
from stemplug.worker.segment import HEADER_BYTES, MAGIC, MARK_OFFSET, VERSION, Segment
from stemplug.worker.server import Server
from tests.hosts.driver import ROOT
from tests.plugin.conftest import Place, wait_until

RATE = 44100
MODEL = "spleeter-2stems"
HELLO = {"type": "hello", "protocol": 1, "client": "plugin"}


class Client:
    """The plugin's side of cpp_shim/PROTOCOL.md, in Python."""

    def __init__(
        self, place: Place, channels: int = 2, capacity: int = 1 << 18, stems: int = 1, **request: object
    ) -> None:
        self.channels, self.capacity, rows = channels, capacity, stems * channels
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.connection.settimeout(20)
        self.connection.connect(str(place.socket))
        self.reader = FrameReader()
        self.memory = os.memfd_create("test", os.MFD_ALLOW_SEALING)
        os.ftruncate(self.memory, HEADER_BYTES + 4 * (channels + rows) * capacity)
        fcntl.fcntl(self.memory, 1033, 1 | 2 | 4)
        os.pwrite(self.memory, struct.pack("<4I2Q", MAGIC, VERSION, channels, rows, capacity, capacity), 0)
        self.put(96, -1)
        self.request = {
            "type": "open", "model": MODEL, "sha256": "", "profile": "live", "latency": "balanced",
            "sample_rate": float(RATE), "channels": channels, "rows": rows, "latency_frames": 1 << 24,
            "input_capacity": capacity, "output_capacity": capacity, "name": "test", **request,
        }  # fmt: skip

    def put(self, offset: int, value: int) -> None:
        os.pwrite(self.memory, struct.pack("<q", value), offset)

    def get(self, offset: int) -> int:
        return int(struct.unpack("<q", os.pread(self.memory, 8, offset))[0])

    def send(self, message: dict[str, object], *descriptors: int) -> None:
        socket.send_fds(self.connection, [encode_frame(message)], list(descriptors))

    def receive(self) -> dict[str, object] | None:
        """The next frame, or None at the end of the connection."""
        while True:
            for frame in self.reader.push(self.connection.recv(1) or b""):
                return frame
            if not self.connection.recv(1, socket.MSG_PEEK):
                return None

    def open(self) -> dict[str, object] | None:
        self.send(HELLO)
        assert (self.receive() or {})["type"] == "hello"
        self.send(self.request, self.memory)
        return self.receive()

    def begin(self) -> None:
        for offset in (64, 72, 144, 88, 96):
            self.put(offset, 0)

    def write(self, audio: Audio) -> None:
        """Append input; there must be room."""
        end = self.get(64)
        for channel, row in enumerate(audio):
            os.pwrite(self.memory, row.tobytes(), HEADER_BYTES + 4 * (channel * self.capacity + end))
        self.put(64, end + audio.shape[1])

    def stems(self, frames: int) -> Audio:
        """Wait for so many frames of the first rows."""
        wait_until(lambda: self.get(136) >= frames, 30, "stems")
        base = HEADER_BYTES + 4 * self.channels * self.capacity
        rows = [os.pread(self.memory, 4 * frames, base + 4 * row * self.capacity) for row in range(self.channels)]
        return np.stack([np.frombuffer(row, np.float32) for row in rows])

    def close(self) -> None:
        self.connection.close()
        os.close(self.memory)


def test_one_worker_a_user(place: Place) -> None:
    first = place.start_worker()
    second = subprocess.run([sys.executable, "-m", "stemplug.worker"], env=place.env, cwd=ROOT, timeout=30)
    assert second.returncode == 0
    assert place.worker() == first.pid
    assert stat.S_IMODE(place.runtime.stat().st_mode) == 0o700
    assert stat.S_IMODE(place.socket.stat().st_mode) == 0o600


def test_the_commands_tell_of_it_and_end_it(place: Place) -> None:
    assert "no worker runs" in place.stemplug("worker", "status").stdout
    assert "no worker runs" in place.stemplug("worker", "stop").stdout
    place.start_worker()
    client = Client(place)
    assert (client.open() or {})["type"] == "opened"
    status = place.stemplug("worker", "status")
    assert f"worker {place.worker()}" in status.stdout and "test: balanced" in status.stdout
    assert "stopped" in place.stemplug("worker", "stop").stdout
    assert not place.socket.exists()
    logs = place.stemplug("worker", "logs").stdout
    assert "ended" in logs and str(place.folder / "state") in logs
    client.close()


def test_it_ends_when_nobody_has_come_for_a_while(place: Place) -> None:
    process = place.start_worker(STEMPLUG_WORKER_IDLE="1")
    client = Client(place)
    client.open()
    time.sleep(2)
    assert process.poll() is None  # somebody is there
    client.close()
    assert process.wait(10) == 0
    assert not place.socket.exists()


def test_its_socket_is_there_only_when_it_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMPLUG_RUNTIME_DIR", str(tmp_path))
    early = []
    with Server() as server, socket.socket(socket.AF_UNIX) as client:

        def listen(listening: socket.socket, backlog: int) -> None:
            early.append(server.path.exists())
            super(socket.socket, listening).listen(backlog)
            server.stop()

        monkeypatch.setattr(socket.socket, "listen", listen)
        server.run()
        assert early == [False]
        assert client.connect_ex(str(server.path)) == 0
        assert [path for path in tmp_path.iterdir() if path.is_socket()] == [server.path]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(place: Place, number: int) -> None:
    process = place.start_worker()
    process.send_signal(number)
    assert process.wait(10) == 0
    assert not place.socket.exists()


def test_what_a_killed_worker_leaves_is_taken_over(place: Place) -> None:
    place.start_worker().kill()
    wait_until(lambda: not place.workers(), 5, "its end")
    assert place.socket.exists()
    place.start_worker()
    wait_until(lambda: place.worker(), 10, "a worker")


def test_detached_it_has_no_parent_and_holds_no_file_of_its_starter(place: Place, tmp_path: Path) -> None:
    held = (tmp_path / "held").open("w")
    os.set_inheritable(held.fileno(), True)
    command = [sys.executable, "-m", "stemplug.worker", "--detach"]
    subprocess.run(command, env=place.env, cwd=ROOT, timeout=10, close_fds=False, check=True)
    worker = place.worker()
    assert os.path.realpath(f"/proc/{worker}/cwd") == "/"
    files = [os.path.realpath(f"/proc/{worker}/fd/{fd}") for fd in os.listdir(f"/proc/{worker}/fd")]
    assert not [file for file in files if "held" in file]
    held.close()


def test_a_folder_of_somebody_else_is_refused(place: Place, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(place.runtime)
    env = place.env | {"STEMPLUG_RUNTIME_DIR": str(link)}
    done = subprocess.run([sys.executable, "-m", "stemplug.worker"], env=env, cwd=ROOT, timeout=30)
    assert done.returncode == 1
    assert "is not this user's folder" in place.log()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be another user")
def test_another_user_cannot_connect(place: Place) -> None:
    place.start_worker()
    place.runtime.chmod(0o711)  # even where folder and socket let everybody in
    place.socket.chmod(0o777)
    script = (
        "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.settimeout(5); "
        f"s.connect({str(place.socket)!r}); "
        f"s.sendall({encode_frame({'type': 'hello', 'protocol': 1, 'client': 'control'})!r}); "
        "sys.exit(0 if not s.recv(100) else 1)"
    )
    done = subprocess.run([sys.executable, "-c", script], timeout=30, capture_output=True, text=True)
    assert done.returncode == 0 or "ConnectionReset" in done.stderr or "BrokenPipe" in done.stderr
    assert "refused a connection of user 65534" in place.log()


BAD = {
    "no greeting": lambda client: client.send({"type": "status"}),
    "garbage": lambda client: client.connection.sendall(b"\xff" * 1000),
    "version": lambda client: client.send(HELLO | {"protocol": 2}),
    "two greetings": lambda client: (client.send(HELLO), client.send(HELLO)),
    "no memory": lambda client: (client.send(HELLO), client.send(client.request)),
    "two memories": lambda client: (client.send(HELLO), client.send(client.request, client.memory, client.memory)),
    "unknown model": lambda client: (client.send(HELLO), client.send(client.request | {"model": "x"}, client.memory)),
    "a path": lambda client: (client.send(HELLO), client.send(client.request | {"model": "../x"}, client.memory)),
    "another model of that name": lambda client: (
        client.send(HELLO), client.send(client.request | {"sha256": "0" * 64}, client.memory)
    ),
    "rows": lambda client: (client.send(HELLO), client.send(client.request | {"rows": 4}, client.memory)),
    "latency": lambda client: (client.send(HELLO), client.send(client.request | {"latency_frames": 1}, client.memory)),
    "offline latency": lambda client: (
        client.send(HELLO), client.send(client.request | {"latency": None}, client.memory)
    ),
    "positions": lambda client: (client.open(), client.put(88, 5), client.put(96, 1)),
    "written": lambda client: (client.open(), client.begin(), client.put(64, 1 << 60)),
    "written back": lambda client: (client.open(), client.begin(), client.put(64, -5)),
}  # fmt: skip


def test_a_client_that_errs_loses_its_connection_and_nobody_else_does(place: Place, song: Audio) -> None:
    process = place.start_worker()
    good = Client(place)
    assert (good.open() or {})["type"] == "opened"
    good.begin()
    for name, err in BAD.items():
        bad = Client(place)
        err(bad)
        frame: dict[str, object] | None = {"type": ""}
        while frame and frame["type"] != "error":
            frame = bad.receive()
        assert frame and frame["message"], name
        bad.close()
    good.write(song[:, :RATE])
    assert np.abs(good.stems(RATE - 6000)).max() > 0
    assert process.poll() is None
    good.close()


MODELS = pytest.mark.parametrize(("model", "stems"), [("spleeter-2stems", 1), ("stemplug-live", 3)])


@MODELS
def test_a_live_stream_gives_what_python_gives(place: Place, song: Audio, model: str, stems: int) -> None:
    place.start_worker()
    client = Client(place, stems=stems, model=model)
    assert client.open() == {"type": "opened", "latency_frames": Separator(model, "live").stream(RATE).latency_samples}
    client.begin()
    for at in range(0, 2 * RATE, 1000):
        client.write(song[:, at : at + 1000])
        if at < 10_000:  # the silence at the song's start may be taken piece by piece, or together with sound
            wait_until(lambda: client.get(144) == client.get(64), 10, "the worker to take it")
    frames = 2 * RATE - 8192
    stream = Separator(model, "live").stream(RATE)
    expected = stream.push(song[:, : 2 * RATE])["vocals"]
    np.testing.assert_allclose(client.stems(frames), expected[:, :frames], atol=1e-6)
    client.close()


@MODELS
@pytest.mark.parametrize("silence", [0, 3000])
def test_live_windows_are_counted_from_the_hosts_time(
    place: Place, song: Audio, silence: int, model: str, stems: int
) -> None:
    """However long silence came in before, a passage gives the stems that it gives in the song's own time."""
    place.start_worker()
    client = Client(place, stems=stems, model=model)
    client.open()
    began, length, host = RATE, RATE, 3 * RATE + 123
    stream = Separator(model, "live").stream(RATE)
    lead = stream.begin_after(host - silence)
    audio = np.concatenate([np.zeros((2, silence), np.float32), song[:, began : began + length]], axis=1)
    os.pwrite(client.memory, struct.pack("<2qI", silence, host, 1), MARK_OFFSET)
    client.put(80, 1)
    client.begin()
    for at in range(0, audio.shape[1], 1000):
        client.write(audio[:, at : at + 1000])
    frames = audio.shape[1] - 8192
    expected = stream.push(np.pad(audio, ((0, 0), (lead, 0))))["vocals"][:, lead:]
    np.testing.assert_allclose(client.stems(frames), expected[:, :frames], atol=1e-6)
    client.close()


@pytest.mark.parametrize(("profile", "latency"), [("live", "low"), ("live", "high"), ("offline", None)])
def test_live_nobody_looks_at_once_for_the_block_that_comes_later(
    place: Place, song: Audio, profile: str, latency: str | None
) -> None:
    place.start_worker()
    client = Client(place, stems=3, model="stemplug-live", profile=profile, latency=latency)
    request, done, again = Open.model_validate(client.request), threading.Event(), []
    segment, separator = Segment(os.dup(client.memory), request), Separator(request.model, profile, latency=latency)
    with Instance(request, segment, separator, Lanes(1, done.set)) as instance:
        client.begin()
        for at in range(RATE, RATE + 20 * 512, 512):
            client.write(song[:, at : at + 512])
            again.append(instance.step())
            assert client.get(144) == client.get(64), "taken"
            assert instance.patience < 512 / RATE, "in time for the next block"
            if profile == "live" and done.wait(0.5):
                done.clear()
                again.append(instance.step())
    assert set(again) == {profile == "offline"}
    assert profile == "offline" or client.get(136) > 12 * 512, "given as soon as they are there"
    client.close()


def test_a_client_that_reads_no_stems_is_not_written_over(place: Place, song: Audio) -> None:
    place.start_worker()
    client = Client(place, capacity=1 << 16)
    client.open()
    client.begin()
    client.write(song[:, : 1 << 16])
    wait_until(lambda: client.get(144) == 1 << 16, 10, "room")
    for channel in range(2):
        os.pwrite(client.memory, song[channel, 1 << 16 : 1 << 17].tobytes(), HEADER_BYTES + 4 * (channel << 16))
    client.put(64, 1 << 17)
    wait_until(lambda: client.get(136) == 1 << 16, 10, "stems up to the end of the ring")
    time.sleep(0.5)
    assert client.get(136) == 1 << 16
    client.put(72, 1000)
    wait_until(lambda: client.get(136) == (1 << 16) + 1000, 10, "stems where there is room again")
    client.close()
