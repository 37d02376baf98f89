"""The networks that are trained here, in PyTorch.

`Unet` is the U-Net of Spleeter (Hennequin et al., "Spleeter: a fast and efficient music source separation tool with
pre-trained models", JOSS 5(50), 2154, 2020), which follows Jansson et al., "Singing voice separation with deep U-Net
convolutional networks", ISMIR 2017, with several stems as outputs. `Refiner` corrects its masks where basses and kick
drums lie: dilated convolutions over time (Bai et al., "An empirical evaluation of generic convolutional and recurrent
networks for sequence modeling", 2018), in blocks after Liu et al., "A ConvNet for the 2020s", CVPR 2022.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (16, 32, 64, 128, 256, 512)
BATCH_NORM_EPSILON = 1e-3
LEAK = 0.2
LOW = 64  # bins that a `Refiner` corrects, up to 690 Hz
EDGES = tuple(round(64 * 16 ** (band / 40)) for band in range(41))  # the bins where the bands above them begin and end
DILATIONS = (1, 2, 4, 8, 1, 2, 4, 8)
TAPS = 5
REACH = sum(DILATIONS) * (TAPS // 2)  # frames
QUIET = 1e-3  # magnitudes below it are silence


class Affine(nn.Module):
    """Batch norm with its published running statistics, 0 and 1: what is left is a scale and a shift a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight / (1 + BATCH_NORM_EPSILON) ** 0.5
        return x * scale[:, None, None] + self.bias[:, None, None]


class Unet(nn.Module):
    """Magnitudes (batch, 2, frames, bins) to masks (batch, stems, 2, frames, bins) that sum to 1 over the stems.

    Frames and bins are multiples of 64. Parameters are named as in Spleeter's checkpoints, so that its weights load.
    Its last two layers, at full resolution, are one here: from what it knows at half the resolution, a transposed
    convolution gives the masks' logits. That takes a third less time to train, and to run.
    """

    def __init__(self, stems: int = 3) -> None:
        super().__init__()
        self.stems = stems
        for level, (inside, out) in enumerate(zip((2, *WIDTHS), WIDTHS, strict=False), 1):
            setattr(self, f"down{level}_conv", nn.Sequential(nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(inside, out, 5, 2)))
            if level < 6:
                setattr(self, f"down{level}_act", nn.Sequential(Affine(out), nn.LeakyReLU(LEAK)))
        inside = WIDTHS[-1]
        for level, out in enumerate(WIDTHS[-2::-1], 1):
            layers = (nn.ConvTranspose2d(inside, out, 5, 2), nn.Identity(), nn.ReLU(), Affine(out))
            setattr(self, f"up{level}", nn.Sequential(*layers))
            inside = 2 * out
        self.masks = nn.ConvTranspose2d(inside, 2 * stems, 5, 2)

    def forward(self, magnitude: Tensor) -> Tensor:
        x, skips = magnitude, []
        for level in range(1, 7):
            skips.append(getattr(self, f"down{level}_conv")(x))
            x = getattr(self, f"down{level}_act")(skips[-1]) if level < 6 else skips.pop()
        for level in range(1, 6):
            convolution, _, relu, norm = getattr(self, f"up{level}")
            x = norm(relu(convolution(x)[:, :, 1:-2, 1:-2]))
            x = torch.cat([skips.pop(), x], 1)
        logits = self.masks(x)[:, :, 1:-2, 1:-2]
        return functional.softmax(logits.unflatten(1, (self.stems, 2)), dim=1)

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Take the weights of a Spleeter network; the last layer starts at nothing, so that all stems share alike."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(weights[name] if name in weights else torch.zeros_like(parameter))


class Block(nn.Module):
    """A dilated convolution over time, channel by channel, then two layers that mix the channels of each frame."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.time = nn.Conv1d(width, width, TAPS, padding=dilation * (TAPS // 2), dilation=dilation, groups=width)
        self.norm = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        moved = self.time(x.transpose(1, 2)).transpose(1, 2)
        return x + self.narrow(functional.relu(self.wide(self.norm(moved))))


class Refiner(nn.Module):
    """Masks below 690 Hz from those of a `Unet`, and from what that does not hear: the phase.

    How the phase goes on from frame to frame tells a frequency, and from bin to bin a moment, both finer than the
    transform's grid (Auger and Flandrin, "Improving the readability of time-frequency and time-scale representations by
    the reassignment method", IEEE Trans. Signal Processing 43(5), 1995).
    """

    def __init__(self, stems: int = 3, width: int = 320) -> None:
        super().__init__()
        self.stems = stems
        heard = 2 * (LOW + stems * LOW + (1 + stems) * (len(EDGES) - 1) + 2 * LOW + 2 * (LOW - 1))
        self.register_buffer("mean", torch.zeros(heard))
        self.register_buffer("deviation", torch.ones(heard))
        self.first = nn.Linear(heard, width)
        self.blocks = nn.ModuleList(Block(width, dilation) for dilation in DILATIONS)
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, 2 * stems * LOW)
        nn.init.zeros_(self.last.weight)  # so that it begins with the masks of the U-Net
        nn.init.zeros_(self.last.bias)

    def forward(self, low: Tensor, masks: Tensor, bands: Tensor) -> Tensor:
        """Return masks (batch, stems, 2, frames, LOW) that sum to 1 over the stems.

        ``low`` is the mixture's spectrum (batch, 2, frames, LOW), complex, ``masks`` as what is returned, ``bands`` the
        magnitudes of mixture and masked stems in the bands above (batch, 1 + stems, 2, frames, bands); see `banded`.
        """
        x = (self.features(low, masks, bands) - self.mean) / self.deviation
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.training):
            x = self.first(x)
            for block in self.blocks:
                x = block(x)
            x = self.last(self.norm(x))
        correction = x.float().unflatten(2, (self.stems, 2, LOW)).movedim(1, 3)
        return functional.softmax(logarithm(masks) + correction, dim=1)

    def features(self, low: Tensor, masks: Tensor, bands: Tensor) -> Tensor:
        """What the layers see of each frame, (batch, frames, features)."""
        unit = low / (low.abs() + QUIET)
        steady = torch.tensor((1, -1j, -1, 1j) * (LOW // 4), device=low.device)  # how a bin's middle goes on in a hop
        later = functional.pad(torch.view_as_real(unit[:, :, 1:] * unit[:, :, :-1].conj() * steady), (0, 0, 0, 0, 1, 0))
        higher = torch.view_as_real(unit[..., 1:] * unit[..., :-1].conj())
        seen = [logarithm(low.abs()), logarithm(masks).flatten(1, 2), logarithm(bands).flatten(1, 2)]
        seen += [part.movedim(-1, 1).flatten(1, 2) for part in (later, higher)]
        return torch.cat([part.transpose(1, 2).flatten(2) for part in seen], dim=2)


def logarithm(magnitude: Tensor) -> Tensor:
    return torch.log(magnitude + QUIET)


def bands_above(masks: Tensor, magnitude: Tensor) -> Tensor:
    """What a `Refiner` hears as ``bands``, from masks (batch, stems, 2, frames, bins) and the mixture's magnitudes."""
    whole = torch.ones_like(masks[:, :1])
    return banded(torch.cat([whole, masks], dim=1) * magnitude[:, None])


def banded(magnitude: Tensor) -> Tensor:
    """Magnitudes (..., bins) to the root of their mean squares in the bands that `EDGES` bound, (..., bands)."""
    parts = magnitude.square().split([EDGES[0], *(stop - start for start, stop in pairwise(EDGES))], dim=-1)[1:]
    return torch.stack([part.mean(dim=-1) for part in parts], dim=-1).sqrt()
