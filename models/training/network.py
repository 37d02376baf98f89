"""The networks that are trained here, in PyTorch.

`Unet` is the U-Net of Spleeter (Hennequin et al., "Spleeter: a fast and efficient music source separation tool with
pre-trained models", JOSS 5(50), 2154, 2020), which follows Jansson et al., "Singing voice separation with deep U-Net
convolutional networks", ISMIR 2017, with several stems as outputs. `BandSplit` finds the masks where basses and kick
drums lie: split into bands as by Luo and Yu, "Music source separation with band-split RNN", IEEE/ACM TASLP 31, 2023,
with dilated convolutions over time (Bai et al., "An empirical evaluation of generic convolutional and recurrent
networks for sequence modeling", 2018) in blocks after Liu et al., "A ConvNet for the 2020s", CVPR 2022, and between
them layers that mix the bands (Tolstikhin et al., "MLP-Mixer: an all-MLP architecture for vision", NeurIPS 2021).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (16, 32, 64, 128, 256, 512)
BATCH_NORM_EPSILON = 1e-3
LEAK = 0.2
LOW = 64  # bins whose masks a `BandSplit` finds, up to 690 Hz
SIZES = (2,) * 12 + (4,) * 6 + (8,) * 2  # of them each band has so many, from the lowest up
EDGES = tuple(round(64 * 16 ** (band / 40)) for band in range(41))  # the bins where the bands above them begin and end
TOGETHER = 10  # of the bands above are heard as one
HEARD = 2 * 5  # of a bin: both channels, of each its level and how its phase goes on, in time and to the next bin
GROUPS = 8  # of channels, in which bands are mixed alike
DILATIONS = (1, 2, 4, 8, 1, 2, 4, 8)
TAPS = 5
REACH = sum(DILATIONS) * (TAPS // 2)  # frames
QUIET = 1e-3  # magnitudes below it are silence
BFLOAT16 = {  # whether a kind of device computes in it: emulated, it is several times slower than float32
    "cpu": torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
    "cuda": torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False),
}


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


class Along(nn.Module):
    """Of (batch, bands, frames, width): a dilated convolution over time, channel by channel, then two layers that mix
    the channels of each frame; the same for all bands.
    """

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.time = nn.Conv1d(width, width, TAPS, padding=dilation * (TAPS // 2), dilation=dilation, groups=width)
        self.norm = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        moved = self.time(x.flatten(0, 1).transpose(1, 2)).transpose(1, 2).view_as(x)
        found: Tensor = x + self.narrow(functional.relu(self.wide(self.norm(moved))))
        return found


class Across(nn.Module):
    """Of (batch, bands, frames, width): each band hears all bands of its frame, by `GROUPS` ways to weigh them."""

    def __init__(self, width: int, bands: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.before, self.after = nn.Linear(width, width), nn.Linear(width, width)
        self.weigh = nn.Parameter(0.3 * torch.randn(GROUPS, bands, bands) / bands**0.5)

    def forward(self, x: Tensor) -> Tensor:
        heard = self.before(self.norm(x)).unflatten(3, (GROUPS, -1))
        heard = torch.einsum("bntgc,gnm->bmtgc", heard, self.weigh).flatten(3)
        found: Tensor = x + self.after(functional.relu(heard))
        return found


class BandSplit(nn.Module):
    """Masks below 690 Hz from the spectrum there, with its phases, and from how loud it is above.

    Each band has layers of its own at both ends; between them are layers by turns along time and across the bands.

    How the phase goes on from frame to frame tells a frequency, and from bin to bin a moment, both finer than the
    transform's grid (Auger and Flandrin, "Improving the readability of time-frequency and time-scale representations by
    the reassignment method", IEEE Trans. Signal Processing 43(5), 1995).
    """

    def __init__(self, stems: int = 3, width: int = 64) -> None:
        super().__init__()
        self.stems, self.width = stems, width
        inside = [HEARD * size for size in SIZES] + [2 * TOGETHER] * ((len(EDGES) - 1) // TOGETHER)
        self.split = nn.ModuleList(nn.Sequential(nn.LayerNorm(size), nn.Linear(size, width)) for size in inside)
        self.along = nn.ModuleList(Along(width, dilation) for dilation in DILATIONS)
        self.across = nn.ModuleList(Across(width, len(inside)) for _ in DILATIONS)
        outs = [2 * stems * size for size in SIZES]
        self.masks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Tanh(), nn.Linear(2 * width, out))
            for out in outs
        )

    def forward(self, low: Tensor, above: Tensor) -> Tensor:
        """Return masks (batch, stems, 2, frames, LOW) that sum to 1 over the stems.

        ``low`` is the mixture's spectrum (batch, 2, frames, LOW), complex, ``above`` its magnitudes in the bands above
        (batch, 2, frames, bands); see `banded`.
        """
        parts = [*phased(low).split(SIZES, dim=2), *logarithm(above).permute(0, 2, 3, 1).split(TOGETHER, dim=2)]
        with in_bfloat16(low.device, self.training):
            x = torch.stack([layer(part.flatten(2)) for layer, part in zip(self.split, parts, strict=True)], dim=1)
            for along, across in zip(self.along, self.across, strict=True):
                x = across(along(x))
            logits = [layer(x[:, band]).unflatten(2, (self.stems, 2, -1)) for band, layer in enumerate(self.masks)]
        return functional.softmax(torch.cat(logits, dim=4).float().permute(0, 2, 3, 1, 4), dim=1)


def in_bfloat16(device: torch.device, wanted: bool = True) -> torch.autocast:
    """What is within computes in bfloat16 where the device can; elsewhere, or where it is not ``wanted``, as ever."""
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and BFLOAT16.get(device.type, False))


def phased(low: Tensor) -> Tensor:
    """What a `BandSplit` hears of each bin of spectra (batch, 2, frames, bins): (batch, frames, bins, HEARD)."""
    unit = low / (low.abs() + QUIET)
    steady = torch.tensor((1, -1j, -1, 1j) * (LOW // 4), device=low.device)  # how a bin's middle goes on in a hop
    later = functional.pad(unit[:, :, 1:] * unit[:, :, :-1].conj() * steady, (0, 0, 1, 0))
    higher = functional.pad(unit[..., 1:] * unit[..., :-1].conj(), (1, 0))
    seen = [logarithm(low.abs())[..., None], torch.view_as_real(later), torch.view_as_real(higher)]
    return torch.cat(seen, dim=-1).permute(0, 2, 3, 1, 4).flatten(3)


def mean_of(ours: Tensor, theirs: Tensor, share: float) -> Tensor:
    """The geometric mean of masks (batch, stems, ...), with the ``share`` of ours, that sums to 1 over the stems."""
    return functional.softmax(share * logarithm(ours) + (1 - share) * logarithm(theirs), dim=1)


def logarithm(magnitude: Tensor) -> Tensor:
    return torch.log(magnitude + QUIET)


def banded(magnitude: Tensor) -> Tensor:
    """Magnitudes (..., bins) to the root of their mean squares in the bands that `EDGES` bound, (..., bands)."""
    parts = magnitude.square().split([EDGES[0], *(stop - start for start, stop in pairwise(EDGES))], dim=-1)[1:]
    return torch.stack([part.mean(dim=-1) for part in parts], dim=-1).sqrt()
