"""WAV files as editors expect them: exact samples, BWF and iXML chunks, RF64 when large."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import wavinfo
from hypothesis import given
from hypothesis import strategies as st

from stemplug.audio import Audio
from stemplug.tracks.wav import TrackTags, WavWriter, quantize

TAGS = TrackTags("vocals", "Größe & <Łódź>\x01", "vocals of Größe, separated", start=123_456_789_012)


def write(path: Path, audio: Audio, depth: str, rate: int = 44100, **options: int) -> None:
    with WavWriter(path, rate, audio.shape[0], depth, TAGS, **options) as file:
        for start in range(0, audio.shape[1], 1000):
            file.write(audio[:, start : start + 1000])


@pytest.mark.parametrize(("depth", "step"), [("16", 2.0**-15), ("24", 2.0**-23), ("32f", 0.0)])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("frames", [0, 1, 4097])
def test_samples_come_back_within_half_a_step(
    tmp_path: Path, depth: str, step: float, channels: int, frames: int
) -> None:
    audio = np.random.default_rng(0).uniform(-0.99, 0.99, (channels, frames)).astype(np.float32)
    write(tmp_path / "a.wav", audio, depth)
    found, rate = soundfile.read(tmp_path / "a.wav", dtype="float64", always_2d=True)
    assert rate == 44100 and found.shape == (frames, channels)
    assert np.abs(found.T - audio).max(initial=0) <= step / 2


@pytest.mark.parametrize("depth", ["16", "24", "32f"])
def test_chunks_name_stem_song_and_time(tmp_path: Path, depth: str) -> None:
    write(tmp_path / "a.wav", np.zeros((2, 999), np.float32), depth)
    info = wavinfo.WavInfoReader(str(tmp_path / "a.wav"))
    assert info.bext.time_reference == TAGS.start
    assert info.bext.originator == "StemPlug"
    assert info.bext.description.startswith("vocals of Gr")
    assert info.bext.coding_history.strip() == f"A=PCM,F=44100,W={depth.rstrip('f')},M=stereo,T=StemPlug"
    assert [track.name for track in info.ixml.track_list] == ["vocals L", "vocals R"]
    assert info.ixml.project == "Größe & <Łódź>?"


@pytest.mark.parametrize("depth", ["16", "24", "32f"])
@pytest.mark.parametrize("frames", [3000, 3001])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_beyond_the_size_of_riff_it_is_rf64(tmp_path: Path, depth: str, frames: int, rate: int) -> None:
    audio = np.random.default_rng(0).uniform(-1, 1, (1, frames)).astype(np.float32)
    write(tmp_path / "a.wav", audio, depth, rate, riff_limit=5000)
    assert (tmp_path / "a.wav").read_bytes()[:4] == b"RF64"
    found = soundfile.read(tmp_path / "a.wav", dtype="float32")[0]
    assert soundfile.info(tmp_path / "a.wav").format == "RF64"
    assert np.abs(found - audio[0]).max() <= 2.0**-16


@given(
    bits=st.sampled_from([16, 24]),
    values=st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=20),
)
def test_quantizing_rounds_and_saturates(bits: int, values: list[float]) -> None:
    scale = 2 ** (bits - 1)
    expected = np.clip(np.rint(np.array(values) * scale), -scale, scale - 1)
    found = quantize(np.array([values], np.float32), bits)[:, 0]
    # 24-bit full scale is no float32: the largest below it is a step away.
    assert np.abs(found - expected).max() <= (1 if bits == 24 else 0)
    assert found.max() < scale
