"""Train the network that corrects, below 690 Hz, the masks of the one that train.py trained.

    python models/training/refine.py LIBRARY CHECKPOINT RUN [--hours H] [--jobs J] [--steps N] [--minutes M]

LIBRARY is what render.py made, CHECKPOINT the ``last.pt`` of train.py. First mixtures of ``--hours`` are made, which
that network separates, and what the refiner hears of them is kept in ``RUN/clips``; then it is trained on those. Both
go on where they stopped. Needs the extra ``[train]``.

Four fifths of what is wrong with drums and basses lies below 500 Hz: there, for a small price, a network hears phases.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from export import load
from mixtures import Chances, Library, Mixer
from network import LOW, Refiner, Unet, bands_above
from numpy.typing import NDArray
from torch import Tensor, nn
from train import HELD_OUT, HOP, OUT, Run, heard, options, samples, sdr, spectra, total_loss

FRAMES = 256  # of the transform, a clip
TOGETHER = 6  # clips
FILE = 48  # clips
SECONDS = FILE * FRAMES * HOP / 44100
SEED = 77  # other mixtures than the U-Net was trained on
Clip = tuple[Tensor, Tensor, Tensor]
"""Spectra of the stems below `LOW`, the U-Net's masks there, and `banded` magnitudes, each of a batch."""


def observe(truth: Tensor, masks: Tensor) -> Clip:
    """What a refiner hears, and what it is to find, from spectra and masks (batch, stems, 2, frames, bins)."""
    return truth[..., :LOW], masks[..., :LOW], bands_above(masks, truth.sum(dim=1).abs())


@torch.no_grad()
def write_clips(library: Path, split: str, checkpoint: Path, seed: int, folder: Path, number: int) -> None:
    """Write one file of clips, where it does not exist."""
    path = folder / f"{split}{number:04}.npz"
    if path.exists():
        return
    torch.set_num_threads(1)
    unet, mixer = _tools(library, split, checkpoint, seed)
    found = []
    for first in range(number * FILE, (number + 1) * FILE, TOGETHER):
        stems = torch.from_numpy(np.stack([mixer(first + index) for index in range(TOGETHER)]))
        kept = stems[:, :3] if split == "valid" else heard(stems, torch.Generator().manual_seed(first))
        truth = spectra(kept)
        found.append(observe(truth, unet(truth.sum(dim=1).abs())))
    truth, masks, bands = (torch.cat(parts) for parts in zip(*found, strict=True))
    halves = (array.numpy().astype(np.float16) for array in (torch.view_as_real(truth), masks, bands))
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez(file, **dict(zip("xmc", halves, strict=True)))
    os.replace(temporary, path)
    print(path, flush=True)


_kept: dict[tuple[object, ...], tuple[Unet, Mixer]] = {}


def _tools(library: Path, split: str, checkpoint: Path, seed: int) -> tuple[Unet, Mixer]:
    """The network and the mixer of a process: to read a library takes a minute."""
    key = library, split, checkpoint, seed
    if key not in _kept:
        chances, number = (HELD_OUT, 1) if split == "valid" else (Chances(), SEED + seed)
        mixer = Mixer(Library.read(library, split), samples(FRAMES), number, chances)
        _kept[key] = load(checkpoint).eval(), mixer
    return _kept[key]


class Clips:
    """The files of a split, in memory."""

    def __init__(self, files: list[Path]) -> None:
        loaded = [np.load(file) for file in files]
        self.parts = [[clip for file in loaded for clip in file[key]] for key in "xmc"]

    def __len__(self) -> int:
        return len(self.parts[0])

    def batch(self, indices: NDArray[np.int64] | range, device: torch.device) -> Clip:
        """Clips by number."""
        truth, masks, bands = (
            torch.from_numpy(np.stack([part[i] for i in indices])).to(device).float() for part in self.parts
        )
        return torch.view_as_complex(truth), masks, bands


class RefinerRun(Run):
    """Trains a `Refiner`."""

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        clips = args.run / "clips"
        files = [clips / f"train{number:04}.npz" for number in range(round(args.hours * 3600 / SECONDS) or 1)]
        self.train_clips = Clips(files)
        self.valid_clips = Clips([clips / f"valid{number:04}.npz" for number in range(args.validation // FILE or 1)])
        super().__init__(args, Refiner(len(OUT)))
        if not self.step:
            self._normalise(self.network)

    def _normalise(self, network: nn.Module) -> None:
        """Learn mean and deviation of what it hears."""
        assert isinstance(network, Refiner)
        truth, masks, bands = self.train_clips.batch(range(min(192, len(self.train_clips))), self.device)
        features = network.features(truth.sum(dim=1), masks, bands).flatten(0, 1)
        network.mean.copy_(features.mean(dim=0))
        network.deviation.copy_(features.std(dim=0) + 1e-3)
        self.average["mean"].copy_(network.mean)
        self.average["deviation"].copy_(network.deviation)

    def batches(self) -> Iterator[Clip]:
        """See `Run`."""
        return (self._batch(step) for step in range(self.step, self.args.steps))

    def _batch(self, step: int) -> Clip:
        """Clips drawn at random, of every other one the channels swapped."""
        rng = np.random.default_rng((self.args.seed, step))
        clips = self.train_clips.batch(rng.integers(0, len(self.train_clips), self.args.batch), self.device)
        swapped = torch.from_numpy(rng.random(self.args.batch) < 0.5).to(self.device).view(-1, 1, 1, 1, 1)
        truth, masks, bands = (torch.where(swapped, part.flip(2), part) for part in clips)
        return truth, masks, bands

    def loss(self, batch: Clip) -> Tensor:
        """See `Run`."""
        truth, masks, bands = batch
        return total_loss(self.network(truth.sum(dim=1), masks, bands), truth)

    def scores(self, network: nn.Module) -> Tensor:
        """See `Run`: of what lies below 690 Hz."""
        rows = []
        for index in range(len(self.valid_clips)):
            truth, masks, bands = self.valid_clips.batch(range(index, index + 1), self.device)
            rows.append(sdr(network(truth.sum(dim=1), masks, bands), truth))
        return torch.cat(rows)


def prepare(args: argparse.Namespace) -> None:
    """Make the clips that do not exist."""
    folder = args.run / "clips"
    folder.mkdir(parents=True, exist_ok=True)
    files = {"valid": args.validation // FILE or 1, "train": round(args.hours * 3600 / SECONDS) or 1}
    jobs = [
        (args.library, split, args.checkpoint, args.seed, folder, number)
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
    parser.add_argument("checkpoint", type=Path)
    options(parser, steps=6000, batch=16, rate=1e-3, weight_decay=1e-2)
    parser.add_argument("--hours", type=float, default=14.0, help="of mixtures")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    prepare(args)
    RefinerRun(args).train()


if __name__ == "__main__":
    main()
