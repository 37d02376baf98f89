"""Streaming decode of audio files: libsndfile where it can, FFmpeg (PyAV) for the rest (M4A, video, ...)."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from stemplug.audio.checks import Audio, check_finite, check_rate
from stemplug.closing import Closing
from stemplug.errors import AudioError, OptionError

PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]

SUFFIXES = frozenset(
    "." + suffix
    for kind in ("wav wave bwf rf64 w64", "aif aiff aifc caf", "flac ogg oga opus", "mp3 m4a mp4 aac wma")
    for suffix in kind.split()
)
"""What counts as a song when a folder is searched. A file that is named is opened whatever its suffix."""

# Containers that FFmpeg may open. Playlists and concatenations would let a file name other files to be read.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,asf,avi,mpegts,mpeg,flv,ac3,eac3,wv,ape,tta,amr,mp3,flac,ogg"
_STREAMED = 0xFFFFFF00  # a header size of a recorder that could not seek back
_STEP = 4096  # frames of a FLAC block, mostly
_MP3_TOLERANCE = 0.98  # without a Xing header the length of an MP3 is an estimate


@dataclass(frozen=True)
class ReaderInfo:
    """What is known of a file before it is decoded.

    ``frames`` counts the part that will be read (an estimate where ``exact`` is false). ``depth`` is the sample format
    of the file: "16", "24", "32", "32f", or "lossy".
    """

    path: Path
    sample_rate: int
    channels: int
    frames: int
    exact: bool
    depth: str
    format: str


class _Decoder(Protocol):
    sample_rate: int
    channels: int
    frames: int
    exact: bool
    depth: str
    format: str

    def blocks(self, start: int, frames: int) -> Iterator[Audio]: ...

    def close(self) -> None: ...


class _SndFile:
    """WAV, RF64, W64, AIFF, CAF, FLAC, OGG, MP3 through libsndfile."""

    _DEPTHS = {"PCM_S8": "16", "PCM_U8": "16", "PCM_16": "16", "PCM_24": "24", "PCM_32": "32"}

    def __init__(self, descriptor: int) -> None:
        import soundfile

        self._file = soundfile.SoundFile(descriptor, closefd=False)
        self.sample_rate = self._file.samplerate
        self.channels = self._file.channels
        self.format = self._file.format
        self.exact = self.format != "MP3"
        floats = self._file.subtype in ("FLOAT", "DOUBLE")
        self.depth = "32f" if floats else self._DEPTHS.get(self._file.subtype, "lossy")
        self.frames = self._claimed(descriptor)

    def _claimed(self, descriptor: int) -> int:
        """The number of frames that the header promises; libsndfile itself quietly corrects it to what is there."""
        log, frames = str(self._file.extra_info), int(self._file.frames)
        for claimed, present in re.findall(r"(?:data|SSND|riff)\s*: (\d+) \(should be (\d+)\)", log):
            if int(present) < int(claimed) < _STREAMED or (self.format == "W64" and int(claimed) > int(present)):
                return max(frames + 1, frames * int(claimed) // max(1, int(present)))
        if self.format == "OGG" and not _ogg_ends(descriptor):
            return frames + 1
        return frames

    def blocks(self, start: int, frames: int) -> Iterator[Audio]:
        if start:
            self._file.seek(start)
        while True:
            pieces, read, failure = [], 0, None
            try:  # a read that fails gives nothing, so small ones lose little of what precedes the damage
                while read < frames and len(piece := self._read(min(_STEP, frames - read))):
                    pieces.append(piece)
                    read += len(piece)
            except RuntimeError as error:
                failure = error
            if pieces:
                yield np.ascontiguousarray(np.concatenate(pieces).T)
            if failure:
                raise failure
            if not pieces:
                return

    def _read(self, frames: int) -> Any:
        return self._file.read(frames, dtype="float32", always_2d=True)

    def close(self) -> None:
        self._file.close()


def _ogg_ends(descriptor: int) -> bool:
    """Whether the last Ogg page carries the end-of-stream flag (RFC 3533, 6)."""
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, 1 << 17, max(0, size - (1 << 17)))
    page = tail.rfind(b"OggS")
    return page >= 0 and len(tail) > page + 5 and bool(tail[page + 5] & 4)


class _FFmpeg:
    """Whatever else FFmpeg decodes, from the first audio stream; encoder delay and padding are taken off."""

    depth = "lossy"

    def __init__(self, descriptor: int) -> None:
        import av
        from av.container import InputContainer

        self._file = os.fdopen(os.dup(descriptor), "rb")
        try:
            self._file.seek(0)
            container = av.open(self._file, options={"format_whitelist": _CONTAINERS})
        except av.FFmpegError as error:  # some of them are an EOFError or MemoryError, some no built-in error at all
            self._file.close()
            raise RuntimeError(str(error)) from None
        except BaseException:
            self._file.close()
            raise
        assert isinstance(container, InputContainer)
        self._container = container
        try:
            self._describe()
        except BaseException:
            self.close()
            raise

    def _describe(self) -> None:
        self.format = self._container.format.name.split(",")[0]
        streams = self._container.streams
        if not streams.audio:
            raise AudioError("it has no audio stream (video without sound?). Give a file with audio.")
        self._stream = streams.audio[0]
        context = self._stream.codec_context
        if context is None or "drm" in str(self._stream.codec_tag if hasattr(self._stream, "codec_tag") else ""):
            raise AudioError("its audio is protected (DRM) or of an unknown codec. Give an unprotected copy.")
        if context.format is not None and not context.name.startswith(("aac", "mp3", "opus", "vorbis", "wma", "ac3")):
            self.depth = {"s16": "16", "s16p": "16", "s32": "24", "s32p": "24"}.get(context.format.name, "lossy")
        self.sample_rate = context.sample_rate
        self.channels = context.channels
        duration, base = self._stream.duration, self._stream.time_base
        self.exact = bool(duration and base)
        length = duration * base if duration and base else (self._container.duration or 0) / 1_000_000
        self.frames = round(length * context.sample_rate)

    def blocks(self, start: int, frames: int) -> Iterator[Audio]:
        import av

        resampler = av.AudioResampler(format="fltp")
        position, left = 0, self.frames if self.exact else None
        for frame in self._frames():
            for plane in resampler.resample(frame):
                block = plane.to_ndarray()
                if left is not None:  # past the edit list lies the encoder's padding
                    block = block[:, : max(0, left)]
                    left -= block.shape[1]
                skipped = min(block.shape[1], max(0, start - position))
                position += block.shape[1]
                if block.shape[1] > skipped:
                    yield np.ascontiguousarray(block[:, skipped:], dtype=np.float32)

    def _frames(self) -> Iterator[Any]:
        import av

        try:
            yield from self._container.decode(self._stream)
        except av.FFmpegError as error:
            raise RuntimeError(str(error)) from None

    def close(self) -> None:
        self._container.close()
        self._file.close()


class AudioReader(Closing):
    """A song being read, block by block; use it in a ``with`` statement.

    Parameters
    ----------
    path:
        WAV, AIFF, FLAC, OGG, MP3, CAF, W64, RF64, M4A, or anything with sound that FFmpeg decodes.
    start, end:
        Seconds. The part to read; an ``end`` past the end of the song means its end.

    Raises
    ------
    AudioError
        For what cannot be read as 1 or 2 channels of audio at 8 to 192 kHz: missing, empty, no audio, truncated,
        corrupt, changed while it was read. The message names file and reason.
    OptionError
        If ``start`` does not lie before ``end`` and before the end of the song.
    """

    info: ReaderInfo

    def __init__(self, path: PathLike, start: float | None = None, end: float | None = None) -> None:
        self.path = Path(os.fsdecode(path))
        self._name = f"StemPlug cannot read '{self.path}'"
        if (start is not None and not 0 <= start < inf) or (end is not None and not (start or 0) < end < inf):
            raise OptionError(f"start {start} s and end {end} s: expected 0 <= start < end.")
        self._using = threading.Lock()  # the C libraries crash if a file is closed under a thread that decodes
        self._descriptor = self._open()
        try:
            self._stat = os.fstat(self._descriptor)
            self._check_kind()
            self._decoder = self._choose()
            self.info = self._describe(start, end)
        except BaseException:
            self.close()
            raise

    def _open(self) -> int:
        try:
            return os.open(os.fspath(self.path), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        except ValueError as error:  # a NUL in the name
            raise AudioError(f"{self._name}: {error}.") from None
        except OSError as error:
            raise AudioError(f"{self._name}: {(error.strerror or str(error)).lower()}. Check the path.") from None

    def _check_kind(self) -> None:
        if stat.S_ISDIR(self._stat.st_mode):
            raise AudioError(f"{self._name}: it is a folder. Give the songs in it.")
        if not stat.S_ISREG(self._stat.st_mode):
            raise AudioError(f"{self._name}: it is no regular file. Save the audio to a file first.")
        if not self._stat.st_size:
            raise AudioError(f"{self._name}: the file is empty (0 bytes).")

    def _choose(self) -> _Decoder:
        try:
            return _SndFile(self._descriptor)
        except (OSError, RuntimeError) as error:
            reason = str(error).removeprefix("Error : ").strip(" .")
        try:
            return _FFmpeg(self._descriptor)
        except AudioError as error:
            raise AudioError(f"{self._name}: {error}") from None
        except (OSError, ValueError, RuntimeError, ImportError):
            detail = f" ({reason})" if "not recognised" not in reason.lower() else ""
            raise AudioError(
                f"{self._name}: it is not audio, or its header is broken{detail}. "
                "Expected WAV, AIFF, FLAC, OGG, MP3 or M4A."
            ) from None

    def _describe(self, start: float | None, end: float | None) -> ReaderInfo:
        decoder = self._decoder
        rate = check_rate(decoder.sample_rate, self._name)
        if decoder.channels not in (1, 2):
            raise AudioError(f"{self._name}: {decoder.channels} channels found, 1 or 2 expected. Mix it down first.")
        if decoder.frames <= 0 and decoder.exact:
            raise AudioError(f"{self._name}: it holds no samples (0 frames).")
        self._first = round((start or 0) * rate)
        self._stop = None if end is None else round(end * rate)
        # libsndfile cannot seek past what it believes is the end, even where that is an estimate.
        if self._first >= decoder.frames > 0 and (decoder.exact or isinstance(decoder, _SndFile)):
            raise OptionError(f"start {start} s lies past the end of '{self.path}' ({decoder.frames / rate:.3f} s).")
        frames = min(decoder.frames, self._stop if self._stop is not None else decoder.frames) - self._first
        return ReaderInfo(self.path, rate, decoder.channels, frames, decoder.exact, decoder.depth, decoder.format)

    def blocks(self, frames: int = 1 << 16) -> Iterator[Audio]:
        """Yield the song as float32 ``(channels, up to frames)``, once; checks it on the way."""
        position, rate = self._first, self.info.sample_rate
        iterator = self._decoder.blocks(self._first, frames)
        while self._stop is None or position < self._stop:
            try:
                with self._using:
                    if self._descriptor < 0:
                        raise AudioError(f"{self._name}: it was closed while it was read.")
                    block = next(iterator, None)
            except AudioError:
                raise
            except (OSError, ValueError, RuntimeError) as error:
                raise AudioError(
                    f"{self._name}: the stream is corrupt at {position / rate:.3f} s ({error}). "
                    f"Repair it, or separate what precedes with --end {int(position / rate * 1000) / 1000}."
                ) from None
            if block is None:
                break
            if self._stop is not None:
                block = block[:, : self._stop - position]
            check_finite(block, rate, position, str(self.path))
            position += block.shape[1]
            yield block
        self._check_end(position)

    def sha256(self) -> str:
        """The hash of the file that is open, whatever lies under its name by now."""
        digest, at = hashlib.sha256(), 0
        while content := os.pread(self._descriptor, 1 << 20, at):
            digest.update(content)
            at += len(content)
        return digest.hexdigest()

    def _check_end(self, position: int) -> None:
        now = os.fstat(self._descriptor)
        if (now.st_size, now.st_mtime_ns) != (self._stat.st_size, self._stat.st_mtime_ns):
            raise AudioError(f"{self._name}: the file changed while it was read. Try again when it is complete.")
        rate, expected = self.info.sample_rate, self._first + self.info.frames
        if position == self._first:
            if self._first:
                raise OptionError(f"start {self._first / rate} s lies past the end of '{self.path}'.")
            raise AudioError(f"{self._name}: it holds no samples.")
        if position < expected * (1 if self.info.exact else _MP3_TOLERANCE):
            raise AudioError(
                f"{self._name}: it is truncated, {expected / rate:.3f} s promised, {position / rate:.3f} s found. "
                f"Get a complete copy, or separate what is there with --end {int(position / rate * 1000) / 1000}."
            )

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        with self._using:
            decoder: _Decoder | None = self.__dict__.pop("_decoder", None)
            if decoder:
                decoder.close()
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)
