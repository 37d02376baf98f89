"""The plugin in DawDreamer, which hands out all buses, offline, and does not compensate for latency."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from stemplug.audio import Audio
from tests.hosts.buses import BUSES, by_bus
from tests.hosts.conftest import Hosts, peak

pytest.importorskip("dawdreamer")
pytestmark = pytest.mark.hosts

SongAt = Callable[..., Audio]
StemsAt = Callable[..., dict[str, Audio]]


@pytest.mark.parametrize(("rate", "block"), [(44100, 512), (44100, 777), (48000, 4096), (96000, 512)])
def test_every_bus_carries_its_stem(hosts: Hosts, song_at: SongAt, stems_at: StemsAt, rate: int, block: int) -> None:
    song, stems = song_at(rate), stems_at(rate)
    result = hosts.run(
        "dawdreamer",
        "render",
        audio=song,
        rate=rate,
        block=block,
        parameters={"Vocals Mute": 1.0},  # on Mix, not on Vocals
        instances=1,
        runtime=str(hosts.runtime),
    )
    bus = by_bus(result["outputs"][0])
    assert peak(bus["Mix"] - (song - stems["Vocals"])) <= 1e-5
    assert all(peak(bus[name] - stem) <= 1e-5 for name, stem in stems.items())
    assert not any(bus[name].any() for name in ("Guitar", "Piano"))
    assert peak(sum(bus[name] for name in BUSES[1:]) - song) <= 1e-6


def test_eight_instances_share_one_worker(hosts: Hosts, song_at: SongAt, stems_at: StemsAt) -> None:
    result = hosts.run(
        "dawdreamer",
        "render",
        timeout=240,
        audio=song_at(44100, 6.0),
        rate=44100,
        block=512,
        parameters={},
        instances=8,
        runtime=str(hosts.runtime),
    )
    for output in result["outputs"]:
        bus = by_bus(output)
        assert peak(bus["Mix"] - song_at(44100, 6.0)) <= 1e-6
        assert peak(bus["Vocals"] - stems_at(44100, 6.0)["Vocals"]) <= 1e-5
    assert result["workers"] == 1
    assert np.array_equal(result["outputs"], np.broadcast_to(result["outputs"][:1], result["outputs"].shape))
