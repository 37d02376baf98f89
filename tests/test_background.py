"""Threads end before what they use is closed, whatever interrupts the wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from stemplug.background import WriteBehind, join, read_ahead


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


def test_an_interrupt_waits_for_the_thread() -> None:
    class Interrupted(threading.Thread):
        interrupts = 2

        def join(self, timeout: float | None = None) -> None:
            if self.interrupts:
                self.interrupts -= 1
                raise KeyboardInterrupt
            super().join(timeout)

    thread = Interrupted(target=time.sleep, args=(0.1,))
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        join(thread)
    assert not thread.is_alive()
