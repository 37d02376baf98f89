"""Train a band-split recurrent network in place of the U-Net, to compare them on the same budget.

    python models/training/bandsplit.py LIBRARY CHECKPOINTS RUN [--steps N] [--minutes M]

After Luo and Yu, "Music source separation with band-split RNN", IEEE/ACM TASLP 31, 2023: bands, narrow where it is low,
each with layers of its own; between them recurrent layers by turns along time, the same for all bands, and along the
bands. It starts from nothing (CHECKPOINTS are not read). README.md has what it reached.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from network import QUIET, logarithm
from torch import Tensor, nn
from torch.nn import functional
from train import OUT, UnetRun, unet_options

WIDTH, LAYERS = 96, 3
HEARD = 2 * 5  # of a bin: both channels, of each its level and how its phase goes on, in time and to the next bin
# Bins of 10.8 Hz: 2 a band up to 260 Hz, 4 up to 520 Hz, and so on, up to 11 kHz.
EDGES = np.cumsum([0] + 12 * [2] + 6 * [4] + 6 * [8] + 6 * [24] + 4 * [72] + 4 * [124]).tolist()
SIZES = [stop - start for start, stop in pairwise(EDGES)]


class Along(nn.Module):
    """A recurrent layer along the middle axis of (batch, others, length, width), added to what comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.recurrent = nn.LSTM(WIDTH, WIDTH, batch_first=True, bidirectional=True)
        self.back = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.back(self.recurrent(self.norm(x.flatten(0, 1)))[0])
        return x + found.view_as(x)


class BandSplit(nn.Module):
    """Spectra of a mixture (batch, 2, frames, bins), complex, to masks that sum to 1 over the stems, as of a `Unet`."""

    def __init__(self, stems: int) -> None:
        super().__init__()
        self.stems = stems
        self.split = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(HEARD * size), nn.Linear(HEARD * size, WIDTH)) for size in SIZES
        )
        self.time, self.bands = (nn.ModuleList(Along() for _ in range(LAYERS)) for _ in range(2))
        self.masks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.Tanh(), nn.Linear(2 * WIDTH, 2 * stems * size)
            )
            for size in SIZES
        )

    def forward(self, spectrum: Tensor) -> Tensor:
        parts = heard(spectrum).split(SIZES, dim=2)
        with torch.autocast(spectrum.device.type, torch.bfloat16, enabled=self.training):
            x = torch.stack([layer(part.flatten(2)) for layer, part in zip(self.split, parts, strict=True)], dim=1)
            for time, bands in zip(self.time, self.bands, strict=True):
                x = bands(time(x).transpose(1, 2)).transpose(1, 2)
            logits = [layer(x[:, band]).unflatten(2, (self.stems, 2, -1)) for band, layer in enumerate(self.masks)]
        return functional.softmax(torch.cat(logits, dim=4).float().permute(0, 2, 3, 1, 4), dim=1)


def load_bands(checkpoint: Path) -> BandSplit:
    """Read a checkpoint of this file's `main`; nothing but tensors is unpickled."""
    network = BandSplit(len(OUT))
    network.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["weights"])
    return network


def heard(spectrum: Tensor) -> Tensor:
    """What the bands see of each bin, (batch, frames, bins, HEARD); for the phases see `network.Refiner`."""
    unit = spectrum / (spectrum.abs() + QUIET)
    steady = torch.tensor((1, -1j, -1, 1j), device=spectrum.device).repeat(spectrum.shape[-1] // 4)
    later = functional.pad(unit[:, :, 1:] * unit[:, :, :-1].conj() * steady, (0, 0, 1, 0))
    higher = functional.pad(unit[..., 1:] * unit[..., :-1].conj(), (1, 0))
    seen = [logarithm(spectrum.abs())[..., None], torch.view_as_real(later), torch.view_as_real(higher)]
    return torch.cat(seen, dim=-1).permute(0, 2, 3, 1, 4).flatten(3)


class BandSplitRun(UnetRun):
    """Trains a `BandSplit` as `UnetRun` trains a U-Net."""

    def made(self) -> nn.Module:
        """See `UnetRun`."""
        return BandSplit(len(OUT))

    def masks(self, network: nn.Module, truth: Tensor) -> Tensor:
        """See `UnetRun`."""
        found: Tensor = network(truth.sum(dim=1))
        return found


def main() -> None:
    description = (__doc__ or "").split("\n")[0]
    BandSplitRun(unet_options(description, steps=2000, batch=4, rate=1e-3, frames=192).parse_args()).train()


if __name__ == "__main__":
    main()
