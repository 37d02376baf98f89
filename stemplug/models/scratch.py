"""Arrays that a thread keeps from one call to the next.

A window needs a hundred megabytes for intermediate results. Taken anew for every window, as the allocator does with
arrays of that size, the pages alone cost a tenth of the time of the whole separation.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Scratch(threading.local):
    """Named arrays, the calling thread's own."""

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}

    def __call__(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return the array of that name, as large as asked, whose contents are whatever was left in it."""
        size = math.prod(shape)
        array = self._arrays.get(name)
        if array is None or len(array) < size:
            array = self._arrays[name] = np.empty(size, dtype)
        return array[:size].reshape(shape)
