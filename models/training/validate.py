"""Score the networks on the held-out songs of a library, by how strange their sounds are to them.

    python models/training/validate.py LIBRARY CHECKPOINT [--bands CHECKPOINT]

A sound is seen where training songs are played with it, unseen where none is; songs that were recorded, or composed and
mixed by people (of which some with trackers), stand for themselves.
Prints the mean SDR in dB of drums, bass and other over passages of 9 s: with the masks of the U-Net, with those of the
band-split network below 690 Hz, and with geometric means of both there, by the share of the latter. `SHARE` in
export.py is a judgement on this table: README.md tells it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch
from bandsplit import observe
from export import load, load_bands
from mixtures import PASSAGE, REFERENCE_DB, STEMS
from network import LOW, BandSplit, Unet, mean_of
from torch import Tensor
from train import OUT, samples, sdr, spectra

FRAMES = 384
WHOLE = ("recorded", "composed", "tracked")  # sounds of songs that nothing here was made up of
EVERY = 4  # of so many passages one is taken, of whole songs each
SHARES = (0.5, 0.75, 1.0)
QUIETER_DB = 2.4  # than the reference level: about what training songs are


def kinds(library: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield the held-out songs, and of each stem whether its sound is seen, unseen or of `WHOLE`."""
    songs = [(file.parent, json.loads(file.read_text())) for file in sorted(library.glob("songs/*/song.json"))]
    train = {told["sound"] for _, about in songs if about["split"] == "train" for told in about["stems"].values()}
    for folder, about in songs:
        if about["split"] == "valid":
            sounds = {stem: told["sound"] for stem, told in about["stems"].items()}
            yield (
                folder,
                {
                    stem: sound if sound in WHOLE else "seen" if sound in train else "unseen"
                    for stem, sound in sounds.items()
                },
            )


def passages(folder: Path, each: bool) -> Iterator[Tensor]:
    """Yield passages (1, 3, 2, samples) of the stems but the vocals, as loud as networks hear songs."""
    stems = [next((path for path in folder.glob(f"{stem}.*")), None) for stem in STEMS[:3]]
    audio = [None if path is None else soundfile.read(path, dtype="float32", always_2d=True)[0].T for path in stems]
    frames = min(part.shape[1] for part in audio if part is not None)
    size = samples(FRAMES)
    for start in range(0, frames - size + 1, size * (1 if each else EVERY)):
        clip = np.zeros((3, 2, size), np.float32)
        for target, part in zip(clip, audio, strict=True):
            if part is not None:
                target[:] = part[:, start : start + size]
        power = (clip.sum(axis=0)[:, : size // PASSAGE * PASSAGE] ** 2).mean(axis=0).reshape(-1, PASSAGE).mean(axis=1)
        if power.max() > 1e-8:
            gain = 10 ** ((REFERENCE_DB - QUIETER_DB) / 20) / np.sqrt(power.max())
            yield torch.from_numpy(clip * np.float32(gain))[None]


@torch.no_grad()
def scores(stems: Tensor, unet: Unet, bands: BandSplit | None) -> dict[str, list[float]]:
    """SDR by stem, with the masks of the U-Net and with those of the band-split network."""
    truth = spectra(stems)
    masks = unet(truth.sum(dim=1).abs())
    found = {"U-Net": sdr(masks, truth)[0].tolist()}
    if bands is not None:
        low, above = observe(truth)
        ours = bands(low.sum(dim=1), above)
        for share in SHARES:
            mean = mean_of(ours, masks[..., :LOW], share)
            found[f"band-split, {share:g}"] = sdr(torch.cat([mean, masks[..., LOW:]], dim=-1), truth)[0].tolist()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("library", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--bands", type=Path, metavar="CHECKPOINT")
    args = parser.parse_args()
    unet, bands = load(args.checkpoint).eval(), load_bands(args.bands) if args.bands else None
    table: dict[str, dict[tuple[str, str], list[float]]] = {}
    for folder, kind in kinds(args.library):
        whole = not set(WHOLE).isdisjoint(kind.values())
        for stems in passages(folder, whole) if kind.keys() & set(OUT) else ():
            for name, values in scores(stems, unet, bands).items():
                for stem, value in zip(OUT, values, strict=True):
                    if np.isfinite(value):
                        table.setdefault(name, {}).setdefault((stem, kind.get(stem, "seen")), []).append(value)
    columns = sorted({column for row in table.values() for column in row})
    counts = [len(table["U-Net"].get(column, ())) for column in columns]
    print("| masks |" + "".join(f" {stem}, {kind} ({n}) |" for (stem, kind), n in zip(columns, counts, strict=True)))
    print("|---|" + "---|" * len(columns))
    for name, row in table.items():
        print(f"| {name} |" + "".join(f" {np.mean(row[column]):.2f} |" for column in columns))


if __name__ == "__main__":
    main()
