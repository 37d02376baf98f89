"""The network of `stemplug-live`: a U-Net that hears nothing of the future, in PyTorch, and the transform it works on.

It is Spleeter's U-Net (see network.py), unrolled in time so that it starts from Spleeter's weights: each of its layers
hears at Spleeter's distances, but four times as often (dilated convolutions), and only the present and the past. A tap
that would hear the future hears the present, so that a steady sound gives what it gives Spleeter. The two phases of a
transposed convolution in time, which there take turns, are one, their mean, and what a level hands up is held until it
hears again. Frame by frame, with what the convolutions remember, it computes the same: see export_live.py.
"""

from __future__ import annotations

import numpy as np
import torch
from network import LEAK, WIDTHS, Affine
from torch import Tensor, nn
from torch.nn import functional

FFT, HOP, BINS = 4096, 512, 768
LEVELS = len(WIDTHS)
PERIOD = 1 << (LEVELS - 1)
"""Frames after which the deepest level hears again: each but the first hears every second frame of the one before."""
TAPS, DILATION = 3, 2
"""In time, of all convolutions. Spleeter's frames come half as often, and its first level halves them once more."""


class CausalUnet(nn.Module):
    """Magnitudes (batch, 2, frames, BINS) to masks (batch, stems, 2, frames, BINS) that sum to 1 over the stems.

    Frames are a multiple of `PERIOD`. The masks of a frame depend on it and frames before it. Parameters are named as
    in Spleeter's checkpoints.
    """

    def __init__(self, stems: int = 4) -> None:
        super().__init__()
        self.stems = stems
        for level, (inside, out) in enumerate(zip((2, *WIDTHS), WIDTHS, strict=False), 1):
            conv = nn.Conv2d(inside, out, (TAPS, 5), (1, 2), dilation=(DILATION, 1))
            setattr(self, f"down{level}_conv", nn.Sequential(nn.ZeroPad2d((1, 2, (TAPS - 1) * DILATION, 0)), conv))
            if level < LEVELS:
                setattr(self, f"down{level}_act", nn.Sequential(Affine(out), nn.LeakyReLU(LEAK)))
        inside = WIDTHS[-1]
        for level, out in enumerate(WIDTHS[-2::-1], 1):
            layers = (nn.ConvTranspose2d(inside, out, (1, 5), (1, 2)), nn.Identity(), nn.ReLU(), Affine(out))
            setattr(self, f"up{level}", nn.Sequential(*layers))
            inside = 2 * out
        self.masks = nn.ConvTranspose2d(inside, 2 * stems, (1, 5), (1, 2))

    def forward(self, magnitude: Tensor, every: int = 1) -> Tensor:
        """Return the masks, of one frame in ``every``."""
        x, skips = magnitude, []
        for level in range(1, LEVELS + 1):
            skips.append(getattr(self, f"down{level}_conv")(x))
            x = getattr(self, f"down{level}_act")(skips[-1][:, :, ::2]) if level < LEVELS else skips.pop()
        for level in range(1, LEVELS):
            convolution, _, relu, norm = getattr(self, f"up{level}")
            x = norm(relu(convolution(x)[..., 1:-2])).repeat_interleave(2, dim=2)
            x = torch.cat([skips.pop(), x], 1)
        logits = self.masks(x[:, :, ::every])[..., 1:-2]
        return functional.softmax(logits.float().unflatten(1, (self.stems, 2)), dim=1)

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Take the weights of a Spleeter network. The last layer starts at nothing, so that all stems share alike."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name not in weights:
                    parameter.zero_()
                elif not name.endswith("weight") or parameter.ndim != 4:
                    parameter.copy_(weights[name])
                elif name.startswith("down"):
                    parameter.copy_(weights[name][:, :, :TAPS])
                    parameter[:, :, -1] += weights[name][:, :, TAPS:].sum(dim=2)
                else:  # of five taps, one phase has three, the other two
                    parameter.copy_(weights[name].sum(dim=2, keepdim=True) / 2)


def windows() -> tuple[np.ndarray, np.ndarray]:
    """The windows before the transform (FFT,) and after its inverse (2 * HOP,), the end of it.

    The one rises slowly and falls within a hop, as loud as a Hann window; of the other the product with it is a Hann
    window of two hops. So a frame tells frequencies as a long window does, and sounds no later than a short one (Mauler
    and Martin, "A low delay, variable resolution, perfect reconstruction spectral analysis-synthesis system for speech
    enhancement", EUSIPCO 2007).
    """
    rise, fall = FFT - HOP, HOP
    analysis = np.sqrt(np.concatenate([np.hanning(2 * rise + 1)[:rise], np.hanning(2 * fall + 1)[fall:-1]]))
    analysis *= np.linalg.norm(np.hanning(FFT + 1)) / np.linalg.norm(analysis)
    product = np.hanning(2 * HOP + 1)[:-1]
    synthesis = product / np.maximum(analysis[-2 * HOP :], 1e-9)
    return analysis.astype(np.float32), synthesis.astype(np.float32)


def spectra(audio: Tensor, every: int = 1) -> Tensor:
    """(..., samples) to complex (..., frames, BINS), without padding; one in ``every`` frames, HOP samples apart."""
    window = torch.from_numpy(windows()[0]).to(audio.device)
    flat = audio.reshape(-1, audio.shape[-1])
    found = torch.stft(flat, FFT, every * HOP, window=window, center=False, return_complex=True)
    return found[:, :BINS].transpose(1, 2).reshape(*audio.shape[:-1], -1, BINS)


def samples(frames: int) -> int:
    """How many samples so many frames of the transform take."""
    return (frames - 1) * HOP + FFT
