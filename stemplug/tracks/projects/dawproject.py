"""What a DAWproject holds, and a new one in which one track is split into stems.

In the new project everything is as it was, byte for byte, except for this: behind the track there is a group with a
track a stem, whose clips are the track's clips of audio, letter by letter, with the stem's audio; and the track is
muted. All other members of the zip keep name, content, date and order.

The group takes over what the track's channel does to the sum of its clips: volume and pan with their automation, solo,
output. Effects and sends stay with the track, and so do clips of the launcher (scenes).
"""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.sax.saxutils import quoteattr

from stemplug.audio import AudioReader
from stemplug.errors import OptionError, ProjectError, TrackError, unknown
from stemplug.tracks.dawproject import (
    PROJECT,
    ReadClip,
    audio_clips,
    file_of,
    in_scope,
    number,
    read_dawproject,
    tempo_of,
    tracks_of,
)
from stemplug.tracks.folder import check_target
from stemplug.tracks.project import color_of
from stemplug.tracks.projects.listing import Item, Take, Track
from stemplug.tracks.projects.splitting import SplitProject, Splitter
from stemplug.tracks.staging import PREFIX, unwritable
from stemplug.tracks.xml_text import Element, clean
from stemplug.tracks.zip_archive import Archive, add_file, copy_member, new_archive, unsafe

SUFFIX = ".dawproject"
_RATE_TOLERANCE = 1e-4  # 0.2 cents: programs print the beats of an audio file with single precision
_NAME_CHARACTERS = 80
_ATTRIBUTE = re.compile(rb"""\s([^\s=]+)\s*=\s*("[^"]*"|'[^']*')""")
_UNLINK = "In the program that wrote it, bounce or consolidate the clip, export again, and try again."

Edit = tuple[int, int, bytes]
"""What replaces the bytes from the first to the second place."""
Media = tuple[str, bool]
"""The path of audio, and whether it lies beside the project rather than in it."""


@dataclass(frozen=True)
class _StemFile:
    path: Path
    member: str
    sample_rate: int
    channels: int


def show(path: Path) -> list[Track]:
    """Return the tracks of a DAWproject with their clips of audio; raises `TrackError` where it cannot be read."""
    return [
        Track(number, track.name, 0, False, False, tuple(map(_item, track.clips)))
        for number, track in enumerate(read_dawproject(path).tracks, 1)
    ]


def _item(clip: ReadClip) -> Item:
    position, length = clip.position / clip.sample_rate, clip.frames / clip.sample_rate
    return Item(0, position, length, (Take(clip.name, "AUDIO", clip.media, True),))


def split_track(path: Path, new: Path, track: str, splitter: Splitter, *, overwrite: bool = False) -> SplitProject:
    """Write a new DAWproject in which a track is split into stems.

    Parameters
    ----------
    path:
        The project. It stays as it is.
    new:
        The new project; in the folder of ``path`` if that refers to audio beside it.
    track:
        Its name, or its id where several share the name.
    splitter:
        What separates; it is called once for each piece of audio, in the order of the clips.
    overwrite:
        Replace ``new`` if it exists.

    Raises
    ------
    OptionError
        For a track that does not exist, and a ``new`` that does, or is ``path``.
    TrackError
        For a project that cannot be read or written, and for clips that stems cannot replace: stretched ones, copies
        that refer to another clip. Nothing is written then.
    AudioError
        If a medium holds no audio that StemPlug can read.
    """
    check_target(new, path, overwrite=overwrite)
    try:
        with (
            Archive(path) as archive,
            tempfile.TemporaryDirectory(prefix=PREFIX, dir=new.parent) as folder,  # /tmp is memory on many machines
        ):
            return _split(archive, track, splitter, new, Path(folder))
    except OSError as error:
        raise unwritable(new.parent, error) from None


def _split(archive: Archive, track: str, splitter: Splitter, new: Path, folder: Path) -> SplitProject:
    data, root = archive.document(PROJECT)
    chosen = _find(root, track, archive.path)
    with archive.checking(PROJECT):
        song = _Song(data, root, chosen, archive.path)
        media = list(dict.fromkeys(media for clip, _ in song.clips for media in _all_media(clip)))
        external = any(external for _, external in _all_media(root))
    if external and new.parent.resolve() != archive.path.parent.resolve():
        raise ProjectError(f"'{archive.path}' refers to audio beside it. Write '{new.name}' into the same folder.")
    sources = {part: _source(archive, part, folder / str(index)) for index, part in enumerate(media)}
    used = {info.filename.casefold() for info in archive.members}
    stems = {
        part: _stems(part, source, splitter.split(source, folder / f"stems {index}"), used)
        for index, (part, source) in enumerate(sources.items())
    }
    text = song.with_stems(list(splitter.stems), stems)
    files = [stem for part in media for stem in stems[part].values()]
    with new_archive(new) as target:
        for info in archive.members:
            copy_member(archive, info, target, text if info.filename == PROJECT else None)
        for stem in files:
            add_file(target, stem.member, stem.path)
    return SplitProject(new, [Path(stem.member) for stem in files], song.notes())


def _find(root: Element, name: str, path: Path) -> Element:
    by_id = {element.attributes.get("id"): element for element in tracks_of(root)}
    found = [element for element in tracks_of(root) if element.attributes.get("name") == name]
    found = found or [by_id[name]] if name in by_id else found
    if not found:
        names = [element.attributes.get("name", "") for element in tracks_of(root)]
        raise OptionError(f"'{path}': {unknown('track', name, names)}")
    if len(found) > 1:
        ids = ", ".join(element.attributes.get("id", "") for element in found)
        raise OptionError(f"'{path}': {len(found)} tracks are named '{name}'. Give one of their ids: {ids}.")
    return found[0]


def _all_media(root: Element) -> Iterator[Media]:
    return (file_of(element) for element in root.walk() if element.tag == "Audio")


def _source(archive: Archive, media: Media, folder: Path) -> Path:
    """The audio as a file: taken out of the zip, or where it lies beside the project."""
    name, external = media
    if not external:
        folder.mkdir()
        archive.extract(name, folder / PurePosixPath(name).name)
        return folder / PurePosixPath(name).name
    root = archive.path.parent.resolve()
    path = (root / name).resolve() if not unsafe(name) else root.parent
    if not path.is_relative_to(root):  # a project must not choose what is read here
        raise ProjectError(f"'{archive.path}' refers to '{name}', out of its folder. Export it with its audio inside.")
    if not path.is_file():
        raise ProjectError(f"'{archive.path}' refers to '{name}', which is missing beside it. Put it there.")
    return path


def _stems(media: Media, source: Path, stems: Mapping[str, Path], used: set[str]) -> dict[str, _StemFile]:
    """Check the stems of a file, and choose names for them that the zip does not ``use`` yet."""
    with AudioReader(source) as reader:
        song = reader.info
    checked = {}
    for name, path in stems.items():
        with AudioReader(path) as reader:
            info = reader.info
        if info.sample_rate != song.sample_rate or (song.exact and info.frames != song.frames):
            raise ProjectError(
                f"'{path}': {info.frames} frames at {info.sample_rate} Hz found, expected those of '{media[0]}', "
                f"{song.frames} at {song.sample_rate} Hz."
            )
        title = f"{PurePosixPath(media[0]).stem[:_NAME_CHARACTERS]} - {name[:_NAME_CHARACTERS]}"
        title = re.sub(r"[^\w ()&+,.'-]", "_", clean(title)).lstrip(". ")
        names = (f"audio/{title}{count}.wav" for count in itertools.chain([""], (f" {n}" for n in itertools.count(2))))
        member = next(name for name in names if name.casefold() not in used)
        used.add(member.casefold())
        checked[name] = _StemFile(path, member, info.sample_rate, info.channels)
    return checked


class _Song:
    """A project's text and the track that is split; raises `TrackError` where stems cannot replace its clips.

    Numbers that are none raise ValueError.
    """

    def __init__(self, data: bytes, root: Element, track: Element, path: Path) -> None:
        self.data, self.track, self._path = data, track, path
        self.id, self.name = track.attributes.get("id", ""), track.attributes.get("name", "")
        self.channel = track.find("Channel")
        arrangement = root.find("Arrangement")
        everything = list(in_scope(arrangement)) if arrangement else []
        self._ids = {element.attributes["id"] for element in root.walk() if "id" in element.attributes}
        self._fresh = (f"stemplug{count}" for count in itertools.count(1))
        self.clips = [(clip, unit) for id, clip, unit in audio_clips(root) if id == self.id]
        self._audible = {clip.begin for clip, _ in self.clips}
        self.timelines = list(self._timelines(everything))
        self._automation = [(element, unit) for element, unit, _ in everything if element.tag == "Points"]
        self._scenes = root.find("Scenes")
        self._check_track()
        self._check_references(root, everything)
        self._check_rates(root, arrangement)

    def _refusal(self, reason: str) -> TrackError:
        return ProjectError(f"StemPlug cannot split '{self._path}': {reason}")

    def _timelines(self, everything: list[tuple[Element, str, str]]) -> Iterator[Element]:
        """The outermost elements with clips of the track."""
        end = 0
        for element, _, _ in everything:
            if element.attributes.get("track") == self.id and element.begin >= end:
                end = element.end
                if any(element.begin < begin < end for begin in self._audible):
                    yield element

    def _check_track(self) -> None:
        if not (self.id and self.timelines):
            raise self._refusal(f"the track '{self.name}' has no clips of audio in the arrangement. Choose another.")
        if self.channel is None:
            raise self._refusal(f"the track '{self.name}' has no channel that could be muted. Choose another.")
        if self.track.find("Track") or self.channel.attributes.get("role") == "master":
            raise self._refusal(f"'{self.name}' holds other tracks, or is the master. Choose a track inside it.")
        mute = self.channel.find("Mute")
        automated = {_target(points) for points, _ in self._automation} - {None}
        if mute and mute.attributes.get("id") in automated:
            raise self._refusal(f"the mute of '{self.name}' is automated. Remove that automation first.")

    def _check_references(self, root: Element, everything: list[tuple[Element, str, str]]) -> None:
        """What is meant in one place and lies in another cannot be copied letter by letter."""
        by_id = {element.attributes.get("id"): element for element in root.walk()}
        for element, _, track in everything:
            if element.tag == "Clip" and track == self.id and "reference" in element.attributes:
                content = by_id.get(element.attributes["reference"])
                if content is None or any(part.tag == "Audio" for part in content.walk()):
                    raise self._refusal(f"{_clip(element)} is a copy that refers to another. {_UNLINK}")
        for clip, _ in self.clips:
            if any(part.tag == "Points" and _target(part) for part in clip.walk()):
                raise self._refusal(f"{_clip(clip)} automates the mixer from inside. {_UNLINK}")

    def _check_rates(self, root: Element, arrangement: Element | None) -> None:
        tempo = tempo_of(root)
        tempos = arrangement.find("TempoAutomation") if arrangement else None
        changes = any(number(point, "value", tempo) != tempo for point in (tempos.children if tempos else ()))
        for clip, unit in self.clips:
            number(clip, "time")
            for element, scope, _ in in_scope(clip, unit):
                if element.tag != "Warps":
                    continue
                units = [element.attributes.get("timeUnit", scope), element.attributes.get("contentTimeUnit", scope)]
                time, content = (60 / tempo if unit == "beats" else 1 for unit in units)
                points = [
                    (number(warp, "time") * time, number(warp, "contentTime") * content)
                    for warp in element.children
                    if warp.tag == "Warp"
                ]
                if len(points) < 2 or (changes and units[0] != units[1]) or not _plays_at_one(points):
                    raise self._refusal(f"{_clip(clip)} is stretched, and stems would not sum to it. {_UNLINK}")

    def notes(self) -> list[str]:
        """What the new project does not do."""
        assert self.channel
        notes = [
            f"'{self.name}': its {what} stay with it; the group has none."
            for what in ("Devices", "Sends")
            if (element := self.channel.find(what)) and element.children
        ]
        slots = self._scenes.walk() if self._scenes else ()
        if any(element.attributes.get("track") == self.id and element.children for element in slots):
            notes.append(f"'{self.name}': its clips in the launcher are not split, only those of the arrangement.")
        return notes

    def with_stems(self, stems: list[str], files: Mapping[Media, Mapping[str, _StemFile]]) -> bytes:
        """Return the text of the project with a group of ``stems``."""
        group, channel = self._new_id(), self._new_id()
        tracks: list[list[bytes]] = []
        lanes: dict[int, list[bytes]] = {timeline.begin: [] for timeline in self.timelines}
        for stem in stems:
            ids = {self.id: self._new_id()}
            tracks.append(self._stem_track(stem, ids[self.id], channel))
            for timeline in self.timelines:
                lanes[timeline.begin].append(self._stem_timeline(timeline, ids, stem, files))
        group_channel, automation = self._group_channel(channel, group)
        structure = _tag("Track", id=group, name=f"{self.name} stems", contentType="tracks", loaded="true")
        lines = [structure, b"  " + group_channel, *(b"  " + line for track in tracks for line in track), b"</Track>"]
        edits = [self._mute(), self._behind(self.track, lines)]
        for index, timeline in enumerate(self.timelines):
            edits.append(self._behind(timeline, (automation if not index else []) + lanes[timeline.begin]))
        return _edited(self.data, edits, 0, len(self.data))

    def _new_id(self) -> str:
        return next(id for id in self._fresh if id not in self._ids)

    def _mute(self) -> Edit:
        """Mute the track's channel, by its element or by a new one where the schema wants it."""
        channel = self.channel
        assert channel
        if mute := channel.find("Mute"):
            (edit,) = _with_attributes(self.data, mute, {"value": "true"})
            return edit
        mute_tag = _tag("Mute", "/", id=self._new_id(), name="Mute", value="true")
        if channel.inner == channel.end:
            return channel.end - 2, channel.end, b">" + mute_tag + b"</Channel>"
        devices = channel.find("Devices")
        place = devices.end if devices else channel.inner
        return place, place, mute_tag

    def _group_channel(self, id: str, group: str) -> tuple[bytes, list[bytes]]:
        """The track's channel again, without effects and sends, and the lanes with its automation."""
        channel = self.channel
        assert channel
        left_out = [part for part in channel.children if part.tag in ("Devices", "Sends")]
        ids = self._ids_in(channel, left_out)
        changes = {channel.begin: {"id": id, "role": "submix"}}
        points = [
            self._copy(
                part, self._ids_in(part, []) | ids | {self.id: group}, {part.begin: {"timeUnit": _unit(part, unit)}}
            )
            for part, unit in self._automation
            if _target(part) in ids
        ]
        lanes = [_tag("Lanes", track=group, id=self._new_id()), *points, b"</Lanes>"] if points else []
        return self._copy(channel, ids, changes, left_out), lanes

    def _stem_track(self, stem: str, id: str, group: str) -> list[bytes]:
        assert self.channel
        red, green, blue = color_of(stem)
        color = f"#{red:02x}{green:02x}{blue:02x}"
        channels = self.channel.attributes.get("audioChannels", "2")
        ids = iter(self._new_id, "")
        return [
            _tag("Track", id=id, name=stem, color=color, contentType="audio", loaded="true"),
            b"  "
            + _tag("Channel", id=next(ids), audioChannels=channels, destination=group, role="regular", solo="false"),
            b"    " + _tag("Mute", "/", id=next(ids), name="Mute", value="false"),
            b"    " + _tag("Pan", "/", id=next(ids), name="Pan", unit="normalized", min="0", max="1", value="0.5"),
            b"    " + _tag("Volume", "/", id=next(ids), name="Volume", unit="linear", min="0", max="2", value="1"),
            b"  </Channel>",
            b"</Track>",
        ]

    def _stem_timeline(
        self, timeline: Element, ids: dict[str, str], stem: str, files: Mapping[Media, Mapping[str, _StemFile]]
    ) -> bytes:
        """A timeline of the track again, with its clips of audio only, and those with the stem's."""
        left_out = list(self._inaudible(timeline))
        changes: dict[int, dict[str, str]] = {}
        for audio in timeline.walk():
            if audio.tag == "Audio" and (file := audio.find("File")):
                if file_of(audio) not in files:
                    continue  # it is left out
                new = files[file_of(audio)][stem]
                changes[audio.begin] = {"sampleRate": str(new.sample_rate), "channels": str(new.channels)}
                changes[file.begin] = {"path": new.member}
                if "external" in file.attributes:
                    changes[file.begin]["external"] = "false"
        return self._copy(timeline, self._ids_in(timeline, left_out) | ids, changes, left_out)

    def _inaudible(self, timeline: Element) -> Iterator[Element]:
        for child in timeline.children:
            if child.tag in ("Lanes", "Clips") and child.attributes.get("track", self.id) == self.id:
                yield from self._inaudible(child)
            elif child.begin not in self._audible:
                yield child

    def _ids_in(self, element: Element, left_out: list[Element]) -> dict[str, str]:
        """New ids for an element and what is in it."""
        parts = _kept(element, left_out)
        return {part.attributes["id"]: self._new_id() for part in parts if "id" in part.attributes}

    def _copy(
        self,
        element: Element,
        ids: Mapping[str, str],
        changes: Mapping[int, Mapping[str, str]],
        left_out: list[Element] | None = None,
    ) -> bytes:
        """An element's text with other ``ids``, with ``changes`` of attributes by place, without some of its parts."""
        edits: list[Edit] = []
        for part in _kept(element, left_out or []):
            references = ("id", "track", "parameter", "destination", "reference")
            new = {name: ids[value] for name, value in part.attributes.items() if name in references and value in ids}
            edits += _with_attributes(self.data, part, new | dict(changes.get(part.begin, {})))
        for part in left_out or []:
            begin = part.begin
            while self.data[begin - 1 : begin].isspace():
                begin -= 1
            edits.append((begin, part.end, b""))
        return _edited(self.data, edits, element.begin, element.end)

    def _behind(self, element: Element, lines: list[bytes]) -> Edit:
        """Insert lines behind an element, indented as it is."""
        line = self.data.rfind(b"\n", 0, element.begin) + 1
        indent = self.data[line : element.begin]
        indent = b"\n" + indent if not indent.strip() else b""
        return element.end, element.end, b"".join(indent + line for line in lines)


def _kept(element: Element, left_out: list[Element]) -> Iterator[Element]:
    gone = {part.begin for part in left_out}
    yield element
    for child in element.children:
        if child.begin not in gone:
            yield from _kept(child, left_out)


def _clip(clip: Element) -> str:
    return f"the clip '{clip.attributes.get('name', '')}' at {clip.attributes.get('time')}"


def _target(points: Element) -> str | None:
    """The id of the parameter that is automated; None for expressions of notes and audio."""
    target = points.find("Target")
    return target.attributes.get("parameter") if target else None


def _unit(timeline: Element, unit: str) -> str:
    return timeline.attributes.get("timeUnit", unit)


def _plays_at_one(points: list[tuple[float, float]]) -> bool:
    """Whether the audio runs as fast as the song, by points of both in seconds."""
    points = sorted(points)
    return all(
        abs((content - content_before) - (time - before)) <= _RATE_TOLERANCE * (time - before)
        for (before, content_before), (time, content) in itertools.pairwise(points)
    )


def _tag(tag: str, end: str = "", **attributes: str) -> bytes:
    return (
        f"<{tag} {' '.join(f'{name}={quoteattr(clean(value))}' for name, value in attributes.items())}{end}>".encode()
    )


def _with_attributes(data: bytes, element: Element, values: Mapping[str, str]) -> list[Edit]:
    """Set attributes of an element, in their place, or behind its tag where it lacks them."""
    edits, missing = [], dict(values)
    for match in _ATTRIBUTE.finditer(data, element.begin, element.inner):
        value = missing.pop(match[1].decode(), None)
        if value is not None:
            edits.append((match.start(2), match.end(2), quoteattr(clean(value)).encode()))
    place = element.begin + 1 + len(element.tag.encode())
    return edits + [(place, place, f" {name}={quoteattr(clean(value))}".encode()) for name, value in missing.items()]


def _edited(data: bytes, edits: list[Edit], begin: int, end: int) -> bytes:
    """Bytes from ``begin`` to ``end`` with edits, which do not overlap."""
    pieces = []
    for start, stop, new in sorted(edits, key=lambda edit: edit[:2]):
        pieces += [data[begin:start], new]
        begin = stop
    return b"".join([*pieces, data[begin:end]])
