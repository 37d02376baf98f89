"""Export a U-Net that was trained here as an ONNX graph: magnitudes in, masks of all stems but the last out.

    python models/training/export.py CHECKPOINT

CHECKPOINT is what torch.save wrote: a dict whose "weights" are the state of a `network.Unet`. The graph goes into the
model's folder, its hash into the manifest there. Needs the extra ``[train]``.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch
from graph import Array, Graph, export, unet
from network import Unet
from onnx import helper


def load(checkpoint: Path) -> Unet:
    """Read a checkpoint; nothing but tensors is unpickled."""
    weights = torch.load(checkpoint, map_location="cpu", weights_only=True)["weights"]
    network = Unet(len(weights["masks.bias"]) // 2)
    network.load_state_dict(weights)
    return network


def above_last(values: Array, axis: int) -> Array:
    """Subtract the last stem's values from those of the others; along ``axis`` lie stems, left and right of each."""
    others, last = np.split(values, [-2], axis)
    return others - np.concatenate([last] * (others.shape[axis] // 2), axis)


def build(network: Unet, dtype: type[np.floating]) -> onnx.ModelProto:
    """The whole graph; the masks are the shares of all stems but the last, left and right of each."""
    graph, weights = Graph(dtype), {name: value.numpy() for name, value in network.state_dict().items()}
    x = unet(graph, "magnitude", weights)
    # Only what the others' logits are above the last stem's counts, so that one is 0 and needs no channels.
    kernel, bias = (above_last(weights[f"masks.{name}"], axis) for name, axis in (("weight", 1), ("bias", 0)))
    # With so few output channels the plain operator is quicker than convolutions by parity.
    last = graph.weight(kernel), graph.weight(bias)
    x = graph.op("ConvTranspose", x, *last, strides=[2, 2], pads=[1, 1, 2, 2])
    # The softmax in plain steps: the operator would first move the stems to the last axis.
    logits = graph.split(x, network.stems - 1)
    highest = graph.op("Max", *logits, graph.weight(np.float32([0])))
    powers = [graph.op("Exp", graph.op("Sub", part, highest)) for part in logits]
    total = graph.op("Sum", *powers, graph.op("Exp", graph.op("Neg", highest)))
    masks = [graph.op("Div", part, total) for part in powers]
    graph.nodes.append(helper.make_node("Concat", masks, ["mask"], axis=1))
    return graph.model("unet", "export", 2 * len(masks))


def reference(network: Unet, magnitude: torch.Tensor) -> torch.Tensor:
    """The masks of all stems but the last, (1, 2, frames, bins) to (1, masks, frames, bins)."""
    return network(magnitude)[:, :-1].flatten(1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--model", type=Path, default=Path(__file__).parents[1] / "stemplug-4s")
    args = parser.parse_args()
    network = load(args.checkpoint)
    export(partial(build, network), partial(reference, network), args.model)


if __name__ == "__main__":
    main()
