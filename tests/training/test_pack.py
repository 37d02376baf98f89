"""A library in pieces: whole songs, spread evenly, and a library again wherever some of them are unpacked."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from pack import pack

from tests.conftest import RATE
from tests.training.conftest import WriteSong


@pytest.fixture
def library(write_song: WriteSong) -> Path:
    """Twelve short songs, four of them for validation."""
    for number in range(12):
        audio = np.random.default_rng(number).normal(0, 0.1, (2, RATE // 2)).astype(np.float32)
        stems = dict.fromkeys(("drums", "bass", "other"), audio)
        library = write_song(f"song-{number}", stems, split="train" if number % 3 else "valid")
    return library


def unpack(pieces: list[Path], folder: Path) -> Path:
    for piece in pieces:
        with tarfile.open(piece) as tar:
            tar.extractall(folder, filter="data")
    return folder


def test_pieces_hold_every_file_once_and_are_small_enough(library: Path, tmp_path: Path) -> None:
    pieces = pack(library, tmp_path / "pieces", 0.6)
    assert len(pieces) >= 4 and all(piece.stat().st_size <= 0.6e6 for piece in pieces)
    again = unpack(pieces, tmp_path / "again")
    expected = {file.relative_to(library): file.read_bytes() for file in library.rglob("*.*") if file.is_file()}
    assert {file.relative_to(again): file.read_bytes() for file in again.rglob("*.*")} == expected


def test_each_piece_has_songs_of_both_splits(library: Path, tmp_path: Path) -> None:
    for number, piece in enumerate(pack(library, tmp_path / "pieces", 1)):
        songs = unpack([piece], tmp_path / str(number)).glob("songs/*/song.json")
        assert {json.loads(song.read_text())["split"] for song in songs} == {"train", "valid"}


def test_vorbis_is_smaller_and_as_long(library: Path, tmp_path: Path) -> None:
    (piece,) = pack(library, tmp_path / "pieces", 60, quality=0.5)
    found = unpack([piece], tmp_path / "again")
    assert piece.stat().st_size < 0.6 * sum(file.stat().st_size for file in library.rglob("*.flac"))
    for file in found.rglob("*.ogg"):
        original = library / file.relative_to(found).with_suffix(".flac")
        assert soundfile.info(file).frames == soundfile.info(original).frames
