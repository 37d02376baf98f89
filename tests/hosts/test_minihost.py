"""The plugin in minihost: in realtime, as in a DAW, and offline."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from stemplug.audio import Audio
from tests.hosts.buses import BUSES, by_bus
from tests.hosts.conftest import Hosts, below_db, peak

pytest.importorskip("minihost")
pytestmark = pytest.mark.hosts

SongAt = Callable[..., Audio]
StemsAt = Callable[..., dict[str, Audio]]

ATTEMPTS = 3
QUIET = 0.1
"""Of one core: where others take more, blocks that are late tell nothing."""


def play(
    hosts: Hosts, song: Audio, stems: dict[str, Audio], rate: int, block: int, strict: bool = False
) -> tuple[int, float]:
    """Play the song in realtime; returns how many blocks had no stems, and the load of others meanwhile."""
    seconds = song.shape[1] / rate
    result = hosts.run("minihost", "play", seconds + 60, audio=song, rate=rate, block=block, runtime=str(hosts.runtime))
    latency, frames = int(result["latency"]), result["output"].shape[1]
    assert 0.03 * rate <= latency <= 0.06 * rate
    delayed = np.concatenate([np.zeros((2, latency), np.float32), song], axis=1)[:, :frames]
    bus = by_bus(result["output"])
    assert peak(bus["Mix"] - delayed) <= 1e-6
    assert peak(sum(bus[name] for name in BUSES[1:]) - delayed) <= 1e-6
    assert not any(bus[name].any() for name in ("Guitar", "Piano"))

    status = list(result["status"])
    assert "ready" in status
    ready = status.index("ready")
    assert ready * block / rate < (5 if strict else 15)
    caught_up = ready + rate // block  # for a second after its start the worker may still be behind
    late = len(status) - caught_up - status[caught_up:].count("ready")
    if strict and not late:
        settled = ready * block + 4 * rate  # what the network remembers is all song by then
        live = stems["Vocals"][:, settled - latency : frames - latency]
        assert below_db(bus["Vocals"][:, settled:] - live, live) >= 60
    return late, float(result["others"])


@pytest.mark.parametrize(("rate", "block"), [(48000, 512), (44100, 256)])
def test_in_realtime_the_buses_sum_to_the_input(
    hosts: Hosts, song_at: SongAt, stems_at: StemsAt, rate: int, block: int
) -> None:
    """How many blocks are late is a matter of the machine: the long form below asks for none."""
    play(hosts, song_at(rate, 12.0), stems_at(rate, 12.0, "live"), rate, block)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_in_a_minute_of_realtime_no_block_is_late(hosts: Hosts, song_at: SongAt, stems_at: StemsAt) -> None:
    rate, block, seconds = 48000, 512, 60.0
    song, stems = song_at(rate, seconds), stems_at(rate, seconds, "live")
    for _ in range(ATTEMPTS):
        late, others = play(hosts, song, stems, rate, block, strict=True)
        if late == 0:
            return
        assert others > QUIET, f"{late} blocks without stems"
    pytest.skip(f"the machine is busy: {others:.0%} of a core beside the test")


@pytest.mark.parametrize("profile", ["offline", "live"])
@pytest.mark.parametrize(("rate", "block"), [(44100, 512), (48000, 1000)])
def test_offline_every_bus_carries_its_stem(
    hosts: Hosts, song_at: SongAt, stems_at: StemsAt, rate: int, block: int, profile: str
) -> None:
    song, stems = song_at(rate), stems_at(rate, profile=profile)
    result = hosts.run(
        "minihost", "render", audio=song, rate=rate, block=block, positions=[], activate=profile == "offline"
    )
    assert (result["latency"] > 10 * rate) == (profile == "offline")
    bus = by_bus(result["output"])
    assert peak(bus["Mix"] - song) <= 1e-6
    assert all(peak(bus[name] - stem) <= 1e-5 for name, stem in stems.items())
    assert result["status"] == "ready"


def test_the_audio_does_not_depend_on_the_transport(hosts: Hosts, song_at: SongAt, stems_at: StemsAt) -> None:
    positions = [-44100, 0, 10_000_000, -5, 2**40, 0]
    result = hosts.run(
        "minihost", "render", audio=song_at(44100), rate=44100, block=512, positions=positions, activate=True
    )
    bus = by_bus(result["output"])
    assert peak(bus["Mix"] - song_at(44100)) <= 1e-6
    assert peak(bus["Vocals"] - stems_at(44100)["Vocals"]) <= 1e-5
