"""What the stages of a separation take is counted offline, where it is asked for, and not live, where it would cost."""

from __future__ import annotations

from stemplug import Separator
from stemplug.audio import Audio
from tests.conftest import RATE


def test_offline_each_stage_counts(song: Audio) -> None:
    separator = Separator("spleeter-2stems")
    separator.separate(song[:, :RATE], 48_000)
    assert {"resample", "stft", "inference", "istft"} <= set(separator.watch.seconds)
    assert all(seconds > 0 for seconds in separator.watch.seconds.values())


def test_live_the_clock_is_not_asked(song: Audio) -> None:
    separator = Separator("stemplug-live", "live")
    separator.stream(48_000).push(song[:, :RATE])
    assert not separator.watch.seconds
