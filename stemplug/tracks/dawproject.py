"""Stems as a DAWproject, the exchange format of Bitwig Studio, Cubase and Studio One; and DAWprojects read back.

Format: DAWproject 1.0, github.com/bitwig/dawproject (README, Reference.html, Project.xsd, MetaData.xsd): a zip with
``project.xml`` and ``metadata.xml`` in UTF-8, and audio inside it or beside it. Every element that may have an id gets
one: Bitwig imports nothing without (issue 98 there).

What is read was written by others: names, sizes and XML of a DAWproject are checked before anything is done with them.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import stemplug
from stemplug.tracks.project import Project, Stem
from stemplug.tracks.xml_text import Element, clean
from stemplug.tracks.zip_archive import Archive, add_file, new_archive, new_member

PROJECT, METADATA = "project.xml", "metadata.xml"
DEFAULT_TEMPO = 120.0


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
            archive.writestr(new_member(name), content, zipfile.ZIP_DEFLATED)
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
