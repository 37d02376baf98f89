"""One bounded queue between two threads: read ahead of a consumer, write behind a producer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")
_END = object()
_POLL_SECONDS = 0.1


class _Thread:
    """A daemon thread whose end can be waited for by one who is interrupted.

    `threading.Thread.join` cannot: before Python 3.13, an interrupt makes it take the thread for ended.
    """

    def __init__(self, work: Callable[[], None], name: str) -> None:
        self._work, self._ended = work, threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self._ended.set()

    def start(self, abandon: Callable[[], None]) -> None:
        """Start; an interrupt meanwhile is raised after ``abandon``, which tells the thread to end."""
        try:
            self._thread.start()
        except BaseException:
            abandon()
            raise

    def join(self, before: Callable[[], None]) -> None:
        """Call ``before``, which tells the thread to end, and wait until it has; an interrupt is raised afterwards."""
        interrupt: BaseException | None = None
        while not self._ended.is_set():
            try:
                before()
                self._ended.wait()
            except BaseException as error:
                interrupt = error
        if interrupt:
            raise interrupt


def read_ahead(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """Yield ``items``, made by a thread of its own up to ``depth`` items ahead; its errors are raised here.

    When the generator ends or is closed, the thread has ended.
    """
    waiting: queue.Queue[object] = queue.Queue(depth)
    stopped = threading.Event()
    failure: list[BaseException] = []

    def put(item: object) -> None:
        while not stopped.is_set():
            try:
                return waiting.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue

    def produce() -> None:
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
        except BaseException as error:  # handed to the consumer
            failure.append(error)
        put(_END)

    thread = _Thread(produce, "stemplug-read")
    thread.start(stopped.set)
    try:
        while (item := waiting.get()) is not _END:
            yield item  # type: ignore[misc]
        if failure:
            raise failure[0]
    finally:
        thread.join(stopped.set)


class WriteBehind(Generic[T]):
    """Call ``write`` on a thread of its own for each item that is put, in order; a ``with`` block waits for the last.

    What ``write`` raises is raised by the next `put` or at the end of the block. If the block itself fails, items that
    wait are dropped. In any case the thread has ended when the block has.
    """

    def __init__(self, write: Callable[[T], None], depth: int) -> None:
        self._write = write
        self._waiting: queue.Queue[object] = queue.Queue(depth)
        self._failure: BaseException | None = None
        self._ending = threading.Event()
        self._dropping = False
        self._thread = _Thread(self._consume, "stemplug-write")

    def put(self, item: T) -> None:
        """Queue an item; waits while the queue is full."""
        if self._failure:
            raise self._failure
        self._waiting.put(item)

    def _consume(self) -> None:
        while True:
            try:
                item = self._waiting.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                if self._ending.is_set():
                    return
                continue
            if item is _END:
                return
            if self._failure or self._dropping:
                continue
            try:
                self._write(item)  # type: ignore[arg-type]
            except BaseException as error:  # handed to the producer
                self._failure = error

    def __enter__(self) -> WriteBehind[T]:
        self._thread.start(self._end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._dropping = error is not None
        self._thread.join(self._end)
        if error is None and self._failure:
            raise self._failure

    def _end(self) -> None:
        self._ending.set()
        with suppress(queue.Full):  # only sooner: the thread looks at `_ending` when there is nothing left
            self._waiting.put_nowait(_END)
