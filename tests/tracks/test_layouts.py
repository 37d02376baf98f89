"""Each way to hand stems over holds the song's stems, with their names, colours and place in time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from stemplug import Separator, split
from stemplug.audio import Audio
from stemplug.errors import AudioError, OptionError, TrackError
from stemplug.tracks import FolderFormat, Selection, check_apart, find_songs
from stemplug.tracks.dawproject import read_dawproject
from stemplug.tracks.multichannel import read_multichannel
from stemplug.tracks.packages import LAYOUTS, PACKAGES
from stemplug.tracks.project import Project, Track, color_of
from stemplug.tracks.reaper import project_text, read_reaper
from stemplug.tracks.stem_mp4 import read_stem_mp4
from stemplug.tracks.zip_archive import Archive
from tests.conftest import RATE, files_below

STEMS = ("vocals", "drums", "other")
START, END = RATE, 2 * RATE + 1001


@pytest.fixture
def wav(tmp_path: Path, song: Audio) -> Path:
    path = tmp_path / "Über song.wav"
    soundfile.write(path, song[:, : 3 * RATE].T, RATE, subtype="PCM_16")
    return path


def read(path: Path) -> Audio:
    return soundfile.read(path, dtype="float32", always_2d=True)[0].T


def from_multichannel(path: Path) -> dict[str, Audio]:
    return read_multichannel(path)[0]


def from_stem_mp4(path: Path) -> dict[str, Audio]:
    found = read_stem_mp4(path)
    assert found.names == ("Drums", "Bass", "Other", "Vocals")
    assert found.colors[3] == color_of("vocals")
    drums, bass, other, vocals = found.audio[1:]
    assert np.abs(bass).max() < 1e-3
    return {"vocals": vocals, "drums": drums, "other": other}


def from_reaper(path: Path) -> dict[str, Audio]:
    project = read_reaper(path)
    assert (project.position, project.frames, project.tempo) == (START, END - START, 98.5)
    assert [track.color for track in project.tracks] == [color_of(stem) for stem in STEMS]
    return {track.name.lower(): read(path.parent / track.media) for track in project.tracks}


def from_dawproject(path: Path) -> dict[str, Audio]:
    project = read_dawproject(path)
    assert project.tempo == 98.5
    tracks = [track for track in project.tracks if track.clips]  # the master has none
    clips = [track.clips[0] for track in tracks]
    assert [(clip.position, clip.frames) for clip in clips] == [(START, END - START)] * len(STEMS)
    assert [track.color for track in tracks] == [color_of(stem) for stem in STEMS]
    return audio_in(path)


def audio_in(dawproject: Path) -> dict[str, Audio]:
    found = {}
    with Archive(dawproject) as archive:
        for track in (track for track in read_dawproject(dawproject).tracks if track.clips):
            archive.extract(track.clips[0].media, extracted := dawproject.parent / "extracted")
            found[track.name.lower()] = read(extracted)
            extracted.unlink()
    return found


READERS: dict[str, Callable[[Path], dict[str, Audio]]] = {
    "multichannel": from_multichannel,
    "stem.mp4": from_stem_mp4,
    "reaper": from_reaper,
    "dawproject": from_dawproject,
}


def test_every_layout_has_a_reader() -> None:
    assert ("folder", *READERS) == LAYOUTS


@pytest.mark.parametrize("layout", READERS)
def test_the_stems_come_back_from_it(tmp_path: Path, passthrough: Separator, wav: Path, layout: str) -> None:
    cut = Selection(start=START / RATE, end=END / RATE)
    tracks = split(wav, tmp_path / "tracks", separator=passthrough, selection=cut)
    options = FolderFormat(layout=layout, tempo=98.5)
    result = split(wav, tmp_path / "out", separator=passthrough, selection=cut, options=options)
    assert result.package
    found = READERS[layout](result.package)
    assert list(found) == list(STEMS)
    for stem, path in zip(STEMS, tracks.paths, strict=True):
        expected = read(path)
        if layout == "stem.mp4":  # AAC: a loss, but no shift
            assert found[stem].shape == expected.shape
            assert np.sum((found[stem] - expected) ** 2) <= 1e-2 * np.sum(expected**2)
        else:
            np.testing.assert_array_equal(found[stem], expected)
    report = json.loads(next((tmp_path / "out").rglob("*stems.json")).read_text())
    assert report["written"]["as"] == layout
    assert {track["stem"] for track in report["stems"]} == set(STEMS)


@pytest.mark.parametrize("layout", ["multichannel", "dawproject"])
@pytest.mark.parametrize("depth", ["16", "24", "32f"])
def test_one_file_holds_the_depth_that_was_asked_for(
    tmp_path: Path, passthrough: Separator, wav: Path, layout: str, depth: str
) -> None:
    tracks = split(wav, tmp_path / "tracks", separator=passthrough, options=FolderFormat(bit_depth=depth))
    options = FolderFormat(bit_depth=depth, layout=layout)
    package = split(wav, tmp_path / "out", separator=passthrough, options=options).package
    assert package
    if layout == "dawproject":
        found = audio_in(package)
    else:
        found = from_multichannel(package)
        assert soundfile.info(package).subtype == soundfile.info(tracks.paths[0]).subtype
    for stem, path in zip(STEMS, tracks.paths, strict=True):
        np.testing.assert_array_equal(found[stem], read(path))


def test_the_channels_of_one_file_are_named(tmp_path: Path, passthrough: Separator, wav: Path) -> None:
    wavinfo = pytest.importorskip("wavinfo")
    cut, options = Selection(start=START / RATE), FolderFormat(layout="multichannel")
    package = split(wav, tmp_path, separator=passthrough, selection=cut, options=options).package
    info = wavinfo.WavInfoReader(str(package))
    assert info.bext.time_reference == START
    tracks = list(info.ixml.track_list)
    assert [track.name for track in tracks] == [f"{stem} {side}" for stem in STEMS for side in "LR"]
    assert soundfile.info(package).channels == 6


@pytest.mark.parametrize("layout", PACKAGES)
def test_a_run_leaves_one_file_or_nothing(tmp_path: Path, passthrough: Separator, wav: Path, layout: str) -> None:
    out, options = tmp_path / "out", FolderFormat(layout=layout)
    package = split(wav, out, separator=passthrough, options=options).package
    assert package and package.is_file()
    before = files_below(out)
    if not PACKAGES[layout].keeps_tracks:
        assert set(before) == {package, out / f"Über song.{layout}.stems.json"}
    with pytest.raises(OptionError, match="exists"):
        split(wav, out, separator=passthrough, options=options)
    assert files_below(out) == before
    split(wav, out, separator=passthrough, options=FolderFormat(layout=layout, overwrite=True))
    assert set(files_below(out)) == set(before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "reapper"}, "reaper"),
        ({"layout": "stem.mp4", "format": "flac"}, "aac"),
        ({"layout": "stem.mp4", "bit_depth": "24"}, "bit depth"),
        ({"layout": "multichannel", "format": "mp3"}, "wav"),
        ({"layout": "multichannel", "name": "{song}/{stem}"}, "leave"),
        ({"layout": "folder", "format": "aac"}, "format"),
        ({"layout": "reaper", "tempo": 0.0}, "tempo"),
        ({"layout": "reaper", "tempo": float("nan")}, "tempo"),
    ],
)
def test_what_does_not_fit_together_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        FolderFormat(**options)  # type: ignore[arg-type]


def test_a_rate_that_it_cannot_hold_is_told_before_anything_is_done(
    tmp_path: Path, passthrough: Separator, song: Audio
) -> None:
    path = tmp_path / "song.wav"
    soundfile.write(path, song[:, :RATE].T, 96000)
    with pytest.raises(OptionError, match="96000 Hz; --as stem.mp4 holds 44100 or 48000"):
        split(path, tmp_path / "out", separator=passthrough, options=FolderFormat(layout="stem.mp4"))
    assert not (tmp_path / "out").exists()


def test_layouts_lie_side_by_side_and_none_of_them_is_a_song(tmp_path: Path, passthrough: Separator, wav: Path) -> None:
    out = tmp_path / "out"
    for layout in LAYOUTS:
        options = FolderFormat("flac" if layout == "reaper" else None, layout=layout, overwrite=True)
        split(wav, out, separator=passthrough, options=options)
    with pytest.raises(AudioError, match="no songs"):
        find_songs([out])


@pytest.mark.parametrize("layout", ["multichannel", "stem.mp4", "dawproject"])
def test_a_folder_of_its_own_holds_the_file_and_the_report(
    tmp_path: Path, passthrough: Separator, wav: Path, layout: str
) -> None:
    options = FolderFormat(layout=layout, name="{song}/all")
    package = split(wav, tmp_path / "out", separator=passthrough, options=options).package
    assert package and set(package.parent.iterdir()) == {
        package,
        package.with_name(f"Über song.{layout}.stems.json"),
    }


@pytest.mark.parametrize("clip", ["none", "rescale"])
def test_the_mixture_in_a_stem_file_is_within_full_scale_or_that_is_told(
    tmp_path: Path, passthrough: Separator, song: Audio, clip: str
) -> None:
    """The stems of the passthrough model are smaller than the song, which passes full scale here."""
    path = tmp_path / "hot.wav"
    soundfile.write(path, song[:, :RATE].T * (1.2 / np.abs(song[:, :RATE]).max()), RATE, subtype="FLOAT")
    options = FolderFormat("alac", layout="stem.mp4", clip=clip)
    result = split(path, tmp_path / "out", separator=passthrough, options=options)
    assert result.package and result.note
    audio = read_stem_mp4(result.package).audio
    apart = float(np.abs(audio[0] - audio[1:].sum(axis=0)).max())
    if clip == "rescale":
        assert apart <= 1e-6 and "full scale" not in result.note
    else:
        assert apart > 0.1 and "+1.6 dB" in result.note


@pytest.mark.parametrize("name", ["two  blanks", " lead", "a'b\"c", "`quoted`"])
def test_a_reaper_project_names_its_files_as_they_are(
    tmp_path: Path, passthrough: Separator, wav: Path, name: str
) -> None:
    path = tmp_path / f"{name}.wav"
    wav.rename(path)
    options = FolderFormat(layout="reaper", name="{song} {stem}")
    if "`" in name:
        with pytest.raises(OptionError, match="cannot be named in a project"):
            split(path, tmp_path / "out", separator=passthrough, options=options)
        return
    result = split(path, tmp_path / "out", separator=passthrough, options=options)
    assert result.package
    project = read_reaper(result.package)
    assert [result.package.parent / track.media for track in project.tracks] == result.paths


def test_no_track_replaces_another_song_of_the_run(tmp_path: Path, wav: Path) -> None:
    other = tmp_path / "Über song_vocals.wav"
    other.write_bytes(wav.read_bytes())
    for layout, name in (("folder", "{song}_{stem}"), ("multichannel", "{song}_vocals")):
        options = FolderFormat(layout=layout, name=name, overwrite=True)
        if layout == "multichannel":
            other = other.rename(tmp_path / "Über song_vocals.stems.wav")
        with pytest.raises(OptionError, match="would replace the song"):
            check_apart([wav, other], tmp_path, list(STEMS), options, "model")


def test_a_stem_file_says_which_slots_are_silent(tmp_path: Path, passthrough: Separator, wav: Path) -> None:
    result = split(wav, tmp_path, separator=passthrough, options=FolderFormat(layout="stem.mp4"))
    assert result.note and "Bass" in result.note


@given(
    rate=st.sampled_from([8000, 44100, 48000, 96000, 192000]),
    position=st.integers(0, 1 << 33),
    frames=st.integers(0, 1 << 33),
    names=st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), min_size=1), max_size=4),
)
@settings(max_examples=50, deadline=None)
def test_a_reaper_project_keeps_frames_and_names(
    tmp_path_factory: pytest.TempPathFactory, rate: int, position: int, frames: int, names: list[str]
) -> None:
    tracks = tuple(Track(name.replace("`", ""), (1, 2, 3), f"a/{n}.wav") for n, name in enumerate(["x", *names]))
    path = tmp_path_factory.mktemp("rpp") / "p.rpp"
    path.write_text(project_text(Project("p", rate, 2, frames, tracks, position)), encoding="utf-8")
    found = read_reaper(path)
    assert (found.sample_rate, found.position, found.frames) == (rate, position, frames)
    assert found.tracks == tracks


@pytest.mark.parametrize("content", [b"", b"RIFF\x04\0\0\0WAVE", b"RIFF\x04\0\0\0WAVEiXML\x04\0\0\0<a/>", b"x" * 100])
def test_what_is_no_file_of_stems_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(content)
    with pytest.raises(TrackError, match="x.wav"):
        read_multichannel(path)
    with pytest.raises(TrackError, match="x.wav"):
        read_reaper(path)
