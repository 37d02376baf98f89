"""The transform in single precision: what numpy's is in doubles."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from stemplug.models.transform import spectra


@given(st.sampled_from([64, 1000, 4096]), array_shapes(max_dims=2, max_side=4), st.integers(0, 99))
def test_spectra_are_those_of_doubles_as_near_as_floats_can_be(size: int, shape: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = rng.normal(size=(*shape, size)).astype(np.float32)
    window = np.hanning(size).astype(np.float32)
    expected = np.fft.rfft(frames.astype(np.float64) * window)
    found = spectra(frames, window)
    assert found.dtype == np.complex64
    assert np.linalg.norm(found - expected) <= 10 ** (-120 / 20) * np.linalg.norm(expected)


def test_spectra_are_written_where_they_are_wanted() -> None:
    frames, window = np.ones((3, 64), np.float32), np.hanning(64).astype(np.float32)
    out = np.empty((2, 3, 33), np.complex64)
    spectra(frames, window, out[1])
    assert np.array_equal(out[1], spectra(frames, window))
