"""The worker's one thread that talks: accepts, reads frames, moves audio; windows are separated on lanes."""

from __future__ import annotations

import fcntl
import logging
import logging.handlers
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import stemplug
from stemplug.closing import Closing
from stemplug.engine import Separator, model_info
from stemplug.engine.separator import usable_threads
from stemplug.errors import StemPlugError
from stemplug.worker.instance import Instance
from stemplug.worker.lanes import OFFLINE_LANES, Lanes
from stemplug.worker.places import LOCK, LOG, SOCKET, log_folder, make_runtime_folder
from stemplug.worker.protocol import (
    PROTOCOL,
    FrameReader,
    Hello,
    Open,
    ProtocolError,
    Status,
    Stop,
    encode_frame,
    parse_message,
)
from stemplug.worker.segment import Segment

log = logging.getLogger("stemplug.worker")

IDLE_SECONDS = float(os.environ.get("STEMPLUG_WORKER_IDLE") or 60)
MAX_CONNECTIONS = 512
GREETING_SECONDS = 5.0
_LEAST_POLL, _IDLE_POLL = 0.001, 0.25
_BEAT = 0.1
_STUCK = 120.0
_LOG_BYTES = 1 << 20


class Models:
    """Separators, loaded once each on a thread of their own, for as long as the worker runs."""

    def __init__(self) -> None:
        self._loading: dict[tuple[str, str, str, str | None], Future[Separator]] = {}
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="stemplug-loader")

    def get(self, request: Open) -> Future[Separator]:
        """Return the separator that a request needs, now or later."""
        key = (request.model, request.sha256, request.profile, request.latency)
        found = self._loading.get(key)
        if found is None or (found.done() and found.exception()):
            found = self._loading[key] = self._loader.submit(self._load, request)
        return found

    @staticmethod
    def _load(request: Open) -> Separator:
        # By name only: a path of the plugin's choice is none of its business.
        model = model_info(request.model if os.sep not in request.model else "")
        if request.sha256 and request.sha256 != model.digest:
            raise ProtocolError(
                f"the plugin was set up with another model of the name '{model.name}'. "
                "Run 'stemplug plugin install' again"
            )
        return Separator(model.name, request.profile, latency=request.latency)


class Client(Closing):
    """One connection: greeting, then an instance or questions."""

    def __init__(self, server: Server, connection: socket.socket) -> None:
        self.server, self.connection = server, connection
        self.since = time.monotonic()
        self.greeted = False
        self.instance: Instance | None = None
        self._waiting: tuple[Open, Segment, Future[Separator]] | None = None
        self._frames = FrameReader()
        self._descriptors: list[int] = []

    @property
    def opened(self) -> bool:
        """Whether a stream was asked for."""
        return self.instance is not None or self._waiting is not None

    def receive(self) -> bool:
        """Read what has come; returns False at the end of the connection. Raises `ProtocolError`."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self.connection, 1 << 16, 4)
        except BlockingIOError:
            return True
        self._descriptors += descriptors
        if not data:
            return False
        for frame in self._frames.push(data):
            self._answer(frame)
        return True

    def _answer(self, frame: dict[str, Any]) -> None:
        message = parse_message(frame)
        if isinstance(message, Hello) and not self.greeted:
            if message.protocol != PROTOCOL:
                raise ProtocolError(f"protocol {message.protocol}; this worker speaks {PROTOCOL}")
            self.greeted = True
            self.send({"type": "hello", "protocol": PROTOCOL, "version": stemplug.__version__, "pid": os.getpid()})
        elif not self.greeted or isinstance(message, Hello):
            raise ProtocolError(f"'{message.type}' where a greeting was expected, or a second one")
        elif isinstance(message, Open):
            self._open(message)
        elif isinstance(message, Status):
            self.send({"type": "status", **self.server.describe()})
        elif isinstance(message, Stop):
            self.send({"type": "stopping"})
            self.server.stop()

    def _open(self, request: Open) -> None:
        if self.opened or len(self._descriptors) != 1:
            raise ProtocolError("'open' needs one descriptor, once a connection")
        segment = Segment(self._descriptors.pop(), request)
        loading = self.server.models.get(request)
        self._waiting = request, segment, loading
        loading.add_done_callback(lambda _: self.server.wake())

    def step(self) -> bool:
        """Do what can be done; returns whether to look again at once."""
        if self._waiting and self._waiting[2].done():
            request, segment, loading = self._waiting
            separator = loading.result()
            lanes = self.server.live if request.profile == "live" else self.server.offline
            self.instance = Instance(request, segment, separator, lanes)
            self._waiting = None
            log.info("%s: %s, %s", request.name, request.model, request.latency or request.profile)
            self.send({"type": "opened", "latency_frames": self.instance.latency_frames})
        return self.instance.step() if self.instance else False

    def send(self, message: dict[str, Any]) -> None:
        """Send a frame, or nothing where the other side does not read."""
        with suppress(OSError):
            self.connection.send(encode_frame(message))

    def close(self) -> None:
        """End the stream and the connection."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()
        self.connection.close()
        if self._waiting:
            self._waiting[1].close()
        if self.instance and self.instance.capturing:  # completed beside the others, who must not wait for it
            threading.Thread(target=self.instance.close, name="stemplug-capture").start()
        elif self.instance:
            self.instance.close()
        self.instance = self._waiting = None


class Server(Closing):
    """Listens on the socket of this user, once it runs, until nobody has been connected for a while.

    Raises
    ------
    WorkerError
        If the runtime folder cannot be used.
    BlockingIOError
        If another worker runs.
    """

    def __init__(self) -> None:
        self.models = Models()
        folder = make_runtime_folder()
        self._lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.path = folder / SOCKET
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._woken, self._wakes = socket.socketpair()
        for end in (self._woken, self._wakes):
            end.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._clients: dict[socket.socket, Client] = {}
        self._stopping = False
        self._began = time.monotonic()
        self.live = Lanes(max(1, usable_threads() // 2), self.wake)
        self.offline = Lanes(OFFLINE_LANES, self.wake, nice=True)

    def wake(self) -> None:
        """Have the loop look at its instances at once; from any thread."""
        with suppress(BlockingIOError):
            self._wakes.send(b"!")

    def stop(self) -> None:
        """End the loop."""
        self._stopping = True
        self.wake()

    def describe(self) -> dict[str, Any]:
        """What ``stemplug worker status`` shows."""
        instances = [c.instance for c in self._clients.values() if c.instance]
        return {
            "pid": os.getpid(),
            "version": stemplug.__version__,
            "uptime_seconds": round(time.monotonic() - self._began, 1),
            "memory_mb": round(_resident_bytes() / 1e6),
            "instances": [{"name": i.name, "profile": i.profile, "load": round(i.load, 3)} for i in instances],
        }

    def run(self) -> None:
        """Serve."""
        self._appear()
        self._socket.setblocking(False)
        self._selector.register(self._socket, selectors.EVENT_READ)
        beat = idle_since = time.monotonic()
        while not self._stopping:
            now = time.monotonic()
            again = self._step()
            if self._clients:
                idle_since = now
            elif now - idle_since > IDLE_SECONDS:
                log.info("idle for %.0f s", IDLE_SECONDS)
                return
            if now - beat > _BEAT:
                beat = now
                self._beat(now)
            self._listen(0.0 if again else self._pause())

    def _appear(self) -> None:
        """Put the socket where clients look for it once it listens: before that it would refuse them."""
        unseen = self.path.with_suffix(".next")
        unseen.unlink(missing_ok=True)  # ours alone, by the lock: left behind by a worker that was killed
        self._socket.bind(str(unseen))
        unseen.chmod(0o600)
        self._socket.listen(128)
        unseen.replace(self.path)

    def _pause(self) -> float:
        """How long to wait for a frame before instances are looked at again."""
        if not any(client.opened for client in self._clients.values()):
            return _IDLE_POLL
        patience = [client.instance.patience for client in self._clients.values() if client.instance]
        return max(_LEAST_POLL, min(patience, default=_IDLE_POLL))

    def _step(self) -> bool:
        """Let all do what they can; returns whether to look again at once."""
        again = False
        for client in list(self._clients.values()):
            with self._guarded(client):
                again |= client.step()
        return again

    def _beat(self, now: float) -> None:
        """Tell all that the worker lives, unless a window has been at work for minutes: then it does not."""
        stuck = max(self.live.longest(), self.offline.longest()) > _STUCK
        for client in list(self._clients.values()):
            if client.instance and not stuck:
                client.instance.beat()
            if not client.greeted and now - client.since > GREETING_SECONDS:
                self._drop(client, "no greeting")

    def _listen(self, pause: float) -> None:
        for key, _ in self._selector.select(pause):
            if key.fileobj is self._socket:
                self._accept()
            elif key.fileobj is self._woken:
                with suppress(BlockingIOError):
                    self._woken.recv(4096)
            else:
                client = self._clients[key.fileobj]  # type: ignore[index]
                with self._guarded(client):
                    if not client.receive():
                        self._drop(client)

    def _accept(self) -> None:
        with suppress(OSError):
            connection, _ = self._socket.accept()
            _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if user != os.getuid() or len(self._clients) >= MAX_CONNECTIONS:
                log.warning("refused a connection of user %d", user)
                connection.close()
                return
            connection.setblocking(False)
            self._clients[connection] = Client(self, connection)
            self._selector.register(connection, selectors.EVENT_READ)

    def _guarded(self, client: Client) -> _Guard:
        return _Guard(self, client)

    def _drop(self, client: Client, reason: str = "") -> None:
        """Close a connection, and nothing else."""
        if self._clients.pop(client.connection, None) is None:
            return
        self._selector.unregister(client.connection)
        if reason:
            log.warning("connection closed: %s", reason)
            client.send({"type": "error", "message": reason[:1000]})
        try:
            client.close()
        except Exception as error:  # of a capture, say: the others must go on
            log.exception("while closing: %s", error)

    def close(self) -> None:
        """Close all connections and leave the socket's folder as it was."""
        for client in list(self._clients.values()):
            self._drop(client)
        self.path.unlink(missing_ok=True)
        self._socket.close()
        os.close(self._lock)


class _Guard:
    """What goes wrong with one client ends its connection, and nothing else."""

    def __init__(self, server: Server, client: Client) -> None:
        self._server, self._client = server, client

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is None or not isinstance(error, Exception):
            return False
        if not isinstance(error, (StemPlugError, OSError)):
            log.exception("internal error", exc_info=error)
        self._server._drop(self._client, str(error) or type(error).__name__)
        return True


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _start_log() -> None:
    folder = log_folder()
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(folder / LOG, maxBytes=_LOG_BYTES, backupCount=2)
    handler.setFormatter(logging.Formatter("%(asctime)s [%(process)d] %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def _log_machine() -> None:
    """What `stemplug doctor` prints, once a log file. It tries things for two seconds, so it steps back behind all."""
    heading = f"stemplug {stemplug.__version__}: what works here"
    with suppress(OSError, subprocess.SubprocessError):
        if heading in (log_folder() / LOG).read_text():
            return
        command = ["nice", "-n", "19", sys.executable, "-m", "stemplug", "doctor"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
        log.info("%s\n%s", heading, found.stdout)


def main() -> int:
    """Serve; returns the process's exit code: 0 also where another worker runs already."""
    os.umask(0o077)
    with suppress(OSError):
        _start_log()
    try:
        server = Server()
    except BlockingIOError:
        return 0
    except (StemPlugError, OSError) as error:
        log.error("%s", error)
        return StemPlugError.exit_code
    with server:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.stop())
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        log.info("stemplug %s, pid %d", stemplug.__version__, os.getpid())
        threading.Thread(target=_log_machine, daemon=True).start()
        try:
            server.run()
        except OSError as error:  # a socket whose path is too long, say
            log.error("%s: %s", server.path, error)
            return StemPlugError.exit_code
    log.info("ended")
    return 0
