"""Train the network that parts drums, bass and other, from Spleeter's accompaniment network.

    python models/training/train.py LIBRARY CHECKPOINTS RUN [--steps N] [--minutes M] [--device cuda]

LIBRARY is what render.py made, CHECKPOINTS what import_spleeter.py reads, RUN a folder for checkpoints, the log and the
learning curve. A run that was stopped goes on where it stopped. Needs the extra ``[train]``.

The network sees what the vocal stage leaves: the accompaniment, and at times some of a voice, which counts as other.
The loss is half the SDR that the mask reaches with the phase of the mixture, half the distance of magnitudes, which
also weighs what is quiet. What is kept is the exponential moving average of the weights.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from import_spleeter import CHECKPOINTS, load
from mixtures import STEMS, Batches, Chances, Library, Mixer
from network import Unet
from torch import Tensor, nn
from torch.utils.data import DataLoader

FFT, HOP, BINS = 4096, 1024, 1024
OUT = STEMS[:3]
LEAK = 0.5  # how many mixtures keep some of a voice
LEAK_DB = (-36.0, -12.0)
FLOOR = 1e-3  # of the mixture's energy: what a silent stem may hold before it counts
MAGNITUDE = 0.5  # the weight of the distance of magnitudes
HELD_OUT = Chances(coherent=1.0, speed=0, equalise=0.2, saturate=0.2, bus=0.2, rough=(0.2, 0.1, 0.1, 0.0))
Batch = Any
"""What a run's network is trained on in one step."""


def spectra(audio: Tensor) -> Tensor:
    """(..., frames) to complex (..., frames of the transform, low bins), without padding."""
    flat = audio.reshape(-1, audio.shape[-1])
    found = torch.stft(flat, FFT, HOP, window=_window(audio.device), center=False, return_complex=True)
    return found[:, :BINS].transpose(1, 2).reshape(*audio.shape[:-1], -1, BINS)


def samples(frames: int) -> int:
    """How many samples so many frames of the transform take."""
    return (frames - 1) * HOP + FFT


def _window(device: torch.device) -> Tensor:
    return torch.hann_window(FFT, device=device)


def heard(stems: Tensor, generator: torch.Generator) -> Tensor:
    """What reaches the network of drums, bass, other and vocals: (batch, 3, 2, frames), with some voice in other."""
    low, high = LEAK_DB
    size = len(stems)
    level = low + (high - low) * torch.rand(size, generator=generator)
    gain = 10 ** (level / 20) * (torch.rand(size, generator=generator) < LEAK)
    kept = stems[:, :3].clone()
    kept[:, 2] += gain.to(stems)[:, None, None] * stems[:, 3]
    return kept


def losses(masks: Tensor, truth: Tensor, least: float = FLOOR) -> tuple[Tensor, Tensor]:
    """Mean SDR (dB, soft where a stem is silent) and distance of magnitudes; spectra are (batch, stems, 2, ...).

    ``least`` is the share of the mixture's energy that an error must have to count.
    """
    return real_losses(masks, *real_parts(truth), least)


def real_parts(truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a loss needs of spectra, in real numbers, which compile: magnitudes of the mixture and of the stems, and the
    real part of the product of each stem with the conjugate of the mixture.
    """
    mixture, stems = torch.view_as_real(truth.sum(dim=1, keepdim=True)), torch.view_as_real(truth)
    mixed, magnitudes = (parts.square().sum(dim=-1).sqrt() for parts in (mixture, stems))
    return mixed, magnitudes, (mixture * stems).sum(dim=-1)


def real_losses(masks: Tensor, mixture: Tensor, stems: Tensor, product: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """See `losses`; ``mixture``, ``stems`` and ``product`` are `real_parts`."""
    axes = (2, 3, 4)
    masked = masks * mixture
    energy = stems.square().sum(dim=axes)
    error = ((masked.square() - 2 * masks * product).sum(dim=axes) + energy).clamp(min=0)
    floor = least * mixture.square().sum(dim=axes) + 1e-6
    ratio = 10 * torch.log10((energy + floor) / (error + floor))
    distance = (masked - stems).abs().mean(dim=axes) / (mixture.mean(dim=axes) + 1e-6)
    return ratio.mean(), distance.mean()


def total_loss(masks: Tensor, truth: Tensor, least: float = FLOOR) -> Tensor:
    """What is minimised: see `losses`."""
    return weighed(*losses(masks, truth, least))


def weighed(ratio: Tensor, distance: Tensor) -> Tensor:
    return -0.1 * ratio + MAGNITUDE * 10 * distance


def sdr(masks: Tensor, truth: Tensor) -> Tensor:
    """SDR in dB a clip and stem, (batch, stems), NaN where the stem is silent."""
    error = (masks * truth.sum(dim=1, keepdim=True) - truth).abs().square().sum(dim=(2, 3, 4))
    energy = truth.abs().square().sum(dim=(2, 3, 4))
    total = truth.sum(dim=1).abs().square().sum(dim=(1, 2, 3))[:, None]
    return torch.where(energy > 1e-4 * total, 10 * torch.log10(energy / (error + 1e-9)), torch.nan)


class Run(ABC):
    """A folder with the state of a training run: ``last.pt``, ``log.jsonl``, ``curve.png``."""

    stems: tuple[str, ...] = OUT

    def __init__(self, args: argparse.Namespace, network: nn.Module) -> None:
        self.args, self.folder, self.device = args, args.run, torch.device(args.device)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.network = network.to(self.device)
        self.optimizer = torch.optim.AdamW(self.groups(), lr=args.rate, weight_decay=args.weight_decay)
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self.step, self.seconds = 0, 0.0
        if (self.folder / "last.pt").exists():
            self._resume()

    def groups(self) -> list[dict[str, Any]]:
        """Parameters by the step (``wait``) from which on they learn."""
        return [{"params": list(self.network.parameters()), "wait": 0}]

    @abstractmethod
    def batches(self) -> Iterable[Batch]:
        """Those of `step` and after, up to the last; the same whenever they are asked for."""

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """The loss of the network on a batch."""

    @abstractmethod
    def scores(self, network: nn.Module) -> Tensor:
        """SDR in dB of held-out clips, (clips, stems): always the same clips."""

    def mixed(self, mixer: Mixer) -> Iterable[Tensor]:
        """Batches that are made on the fly, by other processes."""
        args = self.args
        batches = Batches(mixer, args.batch, self.step, args.steps)
        ahead = 4 if args.workers else None
        return DataLoader(batches, batch_size=None, num_workers=args.workers, prefetch_factor=ahead)

    def _resume(self) -> None:
        state = torch.load(self.folder / "last.pt", weights_only=True, map_location=self.device)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.step, self.seconds = state["weights"], state["step"], state["seconds"]
        print(f"goes on after step {self.step}")

    def save(self) -> None:
        state = {
            "weights": self.average,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        torch.save(state, self.folder / "last.tmp")
        os.replace(self.folder / "last.tmp", self.folder / "last.pt")

    def train(self) -> None:
        """Go on up to ``--steps``, or as long as ``--minutes`` allow."""
        args = self.args
        began, mean = time.monotonic(), None
        for batch in self.batches():
            start = time.monotonic()
            found = self._update(batch)
            mean = found if mean is None else 0.98 * mean + 0.02 * found
            self.step, self.seconds = self.step + 1, self.seconds + time.monotonic() - start
            out_of_time = time.monotonic() - began > 60 * args.minutes
            if self.step % 50 == 0:
                print(f"{self.step}: {mean:.3f}, {(time.monotonic() - began) / 60:.1f} min", flush=True)
            if self.step % args.every == 0 or out_of_time or self.step == args.steps:
                self.save()
                self.validate(mean)
            if out_of_time:
                break

    def _update(self, batch: Batch) -> float:
        args = self.args
        rate = args.rate * max(0.01, 0.5 * (1 + math.cos(math.pi * min(1.0, self.step / args.steps))))
        for group in self.optimizer.param_groups:
            group["lr"] = rate * min(1.0, max(0, self.step + 1 - group["wait"]) / args.warm_up)
        loss = self.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        decay = min(args.decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)
        return float(loss.detach())

    @torch.no_grad()
    def validate(self, loss: float) -> None:
        """Median and mean SDR by stem of held-out clips; into the log, and plotted."""
        network = copy.deepcopy(self.network).eval()
        network.load_state_dict(self.average)
        scores = self.scores(network)
        entry: dict[str, object] = {"step": self.step, "seconds": round(self.seconds), "loss": round(loss, 4)}
        for kind, values in (("", scores.nanmedian(dim=0).values), ("mean ", scores.nanmean(dim=0))):
            entry |= {kind + stem: round(value, 3) for stem, value in zip(self.stems, values.tolist(), strict=True)}
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(entry) + "\n")
        print(entry, flush=True)
        plot(self.folder, self.stems)


class UnetRun(Run):
    """Trains a `Unet` on mixtures made on the fly."""

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        self.valid = Library.read(args.library, "valid")
        network = Unet(len(OUT))
        weights = load(args.checkpoints / CHECKPOINTS["accompaniment"])
        network.start_from({name: torch.from_numpy(value) for name, value in weights.items()})
        super().__init__(args, network)
        self.forward = torch.compile(self.network) if args.compile else self.network

    def batches(self) -> Iterable[Tensor]:
        """See `Run`: stems (batch, 4, 2, samples)."""
        mixer = Mixer(Library.read(self.args.library, "train"), samples(self.args.frames), self.args.seed)
        return self.mixed(mixer)

    def loss(self, batch: Tensor) -> Tensor:
        """See `Run`."""
        generator = torch.Generator().manual_seed(self.args.seed * 1_000_003 + self.step)
        truth = spectra(heard(batch, generator).to(self.device))
        return total_loss(self.forward(truth.sum(dim=1).abs()), truth)

    def scores(self, network: nn.Module) -> Tensor:
        """See `Run`."""
        mixer = Mixer(self.valid, samples(256), 1, HELD_OUT)
        rows = []
        for index in range(self.args.validation):
            truth = spectra(torch.from_numpy(mixer(index)[None, :3]).to(self.device))
            rows.append(sdr(network(truth.sum(dim=1).abs()), truth))
        return torch.cat(rows)


def plot(folder: Path, stems: tuple[str, ...]) -> None:
    """Draw ``curve.png`` of a run's log."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    figure, axis = pyplot.subplots(figsize=(7, 4))
    for stem in stems:
        axis.plot([row["step"] for row in rows], [row[stem] for row in rows], label=stem, marker=".")
    axis.set(xlabel="step", ylabel="median SDR of held-out mixtures, dB")
    axis.legend()
    axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(folder / "curve.png", dpi=100)
    pyplot.close(figure)


def options(parser: argparse.ArgumentParser, steps: int, batch: int, rate: float, weight_decay: float) -> None:
    """Add the options of every run, with these defaults."""
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--rate", type=float, default=rate)
    parser.add_argument("--weight-decay", type=float, default=weight_decay)
    parser.add_argument("--warm-up", type=int, default=50)
    parser.add_argument("--decay", type=float, default=0.998)
    parser.add_argument("--every", type=int, default=500, help="steps between checkpoints")
    parser.add_argument("--validation", type=int, default=40, help="clips of held-out songs")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)


def unet_options(description: str, *, steps: int, batch: int, rate: float, frames: int) -> argparse.ArgumentParser:
    """The options of runs that train a U-Net from Spleeter's weights on mixtures, with these defaults."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("library", type=Path)
    parser.add_argument("checkpoints", type=Path)
    options(parser, steps, batch, rate, weight_decay=1e-4)
    parser.add_argument("--frames", type=int, default=frames, help="of the transform, a clip")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    return parser


def main() -> None:
    description = (__doc__ or "").split("\n")[0]
    UnetRun(unet_options(description, steps=6000, batch=6, rate=6e-4, frames=128).parse_args()).train()


if __name__ == "__main__":
    main()
