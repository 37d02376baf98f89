"""Export a U-Net that was trained here as an ONNX graph: magnitudes in, masks of all stems but the last out.

    python models/training/export.py CHECKPOINT [--refiner CHECKPOINT] [--model FOLDER]

The checkpoints are those of train.py and refine.py. The graph goes into the model's folder, its hash into the manifest
there. Needs the extra ``[train]``.
"""

from __future__ import annotations

import argparse
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import torch
from graph import NO_CUT, TRIM, Array, Graph, Weights, export, unet
from network import DILATIONS, EDGES, LOW, QUIET, REACH, TAPS, Refiner, Unet, bands_above
from onnx import helper

# How much of a refiner's correction is applied: with half, the geometric mean of its masks and the U-Net's, held-out
# songs gain most of what they gain with all, and the recorded one loses little. See validate.py and README.md.
BELIEF = 0.5
BLOCK = tuple(f"{layer}.{kind}" for layer in ("time", "norm", "wide", "narrow") for kind in ("weight", "bias"))


def load(checkpoint: Path) -> Unet:
    """Read a checkpoint; nothing but tensors is unpickled."""
    weights = torch.load(checkpoint, map_location="cpu", weights_only=True)["weights"]
    network = Unet(len(weights["masks.bias"]) // 2)
    network.load_state_dict(weights)
    return network


def load_refiner(checkpoint: Path, belief: float = BELIEF) -> Refiner:
    """Read a checkpoint of refine.py, as `load`; its corrections, in logits, times ``belief``."""
    weights = torch.load(checkpoint, map_location="cpu", weights_only=True)["weights"]
    network = Refiner(len(weights["last.bias"]) // (2 * LOW), len(weights["first.bias"])).eval()
    network.load_state_dict(weights)
    with torch.no_grad():
        network.last.weight *= belief
        network.last.bias *= belief
    return network


def above_last(values: Array, axis: int) -> Array:
    """Subtract the last stem's values from those of the others; along ``axis`` lie stems, left and right of each."""
    others, last = np.split(values, [-2], axis)
    return others - np.concatenate([last] * (others.shape[axis] // 2), axis)


def softmax(graph: Graph, logits: list[str]) -> list[str]:
    """Masks of all stems but the last, in plain steps: the operator would first move the stems to the last axis."""
    highest = graph.op("Max", *logits)
    powers = [graph.op("Exp", graph.op("Sub", part, highest)) for part in logits]
    total = graph.op("Sum", *powers)
    return [graph.op("Div", part, total) for part in powers[:-1]]


def build(network: Unet, refiner: Refiner | None, dtype: type[np.floating]) -> onnx.ModelProto:
    """The whole graph; the masks are the shares of all stems but the last, left and right of each."""
    graph, weights = Graph(dtype), {name: value.numpy() for name, value in network.state_dict().items()}
    x = unet(graph, "magnitude", weights)
    # Only what the others' logits are above the last stem's counts, so that one is 0 and needs no channels.
    kernel, bias = (above_last(weights[f"masks.{name}"], axis) for name, axis in (("weight", 1), ("bias", 0)))
    logits = graph.split(graph.transposed_conv_of_few(x, kernel, bias), network.stems - 1)
    masks = softmax(graph, [*logits, graph.weight(np.float32([0]))])
    if refiner is None:
        graph.nodes.append(helper.make_node("Concat", masks, ["mask"], axis=1))
        return graph.model("unet", "export", 2 * len(masks))
    corrected = graph.op("Concat", *refined(graph, refiner, masks), axis=1)
    above = graph.part(graph.op("Concat", *masks, axis=1), 3, LOW, NO_CUT)
    mask = graph.trimmed(graph.op("Concat", corrected, above, axis=3), REACH, REACH)
    graph.nodes.append(helper.make_node("Identity", [mask], ["mask"]))
    return graph.model("refined", "export", 2 * len(masks), LOW)


def refined(graph: Graph, refiner: Refiner, masks: list[str]) -> list[str]:
    """The masks of all stems but the last in the lowest bins, from those of a U-Net; see `Refiner`."""
    weights = {name: value.numpy() for name, value in refiner.state_dict().items()}
    magnitude, spectrum = (
        graph.trimmed(x, 2 * TRIM["left"][-1], 2 * TRIM["right"][-1]) for x in ("magnitude", "spectrum")
    )
    rest = graph.op("Relu", graph.op("Sub", graph.weight(np.float32([1])), graph.op("Sum", *masks)))
    masks = [*masks, rest]
    low = graph.op("Concat", *(graph.part(mask, 3, 0, LOW) for mask in masks), axis=1)
    level = graph.part(magnitude, 3, 0, LOW)
    bands = banded(graph, [magnitude, *(graph.op("Mul", mask, magnitude) for mask in masks)])
    logits = logarithm(graph, low)
    seen = [logarithm(graph, level), logits, logarithm(graph, bands), *phases(graph, spectrum, level)]
    rows = [graph.op("Reshape", graph.op("Transpose", x, perm=[0, 2, 1, 3]), graph.integers(0, 0, -1)) for x in seen]
    kernel = weights["first.weight"] / weights["deviation"]
    x = graph.linear(graph.op("Concat", *rows, axis=2), kernel, weights["first.bias"] - kernel @ weights["mean"])
    for number, dilation in enumerate(DILATIONS):
        x = block(graph, x, {name: weights[f"blocks.{number}.{name}"] for name in BLOCK}, dilation)
    x = graph.linear(layer_norm(graph, x, weights, "norm"), weights["last.weight"], weights["last.bias"])
    x = graph.op("Reshape", x, graph.integers(0, 0, 2 * refiner.stems, LOW))
    x = graph.op("Add", graph.op("Transpose", x, perm=[0, 2, 1, 3]), logits)
    return softmax(graph, graph.split(x, refiner.stems))


def block(graph: Graph, x: str, weights: Weights, dilation: int) -> str:
    """See `network.Block`; frames come before channels."""
    pad = dilation * (TAPS // 2)
    y = graph.op("Transpose", x, perm=[0, 2, 1])
    kernel, bias = weights["time.weight"], weights["time.bias"]
    y = graph.conv(y, kernel, bias, dilations=[dilation], pads=[pad, pad], group=len(kernel))
    y = layer_norm(graph, graph.op("Transpose", y, perm=[0, 2, 1]), weights, "norm")
    y = graph.op("Relu", graph.linear(y, weights["wide.weight"], weights["wide.bias"]))
    return graph.op("Add", x, graph.linear(y, weights["narrow.weight"], weights["narrow.bias"]))


def layer_norm(graph: Graph, x: str, weights: Weights, name: str) -> str:
    scale, shift = (graph.weight(weights[f"{name}.{kind}"]) for kind in ("weight", "bias"))
    return graph.op("LayerNormalization", x, scale, shift, axis=-1, epsilon=1e-5)


def logarithm(graph: Graph, x: str) -> str:
    return graph.op("Log", graph.op("Add", x, graph.weight(np.float32([QUIET]))))


def banded(graph: Graph, magnitudes: list[str]) -> str:
    """See `network.banded`: of several magnitudes, one after the other in the channels."""
    sums = np.zeros((1024, len(EDGES) - 1), np.float32)
    for band, (start, stop) in enumerate(pairwise(EDGES)):
        sums[start:stop, band] = 1
    matrix, scale = graph.weight(sums), graph.weight(1 / sums.sum(axis=0))
    # One after the other: what is put together after the product is 25 times smaller than before it.
    powers = [graph.op("MatMul", graph.op("Mul", x, x), matrix) for x in magnitudes]
    return graph.op("Sqrt", graph.op("Mul", graph.op("Concat", *powers, axis=1), scale))


def phases(graph: Graph, spectrum: str, level: str) -> list[str]:
    """How the phase goes on from frame to frame and from bin to bin: see `Refiner.features`."""
    level = graph.op("Add", level, graph.weight(np.float32([QUIET])))
    real, imaginary = (
        graph.op("Div", graph.op("Squeeze", graph.part(spectrum, 4, i, i + 1), graph.integers(4)), level)
        for i in (0, 1)
    )
    pads = graph.integers(0, 0, 1, 0, 0, 0, 0, 0)
    before = [graph.op("Pad", graph.part(x, 2, 0, -1), pads) for x in (real, imaginary)]
    later = times_conjugate(graph, [real, imaginary], before)
    cosine, sine = (graph.weight(np.tile(np.float32(turn), LOW // 4)) for turn in ((1, 0, -1, 0), (0, -1, 0, 1)))
    turned = [
        graph.op("Sub", graph.op("Mul", later[0], cosine), graph.op("Mul", later[1], sine)),
        graph.op("Add", graph.op("Mul", later[0], sine), graph.op("Mul", later[1], cosine)),
    ]
    upper, lower = ([graph.part(x, 3, i, LOW - 1 + i) for x in (real, imaginary)] for i in (1, 0))
    return [graph.op("Concat", *parts, axis=1) for parts in (turned, times_conjugate(graph, upper, lower))]


def times_conjugate(graph: Graph, a: list[str], b: list[str]) -> list[str]:
    """Real and imaginary parts of a product with a complex conjugate."""
    real = graph.op("Add", graph.op("Mul", a[0], b[0]), graph.op("Mul", a[1], b[1]))
    return [real, graph.op("Sub", graph.op("Mul", a[1], b[0]), graph.op("Mul", a[0], b[1]))]


def reference(network: Unet, refiner: Refiner | None, spectrum: torch.Tensor) -> torch.Tensor:
    """The masks of all stems but the last, (1, 2, frames, bins) to (1, masks, frames, bins)."""
    magnitude = spectrum.abs()
    masks: torch.Tensor = network(magnitude)
    if refiner is not None:
        low = refiner(spectrum[..., :LOW], masks[..., :LOW], bands_above(masks, magnitude))
        masks = torch.cat([low, masks[..., LOW:]], dim=-1)
    return masks[:, :-1].flatten(1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--refiner", type=Path, metavar="CHECKPOINT", help="of refine.py")
    parser.add_argument("--model", type=Path, default=Path(__file__).parents[1] / "stemplug-4s")
    args = parser.parse_args()
    networks = load(args.checkpoint), load_refiner(args.refiner) if args.refiner else None
    export(partial(build, *networks), partial(reference, *networks), args.model, REACH if args.refiner else 0)


if __name__ == "__main__":
    main()
