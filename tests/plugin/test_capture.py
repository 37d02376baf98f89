"""Capture: what was played, as stems that know their place in the host's time."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import wavinfo

from stemplug.audio import Audio
from stemplug.models import find_model
from stemplug.worker import capture
from stemplug.worker.capture import Captures
from stemplug.worker.segment import Mark
from tests.plugin.conftest import HOST_RATE, Place, finish, wait_until

RATE = 44100


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(capture.FOLDER, str(tmp_path / "captures"))
    return tmp_path / "captures"


def captures(name: str = "Lead / Vox: 1") -> Captures:
    return Captures(name, find_model("spleeter-2stems").manifest, RATE, 2)


def feed(target: Captures, song: Audio, at: int) -> None:
    """The song from frame ``at`` on in blocks, and half of it as vocals."""
    for start in range(0, song.shape[1], 777):
        block = song[:, start : start + 777]
        target.push(block, at + start)
        target.collect(block * np.float32(0.5))


def takes(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if not path.name.startswith("."))


def read(take: Path) -> dict[str, Audio]:
    return {path.stem: soundfile.read(path, dtype="float32")[0].T for path in take.glob("*.wav")}


def test_a_take_holds_the_stems_of_what_was_played_and_their_time(folder: Path, song: Audio) -> None:
    target = captures()
    target.note([Mark(0, 0, playing=False, capture=True)])
    feed(target, song[:, :5000], 0)
    target.note([Mark(5000, 96000, playing=True, capture=True)])
    feed(target, song[:, 5000:25000], 5000)
    target.note([Mark(25000, 116000, playing=False, capture=True)])
    feed(target, song[:, 25000:30000], 25000)
    (take,) = takes(folder)
    assert take.name.endswith("Lead - Vox- 1")
    stems = read(take)
    assert stems.keys() == {"vocals", "accompaniment"}
    np.testing.assert_array_equal(stems["vocals"], song[:, 5000:25000] * np.float32(0.5))
    np.testing.assert_allclose(sum(stems.values()), song[:, 5000:25000], atol=1e-7)
    assert wavinfo.WavInfoReader(str(take / "vocals.wav")).bext.time_reference == 96000
    project = (take / "stems.rpp").read_text()
    assert f"POSITION {96000 / RATE:.14f}" in project and f"LENGTH {20000 / RATE:.14f}" in project
    assert 'FILE "vocals.wav"' in project and 'NAME "Accompaniment"' in project


def test_a_loop_gives_a_take_each_time_and_a_preroll_begins_at_zero(folder: Path, song: Audio) -> None:
    target = captures()
    target.note([Mark(0, -3000, playing=True, capture=True)])
    feed(target, song[:, :10000], 0)
    target.note([Mark(10000, 500, playing=True, capture=True)])
    feed(target, song[:, 10000:20000], 10000)
    target.finish()
    starts = {wavinfo.WavInfoReader(str(take / "vocals.wav")).bext.time_reference for take in takes(folder)}
    lengths = {read(take)["vocals"].shape[1] for take in takes(folder)}
    assert starts == {0, 500} and lengths == {7000, 10000}


def test_silence_leaves_nothing_and_what_follows_the_last_sound_is_left_out(folder: Path, song: Audio) -> None:
    target = captures()
    target.note([Mark(0, 0, playing=True, capture=True)])
    feed(target, np.zeros((2, 5000), np.float32), 0)
    target.finish()
    assert not takes(folder)
    target = captures()
    target.note([Mark(0, 0, playing=True, capture=True)])
    feed(target, np.concatenate([song[:, :5000], np.zeros((2, 50000), np.float32)], axis=1), 0)
    target.finish()
    sounding = np.flatnonzero(song[:, :5000].any(axis=0))[-1] + 1
    assert read(takes(folder)[0])["vocals"].shape[1] == sounding


def test_what_a_killed_worker_left_is_removed_by_the_next(folder: Path, song: Audio) -> None:
    left = folder / f"{capture._STAGING}999999999-1"
    left.mkdir(parents=True)
    target = captures()
    target.note([Mark(0, 0, playing=True, capture=True)])
    feed(target, song[:, :5000], 0)
    target.finish()
    assert not left.exists() and len(takes(folder)) == 1


def test_a_folder_that_cannot_be_written_is_told_in_the_log_and_stems_go_on(
    folder: Path, song: Audio, caplog: pytest.LogCaptureFixture
) -> None:
    folder.write_text("a file")
    capture.log.propagate = True
    target = captures()
    target.note([Mark(0, 0, playing=True, capture=True)])
    feed(target, song[:, :5000], 0)
    target.finish()
    assert "not captured" in caplog.text


def test_a_bounce_is_captured_at_the_hosts_position(place: Place, bundle: Path, song_file: Path) -> None:
    """Through the plugin: host time 1,000,000 at the first frame, transport rolling."""
    frames = os.path.getsize(song_file) // 8
    found = finish(
        place.host(
            "render",
            bundle,
            "--input",
            song_file,
            "--rate",
            HOST_RATE,
            "--block",
            512,
            "--mode",
            "realtime",
            "--blocks-say",
            "offline",
            "--pace",
            "none",
            "--position",
            1_000_000,
            "--set",
            "13=1",
        )  # fmt: skip
    )
    assert found["main_error"] <= 1e-6
    root = place.folder / "captures"
    wait_until(lambda: root.is_dir() and takes(root), 20, "a capture")
    time.sleep(0.2)
    (take,) = takes(root)
    stems = read(take)
    reference = wavinfo.WavInfoReader(str(take / "vocals.wav")).bext.time_reference
    song = np.fromfile(song_file, "<f4").reshape(-1, 2).T
    begin = reference - 1_000_000
    assert begin == 0
    total = sum(stems.values())
    common = min(frames, total.shape[1])
    assert common > frames - HOST_RATE
    np.testing.assert_allclose(total[:, :common], song[:, :common], atol=1e-6)
    assert np.abs(stems["vocals"]).max() > 0
