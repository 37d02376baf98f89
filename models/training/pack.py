"""Pack a library into tar files of whole songs, to carry it to another machine in pieces.

    python models/training/pack.py LIBRARY OUT [--megabytes 60] [--vorbis QUALITY]

Any of the pieces, unpacked into one folder, are a library again: each has songs of all sources and both splits, as far
as there are enough of them. With ``--vorbis`` stems are Ogg Vorbis, which is a good deal smaller and loses a little.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import soundfile


def dealt(library: Path) -> list[Path]:
    """All songs in an order in which sources and splits are spread evenly."""
    splits: dict[str, list[Path]] = {}
    for song in sorted((library / "songs").iterdir(), key=lambda song: hashlib.sha256(song.name.encode()).digest()):
        if (song / "song.json").exists() and not song.name.startswith("."):
            splits.setdefault(json.loads((song / "song.json").read_text())["split"], []).append(song)
    placed = [((i + 0.5) / len(songs), song) for songs in splits.values() for i, song in enumerate(songs)]
    return [song for _, song in sorted(placed)]


def files(song: Path, quality: float | None) -> Iterator[tuple[str, bytes]]:
    """Names within the library and contents of a song's files."""
    for file in sorted(song.iterdir()):
        encode = quality is not None and file.suffix == ".flac"
        name = file.with_suffix(".ogg").name if encode else file.name
        yield f"songs/{song.name}/{name}", vorbis(file, quality) if encode else file.read_bytes()


def vorbis(file: Path, quality: float) -> bytes:
    """Encode as Ogg Vorbis; quality is 0 to 1."""
    out = io.BytesIO()
    with soundfile.SoundFile(file) as audio:
        form = {"format": "OGG", "subtype": "VORBIS", "compression_level": 1 - quality}
        with soundfile.SoundFile(out, "w", audio.samplerate, audio.channels, **form) as encoded:
            for block in audio.blocks(audio.samplerate):  # libsndfile cannot encode minutes at once
                encoded.write(block)
    return out.getvalue()


def pack(library: Path, out: Path, megabytes: float, quality: float | None = None) -> list[Path]:
    """Write ``out/songs-000.tar`` and so on, none larger than ``megabytes`` unless a single song is."""
    out.mkdir(parents=True, exist_ok=True)
    pieces: list[Path] = []
    tar, room = None, 0.0
    for song in dealt(library):
        members = list(files(song, quality))
        size = sum(1024 + len(data) for _, data in members)  # a header of 512 bytes, and padding to 512
        if tar is None or size > room:
            if tar:
                tar.close()
            pieces.append(out / f"songs-{len(pieces):03}.tar")
            tar, room = tarfile.open(pieces[-1], "w"), megabytes * 1e6 - tarfile.RECORDSIZE  # noqa: SIM115
        room -= size
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    if tar:
        tar.close()
    return pieces


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("library", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--megabytes", type=float, default=60, help="of a piece, at most")
    parser.add_argument("--vorbis", type=float, metavar="QUALITY", help="0 to 1; without it stems stay FLAC")
    args = parser.parse_args()
    for piece in pack(args.library, args.out, args.megabytes, args.vorbis):
        print(f"{piece}: {piece.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
