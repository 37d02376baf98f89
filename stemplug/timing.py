"""Where the time goes: a stopwatch that any layer may feed and ``stemplug bench`` reads."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext


class Stopwatch:
    """Seconds of processor time of the calling threads, summed by stage; shared by threads. One that is ``stopped``
    counts nothing.
    """

    def __init__(self, stopped: bool = False) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._stopped = stopped

    def __call__(self, stage: str) -> AbstractContextManager[None]:
        """Count the time of the ``with`` block under ``stage``."""
        return nullcontext() if self._stopped else self._counted(stage)

    @contextmanager
    def _counted(self, stage: str) -> Iterator[None]:
        start = time.thread_time()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[stage] += time.thread_time() - start
