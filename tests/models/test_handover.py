"""A window hands on what it found, and none waits for one that will not."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import numpy as np
import pytest

from stemplug.models import Handover

MASKS = np.arange(100, dtype=np.float32).reshape(1, 100, 1)


def pair() -> tuple[Handover, Handover]:
    """Those of two windows of a transform with hop 4, the second 60 frames later."""
    before = Handover(None, 0)
    after = Handover(before, 240)
    for handover in (before, after):
        handover.count(4, 0)
    return before, after


def test_frames_are_counted_from_the_windows_own_first_one() -> None:
    before, after = pair()
    before.promise(10, 110)
    before.hand_on(MASKS)
    assert after.promised() == (-50, 50)
    assert after.known(0, 50)[0, :, 0].tolist() == list(range(50, 100))
    after.count(4, 20)  # without 20 frames of silence at its beginning
    assert after.promised() == (-70, 30)
    assert after.known(0, 30)[0, :, 0].tolist() == list(range(70, 100))


def test_a_window_waits_for_one_that_is_at_work() -> None:
    before, after = pair()
    found: list[object] = []

    def take() -> None:
        found.extend([after.promised(), after.known(-50, 50)])

    thread = threading.Thread(target=take)
    thread.start()
    before.promise(10, 110)
    assert not found
    before.hand_on(MASKS)
    before.close()
    thread.join(10)
    assert found[0] == (-50, 50) and np.array_equal(found[1], MASKS)  # type: ignore[arg-type]


@pytest.mark.parametrize("promised", [False, True])
def test_a_window_that_ends_early_hands_on_no_more(promised: bool) -> None:
    before, after = pair()
    if promised:
        before.promise(10, 110)
    before.close()
    assert after.promised() == ((-50, 50) if promised else (0, 0))
    with pytest.raises(CancelledError):
        after.known(0, 50)


def test_the_first_window_gets_nothing() -> None:
    assert Handover(None, 0).promised() == (0, 0)
