"""Broadcast WAV: PCM16, PCM24 or float32, with ``bext`` and ``iXML`` chunks, RF64 above 4 GB.

No library at hand writes these chunks. Sources: EBU Tech 3285 (bext, version 1), EBU Tech 3306 (RF64),
iXML 1.61 (gallery.co.uk/ixml).
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from stemplug.audio import Audio
from stemplug.closing import Closing

DEPTHS = {"16": 16, "24": 24, "32f": 32}
"""Sample formats and their bits."""
CHANNEL_NAMES = {1: ("",), 2: (" L", " R")}
_BLOCK = 1 << 13  # frames at a time: intermediate results stay in the processor's cache
_RIFF_LIMIT = 0xFFFFFFFF
_DS64_BYTES = 28
_EXTENSIBLE = 0xFFFE
_SUBFORMAT = bytes.fromhex("000000001000800000aa00389b71")  # of the GUID, behind the format's tag


@dataclass(frozen=True)
class TrackTags:
    """What a track tells of itself: stem, song, and a sentence of origin; ``start`` is its first frame in the song.

    ``channels`` names the channels where they are not those of one stem.
    """

    stem: str
    song: str
    description: str
    start: int = 0
    channels: tuple[str, ...] = ()

    def channel_names(self, channels: int) -> tuple[str, ...]:
        """The names of all channels, as "vocals L"."""
        return self.channels or tuple(self.stem + side for side in CHANNEL_NAMES[channels])


def quantize(audio: Audio, bits: int) -> NDArray[np.int32]:
    """Round float ``(channels, frames)`` to ``bits`` bits, ``(frames, channels)``; beyond full scale it saturates."""
    scale = float(1 << (bits - 1))
    scaled = np.multiply(audio.T, scale, order="C")
    np.rint(scaled, out=scaled)
    return np.clip(scaled, -scale, np.nextafter(np.float32(scale), np.float32(0)), out=scaled).astype(np.int32)


class WavWriter(Closing):
    """A WAV file being written, block by block; the header is completed by `close`."""

    def __init__(
        self, path: Path, sample_rate: int, channels: int, depth: str, tags: TrackTags, *, riff_limit: int = _RIFF_LIMIT
    ) -> None:
        self._bits, self._float = DEPTHS[depth], depth == "32f"
        self._frame = channels * self._bits // 8
        self._riff_limit = riff_limit
        self._frames = 0
        chunks = [
            (b"bext", _bext(tags, sample_rate, channels, self._bits)),
            (b"iXML", _ixml(tags, channels)),
            (b"fmt ", self._format(sample_rate, channels)),
        ]
        if self._float:
            chunks.append((b"fact", bytes(4)))
        header = b"RIFF\0\0\0\0WAVEJUNK" + struct.pack("<I", _DS64_BYTES) + bytes(_DS64_BYTES)
        for name, content in chunks:
            self._fact = len(header) + 8
            # Of even length, both texts at their end: libsndfile forgets pad bytes in RF64 files and finds no data.
            content += b"\n" * (len(content) % 2)
            header += name + struct.pack("<I", len(content)) + content
        self._data = len(header) + 4
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - closed by close()
        try:
            self._write(header + b"data\0\0\0\0")
        except BaseException:
            self._file.close()
            raise

    def _format(self, sample_rate: int, channels: int) -> bytes:
        tag = 3 if self._float else 1
        extensible = channels > 2  # then required: Microsoft, "Multiple Channel Audio Data and WAVE Files"
        fields = struct.pack(
            "<HHIIHH",
            _EXTENSIBLE if extensible else tag,
            channels,
            sample_rate,
            sample_rate * self._frame,
            self._frame,
            self._bits,
        )
        if extensible:  # no channel is a loudspeaker's
            return fields + struct.pack("<HHIH", 22, self._bits, 0, tag) + _SUBFORMAT
        return fields + (bytes(2) if self._float else b"")

    def _write(self, content: bytes | memoryview) -> None:
        """Write all of it: an unbuffered file may take less at a time, on a disk that fills up."""
        left = memoryview(content).cast("B")
        while left:
            left = left[self._file.write(left) :]

    def write(self, audio: Audio) -> None:
        """Append ``(channels, frames)``."""
        for start in range(0, audio.shape[1], _BLOCK):
            block = audio[:, start : start + _BLOCK]
            self._write(self._packed(block).data)
            self._frames += block.shape[1]

    def _packed(self, audio: Audio) -> NDArray[np.uint8]:
        """The bytes of samples ``(channels, frames)``."""
        if self._float:
            return np.ascontiguousarray(audio.T, dtype="<f4").view(np.uint8)
        if self._bits == 16:
            return quantize(audio, 16).astype("<i2").view(np.uint8)
        bytes4 = quantize(audio, 24).astype("<i4", copy=False).view(np.uint8).reshape(-1, 4)
        bytes3 = np.empty((len(bytes4), 3), np.uint8)
        for place in range(3):  # twice as fast as a copy of three in four
            bytes3[:, place] = bytes4[:, place]
        return bytes3

    def close(self) -> None:
        """Complete the header and close."""
        if self._file.closed:
            return
        try:
            size = self._frames * self._frame
            if size % 2:
                self._write(b"\0")
            total = self._file.tell() - 8
            if total > self._riff_limit:
                self._patch(0, b"RF64" + struct.pack("<I", _RIFF_LIMIT))
                ds64 = struct.pack("<QQQI", total, size, self._frames, 0)
                self._patch(12, b"ds64" + struct.pack("<I", _DS64_BYTES) + ds64)
                self._patch(self._data, struct.pack("<I", _RIFF_LIMIT))
            else:
                self._patch(4, struct.pack("<I", total))
                self._patch(self._data, struct.pack("<I", size))
            if self._float:
                self._patch(self._fact, struct.pack("<I", min(self._frames, _RIFF_LIMIT)))
        finally:
            self._file.close()

    def _patch(self, position: int, content: bytes) -> None:
        self._file.seek(position)
        self._write(content)


def _bext(tags: TrackTags, sample_rate: int, channels: int, bits: int) -> bytes:
    """The broadcast extension, version 1: the song's time of the first frame, so that editors can spot the track."""
    now = time.localtime()
    mode = {1: "mono", 2: "stereo"}.get(channels, "multi")
    history = f"A=PCM,F={sample_rate},W={bits},M={mode},T=StemPlug\r\n".encode("ascii")
    return (
        struct.pack(
            "<256s32s32s10s8sQH64s190s",
            _ascii(tags.description, 256),
            b"StemPlug",
            b"",
            time.strftime("%Y-%m-%d", now).encode(),
            time.strftime("%H:%M:%S", now).encode(),
            tags.start,
            1,
            b"",
            b"",
        )
        + history
    )


def _ixml(tags: TrackTags, channels: int) -> bytes:
    tracks = "".join(
        f"<TRACK><CHANNEL_INDEX>{i}</CHANNEL_INDEX><INTERLEAVE_INDEX>{i}</INTERLEAVE_INDEX>"
        f"<NAME>{_xml(name)}</NAME></TRACK>"
        for i, name in enumerate(tags.channel_names(channels), 1)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f"<BWFXML><IXML_VERSION>1.61</IXML_VERSION><PROJECT>{_xml(tags.song)}</PROJECT>"
        f"<NOTE>{_xml(tags.description)}</NOTE>"
        f"<TRACK_LIST><TRACK_COUNT>{channels}</TRACK_COUNT>{tracks}</TRACK_LIST></BWFXML>"
    ).encode()


def _ascii(text: str, length: int) -> bytes:
    return text.encode("ascii", "replace")[:length]


def _xml(text: str) -> str:
    """Escape for XML 1.0: undecodable bytes of a file name and control characters have no place in it."""
    clean = text.encode("utf-8", "replace").decode()
    return escape("".join(c if c >= " " and c not in "\ufffe\uffff" else "?" for c in clean))
