"""Export networks that were trained here as one ONNX graph: spectra in, masks of all stems but the last out.

    python models/training/export.py CHECKPOINT [--bands CHECKPOINT] [--model FOLDER]

The checkpoints are those of train.py and bandsplit.py. The graph goes into the model's folder, its hash into the
manifest there. Needs the extra ``[train]``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import onnx
import torch
from graph import NO_CUT, TRIM, Array, Graph, Weights, export, unet
from network import (
    DILATIONS,
    EDGES,
    GROUPS,
    HEARD,
    LOW,
    QUIET,
    REACH,
    SIZES,
    TAPS,
    BandSplit,
    Unet,
    banded,
    mean_of,
)
from onnx import helper

# Of the band-split network's masks in the geometric mean with those of the U-Net. See validate.py and README.md.
SHARE = 0.75


def load(checkpoint: Path) -> Unet:
    """Read a checkpoint; nothing but tensors is unpickled."""
    weights = torch.load(checkpoint, map_location="cpu", weights_only=True)["weights"]
    network = Unet(len(weights["masks.bias"]) // 2)
    network.load_state_dict(weights)
    return network


def load_bands(checkpoint: Path) -> BandSplit:
    """Read a checkpoint of bandsplit.py, as `load`."""
    weights = torch.load(checkpoint, map_location="cpu", weights_only=True)["weights"]
    network = BandSplit(len(weights["masks.0.3.bias"]) // (2 * SIZES[0])).eval()
    network.load_state_dict(weights)
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


def build(network: Unet, bands: BandSplit | None, dtype: type[np.floating]) -> onnx.ModelProto:
    """The whole graph; the masks are the shares of all stems but the last, left and right of each."""
    graph, weights = Graph(dtype), {name: value.numpy() for name, value in network.state_dict().items()}
    x = unet(graph, "magnitude", weights)
    # Only what the others' logits are above the last stem's counts, so that one is 0 and needs no channels.
    kernel, bias = (above_last(weights[f"masks.{name}"], axis) for name, axis in (("weight", 1), ("bias", 0)))
    logits = graph.split(graph.transposed_conv_of_few(x, kernel, bias), network.stems - 1)
    masks = softmax(graph, [*logits, graph.weight(np.float32([0]))])
    if bands is None:
        graph.nodes.append(helper.make_node("Concat", masks, ["mask"], axis=1))
        return graph.model("unet", "export", 2 * len(masks))
    low = graph.op("Concat", *mean(graph, low_masks(graph, bands), masks), axis=1)
    above = graph.part(graph.op("Concat", *masks, axis=1), 3, LOW, NO_CUT)
    graph.nodes.append(helper.make_node("Concat", [low, above], ["mask"], axis=3))
    return graph.model("bands", "export", 2 * len(masks), LOW)


def mean(graph: Graph, ours: list[str], theirs: list[str]) -> list[str]:
    """See `mean_of`: of all stems but the last, in the lowest bins."""
    logits = []
    for masks, share in ((ours, SHARE), ([graph.part(mask, 3, 0, LOW) for mask in theirs], 1 - SHARE)):
        rest = graph.op("Relu", graph.op("Sub", graph.weight(np.float32([1])), graph.op("Sum", *masks)))
        weight = graph.weight(np.float32([share]))
        logits.append([graph.op("Mul", logarithm(graph, mask), weight) for mask in (*masks, rest)])
    return softmax(graph, [graph.op("Add", *pair) for pair in zip(*logits, strict=True)])


def low_masks(graph: Graph, network: BandSplit) -> list[str]:
    """The masks of all stems but the last in the lowest bins; see `BandSplit`.

    In between, what bands are known by is (bands, frames, width); at the ends bands of one size are computed
    together, in between one by one. Of context, as much is left out as by the U-Net, in two steps: what lies
    further away than its `REACH`, and at the end that.
    """
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    left, right = (2 * TRIM[side][-1] - REACH for side in ("left", "right"))
    magnitude, spectrum = (graph.trimmed(x, left, right) for x in ("magnitude", "spectrum"))
    level = graph.part(magnitude, 3, 0, LOW)
    seen = graph.op("Concat", logarithm(graph, level), *phases(graph, spectrum, level), axis=1)
    parts = [
        split(graph, graph.part(seen, 3, bins.start, bins.stop), weights, bands, HEARD) for bands, bins in equal_bands()
    ]
    above = logarithm(graph, banded_above(graph, magnitude))
    parts.append(split(graph, above, weights, range(len(SIZES), len(network.split)), 2))
    known, before = [graph.op("Concat", *parts, axis=0)], {}
    for number, dilation in enumerate(DILATIONS):
        layers = part_of(weights, f"along.{number}."), part_of(weights, f"across.{number}.")
        x, heard = graph.scanned(partial(band, graph, before, *layers, dilation), known)
        before = layers[1]
        known = [x, mixed(graph, heard, before["weigh"])]
    (x,) = graph.scanned(lambda *items: [after(graph, before, *items)], known)
    logits = graph.trimmed(logits_of(graph, x, weights), REACH, REACH)
    return softmax(graph, graph.split(logits, network.stems))


def equal_bands() -> Iterator[tuple[range, range]]:
    """Yield the bands of each size, and the bins that they share out among them."""
    band = start = 0
    for size, run in groupby(SIZES):
        count = len(list(run))
        yield range(band, band + count), range(start, start + count * size)
        band, start = band + count, start + count * size


def part_of(weights: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def stacked(weights: Weights, name: str, bands: range) -> Weights:
    """A linear layer, and the layer norm before it if any, of several bands."""
    layers = [part_of(weights, f"{name}.{band}.") for band in bands]
    return {key: np.stack([layer[key] for layer in layers]) for key in layers[0]}


def split(graph: Graph, x: str, weights: Weights, bands: range, features: int) -> str:
    """The first layer of bands, from what is known of their bins: (1, features, frames, bins)."""
    layer = stacked(weights, "split", bands)
    kernel, bias = affine(*(layer[f"{number}.{kind}"] for number in "01" for kind in ("weight", "bias")))
    inside = kernel.shape[2]
    x = graph.op("Reshape", graph.op("Transpose", x, perm=[0, 2, 3, 1]), graph.integers(-1, len(bands), inside))
    x = graph.op("Transpose", normal(graph, x, inside), perm=[1, 0, 2])
    # Here left and right of a feature are neighbours, there all features of a channel.
    ours = kernel.reshape(len(bands), -1, inside // features, 2, features // 2).swapaxes(3, 4)
    return linear(graph, x, ours.reshape(kernel.shape), bias)


def logits_of(graph: Graph, x: str, weights: Weights) -> str:
    """The last layers: (bands, frames, width) to (1, stems * 2, frames, LOW)."""
    parts = []
    for bands, bins in equal_bands():
        layer = stacked(weights, "masks", bands)
        hidden = affine(*(layer[f"{number}.{kind}"] for number in "01" for kind in ("weight", "bias")))
        y = normal(graph, graph.part(x, 0, bands.start, bands.stop), hidden[0].shape[2])
        y = linear(graph, graph.op("Tanh", linear(graph, y, *hidden)), layer["3.weight"], layer["3.bias"])
        size, out = len(bins) // len(bands), layer["3.bias"].shape[1]
        y = graph.op("Reshape", y, graph.integers(len(bands), -1, out // size, size))
        y = graph.op("Transpose", y, perm=[2, 1, 0, 3])
        parts.append(graph.op("Reshape", y, graph.integers(1, out // size, -1, len(bins))))
    return graph.op("Concat", *parts, axis=3)


def band(
    graph: Graph, before: Weights, along: Weights, across: Weights, dilation: int, x: str, *mixture: str
) -> list[str]:
    """Layers of a band (frames, width): see `network.Along`, and `network.Across` but for what bands have in common.

    Band by band they take half the time, as what they compute stays in the cache.
    """
    x = after(graph, before, x, *mixture) if mixture else x
    pad, kernel = dilation * (TAPS // 2), along["time.weight"]
    y = graph.op("Unsqueeze", graph.op("Transpose", x, perm=[1, 0]), graph.integers(0))
    y = graph.conv(y, kernel, along["time.bias"], dilations=[dilation], pads=[pad, pad], group=len(kernel))
    y = graph.op("Transpose", graph.op("Squeeze", y, graph.integers(0)), perm=[1, 0])
    y = graph.op("Relu", normed_linear(graph, y, along, "norm", "wide"))
    x = graph.op("Add", x, graph.linear(y, along["narrow.weight"], along["narrow.bias"]))
    y = normed_linear(graph, x, across, "norm", "before")
    y = graph.op("Reshape", y, graph.integers(0, GROUPS, -1))
    return [x, graph.op("Transpose", y, perm=[1, 0, 2])]


def mixed(graph: Graph, heard: str, weigh: Array) -> str:
    """How `network.Across` weighs bands: (bands, groups, frames, width of a group) in and out."""
    heard = graph.op("Transpose", heard, perm=[1, 0, 2, 3])
    rows = graph.op("Reshape", heard, graph.integers(GROUPS, weigh.shape[1], -1))
    found = graph.op("MatMul", graph.weight(weigh.swapaxes(1, 2)), rows)
    return graph.op("Transpose", graph.op("Reshape", found, graph.op("Shape", heard)), perm=[1, 0, 2, 3])


def after(graph: Graph, layer: Weights, x: str, mixture: str) -> str:
    """What follows in `network.Across`: a band (frames, width) and what it hears (groups, frames, width of a group)."""
    y = graph.op("Transpose", graph.op("Relu", mixture), perm=[1, 0, 2])
    y = graph.op("Reshape", y, graph.integers(-1, len(layer["after.bias"])))
    return graph.op("Add", x, graph.linear(y, layer["after.weight"], layer["after.bias"]))


def normed_linear(graph: Graph, x: str, layer: Weights, norm: str, name: str) -> str:
    """A layer norm and a linear layer of (frames, width)."""
    scale, shift, kernel, bias = (layer[f"{part}.{kind}"] for part in (norm, name) for kind in ("weight", "bias"))
    kernel, bias = affine(scale, shift, kernel, bias)
    return graph.linear(normal(graph, x, len(scale)), kernel, bias)


def normal(graph: Graph, x: str, width: int) -> str:
    """Layer norm, without the scale and shift of each channel: see `affine`."""
    return graph.op("LayerNormalization", x, graph.weight(np.ones(width, np.float32)), axis=-1, epsilon=1e-5)


def affine(scale: Array, shift: Array, kernel: Array, bias: Array) -> tuple[Array, Array]:
    """The linear layer (..., out, inside) that does what scale and shift do, and then a linear layer."""
    return kernel * scale[..., np.newaxis, :], (kernel @ shift[..., np.newaxis])[..., 0] + bias


def linear(graph: Graph, x: str, kernels: Array, biases: Array) -> str:
    """(bands, frames, inside) to (bands, frames, out), by a linear layer (out, inside) a band."""
    kernel = graph.weight(kernels.swapaxes(1, 2))
    return graph.op("Add", graph.op("MatMul", x, kernel), graph.weight(biases[:, np.newaxis]))


def logarithm(graph: Graph, x: str) -> str:
    return graph.op("Log", graph.op("Add", x, graph.weight(np.float32([QUIET]))))


def banded_above(graph: Graph, magnitude: str) -> str:
    """See `network.banded`."""
    sums = np.zeros((1024, len(EDGES) - 1), np.float32)
    for band, (start, stop) in enumerate(pairwise(EDGES)):
        sums[start:stop, band] = 1
    power = graph.op("MatMul", graph.op("Mul", magnitude, magnitude), graph.weight(sums))
    return graph.op("Sqrt", graph.op("Mul", power, graph.weight(1 / sums.sum(axis=0))))


def phases(graph: Graph, spectrum: str, level: str) -> list[str]:
    """How the phase goes on from frame to frame and from bin to bin: see `network.phased`."""
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
    first = graph.integers(0, 0, 0, 1, 0, 0, 0, 0)
    return [*turned, *(graph.op("Pad", part, first) for part in times_conjugate(graph, upper, lower))]


def times_conjugate(graph: Graph, a: list[str], b: list[str]) -> list[str]:
    """Real and imaginary parts of a product with a complex conjugate."""
    real = graph.op("Add", graph.op("Mul", a[0], b[0]), graph.op("Mul", a[1], b[1]))
    return [real, graph.op("Sub", graph.op("Mul", a[1], b[0]), graph.op("Mul", a[0], b[1]))]


def reference(network: Unet, bands: BandSplit | None, spectrum: torch.Tensor) -> torch.Tensor:
    """The masks of all stems but the last, (1, 2, frames, bins) to (1, masks, frames, bins)."""
    magnitude = spectrum.abs()
    masks: torch.Tensor = network(magnitude)
    if bands is not None:
        low = mean_of(bands(spectrum[..., :LOW], banded(magnitude)), masks[..., :LOW], SHARE)
        masks = torch.cat([low, masks[..., LOW:]], dim=-1)
    return masks[:, :-1].flatten(1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--bands", type=Path, metavar="CHECKPOINT", help="of bandsplit.py")
    parser.add_argument("--model", type=Path, default=Path(__file__).parents[1] / "stemplug-4s")
    args = parser.parse_args()
    networks = load(args.checkpoint), load_bands(args.bands) if args.bands else None
    export(partial(build, *networks), partial(reference, *networks), args.model)


if __name__ == "__main__":
    main()
