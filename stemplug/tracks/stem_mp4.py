"""Stems as one Native Instruments Stems file, ``.stem.mp4``, as Traktor, Mixxx and other DJ software play it.

It is an MP4 file of five stereo streams: the mixture, which is all that ordinary players know of, and four stems, whose
tracks are disabled. What the stems are called, and how to master them live, is JSON in the box ``moov/udta/stem``.

Sources: NI's own Stem Creator script (``ni-stem/_internal.py``), the song in the package stempeg, which NI's tool has
made, and what Mixxx reads (``steminfoimporter.cpp``). Boxes: ISO/IEC 14496-12.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from stemplug.audio import Audio
from stemplug.errors import OptionError, TrackError, unknown
from stemplug.tracks.project import Stem, color_of
from stemplug.tracks.wav import quantize

if TYPE_CHECKING:
    import av
    import soundfile

CODECS = ("aac", "alac")
RATES = (44100, 48000)
SLOTS = ("drums", "bass", "other", "vocals")
"""What the four stems of a file are by convention; controllers have their knobs in this order."""

_SLOT_OF = {
    **{name: slot for slot, name in enumerate(SLOTS)},
    **dict.fromkeys(("drum", "percussion"), SLOTS.index("drums")),
    **dict.fromkeys(("vocal", "vox", "voice", "speech"), SLOTS.index("vocals")),
}
_AAC_BITS_A_SECOND = 256_000  # as NI's tool
_BLOCK = 1 << 15
_MASTERING = {
    "compressor": {
        "enabled": False,
        "input_gain": 0.5,
        "output_gain": 0.5,
        "threshold": 0,
        "dry_wet": 50,
        "attack": 0.003,
        "release": 0.3,
        "ratio": 3,
        "hp_cutoff": 300,
    },
    "limiter": {"enabled": False, "threshold": 0, "ceiling": -0.35, "release": 0.05},
}
"""NI's defaults, switched off: the stems sum to the mixture as they are."""

_SOUND = int.from_bytes(b"soun")
_MOST_BOXES = 10_000
_MOST_JSON_BYTES = 1 << 20


@dataclass(frozen=True)
class Slots:
    """How stems fill the four slots.

    Attributes
    ----------
    names:
        What the slots are called in the file.
    stems:
        Names of the stems that are summed in each slot; none where it is silent.
    note:
        What is unusual about it, for the user; None if each slot has the stem it is meant for.
    """

    names: tuple[str, ...]
    stems: tuple[tuple[str, ...], ...]
    note: str | None


def assign_slots(names: Sequence[str]) -> Slots:
    """Choose the slots of stems.

    Drums, bass and vocals have theirs; all else is summed in the slot "Other". Up to four stems of which none is
    known, such as kick, snare and cymbals, get a slot each.

    Raises
    ------
    OptionError
        If there are no stems, or two of one name.

    Examples
    --------
    >>> assign_slots(["vocals", "accompaniment"])  # doctest: +NORMALIZE_WHITESPACE
    Slots(names=('Drums', 'Bass', 'Accompaniment', 'Vocals'),
          stems=((), (), ('accompaniment',), ('vocals',)),
          note='2 stems in four slots: Drums and Bass are silent')
    """
    if not names:
        raise OptionError("a .stem.mp4 file of no stems: at least 1 is expected. Choose stems with --stems.")
    if len(set(names)) != len(names):
        raise OptionError(f"stems {_listed(names)}: each is expected once.")
    slots = [_SLOT_OF.get(name.lower(), SLOTS.index("other")) for name in names]
    if 1 < len(names) <= len(SLOTS) and not any(name.lower() in _SLOT_OF for name in names):
        slots = list(range(len(names)))
    stems = tuple(
        tuple(name for name, at in zip(names, slots, strict=True) if at == slot) for slot in range(len(SLOTS))
    )
    called = tuple(_title(held[0] if len(held) == 1 else slot) for slot, held in zip(SLOTS, stems, strict=True))
    summed = [f"{name} holds {_listed(held)}" for name, held in zip(called, stems, strict=True) if len(held) > 1]
    silent = [name for name, held in zip(called, stems, strict=True) if not held]
    if silent:
        summed.append(f"{_listed(silent)} {'is' if len(silent) == 1 else 'are'} silent")
    count = f"{len(names)} stem{'s' if len(names) > 1 else ''} in four slots"
    return Slots(called, stems, f"{count}: {'; '.join(summed)}" if summed else None)


def _title(name: str) -> str:
    return name[:1].upper() + name[1:].replace("_", " ")


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def write_stem_mp4(path: Path, stems: Sequence[Stem], title: str, codec: str = "aac") -> None:
    """Write stems of one song as a Stems file, in constant memory.

    The first stream is the sum of all stems; `assign_slots` tells what the others are. Samples beyond full scale
    saturate, in the sum too. All streams start and end with the song to the sample: the container's edit lists take off
    the encoder's delay and padding.

    Parameters
    ----------
    path:
        The file to write. It is not whole until this returns: give a path that is moved later (`Staging`).
    stems:
        WAV files of one rate (44100 or 48000 Hz), length and number of channels (1, which becomes stereo, or 2).
    title:
        Of the song.
    codec:
        "aac" at 256 kbit/s, or "alac": lossless, 24 bit. FFmpeg's AAC encoder turns passages that peak beyond 0.95
        down a little, so loud stems do not sum to the mixture exactly.

    Raises
    ------
    OptionError
        If the codec is unknown, there are no stems, or their rate is not one of DJ software.
    TrackError
        If the stems cannot be read, do not fit together, are empty or hold NaN or infinity, or the file cannot be
        written.
    """
    import av
    import soundfile

    if codec not in CODECS:
        raise OptionError(unknown("codec", codec, CODECS))
    held = assign_slots([stem.name for stem in stems])
    slot_of = {name: slot for slot, names in enumerate(held.stems) for name in names}
    try:
        with ExitStack() as stack:
            wavs = [stack.enter_context(soundfile.SoundFile(stem.path)) for stem in stems]
            _check_stems(stems, wavs)
            rate, frames = wavs[0].samplerate, wavs[0].frames
            _encode(path, _mixed(stems, wavs, [slot_of[stem.name] for stem in stems]), rate, codec, held.names, title)
            file = stack.enter_context(open(path, "r+b"))
            _check_edits(path, _edits(file), frames)
            tag = struct.pack(">II", 1, 0) + b"STEM"  # 1: text
            _append(file, (b"moov", b"udta", b"meta", b"ilst"), _box(b"TAUT", _box(b"data", tag)))
            _append(file, (b"moov", b"udta"), _box(b"stem", _manifest_json(held.names)))
    except TrackError:
        raise
    except soundfile.LibsndfileError as error:
        raise TrackError(f"the stems of '{title}' cannot be read ({error}). Separate the song again.") from None
    except (av.FFmpegError, OSError) as error:
        reason = (error.strerror or str(error)).lower()
        raise TrackError(f"cannot write '{path}': {reason}. Choose another folder, or free some space.") from None
    except _Damaged as error:
        raise TrackError(f"'{path}' was not written whole: {error}. Is the disk full?") from None


def _check_stems(stems: Sequence[Stem], wavs: Sequence[soundfile.SoundFile]) -> None:
    shapes = [(wav.samplerate, wav.channels, wav.frames) for wav in wavs]
    for stem, (rate, channels, frames) in zip(stems, shapes, strict=True):
        if (rate, channels, frames) != shapes[0]:
            raise TrackError(
                f"stem '{stem.name}' has {channels} channels, {frames} frames at {rate} Hz, and '{stems[0].name}' has "
                f"{shapes[0][1]}, {shapes[0][2]} at {shapes[0][0]} Hz. Give stems of one song."
            )
    rate, channels, frames = shapes[0]
    if rate not in RATES:
        raise OptionError(
            f"a .stem.mp4 file cannot hold {rate} Hz, only {RATES}. Resample the song first, or use --format wav."
        )
    if channels > 2:
        raise TrackError(f"stems of {channels} channels, 1 or 2 expected in a .stem.mp4 file. Mix them down first.")
    if not frames:
        raise TrackError("stems of 0 frames: a .stem.mp4 file needs 1 at least. Choose a longer part of the song.")


def _mixed(stems: Sequence[Stem], wavs: Sequence[soundfile.SoundFile], slots: Sequence[int]) -> Iterator[Audio]:
    """Yield blocks ``(5, 2, frames)`` within full scale, the mixture first."""
    for start in range(0, wavs[0].frames, _BLOCK):
        streams = np.zeros((1 + len(SLOTS), 2, min(_BLOCK, wavs[0].frames - start)), np.float32)
        for stem, wav, slot in zip(stems, wavs, slots, strict=True):
            block = wav.read(streams.shape[2], dtype="float32", always_2d=True).T  # one channel goes to both
            if block.shape[1] != streams.shape[2]:
                raise TrackError(f"'{stem.path}' ends early, at frame {start + block.shape[1]} of {wav.frames}.")
            if not np.isfinite(block).all():
                raise TrackError(f"stem '{stem.name}' holds NaN or infinity. Separate the song again.")
            streams[1 + slot] += block
            streams[0] += block
        # FFmpeg's AAC encoder turns down windows beyond 0.95 each by its own gain, the worse the more they exceed it.
        yield np.clip(streams, -1, 1, out=streams)


def _encode(path: Path, blocks: Iterator[Audio], rate: int, codec: str, names: Sequence[str], title: str) -> None:
    """Let FFmpeg write all but the boxes of NI; its "ipod" is MP4 with the brand M4A, as NI's files have."""
    import av

    # Edit lists count in the movie's timescale: with the default, milliseconds, no length would be exact.
    lossy = codec == "aac"
    sample_format = "fltp" if lossy else "s32p"  # ALAC takes the upper 24 bits
    options = {"movie_timescale": str(rate), "use_editlist": "1"}
    with av.open(str(path.absolute()), "w", format="ipod", options=options) as container:
        container.metadata["title"] = _utf8(title)
        streams = []
        for name in ("Mix", *names):  # FFmpeg enables the first track only, as it should be
            stream = container.add_stream("aac" if lossy else "alac", rate)
            stream.codec_context.layout = "stereo"
            stream.codec_context.format = sample_format
            if lossy:
                stream.bit_rate = _AAC_BITS_A_SECOND
            stream.metadata["handler_name"] = _utf8(name)
            streams.append(stream)
        start = 0
        for block in blocks:
            for stream, audio in zip(streams, block, strict=True):
                data = audio if lossy else np.ascontiguousarray(quantize(audio, 24).T << 8)
                frame = av.AudioFrame.from_ndarray(data, sample_format, "stereo")
                frame.sample_rate, frame.pts = rate, start
                container.mux(stream.encode(frame))
            start += block.shape[2]
        for stream in streams:
            container.mux(stream.encode(None))


def _utf8(text: str) -> str:
    """Names from file systems need not be text."""
    return text.encode("utf-8", "replace").decode().replace("\0", "?")


def _manifest_json(names: Sequence[str]) -> bytes:
    stems = [
        {"name": name, "color": "#{:02X}{:02X}{:02X}".format(*color_of(slot))}
        for name, slot in zip(names, SLOTS, strict=True)
    ]
    return json.dumps({"mastering_dsp": _MASTERING, "version": 1, "stems": stems}).encode()


@dataclass(frozen=True)
class StemFile:
    """What a Stems file holds.

    Attributes
    ----------
    names, colors:
        Of the four stems; colours are red, green, blue, 0 to 255.
    audio:
        ``(5, 2, frames)``, the mixture first.
    sample_rate:
        In Hz.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    audio: Audio
    sample_rate: int


def read_stem_mp4(path: Path) -> StemFile:
    """Decode a Stems file of AAC-LC or ALAC as a whole, without encoder delay and padding where edit lists tell them.

    Raises
    ------
    TrackError
        If the file cannot be read, or is no Stems file, or not a whole one. Its streams need one rate and length.
    """
    import av

    try:
        with open(path, "rb") as file:
            names, colors = _manifest(file)
            audio, rate = _decode(file, _edits(file))
    except _Damaged as error:
        raise TrackError(f"'{path}' is no whole .stem.mp4 file: {error}. Fetch or write it again.") from None
    except av.FFmpegError as error:
        reason = (error.strerror or str(error)).lower()
        raise TrackError(f"'{path}' cannot be decoded: {reason}. Fetch or write it again.") from None
    except OSError as error:
        raise TrackError(f"cannot read '{path}': {(error.strerror or str(error)).lower()}. Check the path.") from None
    return StemFile(names, colors, audio, rate)


def _manifest(file: BinaryIO) -> tuple[tuple[str, ...], tuple[tuple[int, int, int], ...]]:
    """Names and colours of the four stems."""
    box = _descend(file, b"moov", b"udta", b"stem")
    if box.end - box.body > _MOST_JSON_BYTES:
        raise _Damaged(f"its stem box of {box.end - box.body} bytes is too large, {_MOST_JSON_BYTES} at most")
    file.seek(box.body)
    try:
        stems = json.loads(file.read(box.end - box.body))["stems"]
        names = tuple(stem["name"] for stem in stems)
        colors = tuple(stem["color"] for stem in stems)
    except (ValueError, KeyError, TypeError, RecursionError):  # no JSON, or of another shape
        names, colors = (), ()
    if len(names) != len(SLOTS) or not all(
        isinstance(name, str) and re.fullmatch("#[0-9A-Fa-f]{6}", str(color))
        for name, color in zip(names, colors, strict=True)
    ):
        raise _Damaged(f"its stem box does not hold names and colours (#RRGGBB) of {len(SLOTS)} stems as JSON")
    return names, tuple((int(c[1:3], 16), int(c[3:5], 16), int(c[5:7], 16)) for c in colors)


def _decode(file: BinaryIO, edits: Sequence[_Edit]) -> tuple[Audio, int]:
    """All streams ``(5, 2, frames)`` as their edit lists say, and the rate."""
    import av

    if len(edits) != 1 + len(SLOTS) or len({(edit.frames, edit.rate) for edit in edits}) != 1:
        found = ", ".join(f"{edit.frames} frames at {edit.rate} Hz" for edit in edits[:8]) or "none"
        raise _Damaged(f"{1 + len(SLOTS)} audio streams of one rate and length expected, found: {found}")
    pieces: list[list[Audio]] = [[] for _ in edits]
    file.seek(0)
    # FFmpeg would take off the delay by itself, but not the padding.
    with av.open(file, "r", "mp4", {"ignore_editlist": "1"}, metadata_errors="replace") as container:
        streams = container.streams.audio
        if len(streams) != len(edits):
            raise _Damaged(f"{len(streams)} audio streams can be decoded of {len(edits)}")
        index_of = {stream.index: index for index, stream in enumerate(streams)}
        for packet in container.demux(streams):
            index = index_of[packet.stream.index]
            for frame in packet.decode():
                pieces[index].append(_piece(frame, edits[index], index))
    frames = edits[0].frames
    audio = np.empty((len(edits), 2, frames), np.float32)
    for index, blocks in enumerate(pieces):
        length = sum(block.shape[1] for block in blocks)
        if length != frames:
            raise _Damaged(f"its audio stream {index} holds {length} frames of {frames}")
        np.concatenate(blocks, axis=1, out=audio[index])
        blocks.clear()
    return audio, edits[0].rate


def _piece(frame: av.AudioFrame, edit: _Edit, index: int) -> Audio:
    """The part of a decoded frame that lies within the edit list."""
    samples = frame.to_ndarray()
    if samples.shape != (2, frame.samples) or frame.sample_rate != edit.rate or frame.pts is None:
        raise _Damaged(f"its audio stream {index} is not AAC-LC or ALAC in stereo at {edit.rate} Hz")
    if samples.dtype.kind == "i":
        samples = samples / 2.0 ** (8 * samples.itemsize - 1)
    start = edit.delay - frame.pts
    return samples[:, max(0, start) : max(0, start + edit.frames)].astype(np.float32)


class _Damaged(Exception):
    """What is wrong with a file, as the middle of a sentence."""


@dataclass(frozen=True)
class _Box:
    kind: bytes
    start: int
    body: int
    end: int


@dataclass(frozen=True)
class _Edit:
    """The part of a stream that is the song: ``frames`` after ``delay``, at ``rate`` Hz."""

    delay: int
    frames: int
    rate: int


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _boxes(file: BinaryIO, parent: _Box | None = None) -> Iterator[_Box]:
    """The boxes in another, or in the file."""
    start, end = (parent.body, parent.end) if parent else (0, file.seek(0, 2))
    if parent and parent.kind == b"meta":
        start += 4  # version and flags
    for _ in range(_MOST_BOXES):
        if end - start < 8:  # QuickTime ends lists with a zero
            return
        file.seek(start)
        size, kind, large = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
        header, size = (16, large) if size == 1 else (8, size or end - start)
        if not header <= size <= end - start:
            raise _Damaged(f"the box '{_name(kind)}' at byte {start} does not fit into what holds it")
        yield _Box(kind, start, start + header, start + size)
        start += size
    raise _Damaged(f"more than {_MOST_BOXES} boxes lie side by side before byte {start}")


def _name(kind: bytes) -> str:
    return ascii(kind.decode("latin-1"))[1:-1]


def _child(file: BinaryIO, parent: _Box | None, kind: bytes) -> _Box | None:
    return next((box for box in _boxes(file, parent) if box.kind == kind), None)


def _descend(file: BinaryIO, *path: bytes, parent: _Box | None = None) -> _Box:
    """The box at the end of a path of kinds."""
    for kind in path:
        found = _child(file, parent, kind)
        if found is None:
            where = f"in its box '{_name(parent.kind)}'" if parent else "in it"
            raise _Damaged(f"no box '{_name(kind)}' {where}")
        parent = found
    assert parent
    return parent


def _append(file: BinaryIO, path: Sequence[bytes], content: bytes) -> None:
    """Add a box to the last of nested boxes that all end with the file, so that no offset of audio changes."""
    parents = [_descend(file, *path[: depth + 1]) for depth in range(len(path))]
    end = file.seek(0, 2)
    file.write(content)
    for box in parents:
        if box.end != end or box.body - box.start != 8:
            raise _Damaged(f"its box '{_name(box.kind)}' does not end with the file")
        file.seek(box.start)
        file.write(struct.pack(">I", end - box.start + len(content)))


def _unpack(file: BinaryIO, box: _Box, format: str, offset: int = 0) -> tuple[int, ...]:
    """Numbers of a box, from ``offset`` in its body."""
    if box.body + offset + struct.calcsize(format) > box.end:
        raise _Damaged(f"its box '{_name(box.kind)}' at byte {box.start} is too short")
    file.seek(box.body + offset)
    return struct.unpack(format, file.read(struct.calcsize(format)))


def _clock(file: BinaryIO, box: _Box) -> tuple[int, int]:
    """Units a second, and duration in those, of a header of a movie or its media."""
    (version,) = _unpack(file, box, ">B")
    scale, duration = _unpack(file, box, *((">IQ", 20) if version else (">II", 12)))
    if not scale:
        raise _Damaged(f"its box '{_name(box.kind)}' at byte {box.start} has a timescale of 0")
    return scale, duration


def _edits(file: BinaryIO) -> list[_Edit]:
    """What is played of each audio stream."""
    moov = _descend(file, b"moov")
    movie_scale, _ = _clock(file, _descend(file, b"mvhd", parent=moov))
    edits: list[_Edit] = []
    for trak in _boxes(file, moov):
        if trak.kind != b"trak" or _unpack(file, _descend(file, b"mdia", b"hdlr", parent=trak), ">8xI")[0] != _SOUND:
            continue
        rate, length = _clock(file, _descend(file, b"mdia", b"mdhd", parent=trak))
        delay = played = 0
        edts = _child(file, trak, b"edts")
        if edts and (elst := _child(file, edts, b"elst")):
            version, count = _unpack(file, elst, ">B3xI")
            if count != 1:
                raise _Damaged(f"its edit list at byte {elst.start} has {count} entries, 1 expected")
            played, delay = _unpack(file, elst, ">Qq" if version else ">Ii", 8)
        whole = length - delay
        frames = min(whole, round(Fraction(played * rate, movie_scale))) if played else whole
        if delay < 0 or frames <= 0:
            raise _Damaged(f"its audio stream {len(edits)} plays {frames} frames from frame {delay} on")
        edits.append(_Edit(delay, frames, rate))
    return edits


def _check_edits(path: Path, edits: Sequence[_Edit], frames: int) -> None:
    """Players refuse stems of unequal length, so it is no matter of trust that FFmpeg writes what this relies on."""
    if len(edits) != 1 + len(SLOTS) or len(set(edits)) != 1 or edits[0].frames != frames:
        raise TrackError(
            f"internal error, please report: FFmpeg wrote '{path}' with {edits} and not 5 streams of {frames} frames."
        )
