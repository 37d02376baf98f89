"""The plugin in Ardour 7, which sets it up as realtime and then bounces in blocks that say offline."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np
import pytest

from stemplug import Separator
from stemplug.audio import Audio
from tests.hosts.conftest import Hosts, below_db, missing, peak

pytestmark = pytest.mark.hosts

SongAt = Callable[..., Audio]


@pytest.fixture(autouse=True)
def ardour() -> None:
    if not shutil.which("ardour7-lua"):
        missing("needs Ardour 7: apt-get install --no-install-recommends ardour")


@pytest.mark.parametrize("rate", [44100, 48000])
def test_with_strict_io_a_bounce_is_the_song(hosts: Hosts, song_at: SongAt, rate: int) -> None:
    song = song_at(rate)
    result = hosts.run("ardour", "bounce", audio=song, rate=rate, strict=True, buses={}, heard=["Master"])
    assert result["outputs"] == 2
    assert 0.03 * rate <= result["latency"] <= 0.1 * rate
    assert result["Master"].shape == song.shape
    assert peak(result["Master"] - song) <= 1e-6


def test_stems_on_buses_of_their_own_bounce_to_the_live_stems(hosts: Hosts, song_at: SongAt) -> None:
    rate = 48000
    song = song_at(rate)
    buses = {"Mix": 1, "Vocals": 3, "Drums": 5, "Bass": 7, "Guitar": 9, "Other": 13}
    heard = ["Mix", "Vocals", "Vocals+Drums+Bass+Other", "Guitar"]
    result = hosts.run("ardour", "bounce", 240, audio=song, rate=rate, strict=False, buses=buses, heard=heard)
    assert result["outputs"] == 14
    assert peak(result["Mix"] - song) <= 1e-6
    assert peak(result["Vocals+Drums+Bass+Other"] - song) <= 1e-6
    assert not result["Guitar"].any()
    # Ardour tells the plugin the time at which its output is heard, from which windows are counted.
    separator = Separator(profile="live", threads=2)
    stream = separator.stream(rate)
    lead = stream.begin_after(-result["latency"])
    stems = np.concatenate(
        [piece["vocals"] for piece in (stream.push(np.pad(song, ((0, 0), (lead, 0)))), stream.flush())], 1
    )
    stems = stems[:, lead:]
    assert below_db(result["Vocals"] - stems, stems) >= 60, result["latency"]


def test_a_realtime_roll_has_no_xrun(hosts: Hosts, song_at: SongAt) -> None:
    seconds = 15.0
    result = hosts.run("ardour", "roll", audio=song_at(48000, 20.0), rate=48000, block=512, seconds=seconds)
    assert result["position"] >= seconds - 2
    assert result["xruns"] == 0
    assert hosts.workers()
