"""Train the network of `stemplug-live`, which parts all four stems and hears nothing of the future.

    python models/training/train_live.py LIBRARY CHECKPOINTS RUN [--start RUN0/last.pt] [--steps N] [--minutes M]
        [--device cuda]

As train.py, but from Spleeter's vocal network, or from what another run has learned, and on whole mixtures. Needs the
extra ``[train]``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from causal import CausalUnet, samples, spectra
from import_spleeter import CHECKPOINTS, load
from mixtures import STEMS, Chances, Library, Mixer
from network import in_bfloat16
from torch import Tensor, nn
from train import HELD_OUT, Run, real_losses, real_parts, sdr, unet_options, weighed

LEAST = 1e-2  # see `train.losses`: where less counts, to hear no voice at all soon seems best, and stays so
EVERY = 3  # frames: of so many one is judged. They overlap by 7/8, and full resolution is what costs most
# Voices are scarce, so they are sung by many sizes of throats, and are in most mixtures.
MIXTURES = Chances(
    absent=(0.15, 0.12, 0.06, 0.1),
    recorded=(0.0, 0.0, 0.0, 0.5),
    level_db=(0.0, -1.0, -1.0, 1.0),
    octaves=((-0.3, 0.3), (-0.7, 0.3), (-0.3, 0.3), (-0.5, 0.5)),
)
# Of music that the offline model has parted, half is heard as it was recorded, but for a voice: then its sum is true.
WITH_RECORDINGS = replace(MIXTURES, coherent=0.5, untouched=0.6, recorded=(0.25, 0.25, 0.4, 0.5))


class LiveRun(Run):
    """Trains a `CausalUnet` on mixtures made on the fly."""

    stems = STEMS

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        self.valid = Library.read(args.library, "valid")
        network = CausalUnet(len(STEMS))
        if args.start:
            network.load_state_dict(torch.load(args.start, map_location="cpu", weights_only=True)["weights"])
        else:
            weights = load(args.checkpoints / CHECKPOINTS["vocals"])
            network.start_from({name: torch.from_numpy(value) for name, value in weights.items()})
        super().__init__(args, network)
        self.masked_loss = torch.compile(self._loss) if args.compile else self._loss

    def groups(self) -> list[dict[str, Any]]:
        """See `Run`: the last layer first learns to tell what Spleeter's layers hear, before these may change."""
        last, rest = (
            [value for name, value in self.network.named_parameters() if name.startswith("masks") == wanted]
            for wanted in (True, False)
        )
        return [{"params": last, "wait": 0}, {"params": rest, "wait": self.args.wait}]

    def batches(self) -> Iterable[Tensor]:
        """See `Run`: stems (batch, 4, 2, samples)."""
        goes_on = self.args.start is not None
        library = Library.read(self.args.library, "train", separated=goes_on)
        chances = WITH_RECORDINGS if goes_on else MIXTURES
        return self.mixed(Mixer(library, samples(self.args.frames), self.args.seed, chances))

    def loss(self, batch: Tensor) -> Tensor:
        """See `Run`."""
        batch = batch.to(self.device)
        heard = spectra(batch.sum(dim=1)).abs()
        return self.masked_loss(heard, *real_parts(spectra(batch, EVERY)))

    def _loss(self, heard: Tensor, mixture: Tensor, stems: Tensor, product: Tensor) -> Tensor:
        with in_bfloat16(self.device):
            masks = self.network(heard, EVERY)
        return weighed(*real_losses(masks, mixture, stems, product, LEAST))

    def scores(self, network: nn.Module) -> Tensor:
        """See `Run`."""
        mixer = Mixer(self.valid, samples(512), 1, HELD_OUT)
        rows = []
        for index in range(self.args.validation):
            truth = spectra(torch.from_numpy(mixer(index)[None]).to(self.device))
            rows.append(sdr(network(truth.sum(dim=1).abs()), truth))
        return torch.cat(rows)


def main() -> None:
    parser = unet_options((__doc__ or "").split("\n")[0], steps=3000, batch=4, rate=5e-4, frames=384)
    parser.add_argument(
        "--start", type=Path, metavar="CHECKPOINT", help="weights to go on from, with what a model has parted as well"
    )
    parser.add_argument("--wait", type=int, default=100, help="steps before all but the last layer learn")
    LiveRun(parser.parse_args()).train()


if __name__ == "__main__":
    main()
