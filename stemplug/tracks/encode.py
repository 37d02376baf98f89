"""One track in one file: WAV of our own, FLAC, OGG and MP3 through libsndfile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from stemplug.audio import Audio
from stemplug.errors import OptionError, TrackError, unknown
from stemplug.tracks.wav import DEPTHS, TrackTags, WavWriter, quantize

FORMATS = ("wav", "flac", "ogg", "mp3")
_NO_DEPTH = ("ogg", "mp3", "aac", "alac")
_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_BLOCK = 1 << 15  # libvorbis overruns its stack on longer writes


class TrackEncoder(Protocol):
    """A file being written."""

    def write(self, audio: Audio) -> None:
        """Append ``(channels, frames)``."""

    def close(self) -> None:
        """Complete the file; raises `TrackError` or `OSError` if it is not whole."""


def check_format(format: str, depth: str | None) -> None:
    """Raise `OptionError` unless ``format`` exists and can hold ``depth`` (None: its default)."""
    if format not in FORMATS:
        raise OptionError(unknown("format", format, FORMATS))
    if depth is not None and depth not in DEPTHS:
        raise OptionError(unknown("bit depth", depth, DEPTHS))
    if depth is not None and format in _NO_DEPTH:
        raise OptionError(f"bit depth {depth} with format {format}: a lossy format has none. Leave --bit-depth out.")
    if format == "flac" and depth == "32f":
        raise OptionError("FLAC holds no 32-bit floats. Use --format wav, or --bit-depth 24.")


def default_depth(format: str, source_depth: str) -> str | None:
    """The depth of the input, and at least 24 bit; None where there is no choice."""
    if format in _NO_DEPTH:
        return None
    return "32f" if format == "wav" and source_depth in ("32", "32f") else "24"


def check_rate_of(format: str, sample_rate: int) -> None:
    """Raise `OptionError` if ``format`` cannot hold ``sample_rate``."""
    if format == "mp3" and sample_rate not in _MP3_RATES:
        raise OptionError(f"MP3 cannot hold {sample_rate} Hz, only {_MP3_RATES}. Use --format wav, flac or ogg.")


def open_track(
    path: Path, format: str, depth: str | None, sample_rate: int, channels: int, tags: TrackTags
) -> TrackEncoder:
    """Create the file of one track; the format and depth were checked by `check_format`."""
    if format == "wav":
        return WavWriter(path, sample_rate, channels, depth or "24", tags)
    return _SndFileWriter(path, format, depth, sample_rate, channels, tags)


class _SndFileWriter:
    def __init__(
        self, path: Path, format: str, depth: str | None, sample_rate: int, channels: int, tags: TrackTags
    ) -> None:
        import soundfile

        kind, subtype, level = {
            "flac": ("FLAC", f"PCM_{depth or '24'}", 0.5),
            "ogg": ("OGG", "VORBIS", 0.2),  # quality 8 of 10
            "mp3": ("MP3", "MPEG_LAYER_III", 0.0),  # 320 kbit/s
        }[format]
        self._path, self._bits, self._frames = path, int(depth) if depth else None, 0
        with self._whole():
            self._file = soundfile.SoundFile(
                path, "w", sample_rate, channels, subtype, format=kind, compression_level=level
            )
            self._file.title = _printable(tags.stem)
            self._file.album = _printable(tags.song)
            self._file.comment = _printable(tags.description)

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """libsndfile's errors are no OSError."""
        import soundfile

        try:
            yield
        except soundfile.LibsndfileError as error:
            raise TrackError(f"'{self._path}' was not written whole ({error}). Is the disk full?") from None

    def write(self, audio: Audio) -> None:
        with self._whole():
            for start in range(0, audio.shape[1], _BLOCK):
                block = audio[:, start : start + _BLOCK]
                if self._bits:
                    self._file.write(quantize(block, self._bits) << (32 - self._bits))
                else:
                    self._file.write(block.T)
        self._frames += audio.shape[1]

    def close(self) -> None:
        import soundfile

        if self._file.closed:
            return
        with self._whole():
            self._file.close()
            # libsndfile's codecs do not report a disk that is full, so look at what arrived.
            found = soundfile.info(self._path).frames
        if found != self._frames:
            raise TrackError(f"'{self._path}': {found} frames of {self._frames} written. Is the disk full?")


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\0", "?") or "-"
