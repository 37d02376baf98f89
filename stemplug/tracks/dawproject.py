"""Stems as a DAWproject, the exchange format of Bitwig Studio, Cubase and Studio One; and DAWprojects read back.

Format: DAWproject 1.0, github.com/bitwig/dawproject (README, Reference.html, Project.xsd, MetaData.xsd): a zip with
``project.xml`` and ``metadata.xml`` in UTF-8, and audio inside it or beside it. Every element that may have an id gets
one: Bitwig imports nothing without (issue 98 there).

What is read was written by others: names, sizes and XML of a DAWproject are checked before anything is done with them.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import math
import os
import re
import shutil
import stat
import struct
import xml.etree.ElementTree as ET
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

import stemplug
from stemplug.closing import Closing
from stemplug.errors import TrackError
from stemplug.tracks.project import Project, Stem
from stemplug.tracks.staging import PREFIX, unwritable

PROJECT, METADATA = "project.xml", "metadata.xml"
DEFAULT_TEMPO = 120.0
_XML_BYTES = 64 << 20  # 600,000 notes; deflate could make 1,000 times its size of it
_AUDIO_BYTES = 16 << 30  # 3 h of 192 kHz stereo floats
_ELEMENTS, _DEPTH, _TEXT = 1_000_000, 100, 10_000
_BLOCK = 1 << 20
_START_TAG = re.compile(rb"""<(?:[^>"']|"[^"]*"|'[^']*')*+>""")
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))}
_NOT_IN_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class ReadClip:
    """A clip of audio in the arrangement; ``position``, ``frames`` and ``play_start`` count frames of ``sample_rate``.

    Attributes
    ----------
    play_start:
        What of the audio is left out before the clip begins.
    media:
        A member of the zip, or, where ``external``, a path seen from the project's folder. A clip of several pieces
        of audio gives the first one.
    """

    name: str
    position: int
    frames: int
    play_start: int
    sample_rate: int
    media: str
    external: bool


@dataclass(frozen=True)
class ReadTrack:
    """A track of a DAWproject; ``color`` is red, green, blue, 0 to 255. Only clips of audio are listed."""

    id: str
    name: str
    color: tuple[int, int, int] | None
    clips: tuple[ReadClip, ...]


@dataclass(frozen=True)
class ReadProject:
    """A DAWproject; ``tempo`` in beats a minute, ``sample_rate`` that of the first clip, 0 without one."""

    title: str
    tempo: float
    sample_rate: int
    tracks: tuple[ReadTrack, ...]


@dataclass(slots=True)
class Element:
    """An XML element and its place in the text: bytes ``begin`` to ``end``, its content ``inner`` to ``inner_end``.

    ``text`` is what precedes its first child.
    """

    tag: str
    attributes: dict[str, str]
    begin: int = 0
    inner: int = 0
    inner_end: int = 0
    end: int = 0
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def find(self, *path: str) -> Element | None:
        """The first element at ``path`` of tags below this one."""
        element: Element | None = self
        for tag in path:
            element = next((child for child in element.children if child.tag == tag), None) if element else None
        return element

    def walk(self) -> Iterator[Element]:
        """This element and all below it, in the order of the text."""
        yield self
        for child in self.children:
            yield from child.walk()


def write_dawproject(path: Path, project: Project, stems: Sequence[Stem], embed: bool = True) -> None:
    """Write a DAWproject: a track a stem, each with one clip at the project's position.

    Times are seconds with 12 decimals, so they round to the exact frame.

    Parameters
    ----------
    path:
        Replaced if it exists, once all is written.
    stems:
        In the order of ``project.tracks``.
    embed:
        Whether the WAV files are copied into the zip, as ``Track.media``; otherwise the project refers to
        ``Track.media`` beside it.

    Raises
    ------
    TrackError
        If a stem cannot be read or the project cannot be written; nothing is left then.
    """
    with new_archive(path) as archive:
        for name, content in ((METADATA, _metadata(project)), (PROJECT, _project(project, embed))):
            archive.writestr(_member(name), content, zipfile.ZIP_DEFLATED)
        for track, stem in zip(project.tracks, stems, strict=True):
            if embed:
                add_file(archive, track.media, stem.path)


def read_dawproject(path: Path) -> ReadProject:
    """Return what a DAWproject holds of audio; times in beats are converted at the project's first tempo.

    Raises
    ------
    TrackError
        For what is no whole DAWproject, and for one that is made to do harm.
    """
    with Archive(path) as archive:
        _, root = archive.document(PROJECT)
        title = archive.document(METADATA)[1].find("Title") if METADATA in archive else None
        with archive.checking(PROJECT):
            tempo = tempo_of(root)
            clips: dict[str, list[ReadClip]] = {}
            for track, element, unit in audio_clips(root):
                clips.setdefault(track, []).append(_read_clip(element, unit, 60 / tempo))
    tracks = tuple(
        ReadTrack(id, element.attributes.get("name", ""), _read_color(element), tuple(clips.get(id, ())))
        for element in tracks_of(root)
        for id in [element.attributes.get("id", "")]
    )
    rate = next((clip.sample_rate for track in tracks for clip in track.clips), 0)
    return ReadProject(title.text if title else "", tempo, rate, tracks)


class Archive(Closing):
    """A DAWproject being read; raises `TrackError` for whatever is wrong with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._name = f"StemPlug cannot read '{path}'"
        if not path.is_file():  # a pipe would not end
            raise TrackError(f"{self._name}: no such file, or not a regular one. Check the path.")
        with self._reading():
            self._zip = zipfile.ZipFile(path)
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def __contains__(self, name: str) -> bool:
        return name in self._zip.NameToInfo

    @property
    def members(self) -> list[zipfile.ZipInfo]:
        """All members, in their order."""
        return self._zip.infolist()

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def _check(self) -> None:
        for name, count in Counter(self._zip.namelist()).items():
            if count > 1:
                raise TrackError(f"{self._name}: it holds '{name}' {count} times. Export it again.")
        for info in self.members:
            reason = unsafe(info.orig_filename)
            if stat.S_ISLNK(info.external_attr >> 16):
                reason = "is a link"
            if reason:
                raise TrackError(f"{self._name}: its member {info.orig_filename!r} {reason}. Do not trust this file.")
            if info.flag_bits & 1:
                raise TrackError(f"{self._name}: '{info.filename}' is encrypted. Unlock it first.")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise TrackError(f"{self._name}: '{info.filename}' is neither stored nor deflated. Zip it again.")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn what zipfile raises for broken files into `TrackError`."""
        try:
            yield
        except TrackError:
            raise
        except OSError as error:
            raise TrackError(f"{self._name}: {(error.strerror or str(error)).lower()}. Check the disk.") from None
        except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError) as error:
            raise TrackError(
                f"{self._name}: it is no zip file, or cut off or broken ({str(error).rstrip('.')}). "
                "Expected a DAWproject; export or copy it again."
            ) from None

    @contextlib.contextmanager
    def checking(self, name: str) -> Iterator[None]:
        """Turn the ValueError of wrong content into a `TrackError` that names the member."""
        try:
            yield
        except ValueError as error:
            raise TrackError(f"{self._name}: {name}: {error}. Export it again.") from None

    def document(self, name: str) -> tuple[bytes, Element]:
        """An XML member: its text, and the root element."""
        if name not in self:
            raise TrackError(f"{self._name}: it holds no {name}. Expected a DAWproject.")
        with self._reading(), self._zip.open(name) as file:
            data = file.read(_XML_BYTES + 1)
        with self.checking(name):
            return data, parse(data)

    def blocks(self, name: str) -> Iterator[bytes]:
        """The content of a member, piece by piece; its size is what comes, not what the zip claims."""
        if name not in self:
            raise TrackError(
                f"{self._name}: it holds no '{name}', though its project.xml refers to it. Export it again."
            )
        size = 0
        with self._reading(), self._zip.open(name) as file:
            while block := file.read(_BLOCK):
                size += len(block)
                if size > _AUDIO_BYTES:
                    raise TrackError(f"{self._name}: '{name}' is larger than {_AUDIO_BYTES >> 30} GB. Shorten it.")
                yield block

    def extract(self, name: str, target: Path) -> None:
        """Write a member to ``target``."""
        try:
            with open(target, "wb") as file:
                for block in self.blocks(name):
                    file.write(block)
        except OSError as error:
            with contextlib.suppress(OSError):
                target.unlink()
            raise unwritable(target.parent, error) from None


def unsafe(name: str) -> str | None:
    """Why a path must not be followed: it leads out of its folder, or is no file's; None if it is safe."""
    parts = name.removesuffix("/").split("/")
    if any(ord(character) < 32 for character in name):
        return "has control characters in its name"
    if "\\" in name or re.match("[A-Za-z]:", name) or {"", ".", ".."} & set(parts):
        return "leads out of its folder"
    if any(part.split(".")[0].strip().lower() in _DEVICES for part in parts):
        return "has the name of a device"
    return None


def parse(data: bytes) -> Element:
    """Return the root element of an XML text; raises ValueError if it is not well-formed UTF-8, or a trap.

    Declarations of a document type are refused, as entities that grow come with them.
    """
    if len(data) > _XML_BYTES:
        raise ValueError(f"it is larger than {_XML_BYTES >> 20} MB")
    data.decode("utf-8")  # expat would also take UTF-16, whatever it is told
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    stack = [Element("", {})]
    count = itertools.count(1)

    def begin(tag: str, attributes: dict[str, str]) -> None:
        if next(count) > _ELEMENTS or len(stack) > _DEPTH:
            raise ValueError(f"it has more than {_ELEMENTS} elements, or {_DEPTH} inside each other")
        start = parser.CurrentByteIndex
        match = _START_TAG.match(data, start)
        assert match  # expat has just read it
        element = Element(tag, attributes, start, match.end())
        stack[-1].children.append(element)
        stack.append(element)

    def end(tag: str) -> None:
        element = stack.pop()
        if data.endswith(b"/>", element.begin, element.inner):
            element.inner_end = element.end = element.inner
        else:
            element.inner_end = parser.CurrentByteIndex
            element.end = data.index(b">", element.inner_end) + 1

    def characters(text: str) -> None:
        if not stack[-1].children and len(stack[-1].text) < _TEXT:
            stack[-1].text += text

    def refuse(*_: object) -> None:
        raise ValueError("it declares a document type, as no DAWproject does")

    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = characters, refuse
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise ValueError(f"it is no XML ({error})") from None
    return stack[0].children[0]


def tracks_of(root: Element) -> Iterator[Element]:
    """All tracks, groups before what they hold."""
    structure = root.find("Structure")
    return (element for element in structure.walk() if element.tag == "Track") if structure else iter(())


def in_scope(element: Element, unit: str = "beats", track: str = "") -> Iterator[tuple[Element, str, str]]:
    """An element and all below it, each with the unit of its parent's times and the track it belongs to."""
    track = element.attributes.get("track", track)
    yield element, unit, track
    unit = element.attributes.get("contentTimeUnit") or element.attributes.get("timeUnit") or unit
    for child in element.children:
        yield from in_scope(child, unit, track)


def audio_clips(root: Element) -> Iterator[tuple[str, Element, str]]:
    """Clips of the arrangement that hold audio: track, clip, unit of its time; not those inside other clips."""
    arrangement, end = root.find("Arrangement"), 0
    for element, unit, track in in_scope(arrangement) if arrangement else ():
        if element.tag == "Clip" and element.begin >= end:
            end = element.end
            if any(part.tag == "Audio" for part in element.walk()):
                yield track, element, unit


def number(element: Element, name: str, default: float | None = None) -> float:
    """An attribute that is a finite number; raises ValueError if it is not, or is missing without a ``default``."""
    text = element.attributes.get(name)
    if text is None and default is not None:
        return default
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not abs(value) < 1e12:
        raise ValueError(f"the {name} of a {element.tag} is {text!r}, expected a number")
    return value


def tempo_of(root: Element) -> float:
    """Beats a minute; raises ValueError where they are none."""
    element = root.find("Transport", "Tempo")
    tempo = number(element, "value", DEFAULT_TEMPO) if element else DEFAULT_TEMPO
    if not 1 <= tempo <= 10_000:
        raise ValueError(f"the tempo is {tempo} beats a minute")
    return tempo


def file_of(audio: Element) -> tuple[str, bool]:
    """The path of an Audio element, and whether it lies beside the project; raises ValueError if it has none."""
    file = audio.find("File")
    if file is None or not file.attributes.get("path"):
        raise ValueError("an Audio element names no file")
    return file.attributes["path"], file.attributes.get("external") in ("true", "1")


def _read_clip(clip: Element, unit: str, beat: float) -> ReadClip:
    """``beat`` in seconds."""
    audio, audio_unit = next((part, scope) for part, scope, _ in in_scope(clip, unit) if part.tag == "Audio")
    rate = number(audio, "sampleRate")
    if not (rate.is_integer() and 1 <= rate <= 10_000_000):
        raise ValueError(f"the sample rate of an Audio element is {rate}")

    def frames(value: float, unit: str) -> int:
        return round(value * (beat if unit == "beats" else 1) * rate)

    content_unit = clip.attributes.get("contentTimeUnit", unit)
    audio_frames = frames(number(audio, "duration"), audio.attributes.get("timeUnit", audio_unit))
    has_length = "duration" in clip.attributes
    media, external = file_of(audio)
    return ReadClip(
        name=clip.attributes.get("name", ""),
        position=frames(number(clip, "time"), unit),
        frames=frames(number(clip, "duration"), unit) if has_length else audio_frames,
        play_start=frames(number(clip, "playStart", 0), content_unit),
        sample_rate=int(rate),
        media=media,
        external=external,
    )


def _read_color(track: Element) -> tuple[int, int, int] | None:
    if not re.fullmatch("#[0-9A-Fa-f]{6}", color := track.attributes.get("color", "")):
        return None
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


@contextlib.contextmanager
def new_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip being written, that takes the place of ``path`` when all is in it; `TrackError` if it cannot be."""
    part = path.with_name(f"{PREFIX}{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]}.part")
    try:
        try:
            with open(part, "wb") as file:
                with zipfile.ZipFile(file, "w") as archive:
                    yield archive
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise unwritable(path.parent, error) from None


def add_file(archive: zipfile.ZipFile, name: str, source: Path) -> None:
    """Copy a file into a zip, piece by piece and as it is: audio hardly deflates."""
    try:
        file = open(source, "rb")  # noqa: SIM115 - closed below, where other errors are those of the zip
    except OSError as error:
        raise TrackError(f"StemPlug cannot read '{source}': {(error.strerror or str(error)).lower()}.") from None
    with file:
        info = _member(clean(name))
        info.file_size = os.fstat(file.fileno()).st_size  # beyond 2 GB the zip needs other headers
        with archive.open(info, "w") as member:
            shutil.copyfileobj(file, member, _BLOCK)


def copy_member(source: Archive, info: zipfile.ZipInfo, archive: zipfile.ZipFile, content: bytes | None = None) -> None:
    """Copy a member from zip to zip with its name, date, method and mode; ``content`` replaces what it holds."""
    target = zipfile.ZipInfo(info.filename, info.date_time)
    for name in ("compress_type", "external_attr", "create_system", "comment", "file_size"):
        setattr(target, name, getattr(info, name))
    with archive.open(target, "w") as member:
        for block in source.blocks(info.filename) if content is None else [content]:
            member.write(block)


def _member(name: str) -> zipfile.ZipInfo:
    """Of a fixed date: the same stems give the same file."""
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    return info


def clean(text: str) -> str:
    """Text as XML can hold it: control characters and undecodable bytes of file names become question marks."""
    return _NOT_IN_XML.sub("?", text)


def _xml(root: ET.Element) -> bytes:
    ET.indent(root)
    file = io.BytesIO()
    ET.ElementTree(root).write(file, "UTF-8", xml_declaration=True)
    return file.getvalue() + b"\n"


def _metadata(project: Project) -> bytes:
    root = ET.Element("MetaData")
    ET.SubElement(root, "Title").text = clean(project.title)
    ET.SubElement(root, "Comment").text = "Separated by StemPlug"
    return _xml(root)


def _seconds(frames: int, sample_rate: int) -> str:
    """Exact to the frame, and without the exponents that some readers do not know."""
    return f"{frames / sample_rate:.12f}"


def _project(project: Project, embed: bool) -> bytes:
    ids = (f"id{count}" for count in itertools.count())

    def add(parent: ET.Element, tag: str, **attributes: str) -> ET.Element:
        return ET.SubElement(parent, tag, attributes | {"id": next(ids)})

    root = ET.Element("Project", version="1.0")
    ET.SubElement(root, "Application", name="StemPlug", version=stemplug.__version__)
    transport = ET.SubElement(root, "Transport")
    add(transport, "Tempo", unit="bpm", value=f"{project.tempo:.12f}", name="Tempo")
    add(transport, "TimeSignature", numerator="4", denominator="4")
    structure = ET.SubElement(root, "Structure")
    lanes = add(add(root, "Arrangement"), "Lanes", timeUnit="seconds")
    master = next(ids)
    for track in project.tracks:
        name = clean(track.name)
        red, green, blue = track.color
        element = add(
            structure, "Track", name=name, color=f"#{red:02x}{green:02x}{blue:02x}", contentType="audio", loaded="true"
        )
        _add_channel(add, element, project.channels, role="regular", destination=master)
        clips = add(add(lanes, "Lanes", track=element.attrib["id"]), "Clips")
        length = _seconds(project.frames, project.sample_rate)
        clip = ET.SubElement(
            clips,
            "Clip",
            name=name,
            time=_seconds(project.position, project.sample_rate),
            duration=length,
            contentTimeUnit="seconds",
            playStart=_seconds(0, 1),
        )
        channels, rate = str(project.channels), str(project.sample_rate)
        audio = add(clip, "Audio", algorithm="raw", channels=channels, sampleRate=rate, duration=length)
        ET.SubElement(audio, "File", {"path": clean(track.media)} | ({} if embed else {"external": "true"}))
    element = add(structure, "Track", name="Master", contentType="audio notes", loaded="true")
    _add_channel(add, element, project.channels, role="master").set("id", master)
    ET.SubElement(root, "Scenes")
    return _xml(root)


def _add_channel(add: Callable[..., ET.Element], track: ET.Element, channels: int, **attributes: str) -> ET.Element:
    """A channel at full volume, in the middle, with the order of elements that the schema asks for."""
    channel = add(track, "Channel", audioChannels=str(channels), solo="false", **attributes)
    add(channel, "Mute", name="Mute", value="false")
    add(channel, "Pan", name="Pan", unit="normalized", min="0.000000", max="1.000000", value="0.500000")
    add(channel, "Volume", name="Volume", unit="linear", min="0.000000", max="2.000000", value="1.000000")
    return channel
