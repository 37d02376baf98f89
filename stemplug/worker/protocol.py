"""Control frames between plugin and worker: four bytes of length, then JSON. See cpp_shim/PROTOCOL.md."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from stemplug.errors import WorkerError

PROTOCOL = 1
MAX_FRAME = 65536
_LENGTH = struct.Struct("<I")


class ProtocolError(WorkerError):
    """What the other side sent is no frame, or none that belongs here. The connection ends, and nothing else."""


class _Message(BaseModel):
    """Unknown fields are ignored: a newer plugin may send more."""

    model_config = ConfigDict(strict=True, frozen=True)


class Hello(_Message):
    """The first frame of a connection."""

    type: Literal["hello"]
    protocol: int
    client: Literal["plugin", "control"]


class Open(_Message):
    """Asks for a stream; a descriptor of the shared memory comes along."""

    type: Literal["open"]
    model: Annotated[str, Field(max_length=256)]
    sha256: Annotated[str, Field(max_length=64)]
    profile: Literal["live", "offline"]
    latency: Literal["low", "balanced", "high"] | None
    sample_rate: Annotated[float, Field(ge=8_000, le=192_000)]
    channels: Annotated[int, Field(ge=1, le=2)]
    rows: Annotated[int, Field(ge=1, le=32)]
    latency_frames: Annotated[int, Field(ge=0, le=1 << 28)]
    input_capacity: Annotated[int, Field(ge=1, le=1 << 28)]
    output_capacity: Annotated[int, Field(ge=1, le=1 << 28)]
    name: Annotated[str, Field(max_length=256)]

    @model_validator(mode="after")
    def _check_latency(self) -> Self:
        if (self.latency is None) == (self.profile == "live"):
            raise ValueError("live needs a latency, offline has none")
        return self


class Wake(_Message):
    """Somebody waits for stems."""

    type: Literal["wake"]


class Status(_Message):
    """Asks what the worker does."""

    type: Literal["status"]


class Stop(_Message):
    """Asks the worker to end."""

    type: Literal["stop"]


Message = Annotated[Hello | Open | Wake | Status | Stop, Field(discriminator="type")]
_MESSAGES: TypeAdapter[Hello | Open | Wake | Status | Stop] = TypeAdapter(Message)


def encode_frame(message: dict[str, Any]) -> bytes:
    """Return a frame."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return _LENGTH.pack(len(body)) + body


def parse_message(frame: dict[str, Any]) -> Hello | Open | Wake | Status | Stop:
    """Validate a frame that a client sent; raises `ProtocolError`."""
    try:
        return _MESSAGES.validate_python(frame)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ProtocolError(f"{'.'.join(map(str, first['loc'])) or 'frame'}: {first['msg']}") from None


class FrameReader:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def push(self, received: bytes) -> Iterator[dict[str, Any]]:
        """Take bytes and yield the frames that are whole; raises `ProtocolError` at what is none."""
        self._bytes += received
        while len(self._bytes) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._bytes)
            if not 2 <= size <= MAX_FRAME:
                raise ProtocolError(f"a frame of {size} bytes; expected 2 to {MAX_FRAME}")
            if len(self._bytes) < _LENGTH.size + size:
                return
            body = bytes(self._bytes[_LENGTH.size : _LENGTH.size + size])
            del self._bytes[: _LENGTH.size + size]
            try:
                frame = json.loads(body)
            except (ValueError, RecursionError):
                raise ProtocolError("a frame that is no JSON") from None
            if not isinstance(frame, dict):
                raise ProtocolError("a frame that is no JSON object")
            yield frame
