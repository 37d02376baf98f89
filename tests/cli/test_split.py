"""``stemplug split`` as scripts and people use it."""

from __future__ import annotations

import inspect
import json
import os
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stemplug import Separator
from stemplug.audio import Audio
from stemplug.cli.split import seconds, split_command
from stemplug.tracks import FolderFormat
from tests.conftest import RATE, Command, files_below


def test_paths_are_printed_one_a_line_and_speed_on_stderr(command: Command, wav: Path, tmp_path: Path) -> None:
    done = command("split", wav, "-o", "out", "--model", "passthrough")
    assert done.returncode == 0
    assert done.stdout.splitlines() == ["out/song/vocals.wav", "out/song/drums.wav", "out/song/other.wav"]
    assert "song.wav: 1 s of music in" in done.stderr and "x realtime" in done.stderr
    assert all((tmp_path / line).exists() for line in done.stdout.splitlines())


def test_real_stems_come_from_the_default_model(command: Command, wav: Path, tmp_path: Path) -> None:
    assert command("split", wav, "-o", tmp_path).returncode == 0
    stems = [
        soundfile.read(tmp_path / "song" / f"{stem}.wav", dtype="float32")[0]
        for stem in ("vocals", "drums", "bass", "other")
    ]
    mixture = soundfile.read(wav, dtype="float32")[0]
    assert np.abs(sum(stems) - mixture).max() <= 1e-6
    assert all(np.abs(stem).max() > 0.01 for stem in stems)


def test_json_has_an_object_a_song(command: Command, wav: Path, tmp_path: Path) -> None:
    done = command("split", wav, "missing.wav", "-o", tmp_path, "--model", "passthrough", "--json", "--stems", "vocals")
    good, bad = map(json.loads, done.stdout.splitlines())
    assert good["seconds"] == 1.0 and [t["path"] for t in good["tracks"]] == [str(tmp_path / "song/vocals.wav")]
    assert bad["exit_code"] == done.returncode == 3 and "missing.wav" in bad["error"]


def test_several_songs_and_folders_go_on_after_a_failure(
    command: Command, wav: Path, tmp_path: Path, song: Audio
) -> None:
    (tmp_path / "album").mkdir()
    soundfile.write(tmp_path / "album" / "b.flac", song[:, :5000].T, RATE)
    (tmp_path / "album" / "a.mp3").write_bytes(b"no song")
    done = command("split", "album", wav, "-o", "out", "--model", "passthrough", "--fold", "vocals")
    assert done.returncode == 3
    assert len(done.stdout.splitlines()) == 4
    assert "a.mp3" in done.stderr and "not audio" in done.stderr
    assert {p.name for p in files_below(tmp_path / "out")} >= {"b", "song"}
    assert not (tmp_path / "out" / "a").exists()


def test_a_part_is_cut_out(command: Command, wav: Path, tmp_path: Path) -> None:
    done = command("split", wav, "-o", tmp_path, "--model", "passthrough", "--start", "0:00.25", "--end", "0.75")
    assert done.returncode == 0
    part = soundfile.read(tmp_path / "song" / "vocals.wav", dtype="float32")[0]
    mixture = soundfile.read(wav, dtype="float32")[0][RATE // 4 : 3 * RATE // 4 + 1]
    assert np.abs(part - 0.5 * mixture[: len(part)]).max() < 1e-6


def test_samples_beyond_full_scale_are_told(command: Command, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "loud.wav", 3 * np.ones((999, 2)), RATE, subtype="FLOAT")
    done = command("split", "loud.wav", "-o", tmp_path, "--model", "passthrough", "--bit-depth", "24")
    assert done.returncode == 0
    assert "vocals: 1998 samples lay beyond full scale" in done.stderr and "--clip rescale" in done.stderr


@pytest.mark.parametrize(
    "name",
    [b"caf\xe9.wav", "🎧 Łódź.wav".encode(), b"a" * 251 + b".wav", b" -o .wav", b"[bold]x.wav", b"new\nline.wav"],
)
def test_songs_of_any_name_are_split(command: Command, wav: Path, tmp_path: Path, name: bytes) -> None:
    path = os.fsencode(tmp_path) + b"/" + name
    os.rename(wav, path)
    done = command("split", path, "-o", "out", "--model", "passthrough", "--stems", "vocals")
    assert done.returncode == 0, done.stderr
    printed = os.fsencode(done.stdout.removesuffix("\n"))
    assert printed == b"out/" + name.removesuffix(b".wav") + b"/vocals.wav"
    assert os.path.exists(os.path.join(os.fsencode(tmp_path), printed))


@pytest.mark.parametrize(("text", "value"), [("90", 90), ("1:30.5", 90.5), ("1:00:00", 3600), ("0", 0)])
def test_times_are_seconds_or_minutes(text: str, value: float) -> None:
    assert seconds(text) == value


def test_defaults_stand_in_one_place() -> None:
    """The command repeats the library's defaults, so that --help shows them: they must not drift apart."""
    options = {name: parameter.default for name, parameter in inspect.signature(split_command).parameters.items()}
    for field in fields(FolderFormat):
        assert options[field.name] == field.default
    separator = inspect.signature(Separator).parameters
    for name in ("model", "threads", "device"):
        assert options[name] == separator[name].default


@pytest.mark.parametrize("options", [["--clip", "rescale"], ["--clip", "clamp"], ["--bit-depth", "32f"]])
def test_nothing_is_said_of_samples_that_were_asked_about(command: Command, tmp_path: Path, options: list[str]) -> None:
    soundfile.write(tmp_path / "loud.wav", 3 * np.ones((999, 2)), RATE, subtype="FLOAT")
    done = command("split", "loud.wav", "-o", tmp_path, "--model", "passthrough", *options)
    assert done.returncode == 0 and "full scale" not in done.stderr


def test_splitting_a_folder_into_itself_twice_takes_no_stem_for_a_song(command: Command, wav: Path) -> None:
    for options in ([], ["--overwrite"]):
        done = command("split", wav.parent, "-o", wav.parent, "--model", "passthrough", *options)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 3
