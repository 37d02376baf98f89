"""What each difference from the original Spleeter is worth, on songs outside the evaluation set.

    python models/training/ablate.py CHECKPOINTS SET [--voice SOLO]

CHECKPOINTS is what import_spleeter.py reads, SET a folder of songs, each a folder of stems (FLAC or OGG, 44.1 kHz),
among them vocals. With ``--voice``, a recording of a solo voice is also mixed with the backing of each song, at the
level of the backing and 5 dB below. Needs the extra ``[train]``.

The variants are cumulative, each printed as vocals SDR: the median over the mixtures, and the mean gain and the number
of wins over the variant before. The last lines are songs turned down, without and with the level of the engine.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from evaluate import original, sdr
from import_spleeter import CHECKPOINTS, build, load
from numpy.typing import NDArray

import stemplug.models.spleeter as family
from stemplug import Separator
from stemplug.audio import Audio

RATE = 44100
SHIPPED = Path(__file__).parents[1] / "spleeter-2stems" / "manifest.toml"


def read(path: Path) -> Audio:
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    assert rate == RATE, f"{path}: {rate} Hz"
    return np.repeat(audio, 2 // audio.shape[1], axis=1).T


def mixtures(folder: Path, voice: Path | None) -> Iterator[tuple[str, Audio, Audio]]:
    """Yield name, mixture and true vocals."""
    for song in sorted(path for path in folder.iterdir() if path.is_dir()):
        stems = {file.stem: read(file) for file in sorted(song.iterdir()) if file.suffix in (".flac", ".ogg")}
        if "vocals" not in stems:
            continue
        frames = max(stem.shape[1] for stem in stems.values())
        stems = {name: np.pad(stem, ((0, 0), (0, frames - stem.shape[1]))) for name, stem in stems.items()}
        backing = np.sum([stem for name, stem in stems.items() if name != "vocals"], axis=0)
        yield song.name, backing + stems["vocals"], stems["vocals"]
        if voice:
            solo = read(voice)
            part = backing[:, frames // 3 : frames // 3 + solo.shape[1]]
            for level in (0, -5):
                gain = np.linalg.norm(part) / np.linalg.norm(solo) * 10 ** (level / 20)
                scale = np.float32(0.9 / np.abs(part + gain * solo).max())
                yield f"{song.name}, solo {level} dB", scale * (part + gain * solo), scale * gain * solo


def deaf(masks: Audio, bins: int) -> Audio:
    """In place of `stemplug.models.spleeter.extend_mask`: silence above the network's band."""
    return np.concatenate([masks, np.zeros((*masks.shape[:-1], bins - masks.shape[-1]), np.float32)], axis=-1)


def variant(folder: Path, checkpoints: Path, power: float, level: bool) -> Separator:
    """Export the networks with another mask power, and load them with or without a reference level."""
    folder.mkdir()
    graph = build([load(checkpoints / name) for name in CHECKPOINTS.values()], np.float16, power).SerializeToString()
    (folder / "model.onnx").write_bytes(graph)
    manifest = re.sub(r'sha256 = "\w*"', f'sha256 = "{hashlib.sha256(graph).hexdigest()}"', SHIPPED.read_text())
    (folder / "manifest.toml").write_text(manifest if level else re.sub("reference_level_db.*", "", manifest))
    return Separator(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkpoints", type=Path)
    parser.add_argument("set", type=Path)
    parser.add_argument("--voice", type=Path)
    args = parser.parse_args()
    songs = list(mixtures(args.set, args.voice))
    print(f"{len(songs)} mixtures, {sum(mixture.shape[1] for _, mixture, _ in songs) / RATE / 60:.1f} minutes")
    before: NDArray[np.float64] | None = None

    def show(label: str, scores: list[float]) -> None:
        nonlocal before
        found = np.array(scores)
        gain = "" if before is None else f"  {np.mean(found - before):+.2f} dB, {np.sum(found > before)} better"
        print(f"{label:48} {np.median(found):6.2f}{gain}", flush=True)
        before = found

    def run(separator: Separator, gain_db: float = 0) -> list[float]:
        gain = np.float32(10 ** (gain_db / 20))
        return [sdr(gain * true, separator.separate(gain * mix, RATE)["vocals"]) for _, mix, true in songs]

    with tempfile.TemporaryDirectory() as folder:
        squared = variant(Path(folder, "squared"), args.checkpoints, 2, False)
        plain = variant(Path(folder, "plain"), args.checkpoints, 1.5, False)
        shipped = variant(Path(folder, "shipped"), args.checkpoints, 1.5, True)
        show("original", [sdr(true, original(args.checkpoints, mix)["vocals"]) for _, mix, true in songs])
        extend, family.extend_mask = family.extend_mask, deaf
        show("windows with context", run(squared))
        show("and mask power 1.5", run(plain))
        family.extend_mask = extend
        show("and the mask goes on above 11 kHz", run(plain))
        show("and the level of the engine: as shipped", run(shipped))
        for gain_db in (-12, -40):
            before = None
            show(f"{-gain_db} dB down, without the level", run(plain, gain_db))
            show(f"{-gain_db} dB down, as shipped", run(shipped, gain_db))


if __name__ == "__main__":
    main()
