"""Threads that separate windows for all instances: who is due first is served first."""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

OFFLINE_LANES = 2
"""Windows of offline streams at work at a time; the latency that the plugin is told covers as many, and one waiting."""
_NICE = 10


@dataclass(order=True)
class _Job:
    due: float
    number: int
    run: Callable[[], None] = field(compare=False)


class Lanes:
    """Some threads that take jobs in the order of their deadlines.

    Parameters
    ----------
    threads:
        How many.
    done:
        Called after each job, on its thread.
    nice:
        Whether they, and the threads that they start, step back behind all others.
    """

    def __init__(self, threads: int, done: Callable[[], None], *, nice: bool = False) -> None:
        self._jobs: list[_Job] = []
        self._waiting = threading.Condition()
        self._numbers = itertools.count()
        self._done, self._nice = done, nice
        self._since = [0.0] * threads  # when each began its job; 0 while idle
        for number in range(threads):
            threading.Thread(target=self._work, args=(number,), name=f"stemplug-lane-{number}", daemon=True).start()

    def put(self, due: float, run: Callable[[], None]) -> None:
        """Have ``run`` called; the smallest ``due`` goes first."""
        with self._waiting:
            heapq.heappush(self._jobs, _Job(due, next(self._numbers), run))
            self._waiting.notify()

    @property
    def full(self) -> bool:
        """Whether a job waits."""
        return bool(self._jobs)

    def longest(self) -> float:
        """For how many seconds the oldest job has been at work."""
        began = [since for since in self._since if since]
        return time.monotonic() - min(began) if began else 0.0

    def _work(self, number: int) -> None:
        if self._nice:
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while True:
            with self._waiting:
                self._waiting.wait_for(lambda: self._jobs)
                job = heapq.heappop(self._jobs)
            self._since[number] = time.monotonic()
            job.run()
            del job  # what it holds is large
            self._since[number] = 0.0
            self._done()


class InstanceLane(Executor):
    """The lanes as one instance sees them: an executor whose jobs are due at ``due()``, and that counts its time."""

    def __init__(self, lanes: Lanes, due: Callable[[], float]) -> None:
        self._lanes, self._due = lanes, due
        self.busy = 0.0
        """Seconds that its jobs have taken."""

    @property
    def full(self) -> bool:
        """Whether a job, of any instance, waits."""
        return self._lanes.full

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See `concurrent.futures.Executor`."""
        future: Future[Any] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            began = time.monotonic()
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)
            self.busy += time.monotonic() - began

        self._lanes.put(self._due(), run)
        return future
