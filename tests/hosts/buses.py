"""The plugin's outputs as hosts see them."""

from __future__ import annotations

from tests.hosts.driver import Audio

BUSES = ["Mix", "Vocals", "Drums", "Bass", "Guitar", "Piano", "Other"]


def by_bus(channels: Audio) -> dict[str, Audio]:
    """Stereo buses one after the other, by name."""
    assert len(channels) == 2 * len(BUSES)
    return {name: channels[2 * number : 2 * number + 2] for number, name in enumerate(BUSES)}
