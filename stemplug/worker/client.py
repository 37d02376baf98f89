"""Questions to a worker that runs: ``stemplug worker status|stop``."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import Any

from stemplug.errors import WorkerError
from stemplug.worker.places import SOCKET, runtime_folder
from stemplug.worker.protocol import PROTOCOL, FrameReader, encode_frame

_SECONDS = 5.0


def ask(question: str) -> dict[str, Any] | None:
    """Send "status" or "stop" and return the answer, or None where no worker runs; raises `WorkerError`."""
    path = runtime_folder() / SOCKET
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_SECONDS)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError as error:
            raise WorkerError(f"'{path}': {(error.strerror or str(error)).lower()}.") from None
        try:
            for message in ({"type": "hello", "protocol": PROTOCOL, "client": "control"}, {"type": question}):
                connection.sendall(encode_frame(message))
            return _answer(connection)
        except OSError:
            raise WorkerError(
                f"the worker at '{path}' does not answer within {_SECONDS:.0f} s. "
                "See 'stemplug worker logs'; end the process 'stemplug.worker' if it hangs."
            ) from None


def stop() -> bool:
    """End the worker and wait until its socket is gone; returns False where none runs. Raises `WorkerError`."""
    if ask("stop") is None:
        return False
    path = runtime_folder() / SOCKET
    limit = time.monotonic() + _SECONDS
    while path.exists():
        if time.monotonic() > limit:
            raise WorkerError(f"the worker at '{path}' does not end. See 'stemplug worker logs'.")
        time.sleep(0.02)
    return True


def _answer(connection: socket.socket) -> dict[str, Any]:
    """The second frame; the first is the greeting."""
    reader = FrameReader()
    frames: list[dict[str, Any]] = []
    while len(frames) < 2:
        received = b""
        with suppress(ConnectionResetError):
            received = connection.recv(4096)
        if not received:
            raise WorkerError("the worker hung up. See 'stemplug worker logs'.")
        frames += reader.push(received)
        if frames[-1:] and frames[-1].get("type") == "error":
            raise WorkerError(f"the worker refuses: {frames[-1].get('message')}. Run 'stemplug worker stop'.")
    return frames[1]
