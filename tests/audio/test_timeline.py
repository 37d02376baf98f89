"""A timeline reads what was appended, whatever the blocks."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stemplug.audio import Timeline


@given(sizes=st.lists(st.integers(0, 50), max_size=10), start=st.integers(-30, 300), length=st.integers(0, 200))
def test_reads_by_absolute_position(sizes: list[int], start: int, length: int) -> None:
    whole = np.arange(2 * sum(sizes), dtype=np.float32).reshape(2, -1) + 1
    timeline = Timeline(2)
    for piece in np.split(whole, np.cumsum(sizes)[:-1], axis=1) if sizes else []:
        timeline.append(piece)
    assert timeline.end == sum(sizes)
    timeline.pad(max(0, start + length - timeline.end))
    padded = np.pad(whole, ((0, 0), (30, 600)))
    assert np.array_equal(timeline.read(start, start + length), padded[:, 30 + start : 30 + start + length])


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=10), before=st.integers(0, 400))
def test_forgets_no_more_than_it_was_told(sizes: list[int], before: int) -> None:
    timeline = Timeline(1)
    for size in sizes:
        timeline.append(np.full((1, size), size, np.float32))
    expected = timeline.read(before, max(before, timeline.end))
    timeline.forget(before)
    assert timeline.start <= max(before, 0)
    assert np.array_equal(timeline.read(before, max(before, timeline.end)), expected)
