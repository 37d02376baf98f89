"""A track of a DAWproject split into stems: the clips match, and nothing else of the project changes."""

from __future__ import annotations

import difflib
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stemplug.errors import OptionError, TrackError
from stemplug.tracks.dawproject import Archive, ReadTrack, read_dawproject
from stemplug.tracks.projects import SplitProject, Splitter, split_track
from tests.tracks.test_dawproject import check_xsd

RATE = 48000
AUDIO = {"audio/Take 1.wav": 48000, "audio/Łódź.wav": 24000}

# As Bitwig, Cubase and people write it: beats and seconds, clips in clips, warps, gain, automation, odd spaces, quotes.
PROJECT = """<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<!-- <Track name="Gtr"> is no track -->
<Project version="1.0">
  <Application name="Some DAW" version="5.0"/>
  <Transport>
    <Tempo max="666.000000" min="20.000000" unit="bpm" value="149.000000" id="id0" name="Tempo"/>
    <TimeSignature denominator="4" numerator="4" id="id1"/>
  </Transport>
  <Structure>
    <Track contentType="notes" loaded="true" id="id2" name="Bass &amp; &lt;x&gt;" color="#a2eabf">
      <Channel audioChannels="2" destination="id15" role="regular" solo="false" id="id3"/>
    </Track>
    <Track contentType="tracks" id="grp" name="Guitars">
      <Track contentType="audio notes" loaded="true" id="id9" name="Gtr" color='#b53bba'>
        <Channel audioChannels="2" destination="id15" role="regular" solo="true" id="id10" >
          <Devices><BuiltinDevice deviceName="Amp" deviceRole="audioFX" id="d1"><Parameters>
            <RealParameter unit="linear" id="p1" parameterID="7"/></Parameters></BuiltinDevice></Devices>
          <Mute name='value="false"' value = 'false' id="id13"/>
          <Pan max="1.000000" min="0.000000" unit="normalized" value="0.250000" id="id12" name="Pan"/>
          <Sends><Send destination="id15" id="s1"><Volume unit="linear" value="0.3" id="s2"/></Send></Sends>
          <Volume max="2.000000" min="0.000000" unit="linear" value="0.177125" id="id11" name="Volume"/>
        </Channel>
      </Track>
    </Track>
    <Track contentType="audio" id="plain" name="Plain"><Channel id="plain-c"/></Track>
    <Track contentType="audio" id="twin1" name="Twin"/>\t<Track contentType="audio" id="twin2" name="Twin"/>
    <Track contentType="audio notes" loaded="true" id="id14" name="Master">
      <Channel audioChannels="2" role="master" id="id15"/>
    </Track>
  </Structure>
  <Arrangement id="id19">
    <Lanes timeUnit="beats" id="id20">
      <Lanes track="id2" id="id21"><Clips id="id22"/></Lanes>
      <Lanes track="id9" id="id24">
        <Clips id="id25">
          <Clip time="1.5" duration="2.25" playStart="0.125" contentTimeUnit="seconds" fadeTimeUnit="seconds"
                fadeInTime="0.01" fadeOutTime="-0.02" name="A &quot;1&quot;" color="#112233" enable="false">
            <Audio algorithm="raw" channels="2" duration="1.0" sampleRate="48000" id="id27">
              <File path="audio/Take 1.wav"/>
            </Audio>
          </Clip>
          <Clip time="8" duration="1" name="notes"><Notes id="n1"/></Clip>
          <Clip time="16.0" duration="1.2416666" playStart="0.0" loopStart="0.0" loopEnd="1.2416666" name="B">
            <Clips id="id26">
              <Clip time="0.0" duration="1.2416666" contentTimeUnit="beats" playStart="0.0">
                <Warps contentTimeUnit="seconds" timeUnit="beats" id="id28">
                  <Audio algorithm="stretch" channels="2" duration="0.5" sampleRate="48000" id="id29">
                    <File path="audio/Łódź.wav" external="false"/>
                  </Audio>
                  <Warp time="0.0" contentTime="0.0"/>
                  <Warp time="1.2416666" contentTime="0.5"/>
                </Warps>
              </Clip>
            </Clips>
          </Clip>
          <Clip time="20" contentTimeUnit="seconds">
            <Lanes id="l1">
              <Audio channels="2" duration="1.0" sampleRate="48000" id="a3"><File path="audio/Take 1.wav"/></Audio>
              <Points unit="linear" id="g1"><Target expression="gain"/><RealPoint time="0" value="0.5"/></Points>
            </Lanes>
          </Clip>
        </Clips>
        <Points unit="linear" id="v1"><Target parameter="id11"/><RealPoint time="0.0" value="0.1"/></Points>
        <Points unit="linear" id="v2"><Target parameter="p1"/><RealPoint time="0.0" value="0.1"/></Points>
      </Lanes>
      <Clips track="plain" timeUnit="seconds"><Clip time="3"><Audio channels="2" duration="1" sampleRate="48000">
        <File path="audio/Take 1.wav"/></Audio></Clip></Clips>
    </Lanes>
  </Arrangement>
  <Scenes><Scene id="sc"><Lanes id="sl"><ClipSlot track="id9" id="sl1"><Clip time="0"><Notes id="n2"/></Clip></ClipSlot>
  </Lanes></Scene></Scenes>
</Project>
"""


def make(folder: Path, text: str = PROJECT) -> Path:
    """A project with ``text``, its audio, a plugin's state and a member that is none of ours."""
    path = folder / "Mein Lied.dawproject"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.xml", "<MetaData><Title>Lied</Title></MetaData>")
        archive.writestr(zipfile.ZipInfo("plugins/", (2020, 1, 2, 3, 4, 6)), b"")
        archive.writestr(zipfile.ZipInfo("plugins/a.state", (2020, 1, 2, 3, 4, 6)), bytes(range(256)))
        archive.writestr("project.xml", text)
        for index, (name, frames) in enumerate(AUDIO.items()):
            audio = np.random.default_rng(index).uniform(-0.5, 0.5, (frames, 2))
            soundfile.write(folder / "audio.wav", audio, RATE, "FLOAT")
            archive.write(folder / "audio.wav", name, zipfile.ZIP_STORED)
    (folder / "audio.wav").unlink()
    return path


NAMES = "vocals", "gu/it <är>"


class Halves:
    """Stems that sum to the audio: a quarter and three quarters, in a folder of their own."""

    def __init__(self, folder: Path, frames: int = 0, rate: int = RATE) -> None:
        self.folder, self.frames, self.rate = folder, frames, rate
        self.sources: list[str] = []
        folder.mkdir()

    def __call__(self, source: Path) -> Mapping[str, Path]:
        self.sources.append(source.name)
        audio, _ = soundfile.read(source, dtype="float32")
        stems = {}
        for name, gain in zip(NAMES, (0.25, 0.75), strict=True):
            stems[name] = self.folder / f"{len(self.sources)}{gain}.wav"
            soundfile.write(stems[name], gain * audio[self.frames :], self.rate, "FLOAT")
        return stems


def split(path: Path, track: str, halves: Halves, new: Path) -> SplitProject:
    return split_track(path, new, track, Splitter(NAMES, lambda source, _: halves(source)))


def run(tmp_path: Path, text: str = PROJECT, track: str = "Gtr") -> tuple[Path, SplitProject]:
    path = make(tmp_path, text)
    return path, split(path, track, Halves(tmp_path / "stems"), tmp_path / "new.dawproject")


def tracks_in(path: Path) -> list[ReadTrack]:
    return list(read_dawproject(path).tracks)


def refused(tmp_path: Path, message: str, text: str = PROJECT, track: str = "Gtr", frames: int = 0) -> None:
    path = make(tmp_path, text)
    with pytest.raises((TrackError, OptionError), match=message) as error:
        split(path, track, Halves(tmp_path / "stems", frames), tmp_path / "new.dawproject")
    assert len(str(error.value)) < 600
    assert sorted(file.name for file in tmp_path.iterdir()) == ["Mein Lied.dawproject", "stems"]


def text_of(path: Path) -> bytes:
    return zipfile.ZipFile(path).read("project.xml")


def without_new(text: bytes) -> str:
    """The project without what the split added, and with the track's mute as it was."""
    root = ET.fromstring(text)
    for element in root.iter():
        for child in list(element):
            if child.get("id", "").startswith("stemplug"):
                element.remove(child)
    mute = root.find(".//Mute[@id='id13']")
    assert mute is not None and mute.get("value") == "true"
    mute.set("value", "false")
    return ET.canonicalize(ET.tostring(root, "unicode"), strip_text=True)


def test_show_lists_tracks_and_their_audio(tmp_path: Path) -> None:
    tracks = {track.id: track for track in tracks_in(make(tmp_path))}
    assert [track.name for track in tracks.values()][:3] == ["Bass & <x>", "Guitars", "Gtr"]
    beat = 60 / 149 * RATE
    assert [(clip.name, clip.position, clip.frames, clip.play_start) for clip in tracks["id9"].clips] == [
        ('A "1"', round(1.5 * beat), round(2.25 * beat), 6000),
        ("B", round(16 * beat), 24000, 0),
        ("", round(20 * beat), RATE, 0),
    ]
    assert [clip.media for clip in tracks["id9"].clips] == [*AUDIO, "audio/Take 1.wav"]


def test_nothing_else_of_the_project_changes(tmp_path: Path) -> None:
    path, result = run(tmp_path)
    assert without_new(text_of(result.path)) == ET.canonicalize(PROJECT, strip_text=True)
    before, after = (text_of(file).decode().splitlines() for file in (path, result.path))
    changed = [line for line in difflib.ndiff(before, after) if line.startswith("- ")]
    assert [line.split() for line in changed] == [
        ["-", "<Mute", "name='value=\"false\"'", "value", "=", "'false'", 'id="id13"/>']
    ]
    check_xsd({"Project": text_of(path)})
    check_xsd({"Project": text_of(result.path)})
    ids = [element.get("id") for element in ET.fromstring(text_of(result.path)).iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))


def test_other_members_are_carried_over(tmp_path: Path) -> None:
    path, result = run(tmp_path)
    old, new = zipfile.ZipFile(path), zipfile.ZipFile(result.path)
    assert new.namelist() == old.namelist() + [path.as_posix() for path in result.media]
    for info in old.infolist():
        copied = new.getinfo(info.filename)
        if info.filename != "project.xml":
            assert new.read(info.filename) == old.read(info.filename)
        for name in ("date_time", "compress_type", "external_attr"):
            assert getattr(copied, name) == getattr(info, name)


def test_stems_play_what_the_track_played(tmp_path: Path) -> None:
    path, result = run(tmp_path)
    tracks = {track.name: track for track in read_dawproject(result.path).tracks}
    original, stems = tracks["Gtr"], [tracks["vocals"], tracks["gu/it <är>"]]
    assert stems[0].color == (235, 94, 85)
    with Archive(result.path) as archive:
        for index, clip in enumerate(original.clips):
            copies = [stem.clips[index] for stem in stems]
            for copy in copies:
                for field in ("name", "position", "frames", "play_start", "sample_rate"):
                    assert getattr(copy, field) == getattr(clip, field)
            audio = []
            for media in (clip.media, *(copy.media for copy in copies)):
                archive.extract(media, tmp_path / "x.wav")
                audio.append(soundfile.read(tmp_path / "x.wav", dtype="float32")[0])
            assert np.array_equal(audio[0], audio[1] + audio[2])
    assert len(result.media) == len(set(result.media)) == 4
    assert all(path.parent == Path("audio") for path in result.media)


def test_clips_are_copied_letter_by_letter(tmp_path: Path) -> None:
    """Fades, gain, loops, colours, warps: all but ids and the audio's description."""
    path, result = run(tmp_path)
    root = ET.fromstring(text_of(result.path))
    clips = [
        [clip for clip in lanes.iter("Clip") if clip.find(".//Audio") is not None]
        for lanes in root.findall("./Arrangement/Lanes/Lanes")
        if lanes.find(".//Audio") is not None
    ]
    assert len(clips) == 3
    for clip in (clip for track in clips for clip in track):
        for element in clip.iter():
            element.attrib.pop("id", None)
            if element.tag == "File":
                element.attrib["path"] = ""
    original, *stems = [[ET.canonicalize(ET.tostring(clip, "unicode"), strip_text=True) for clip in t] for t in clips]
    assert stems == [original, original]


def test_the_group_mixes_as_the_track_did(tmp_path: Path) -> None:
    """Volume, pan, solo, output and volume automation are the group's; effects and sends are not."""
    _, result = run(tmp_path)
    root = ET.fromstring(text_of(result.path))
    group = root.find(".//Track[@name='Gtr stems']")
    guitars = root.find(".//Track[@name='Guitars']")
    assert group is not None and guitars is not None and list(guitars)[-1] is group
    channel = group.find("Channel")
    assert channel is not None and group.get("contentType") == "tracks"
    assert [part.tag for part in channel] == ["Mute", "Pan", "Volume"]
    assert [part.get("value") for part in channel] == ["false", "0.250000", "0.177125"]
    assert (channel.get("destination"), channel.get("solo"), channel.get("role")) == ("id15", "true", "submix")
    stems = group.findall("Track")
    assert [stem.get("name") for stem in stems] == ["vocals", "gu/it <är>"]
    assert {stem.find("Channel").get("destination") for stem in stems} == {channel.get("id")}  # type: ignore[union-attr]
    (lanes,) = root.findall(f".//Lanes[@track='{group.get('id')}']")
    assert [target.get("parameter") for target in lanes.iter("Target")] == [channel[2].get("id")]
    assert [points.get("timeUnit") for points in lanes] == ["beats"]
    assert result.notes == [
        "'Gtr': its Devices stay with it; the group has none.",
        "'Gtr': its Sends stay with it; the group has none.",
        "'Gtr': its clips in the launcher are not split, only those of the arrangement.",
    ]


def test_a_channel_without_anything_is_muted(tmp_path: Path) -> None:
    path, result = run(tmp_path, track="Plain")
    root = ET.fromstring(text_of(result.path))
    assert [m.get("value") for m in root.findall(".//Track[@id='plain']/Channel/Mute")] == ["true"]
    assert [clip.position for track in tracks_in(result.path) for clip in track.clips][-2:] == [3 * RATE] * 2
    check_xsd({"Project": text_of(result.path)})
    devices = PROJECT.replace("<Mute name='value=\"false\"' value = 'false' id=\"id13\"/>", "")
    (tmp_path / "b").mkdir()
    path, result = run(tmp_path / "b", devices)
    check_xsd({"Project": text_of(result.path)})
    tags = [part.tag for part in ET.fromstring(text_of(result.path)).find(".//Channel[@id='id10']") or ()]
    assert tags == ["Devices", "Mute", "Pan", "Sends", "Volume"]


def test_a_split_project_can_be_split_again(tmp_path: Path) -> None:
    _, first = run(tmp_path)
    again = split(first.path, "vocals", Halves(tmp_path / "stems 2"), tmp_path / "again.dawproject")
    check_xsd({"Project": text_of(again.path)})
    assert len(again.media) == 4 and not set(again.media) & set(first.media)
    assert [track.name for track in tracks_in(again.path)].count("vocals") == 2


def test_audio_beside_the_project(tmp_path: Path) -> None:
    text = PROJECT.replace('path="audio/Łódź.wav" external="false"', 'path="beside/x.wav" external="true"')
    path = make(tmp_path, text)
    halves = Halves(tmp_path / "stems")
    with pytest.raises(TrackError, match="missing beside it"):
        split(path, "Gtr", halves, tmp_path / "new.dawproject")
    (tmp_path / "beside").mkdir()
    soundfile.write(tmp_path / "beside" / "x.wav", np.zeros((24000, 2)), RATE)
    with pytest.raises(TrackError, match="into the same folder"):
        split(path, "Gtr", halves, tmp_path / "beside" / "new.dawproject")
    result = split(path, "Gtr", halves, tmp_path / "new.dawproject")
    assert halves.sources == ["Take 1.wav", "x.wav"]
    assert not any(clip.external for track in tracks_in(result.path)[3:6] for clip in track.clips)


@pytest.mark.parametrize("media", ["../x.wav", "/etc/passwd", "C:/x.wav", "//host/x.wav", "link/x.wav", "NUL"])
def test_audio_elsewhere_is_not_read(tmp_path: Path, media: str) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    soundfile.write(tmp_path / "x.wav", np.zeros((24000, 2)), RATE)
    (folder / "link").symlink_to(tmp_path)
    path = make(folder, PROJECT.replace('path="audio/Łódź.wav" external="false"', f'path="{media}" external="true"'))
    with pytest.raises(TrackError, match="out of its folder"):
        split(path, "Gtr", Halves(tmp_path / "stems"), folder / "new.dawproject")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('time="1.2416666" contentTime="0.5"', 'time="1.25" contentTime="0.5"', "clip 'B' at 16.0 is stretched"),
        ('<Warp time="1.2416666" contentTime="0.5"/>', "", "is stretched"),
        (
            "    </Lanes>\n  </Arr",
            '    </Lanes><TempoAutomation><Target parameter="id0"/><RealPoint time="0" value="149"/>'
            '<RealPoint time="8" value="150"/></TempoAutomation>\n  </Arr',
            "is stretched",
        ),
        (
            '<Notes id="n1"/></Clip>',
            '</Clip><Clip time="9" reference="id26"/>',
            "at 9 is a copy that refers to another",
        ),
        ('<Target expression="gain"/>', '<Target parameter="id11"/>', "automates the mixer from inside"),
        ('<Target parameter="p1"/>', '<Target parameter="id13"/>', "the mute of 'Gtr' is automated"),
        ('path="audio/Łódź.wav"', 'path="audio/none.wav"', r"holds no 'audio/none.wav'"),
        ('<File path="audio/Łódź.wav" external="false"/>', "", "names no file"),
        ('time="1.5"', 'time="x"', "the time of a Clip is 'x', expected a number"),
    ],
)
def test_what_stems_cannot_replace_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in PROJECT
    refused(tmp_path, message, PROJECT.replace(old, new))


@pytest.mark.parametrize(
    ("track", "message"),
    [
        ("Gtt", "Unknown track 'Gtt'.*Did you mean 'Gtr'"),
        ("Twin", "2 tracks are named 'Twin'.*twin1, twin2"),
        ("twin1", "no clips of audio in the arrangement"),
        ("Bass & <x>", "no clips of audio in the arrangement"),
    ],
)
def test_tracks_that_cannot_be_split(tmp_path: Path, track: str, message: str) -> None:
    refused(tmp_path, message, track=track)


def test_stems_of_another_length_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, "47999 frames at 48000 Hz found, expected those of 'audio/Take 1.wav', 48000", frames=1)


def test_an_output_that_exists_stays(tmp_path: Path) -> None:
    path = make(tmp_path)
    before = path.read_bytes()
    for output in (path, tmp_path):
        with pytest.raises(OptionError):
            split(path, "Gtr", Halves(tmp_path / f"stems {output.name}"), output)
    with pytest.raises(TrackError, match="cannot write to"):
        split(path, "Gtr", Halves(tmp_path / "s"), tmp_path / "none" / "new.dawproject")
    assert path.read_bytes() == before
