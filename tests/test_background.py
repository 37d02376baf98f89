"""Threads end before what they use is closed, whatever interrupts the wait."""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from stemplug.background import WriteBehind, read_ahead


def numbers(count: int) -> Iterator[int]:
    for number in range(count):
        time.sleep(0.002)
        yield number


def reading() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name in ("stemplug-read", "stemplug-write")]


def test_items_come_in_order() -> None:
    assert list(read_ahead(numbers(50), 3)) == list(range(50))
    assert not reading()


def test_a_reader_that_fails_is_told_after_what_it_gave() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise OSError("bad block")

    items = read_ahead(failing(), 3)
    assert next(items) == 1
    with pytest.raises(OSError, match="bad block"):
        next(items)


def test_closing_the_reader_ends_its_thread() -> None:
    items = read_ahead(numbers(10**6), 3)
    next(items)
    assert reading()
    items.close()
    assert not reading()


def test_items_are_written_in_order_and_all() -> None:
    written: list[int] = []
    with WriteBehind(lambda item: (time.sleep(0.002), written.append(item))[1], 2) as writer:
        for number in range(30):
            writer.put(number)
    assert written == list(range(30)) and not reading()


def test_a_writer_that_fails_is_told() -> None:
    def fail(item: int) -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"), WriteBehind(fail, 2) as writer:
        for number in range(1000):
            writer.put(number)
    assert not reading()


def test_a_failing_block_drops_what_waits_but_ends_the_thread() -> None:
    written: list[int] = []
    with pytest.raises(KeyboardInterrupt), WriteBehind(lambda i: (time.sleep(0.05), written.append(i))[1], 9) as writer:
        for number in range(9):
            writer.put(number)
        raise KeyboardInterrupt
    assert len(written) <= 1 and not reading()


@pytest.mark.parametrize("seed", range(20))
def test_an_interrupt_at_any_moment_leaves_no_thread(seed: int) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.001 + seed * 0.002)
            with WriteBehind(lambda item: time.sleep(0.002), 2) as writer:
                for number in read_ahead(numbers(10**6), 2):
                    writer.put(number)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    gc.collect()
    limit = time.monotonic() + 1  # an interrupt while a thread starts is not held up until it has ended
    while reading() and time.monotonic() < limit:
        time.sleep(0.01)
    assert not reading()
