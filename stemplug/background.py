"""One bounded queue between two threads: read ahead of a consumer, write behind a producer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")
_END = object()


def read_ahead(items: Iterable[T], depth: int) -> Iterator[T]:
    """Yield ``items``, made by a thread of its own up to ``depth`` items ahead; its errors are raised here."""
    waiting: queue.Queue[object] = queue.Queue(depth)
    stopped = threading.Event()
    failure: list[BaseException] = []

    def put(item: object) -> None:
        while not stopped.is_set():
            try:
                return waiting.put(item, timeout=0.1)
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

    thread = threading.Thread(target=produce, name="stemplug-read", daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not _END:
            yield item  # type: ignore[misc]
        if failure:
            raise failure[0]
    finally:
        stopped.set()
        thread.join()


class WriteBehind(Generic[T]):
    """Call ``write`` on a thread of its own for each item that is put, in order; a ``with`` block waits for the last.

    What ``write`` raises is raised by the next `put` or at the end of the block. If the block itself fails, items that
    wait are dropped.
    """

    def __init__(self, write: Callable[[T], None], depth: int) -> None:
        self._write = write
        self._waiting: queue.Queue[object] = queue.Queue(depth)
        self._failure: BaseException | None = None
        self._dropping = False
        self._thread = threading.Thread(target=self._consume, name="stemplug-write", daemon=True)

    def put(self, item: T) -> None:
        """Queue an item; waits while the queue is full."""
        if self._failure:
            raise self._failure
        self._waiting.put(item)

    def _consume(self) -> None:
        while (item := self._waiting.get()) is not _END:
            if self._failure or self._dropping:
                continue
            try:
                self._write(item)  # type: ignore[arg-type]
            except BaseException as error:  # handed to the producer
                self._failure = error

    def __enter__(self) -> WriteBehind[T]:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._dropping = error is not None
        self._waiting.put(_END)
        self._thread.join()
        if error is None and self._failure:
            raise self._failure
