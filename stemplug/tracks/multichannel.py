"""All stems in one WAV file, their channels side by side and named in its iXML chunk."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from stemplug.audio import Audio
from stemplug.errors import TrackError
from stemplug.tracks.project import Project, Stem
from stemplug.tracks.wav import CHANNEL_NAMES, TrackTags, WavWriter

_BLOCK = 1 << 16
_LARGEST_TEXT = 1 << 20


def write_multichannel(path: Path, project: Project, stems: Sequence[Stem], depth: str) -> None:
    """Write the stems' channels, stem after stem, at ``depth`` ("16", "24", "32f")."""
    import soundfile

    names = tuple(stem.name + side for stem in stems for side in CHANNEL_NAMES[project.channels])
    note = f"stems of {project.title}, separated by StemPlug"
    tags = TrackTags("stems", project.title, note, project.position, names)
    with ExitStack() as opened:
        files = [opened.enter_context(soundfile.SoundFile(stem.path)) for stem in stems]
        writer = opened.enter_context(WavWriter(path, project.sample_rate, len(names), depth, tags))
        for start in range(0, project.frames, _BLOCK):
            frames = min(_BLOCK, project.frames - start)
            blocks = [file.read(frames, dtype="float32", always_2d=True).T for file in files]
            writer.write(np.concatenate(blocks))


def read_multichannel(path: Path) -> tuple[dict[str, Audio], int]:
    """Return the stems of such a file, ``(channels, frames)`` each, and their rate.

    Raises
    ------
    TrackError
        If it is no WAV file, or its channels are not named.
    """
    import soundfile

    try:
        names = [name.text or "" for name in ElementTree.fromstring(_chunk(path, b"iXML")).iter("NAME")]
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, ValueError, ElementTree.ParseError, soundfile.LibsndfileError) as error:
        raise TrackError(f"'{path}' holds no stems side by side ({error}).") from None
    if len(names) != audio.shape[1]:
        raise TrackError(f"'{path}': {audio.shape[1]} channels, of which {len(names)} are named.")
    stems: dict[str, list[Audio]] = {}
    for name, channel in zip(names, audio.T, strict=True):
        stems.setdefault(name.removesuffix(" L").removesuffix(" R"), []).append(channel)
    return {name: np.stack(channels) for name, channels in stems.items()}, rate


def _chunk(path: Path, wanted: bytes) -> bytes:
    """The content of a chunk that lies before the samples."""
    with open(path, "rb") as file:
        if file.read(12)[8:] != b"WAVE":
            raise ValueError("no WAV file")
        for name, content in _chunks(file.read(_LARGEST_TEXT)):
            if name == wanted:
                return content
    raise ValueError(f"no {wanted.decode()} chunk")


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data) and data[at : at + 4] != b"data":
        (size,) = struct.unpack_from("<I", data, at + 4)
        yield data[at : at + 4], data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
