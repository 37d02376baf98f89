"""DAWprojects: read back sample-exact, valid by the schema, and no way to do harm with one."""

from __future__ import annotations

import os
import stat
import struct
import tempfile
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from stemplug.errors import TrackError
from stemplug.tracks.dawproject import read_dawproject, write_dawproject
from stemplug.tracks.project import Project, Stem, Track, color_of
from stemplug.tracks.xml_text import parse
from stemplug.tracks.zip_archive import Archive, unsafe
from tests.conftest import files_below

XSD = Path(os.environ.get("STEMPLUG_DAWPROJECT_XSD") or Path(__file__).parents[3] / "shared" / "dawproject")
"""Project.xsd and MetaData.xsd of github.com/bitwig/dawproject (MIT), which are no part of this repository."""

NAMES = ("vocals", "drums", "Größe & <Łódź> 🎸", "")

# What version 1.0 asks of the elements that StemPlug writes: required attributes, optional ones, children in order.
_ANY = ("id", "name", "color")
_REAL = (("unit",), ("value", "min", "max", *_ANY), "")
ELEMENTS: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "Project": (("version",), (), "Application Transport Structure Arrangement Scenes"),
    "Application": (("name", "version"), (), ""),
    "Transport": ((), (), "Tempo TimeSignature"),
    "Tempo": _REAL,
    "TimeSignature": (("numerator", "denominator"), _ANY, ""),
    "Structure": ((), (), "Track"),
    "Track": ((), ("contentType", "loaded", *_ANY), "Channel Track"),
    "Channel": ((), ("audioChannels", "destination", "role", "solo", *_ANY), "Devices Mute Pan Sends Volume"),
    "Mute": ((), ("value", *_ANY), ""),
    "Pan": _REAL,
    "Volume": _REAL,
    "Arrangement": ((), _ANY, "Lanes"),
    "Lanes": ((), ("timeUnit", "track", *_ANY), "Lanes Clips Points"),
    "Clips": ((), ("timeUnit", "track", *_ANY), "Clip"),
    "Clip": (("time",), ("duration", "contentTimeUnit", "playStart", *_ANY), "Audio"),
    "Audio": (("duration", "channels", "sampleRate"), ("algorithm", *_ANY), "File"),
    "File": (("path",), ("external",), ""),
    "Scenes": ((), (), ""),
}


def check_elements(element: ET.Element) -> None:
    required, optional, children = ELEMENTS[element.tag]
    assert set(required) <= set(element.attrib) <= {*required, *optional}, element.tag
    order = [children.split().index(child.tag) for child in element]
    assert order == sorted(order), element.tag
    for child in element:
        check_elements(child)


def check_schema(path: Path) -> None:
    """By our own table, the ids, and the published schema where it is at hand."""
    with zipfile.ZipFile(path) as archive:
        texts = {"Project": archive.read("project.xml"), "MetaData": archive.read("metadata.xml")}
    root = ET.fromstring(texts["Project"])
    check_elements(root)
    ids = [element.get("id") for element in root.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))
    for reference in ("track", "destination"):
        assert {element.get(reference) for element in root.iter() if reference in element.attrib} <= set(ids)
    check_xsd(texts)


def check_xsd(texts: dict[str, bytes]) -> None:
    if XSD.is_dir():
        from lxml import etree

        for name, text in texts.items():
            etree.XMLSchema(etree.parse(XSD / f"{name}.xsd")).assertValid(etree.fromstring(text))


def make(
    folder: Path, *, rate: int = 44100, frames: int = 100, position: int = 0, channels: int = 2, embed: bool = True
) -> tuple[Path, Project, dict[str, bytes]]:
    """A project of noise; returns its path, what was asked for, and the files of its stems."""
    tracks = tuple(Track(name, color_of(name), f"audio/{i} {name}.wav") for i, name in enumerate(NAMES))
    project = Project("Ein Lied", rate, channels, frames, tracks, position, 123.456)
    contents, stems = {}, []
    for i, track in enumerate(tracks):
        path = folder / track.media
        path.parent.mkdir(exist_ok=True)
        audio = np.random.default_rng(i).integers(-1 << 23, 1 << 23, (frames, channels), np.int32) << 8
        soundfile.write(path, audio, rate, "PCM_24")
        contents[track.media] = path.read_bytes()
        stems.append(Stem(track.name, path))
    path = folder / "Łódź.dawproject"
    write_dawproject(path, project, stems, embed)
    return path, project, contents


@given(
    rate=st.sampled_from([44100, 48000, 96000]),
    position=st.integers(0, 1 << 33),
    frames=st.integers(0, 300),
    channels=st.sampled_from([1, 2]),
    embed=st.booleans(),
)
def test_all_comes_back_to_the_sample(rate: int, position: int, frames: int, channels: int, embed: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, project, contents = make(
            folder, rate=rate, frames=frames, position=position, channels=channels, embed=embed
        )
        check_schema(path)
        found = read_dawproject(path)
        assert (found.title, found.tempo, found.sample_rate) == ("Ein Lied", 123.456, rate)
        for track, asked in zip(found.tracks[:-1], project.tracks, strict=True):
            assert (track.name, track.color) == (asked.name, asked.color)
            (clip,) = track.clips
            assert (clip.position, clip.frames, clip.play_start) == (position, frames, 0)
            assert (clip.media, clip.external, clip.sample_rate) == (asked.media, not embed, rate)
            if embed:
                with Archive(path) as archive:
                    archive.extract(clip.media, folder / "out.wav")
                assert (folder / "out.wav").read_bytes() == contents[clip.media]
        assert (found.tracks[-1].name, found.tracks[-1].clips) == ("Master", ())
        assert {file for file in files_below(folder) if file.is_file()} - {folder / "out.wav"} == {
            path,
            *(folder / media for media in contents),
        }


def test_external_audio_is_not_in_the_zip(tmp_path: Path) -> None:
    path, _, _ = make(tmp_path, embed=False)
    assert zipfile.ZipFile(path).namelist() == ["metadata.xml", "project.xml"]


def test_the_same_stems_give_the_same_file(tmp_path: Path) -> None:
    path = make(tmp_path)[0]
    before = path.read_bytes()
    assert make(tmp_path)[0].read_bytes() == before


def test_names_that_xml_cannot_hold(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((10, 1)), 44100)
    name = "a\x01\ud800\n\"'b"
    project = Project(name, 44100, 1, 10, (Track(name, (1, 2, 3), "a.wav"),))
    write_dawproject(tmp_path / "p.dawproject", project, [Stem(name, tmp_path / "a.wav")])
    check_schema(tmp_path / "p.dawproject")
    found = read_dawproject(tmp_path / "p.dawproject")
    assert found.title == found.tracks[0].name == "a??\n\"'b"


def test_a_missing_stem_leaves_nothing(tmp_path: Path) -> None:
    project = Project("a", 44100, 1, 10, (Track("a", (1, 2, 3), "a.wav"),))
    with pytest.raises(TrackError, match=r"cannot read .*missing.wav"):
        write_dawproject(tmp_path / "p.dawproject", project, [Stem("a", tmp_path / "missing.wav")])
    with pytest.raises(TrackError, match="cannot write to"):
        write_dawproject(tmp_path / "none" / "p.dawproject", project, [])
    assert not list(tmp_path.iterdir())


def test_a_project_of_another_program_is_read(tmp_path: Path) -> None:
    """Beats, fades, clips inside clips, aliases, tracks in groups; numbers as Bitwig prints them."""
    text = """<?xml version="1.0"?><Project version="1.0"><Application name="x" version="1"/>
    <Transport><Tempo unit="bpm" value="60.000000"/></Transport>
    <Structure><Track id="g" name="Group" contentType="tracks"><Track id="t" name="Gtr" color="#0aFF00"/></Track>
    </Structure><Arrangement><Lanes><Lanes track="t" timeUnit="beats"><Clips>
    <Clip time="2.0" name="one"><Clips><Clip time="0.5" contentTimeUnit="seconds">
      <Audio duration="1.5" sampleRate="48000" channels="1"><File path="a.wav"/></Audio></Clip></Clips></Clip>
    <Clip time="8" duration="1" playStart="0.25" contentTimeUnit="seconds">
      <Audio duration="1.5" sampleRate="48000" channels="1"><File path="b.wav" external="true"/></Audio></Clip>
    <Clip time="9" duration="1"><Notes/></Clip></Clips></Lanes></Lanes></Arrangement></Project>"""
    found = read_dawproject(zipped(tmp_path, {"project.xml": b"\xef\xbb\xbf" + text.encode()}))
    group, track = found.tracks
    assert (group.clips, track.color, found.title, found.tempo) == ((), (10, 255, 0), "", 60)
    assert [(c.name, c.position, c.frames, c.play_start, c.media, c.external) for c in track.clips] == [
        ("one", 96000, 72000, 0, "a.wav", False),
        ("", 384000, 48000, 12000, "b.wav", True),
    ]


def zipped(folder: Path, members: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] | None = None) -> Path:
    path = folder / "made.dawproject"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            if change:
                change(info)
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


BOMB = b'<!DOCTYPE P [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]><Project>&b;</Project>'
CLIP = (
    b'<Project><Structure><Track id="t"/></Structure><Arrangement><Lanes track="t"><Clips><Clip time="%b">'
    b'<Audio duration="1" sampleRate="%b"><File path="%b"/></Audio></Clip></Clips></Lanes></Arrangement></Project>'
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "declares a document type"),
        (b'<!DOCTYPE P SYSTEM "file:///etc/passwd"><Project/>', "declares a document type"),
        ('<?xml version="1.0" encoding="UTF-16"?><Project/>'.encode("utf-16"), "can't decode"),
        (b"<Project><Track></Project>", "it is no XML"),
        (b"", "it is no XML"),
        (b"<Project>&x;</Project>", "it is no XML"),
        (b"<a>" * 101 + b"</a>" * 101, "100 inside each other"),
        (b"<!--" + b" " * (64 << 20) + b"--><Project/>", "larger than 64 MB"),
        (CLIP % (b"x", b"48000", b"a.wav"), "the time of a Clip is 'x', expected a number"),
        (CLIP % (b"inf", b"48000", b"a.wav"), "the time of a Clip is 'inf'"),
        (CLIP % (b"1", b"0", b"a.wav"), "sample rate"),
        (CLIP % (b"1", b"48000", b""), "names no file"),
        (b'<Project><Transport><Tempo value="0"/></Transport></Project>', "tempo is 0.0"),
    ],
)
def test_hostile_xml_is_refused(tmp_path: Path, text: bytes, message: str) -> None:
    path = zipped(tmp_path, {"project.xml": text})
    with pytest.raises(TrackError, match=message) as error:
        read_dawproject(path)
    assert str(path) in str(error.value) and len(str(error.value)) < 600
    assert list(tmp_path.iterdir()) == [path]


def test_too_many_elements_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stemplug.tracks.xml_text._ELEMENTS", 1000)
    with pytest.raises(ValueError, match="more than 1000 elements"):
        parse(b"<a>" + b"<b/>" * 1000 + b"</a>")


@pytest.mark.parametrize(
    "name",
    [
        "../a.wav",
        "audio/../../a",
        "/etc/passwd",
        "C:/a.wav",
        "c:a",
        "audio\\..\\a",
        "//host/a",
        "audio/CON",
        "lpt1.wav",
    ],
)
def test_members_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    path = zipped(tmp_path, {"project.xml": b"<Project/>", name: b""})
    with pytest.raises(TrackError, match=r"leads out of its folder|has the name of a device"):
        read_dawproject(path)
    assert unsafe("audio/ü 1:2.wav") is unsafe("audio/") is unsafe("a..b/c.") is None


def test_a_nul_in_a_name_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path, {"project.xml": b"<Project/>", "a_b.wav": b""})
    path.write_bytes(path.read_bytes().replace(b"a_b.wav", b"a\0b.wav"))
    with pytest.raises(TrackError, match="control characters"):
        read_dawproject(path)


def test_links_are_refused(tmp_path: Path) -> None:
    def link(info: zipfile.ZipInfo) -> None:
        info.external_attr = (stat.S_IFLNK | 0o777) << 16

    with pytest.raises(TrackError, match="is a link"):
        read_dawproject(zipped(tmp_path, {"project.xml": b"../../etc/passwd"}, link))


def test_members_given_twice_are_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path, {"project.xml": b"<Project/>", "project.xmm": b"<Project/>"})
    path.write_bytes(path.read_bytes().replace(b"project.xmm", b"project.xml"))
    with pytest.raises(TrackError, match=r"'project.xml' 2 times"):
        read_dawproject(path)


def test_encrypted_and_oddly_packed_zips_are_refused(tmp_path: Path) -> None:
    content = bytearray(zipped(tmp_path, {"project.xml": b"<Project/>"}).read_bytes())
    entry = content.index(b"PK\1\2")
    for offset, value, message in ((8, 1, "encrypted"), (10, 12, "neither stored nor deflated")):
        changed = bytearray(content)
        struct.pack_into("<H", changed, entry + offset, value)
        (tmp_path / "made.dawproject").write_bytes(changed)
        with pytest.raises(TrackError, match=message):
            read_dawproject(tmp_path / "made.dawproject")


@pytest.mark.parametrize("content", [b"", b"RIFF....WAVE", b"PK\3\4", b"PK\5\6" + bytes(18)])
def test_what_is_no_dawproject_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(TrackError, match=r"it is no zip file|it holds no project.xml"):
        read_dawproject(tmp_path / "a")


def test_folders_pipes_and_nothing_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "none"):
        with pytest.raises(TrackError, match="Check the path"):
            read_dawproject(path)


def test_damage_is_told_or_harmless(tmp_path: Path) -> None:
    """Cut off anywhere, or with wrong bytes anywhere: a `TrackError`, or a project that reads."""
    whole = make(tmp_path, frames=5)[0].read_bytes()
    path, target = tmp_path / "broken.dawproject", tmp_path / "out.wav"
    random = np.random.default_rng(0)
    refused = 0
    for round in range(300):
        content = bytearray(whole)
        if round % 3:
            for place in random.integers(len(content) - 500 if round % 2 else 0, len(content), 3):
                content[place] = random.integers(256)
        else:
            del content[random.integers(len(content)) :]
        path.write_bytes(content)
        try:
            found = read_dawproject(path)
            with Archive(path) as archive:
                for track in found.tracks[:-1]:
                    archive.extract(track.clips[0].media, target)
        except TrackError:
            refused += 1
    assert refused > 150


def test_sizes_that_lie_do_not_matter(tmp_path: Path) -> None:
    """The directory says 10 bytes, the data are 1 MB: what zipfile gives is cut off, and its checksum is wrong."""
    path = zipped(tmp_path, {"project.xml": b"<Project/>", "a.wav": bytes(1 << 20)})
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.rindex(b"PK\1\2") + 24, 10)
    path.write_bytes(content)
    with Archive(path) as archive, pytest.raises(TrackError, match="CRC"):
        archive.extract("a.wav", tmp_path / "a.wav")
    assert not (tmp_path / "a.wav").exists()


def test_audio_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stemplug.tracks.zip_archive._AUDIO_BYTES", 1 << 20)
    path = zipped(tmp_path, {"project.xml": b"<Project/>", "a.wav": bytes((1 << 20) + 1)})
    with Archive(path) as archive, pytest.raises(TrackError, match="'a.wav' is larger than"):
        archive.extract("a.wav", tmp_path / "a.wav")
    assert list(tmp_path.iterdir()) == [path]


def test_elements_know_their_place() -> None:
    text = '<?xml version="1.0"?><!-- <a> --><a x="1>2" y=\'"/>\'>ü<b/><c >d</c ></a>'.encode()
    root = parse(text)
    assert root.text == "ü" and root.attributes == {"x": "1>2", "y": '"/>'}
    assert [text[e.begin : e.end].decode() for e in root.children] == ["<b/>", "<c >d</c >"]
    assert [text[e.inner : e.inner_end].decode() for e in root.walk()] == ["ü<b/><c >d</c >", "", "d"]
    assert root.find("c") is root.children[1] and root.find("c", "x") is None
