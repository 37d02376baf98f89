"""The plugin in pedalboard, which always says that it renders offline."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable

import numpy as np
import pytest

from stemplug.audio import Audio
from tests.hosts.conftest import Hosts, peak

pytestmark = pytest.mark.hosts

SongAt = Callable[..., Audio]
StemsAt = Callable[..., dict[str, Audio]]

UNITY = 0.75
MINUS_12_DB = 0.75 * (4 / 3) ** -1
"""12 dB are a factor of 4/3 on the parameter."""


@pytest.mark.parametrize(
    ("rate", "block"),
    [(44100, 512), (44100, 777), (44100, 4096), (48000, 512), (48000, 4096), (96000, 512), (96000, 4096)],
)
def test_the_mix_is_the_input_and_soloed_vocals_are_those_of_the_separator(
    hosts: Hosts, song_at: SongAt, stems_at: StemsAt, rate: int, block: int
) -> None:
    song = song_at(rate)
    result = hosts.run("pedalboard", "render", audio=song, rate=rate, block=block, settings=[{}, {"vocals_solo": True}])
    mix, vocals = result["outputs"]
    assert mix.shape == song.shape
    assert peak(mix - song) <= 1e-6
    assert peak(vocals - stems_at(rate)["Vocals"]) <= 1e-5


def test_blocks_of_64_frames(hosts: Hosts, song_at: SongAt, stems_at: StemsAt) -> None:
    song = song_at(44100, 3.0)
    settings = [{}, {"vocals_solo": True}]
    result = hosts.run("pedalboard", "render", audio=song, rate=44100, block=64, settings=settings)
    mix, vocals = result["outputs"]
    assert peak(mix - song) <= 1e-6
    assert peak(vocals - stems_at(44100, 3.0)["Vocals"]) <= 1e-5


def test_a_mono_song(hosts: Hosts, song_at: SongAt) -> None:
    song = song_at(44100)[:1]
    settings = [{}, {"vocals_solo": True}, {"vocals_solo": False, "vocals_mute": True}]
    result = hosts.run("pedalboard", "render", audio=song, rate=44100, block=512, settings=settings)
    mix, vocals, rest = result["outputs"]
    assert peak(mix - song) <= 1e-6
    assert peak(vocals) > 0.01
    assert peak(vocals + rest - song) <= 1e-6


def test_gains_mutes_and_output_gain_make_the_mix(hosts: Hosts, song_at: SongAt, stems_at: StemsAt) -> None:
    settings = [
        {"vocals_gain_db": MINUS_12_DB},
        {"output_gain_db": MINUS_12_DB, "other_mute": True},
        {"output_gain_db": UNITY, "other_mute": False, "vocals_gain_db": 0.0},
    ]
    result = hosts.run("pedalboard", "render", audio=song_at(44100), rate=44100, block=512, settings=settings)
    stems = stems_at(44100)
    gain = 10 ** (-12 / 20)
    rest = song_at(44100) - stems["Vocals"]
    assert peak(result["outputs"][0] - (gain * stems["Vocals"] + rest)) <= 1e-5
    assert peak(result["outputs"][1] - gain * (gain * stems["Vocals"] + rest - stems["Other"])) <= 1e-5
    assert peak(result["outputs"][2] - rest) <= 1e-5


@pytest.mark.parametrize("attribute", ["raw_state", "preset_data"])
@pytest.mark.parametrize("first", [True, False], ids=["saved before any block", "saved after a render"])
def test_a_restored_state_gives_the_same_audio(hosts: Hosts, song_at: SongAt, attribute: str, first: bool) -> None:
    parameters = {"vocals_gain_db": 0.6, "other_gain_db": 0.9, "output_gain_db": 0.5, "latency": "high"}
    song = song_at(44100, 6.0)
    result = hosts.run(
        "pedalboard", "restore", audio=song, rate=44100, parameters=parameters, attribute=attribute, first=first
    )
    if attribute == "raw_state":  # after a preset, pedalboard goes on to show the values of before
        kept = slice(0, -2)  # Status and Worker Load differ
        assert np.array_equal(result["values"][kept], result["restored_values"][kept])
    assert np.array_equal(result["expected"], result["restored"])
    assert peak(result["expected"] - song) > 0.01


@pytest.mark.parametrize("render", ["Follow host", "Live"])
def test_a_parameter_can_change_with_every_block(hosts: Hosts, song_at: SongAt, render: str) -> None:
    rate, block = 44100, 4410
    song = song_at(rate, 6.0)
    result = hosts.run(
        "pedalboard",
        "automate",
        audio=song,
        rate=rate,
        block=block,
        start={"render": render},
        name="output_gain_db",
        values=np.array([UNITY, MINUS_12_DB, 0.0]),
    )
    ramp = rate // 100
    amplitudes = {UNITY: 1.0, MINUS_12_DB: 10 ** (-12 / 20), 0.0: 0.0}
    end, heard = 0, 0
    for length, raw in zip(result["lengths"], result["raw"], strict=True):
        start, end = end, end + length
        settled = slice(start + ramp + 1, min(end, song.shape[1]))
        if length == block and settled.start < settled.stop:
            assert peak(result["output"][:, settled] - amplitudes[raw] * song[:, settled]) <= 1e-6
            heard += 1
    assert heard >= 50
    steps = np.abs(np.diff(result["output"][:, : song.shape[1]]))
    assert steps.max() <= np.abs(np.diff(song)).max() + peak(song) / ramp + 1e-6  # ramps, no jumps


def test_loading_takes_less_than_300_ms_and_starts_no_worker(hosts: Hosts) -> None:
    result = hosts.run("pedalboard", "load_time", runtime=str(hosts.runtime))
    assert result["seconds"] < 0.3
    assert result["workers"] == 0


def test_eight_instances_share_one_worker(hosts: Hosts, song_at: SongAt, stems_at: StemsAt) -> None:
    result = hosts.run(
        "pedalboard",
        "together",
        audio=song_at(44100),
        rate=44100,
        instances=8,
        parameters={"vocals_solo": True},
        runtime=str(hosts.runtime),
    )
    for vocals in result["outputs"]:
        assert peak(vocals - stems_at(44100)["Vocals"]) <= 1e-5
    assert result["workers"] == 1


def test_without_a_worker_the_song_comes_through(hosts: Hosts, song_at: SongAt) -> None:
    alone = hosts.folder / "StemPlug.vst3"
    shutil.copytree(hosts.bundle, alone)
    shutil.rmtree(alone / "Contents" / "Resources", ignore_errors=True)  # does not know any interpreter now
    result = dataclasses.replace(hosts, bundle=alone).run(
        "pedalboard", "render", audio=song_at(44100), rate=44100, block=512, settings=[{}]
    )
    assert peak(result["outputs"][0] - song_at(44100)) <= 1e-6
    assert not hosts.workers()


@pytest.mark.slow
def test_a_render_takes_little_longer_than_the_separator(hosts: Hosts, song_at: SongAt) -> None:
    seconds = hosts.run("pedalboard", "side_by_side", 600, audio=song_at(44100, 240.0), rate=44100, rounds=5)
    assert seconds["plugin"] <= 1.15 * seconds["separator"]
