"""The networks that are trained here, in PyTorch.

`Unet` is the U-Net of Spleeter (Hennequin et al., "Spleeter: a fast and efficient music source separation tool with
pre-trained models", JOSS 5(50), 2154, 2020), which follows Jansson et al., "Singing voice separation with deep U-Net
convolutional networks", ISMIR 2017, with several stems as outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (16, 32, 64, 128, 256, 512)
BATCH_NORM_EPSILON = 1e-3
LEAK = 0.2


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
