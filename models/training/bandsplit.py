"""Train the network that finds the masks below 690 Hz.

    python models/training/bandsplit.py LIBRARY RUN [--hours H] [--jobs J] [--steps N] [--minutes M]

LIBRARY is what render.py made. First mixtures of ``--hours`` are made, and what the network hears of them is kept in
``RUN/clips``; then it is trained on those. Both go on where they stopped. Needs the extra ``[train]``.

Four fifths of what is wrong with drums and basses lies below 500 Hz: there, for a small price, a network hears phases.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from mixtures import Chances, Library, Mixer
from network import LOW, BandSplit, banded
from numpy.typing import NDArray
from torch import Tensor, nn
from train import HELD_OUT, HOP, OUT, Run, heard, options, samples, sdr, spectra, total_loss

FRAMES = 256  # of the transform, a clip
FILE = 48  # clips
SECONDS = FILE * FRAMES * HOP / 44100
SEED = 77  # other mixtures than the U-Net was trained on
KEYS = "sa"  # of the arrays in a file: stems, above
VOICES = 6  # clips that draw from one generator how much of a voice they keep
Clip = tuple[Tensor, Tensor]
"""Spectra of the stems below `LOW`, and the mixture's `banded` magnitudes above, each of a batch."""


def observe(truth: Tensor) -> Clip:
    """What the network is to find and what it hears, from spectra (batch, stems, 2, frames, bins)."""
    return truth[..., :LOW], banded(truth.sum(dim=1).abs())


def write_clips(library: Path, split: str, seed: int, folder: Path, number: int) -> None:
    """Write one file of clips, where it does not exist."""
    path = folder / f"{split}{number:04}.npz"
    if path.exists():
        return
    torch.set_num_threads(1)
    mixer, found = mixer_of(library, split, seed), []
    for first in range(number * FILE, (number + 1) * FILE, VOICES):
        stems = torch.from_numpy(np.stack([mixer(first + index) for index in range(VOICES)]))
        kept = stems[:, :3] if split == "valid" else heard(stems, torch.Generator().manual_seed(first))
        found.append(observe(spectra(kept)))
    truth, above = (torch.cat(parts) for parts in zip(*found, strict=True))
    halves = (array.numpy().astype(np.float16) for array in (torch.view_as_real(truth), above))
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez(file, **dict(zip(KEYS, halves, strict=True)))
    os.replace(temporary, path)
    print(path, flush=True)


@cache
def mixer_of(library: Path, split: str, seed: int) -> Mixer:
    """That of a process: to read a library takes a minute."""
    chances, number = (HELD_OUT, 1) if split == "valid" else (Chances(), SEED + seed)
    return Mixer(Library.read(library, split), samples(FRAMES), number, chances)


class Clips:
    """The files of a split, in memory."""

    def __init__(self, files: list[Path]) -> None:
        loaded = [np.load(file) for file in files]
        self.parts = [[clip for file in loaded for clip in file[key]] for key in KEYS]

    def __len__(self) -> int:
        return len(self.parts[0])

    def batch(self, indices: NDArray[np.int64] | range, device: torch.device) -> Clip:
        """Clips by number."""
        truth, above = (
            torch.from_numpy(np.stack([part[i] for i in indices])).to(device).float() for part in self.parts
        )
        return torch.view_as_complex(truth), above


class BandSplitRun(Run):
    """Trains a `BandSplit`."""

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        clips = args.run / "clips"
        files = [clips / f"train{number:04}.npz" for number in range(round(args.hours * 3600 / SECONDS) or 1)]
        self.train_clips = Clips(files)
        self.valid_clips = Clips([clips / f"valid{number:04}.npz" for number in range(args.validation // FILE or 1)])
        super().__init__(args, BandSplit(len(OUT)))

    def batches(self) -> Iterator[Clip]:
        """See `Run`."""
        return (self._batch(step) for step in range(self.step, self.args.steps))

    def _batch(self, step: int) -> Clip:
        """Clips drawn at random, of every other one the channels swapped."""
        rng = np.random.default_rng((self.args.seed, step))
        truth, above = self.train_clips.batch(rng.integers(0, len(self.train_clips), self.args.batch), self.device)
        swapped = torch.from_numpy(rng.random(self.args.batch) < 0.5).to(self.device).view(-1, 1, 1, 1)
        return torch.where(swapped[..., None], truth.flip(2), truth), torch.where(swapped, above.flip(1), above)

    def loss(self, batch: Clip) -> Tensor:
        """See `Run`."""
        truth, above = batch
        return total_loss(self.network(truth.sum(dim=1), above), truth)

    def scores(self, network: nn.Module) -> Tensor:
        """See `Run`: of what lies below 690 Hz."""
        rows = []
        for index in range(len(self.valid_clips)):
            truth, above = self.valid_clips.batch(range(index, index + 1), self.device)
            rows.append(sdr(network(truth.sum(dim=1), above), truth))
        return torch.cat(rows)


def prepare(args: argparse.Namespace) -> None:
    """Make the clips that do not exist."""
    folder = args.run / "clips"
    folder.mkdir(parents=True, exist_ok=True)
    files = {"valid": args.validation // FILE or 1, "train": round(args.hours * 3600 / SECONDS) or 1}
    jobs = [
        (args.library, split, args.seed, folder, number)
        for split, count in files.items()
        for number in range(count)
        if not (folder / f"{split}{number:04}.npz").exists()
    ]
    if jobs:
        with multiprocessing.get_context("spawn").Pool(min(args.jobs, len(jobs))) as pool:
            pool.starmap(write_clips, jobs, chunksize=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("library", type=Path)
    options(parser, steps=2500, batch=16, rate=2e-3, weight_decay=1e-2)
    parser.add_argument("--hours", type=float, default=11.4, help="of mixtures")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    prepare(args)
    BandSplitRun(args).train()


if __name__ == "__main__":
    main()
