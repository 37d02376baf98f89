"""Score drums, bass, other, guitar and piano of a U-Net of train.py on songs with true guitars or pianos.

    python models/training/six.py SET CHECKPOINT

SET as for evaluate.py; vocals are those of spleeter-2stems. "all to guitar" is what a stem would reach if it were all
that is neither drums nor bass. SDR in dB over the clip. Needs the extra ``[train]``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from evaluate import RATE, sdr, songs
from export import load
from torch.nn import functional
from train import BINS, FFT, HOP, OUT

from stemplug import Separator


@torch.no_grad()
def part(network: torch.nn.Module, audio: np.ndarray) -> dict[str, np.ndarray]:
    """Stems of (2, frames)."""
    window = torch.hann_window(FFT)
    spectrum = torch.stft(torch.from_numpy(audio), FFT, HOP, window=window, return_complex=True)
    heard = spectrum[:, :BINS].transpose(1, 2)[None]
    frames = heard.shape[2]
    masks = network(functional.pad(heard.abs(), (0, 0, 0, -frames % 64)))[0, :, :, :frames].transpose(2, 3)
    found = {}
    for stem, mask in zip(OUT, masks, strict=True):
        masked = torch.zeros_like(spectrum)
        masked[:, :BINS] = mask * spectrum[:, :BINS]
        found[stem] = torch.istft(masked, FFT, HOP, window=window, length=audio.shape[1]).numpy()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("set", type=Path)
    parser.add_argument("checkpoint", type=Path)
    args = parser.parse_args()
    network, separator = load(args.checkpoint).eval(), Separator("spleeter-2stems")
    for name, true in songs(args.set):
        if not {"guitar", "piano"} & true.keys():
            continue
        mixture = np.sum(list(true.values()), axis=0)
        found = part(network, dict(separator.separate(mixture, RATE))["accompaniment"])
        rest = found["other"] + found["guitar"] + found["piano"]
        row = {stem: sdr(true[stem], found[stem]) for stem in OUT if stem in true}
        row |= {f"all to {stem}": sdr(true[stem], rest) for stem in ("guitar", "piano") if stem in true}
        print(name, ", ".join(f"{stem} {value:.2f}" for stem, value in row.items()))


if __name__ == "__main__":
    main()
