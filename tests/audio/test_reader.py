"""Files come in as they are: every format, exact length, aligned to the sample."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from stemplug.audio import Audio, AudioReader
from stemplug.errors import AudioError, OptionError
from tests.conftest import RATE

# Format, subtype, the depth it is reported as, and how well samples survive (dB below the signal).
FORMATS = [
    ("wav", "PCM_16", "16", -60),
    ("wav", "PCM_24", "24", -110),
    ("wav", "PCM_32", "32", -110),
    ("wav", "FLOAT", "32f", -200),
    ("wav", "DOUBLE", "32f", -200),
    ("rf64", "PCM_24", "24", -110),
    ("w64", "PCM_16", "16", -60),
    ("aiff", "PCM_24", "24", -110),
    ("caf", "PCM_16", "16", -60),
    ("flac", "PCM_16", "16", -60),
    ("flac", "PCM_24", "24", -110),
    ("ogg", "VORBIS", "lossy", -12),
    ("mp3", "MPEG_LAYER_III", "lossy", -12),
]


def read(path: Path, blocks: int = 1 << 16, **part: float) -> Audio:
    with AudioReader(path, **part) as reader:
        return np.concatenate(list(reader.blocks(blocks)), axis=1)


def write_m4a(path: Path, audio: Audio, codec: str = "aac") -> None:
    """Encode with FFmpeg, as music shops and phones do."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.layout = "stereo" if audio.shape[0] == 2 else "mono"
        for start in range(0, audio.shape[1], 1024):
            block = np.ascontiguousarray(audio[:, start : start + 1024])
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=stream.layout.name)
            frame.sample_rate, frame.pts = RATE, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def error_db(found: Audio, expected: Audio) -> float:
    return float(20 * np.log10(max(1e-12, np.linalg.norm(found - expected) / np.linalg.norm(expected))))


@pytest.mark.parametrize(("suffix", "subtype", "depth", "bound"), FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_is_read_exactly(
    tmp_path: Path, song: Audio, suffix: str, subtype: str, depth: str, bound: float, channels: int
) -> None:
    audio = song[:channels, 50_000:100_001]
    path = tmp_path / f"song.{suffix}"
    soundfile.write(path, audio.T, RATE, format=suffix.upper(), subtype=subtype)
    with AudioReader(path) as reader:
        assert (reader.info.sample_rate, reader.info.channels, reader.info.depth) == (RATE, channels, depth)
        assert reader.info.frames == audio.shape[1]
    assert error_db(read(path), audio) <= bound


@pytest.mark.parametrize(("codec", "depth", "bound"), [("aac", "lossy", -12), ("alac", "24", -60)])
def test_m4a_is_read_without_the_encoders_delay_and_padding(
    tmp_path: Path, song: Audio, codec: str, depth: str, bound: float
) -> None:
    audio = song[:, 50_000:94_100]  # a whole number of milliseconds, the unit of the container's edit list
    write_m4a(tmp_path / "song.m4a", audio, codec)
    with AudioReader(tmp_path / "song.m4a") as reader:
        assert (reader.info.frames, reader.info.depth) == (audio.shape[1], depth)
    assert error_db(read(tmp_path / "song.m4a"), audio) <= bound


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "m4a"])
@pytest.mark.parametrize(("start", "end"), [(None, 0.5), (0.25, None), (0.25, 0.75), (0.5, 99.0)])
def test_a_part_is_the_same_as_in_the_whole(
    tmp_path: Path, song: Audio, suffix: str, start: float | None, end: float | None
) -> None:
    path = tmp_path / f"song.{suffix}"
    if suffix == "m4a":
        write_m4a(path, song[:, 60_000:104_100])
    else:
        soundfile.write(path, song[:, 60_000:104_100].T, RATE)
    whole = read(path)
    first, last = round((start or 0) * RATE), round(end * RATE) if end else whole.shape[1]
    assert error_db(read(path, start=start, end=end), whole[:, first:last]) <= -80


@pytest.mark.parametrize("blocks", [1, 333, 65536])
def test_blocks_of_any_size_are_the_same_audio(wav: Path, blocks: int) -> None:
    assert np.array_equal(read(wav, 1000 * blocks), read(wav))


def test_names_need_not_be_text(tmp_path: Path, wav: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9 \xf0\x9f\x8e\xa7.wav"
    os.rename(wav, path)
    with AudioReader(path) as reader:
        assert reader.info.frames == RATE


def test_a_wrong_suffix_does_not_matter(tmp_path: Path, song: Audio) -> None:
    path = tmp_path / "song.mp3"
    soundfile.write(path, song[:, :5000].T, RATE, format="FLAC")
    assert read(path).shape == (2, 5000)


def test_a_header_of_a_recorder_that_could_not_seek_is_no_truncation(wav: Path) -> None:
    content = bytearray(wav.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = content[4:8] = b"\xff\xff\xff\xff"
    wav.write_bytes(content)
    assert read(wav).shape == (2, RATE)


def test_what_precedes_a_truncation_can_be_read(wav: Path) -> None:
    wav.write_bytes(wav.read_bytes()[: 44 + RATE * 2])
    with pytest.raises(AudioError, match=r"truncated, 1\.000 s promised, 0\.500 s found.*--end 0\.5"):
        read(wav)
    assert read(wav, end=0.5).shape == (2, RATE // 2)


def test_a_playlist_opens_no_other_file(tmp_path: Path, wav: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"ffconcat version 1.0\nfile {wav.name}\n")
    with pytest.raises(AudioError, match="not audio"):
        read(path)


@pytest.mark.parametrize(("start", "end"), [(-1, None), (2, 1), (1, 1), (float("nan"), None)])
def test_start_lies_before_end(wav: Path, start: float, end: float | None) -> None:
    with pytest.raises(OptionError, match="0 <= start < end"):
        AudioReader(wav, start, end)


def test_start_lies_in_the_song(wav: Path) -> None:
    with pytest.raises(OptionError, match="past the end"):
        AudioReader(wav, 1.0)
