"""Damaged files are read as clean audio or refused, never anything else. STEMPLUG_FUZZ sets the number of cases."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import pytest
import soundfile

from stemplug.audio import AudioReader
from stemplug.errors import StemPlugError

SUFFIXES = ("wav", "flac", "ogg", "mp3", "aiff", "m4a")
CASES = -(-int(os.environ.get("STEMPLUG_FUZZ", "60")) // len(SUFFIXES))
BATCH = 500
SECONDS_A_BATCH = 120
RATE = 44100


@lru_cache(maxsize=32)
def encoded(suffix: str, frames: int = RATE // 2, subtype: str | None = None) -> bytes:
    """A valid file of stereo noise that fades out, so that its compressed size is spread over the file."""
    noise = np.random.default_rng(0).normal(0, 0.1, (2, frames)) * np.linspace(1, 0.2, frames)
    with TemporaryDirectory() as folder:
        path = Path(folder, f"song.{suffix}")
        if suffix == "m4a":
            _write_m4a(path, noise.astype(np.float32))
        else:
            soundfile.write(path, noise.T, RATE, subtype=subtype)
        return path.read_bytes()


def _write_m4a(path: Path, audio: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=RATE, layout="stereo")
        for start in range(0, audio.shape[1], 1024):
            block = np.ascontiguousarray(audio[:, start : start + 1024])
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = RATE, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def mutated(suffix: str, seed: int) -> bytes:
    """A file with one to four wounds: bytes changed, cut out, put in, repeated, or the end cut off."""
    chance = random.Random(f"{suffix} {seed}")
    content = bytearray(encoded(suffix, frames=6000))
    for _ in range(chance.randint(1, 4)):
        # Half of the wounds go to the header, where they matter most.
        at = chance.randrange(max(1, min(len(content), 256 if chance.random() < 0.5 else 1 << 30)))
        size = chance.choice((1, 1, 2, 4, 8, 64, 1000))
        match chance.randrange(6):
            case 0:
                content[at : at + size] = chance.randbytes(size)
            case 1:
                content[at : at + 1] = bytes([content[at] ^ 1 << chance.randrange(8)]) if content else b""
            case 2:
                content[at : at + size] = chance.choice((b"\0", b"\xff", b"\x7f\xff", b"\x80\0")) * size
            case 3:
                del content[at : at + size]
            case 4:
                content[at:at] = content[:size] if chance.random() < 0.5 else chance.randbytes(size)
            case 5:
                del content[max(1, at) :]
    return bytes(content)


def check(path: Path) -> None:
    """Read a file that may be bad: finite float32 of 1 or 2 channels, or a refusal that names the file."""
    try:
        with AudioReader(path) as reader:
            for block in reader.blocks():
                assert block.dtype == np.float32 and block.shape[0] == reader.info.channels in (1, 2)
                assert np.isfinite(block).all()
    except StemPlugError as error:
        assert str(path) in str(error) and "\n" not in str(error), str(error)


@pytest.mark.parametrize(
    ("suffix", "first"), [(suffix, first) for suffix in SUFFIXES for first in range(0, CASES, BATCH)]
)
def test_a_damaged_file_is_clean_audio_or_refused(tmp_path: Path, suffix: str, first: int) -> None:
    """In a process of its own, since a decoder that crashes or hangs takes its process with it."""
    count = min(BATCH, CASES - first)
    command = [sys.executable, "-m", "tests.audio.test_fuzz", suffix, str(first), str(count), str(tmp_path)]
    with (tmp_path / "log").open("w+") as log:
        try:
            code: object = subprocess.run(
                command, cwd=Path(__file__).parents[2], stdout=log, stderr=subprocess.STDOUT, timeout=SECONDS_A_BATCH
            ).returncode
        except subprocess.TimeoutExpired:
            code = "time limit"
        log.seek(0)
        assert code == 0, f"{suffix}, {(tmp_path / 'seed').read_text()}: {code}\n{log.read()[-2000:]}"


def batch(suffix: str, first: int, count: int, folder: Path) -> None:
    path = folder / f"song.{suffix}"
    for seed in range(first, first + count):
        (folder / "seed").write_text(f"seed {seed}")
        path.write_bytes(mutated(suffix, seed))
        check(path)


if __name__ == "__main__":
    batch(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
