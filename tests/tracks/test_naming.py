"""Songs are found, and named without clashes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemplug.errors import AudioError, OptionError
from stemplug.tracks import find_songs
from stemplug.tracks.naming import check_template, check_unique, track_path


def test_folders_are_searched_for_songs(tmp_path: Path) -> None:
    for name in ("b.WAV", "sub/a.mp3", "notes.txt", ".hidden.wav", ".stemplug-x/0.wav", "cover.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_songs([tmp_path]) == [tmp_path / "b.WAV", tmp_path / "sub/a.mp3"]


def test_a_hidden_folder_that_is_named_is_searched(tmp_path: Path) -> None:
    (tmp_path / ".music").mkdir()
    (tmp_path / ".music/a.wav").touch()
    assert find_songs([tmp_path / ".music"]) == [tmp_path / ".music/a.wav"]


def test_songs_come_once_and_in_order(tmp_path: Path) -> None:
    assert find_songs(["b.wav", "a.wav", "b.wav"]) == [Path("b.wav"), Path("a.wav")]


def test_a_folder_without_songs_is_told(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no songs in the folder"):
        find_songs([tmp_path])


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{song}", "{stem} is missing"),
        ("{song}/{stam}", "Did you mean 'stem'"),
        ("../{stem}", "out of the output folder"),
        ("/tmp/{stem}", "out of the output folder"),
        ("a/../../{stem}", "out of the output folder"),
        ("{stem", "expected '}'"),
        ("{}{stem}", "Unknown field"),
        ("{song}/{stem}/", "empty or hidden"),
        ("{song}//{stem}", "empty or hidden"),
        ("{song}/.{stem}", "empty or hidden"),
    ],
)
def test_bad_templates_are_told(template: str, reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        check_template(template)


def test_two_songs_of_one_name_are_told() -> None:
    with pytest.raises(OptionError, match="'a/x.wav' and 'b/x.mp3' would both"):
        check_unique([Path("a/x.wav"), Path("y.wav"), Path("b/x.mp3")], "{song}/{stem}", "m")


def test_long_names_are_told() -> None:
    song = Path("é" * 126 + ".wav")
    assert track_path("{song}/{stem}", song, "vocals", "m", "wav").name == "vocals.wav"
    with pytest.raises(OptionError, match="bytes, 255 at most"):
        track_path("{song}-{stem}", song, "vocals", "m", "wav")


@given(song=st.text(min_size=1).filter(lambda s: "/" not in s and "\0" not in s), dots=st.sampled_from(["", ".", ".."]))
def test_no_song_leads_out_of_the_folder(song: str, dots: str) -> None:
    try:
        path = track_path("{song}/{stem}", Path("folder") / (dots + song), "vocals", "m", "wav")
    except (OptionError, UnicodeEncodeError):
        return
    assert not path.is_absolute() and ".." not in path.parts and len(path.parts) == 2
