"""Export a network that train_live.py trained as an ONNX graph that goes frame by frame.

    python models/training/export_live.py CHECKPOINT... [--model FOLDER]

Of several checkpoints, of runs that went on from one another, the mean of the weights (Wortsman et al., "Model soups",
ICML 2022).

The graph takes the magnitudes of one frame and what it remembers, and gives masks of all stems but the last, and what
to remember. A level that halves the frame rate hears every second frame of the one before, so it is an `If` within that
of the level before. Needs the extra ``[train]``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import torch
from causal import BINS, DILATION, LEVELS, PERIOD, TAPS, CausalUnet
from export import above_last, softmax
from graph import Array, Graph, Weights, write
from mixtures import STEMS
from network import LEAK, WIDTHS
from onnx import TensorProto, helper

ORDER = [STEMS.index(stem) for stem in ("vocals", "drums", "bass", "other")]
COLUMNS = ({-1: 3, 0: 1}, {-1: 4, 0: 2, 1: 0})
"""Which offset in bins carries which tap of a transposed convolution, for even and odd outputs; see graph.TAPS."""


def load(*checkpoints: Path) -> CausalUnet:
    """Read a checkpoint, or the mean of several; nothing but tensors is unpickled."""
    read = [torch.load(path, map_location="cpu", weights_only=True)["weights"] for path in checkpoints]
    weights = {name: torch.stack([one[name] for one in read]).mean(dim=0) for name in read[0]}
    network = CausalUnet(len(weights["masks.bias"]) // 2)
    network.load_state_dict(weights)
    return network.eval()


class Recurrent(Graph):
    """A graph with memories: arrays (1, channels, frames, bins) that a run takes, and gives as ``NAME_next``."""

    def __init__(self, dtype: type[np.floating]) -> None:
        super().__init__(dtype)
        self.memories: dict[str, list[int]] = {}

    def remember(self, name: str, channels: int, frames: int, bins: int) -> str:
        """Take an array from run to run; what it is next is for `finished`."""
        self.memories[name] = [1, channels, frames, bins]
        return name

    def choice(self, condition: str, yes: onnx.GraphProto, no: onnx.GraphProto) -> list[str]:
        names = [f"chosen_{condition}_{i}" for i in range(len(yes.output))]
        self.nodes.append(helper.make_node("If", [condition], names, then_branch=yes, else_branch=no))
        return names

    def finished(self, mask: str, following: dict[str, str]) -> onnx.ModelProto:
        """``magnitude`` (1, 2, 1, bins) and ``frame``, counted from 0, to ``mask`` (1, masks, 1, bins)."""
        float32 = TensorProto.FLOAT
        ends = {"mask": mask} | {f"{name}_next": value for name, value in following.items()}
        self.nodes += [helper.make_node("Identity", [value], [name]) for name, value in ends.items()]
        inputs = [
            helper.make_tensor_value_info("magnitude", float32, [1, 2, 1, BINS]),
            helper.make_tensor_value_info("frame", TensorProto.INT64, []),
            *(helper.make_tensor_value_info(name, float32, shape) for name, shape in self.memories.items()),
        ]
        shapes = [[1, 2 * (len(STEMS) - 1), 1, BINS], *(self.memories[name] for name in following)]
        outputs = [
            helper.make_tensor_value_info(name, float32, shape) for name, shape in zip(ends, shapes, strict=True)
        ]
        proto = helper.make_graph(self.casts + self.nodes, "causal", inputs, outputs, self.weights)
        model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        model.producer_name = "stemplug export_live"
        onnx.checker.check_model(model)
        return model


def build(network: CausalUnet, dtype: type[np.floating]) -> onnx.ModelProto:
    """The whole graph."""
    graph, weights = Recurrent(dtype), {name: value.numpy() for name, value in network.state_dict().items()}
    # In the manifest's order, and as logits above the last stem's, which then is 0 and needs no channels.
    kernel, bias = (weights[f"masks.{name}"] for name in ("weight", "bias"))
    kernel = kernel.reshape(len(kernel), -1, 2, *kernel.shape[2:])[:, ORDER].reshape(kernel.shape)
    kernel, bias = above_last(kernel, 1), above_last(bias.reshape(-1, 2)[ORDER].reshape(-1), 0)
    decoded, following = level(graph, weights, 1, "magnitude")
    parts = graph.split(transposed(graph, decoded, kernel, bias), len(STEMS) - 1)
    masks = softmax(graph, [*parts, graph.weight(np.float32([0]))])
    return graph.finished(graph.op("Concat", *masks, axis=1), following)


def level(graph: Recurrent, weights: Weights, number: int, x: str) -> tuple[str, dict[str, str]]:
    """From a frame that a level hears to what its decoder takes, one frame; and what to remember, here and below."""
    inside, out = (2, *WIDTHS)[number - 1 : number + 1]
    past = (TAPS - 1) * DILATION
    name = graph.remember(f"heard{number}", inside, past, BINS >> (number - 1))
    both = graph.op("Concat", name, x, axis=2)
    following = {name: graph.part(both, 2, 1, past + 1)}
    conv = weights[f"down{number}_conv.1.weight"], weights[f"down{number}_conv.1.bias"]
    skip = graph.conv(both, *conv, strides=[1, 2], pads=[0, 1, 0, 2], dilations=[DILATION, 1])
    if number == LEVELS:
        return skip, following
    held = graph.remember(f"held{number}", out, 1, BINS >> number)
    deeper: list[str] = []  # what the levels below remember

    def hears() -> list[str]:
        norm = f"down{number}_act.0."
        normed = graph.batch_norm(skip, weights[norm + "weight"], weights[norm + "bias"])
        below, followed = level(graph, weights, number + 1, graph.op("LeakyRelu", normed, alpha=LEAK))
        deeper.extend(followed)
        return [up(graph, weights, number, below), *followed.values()]

    heard = graph.within(hears)
    waits = graph.within(lambda: [held, *deeper])
    turn = graph.op("Mod", "frame", graph.scalar(1 << number))
    decoded, *values = graph.choice(graph.op("Equal", turn, graph.scalar(0)), heard, waits)
    following |= {held: decoded} | dict(zip(deeper, values, strict=True))
    return graph.op("Concat", skip, decoded, axis=1), following


def up(graph: Recurrent, weights: Weights, number: int, x: str) -> str:
    """What a level is handed up by the one below it."""
    layer = f"up{LEVELS - number}."
    x = transposed(graph, x, weights[layer + "0.weight"], weights[layer + "0.bias"])
    return graph.batch_norm(graph.op("Relu", x), weights[layer + "3.weight"], weights[layer + "3.bias"])


def transposed(graph: Recurrent, x: str, kernel: Array, bias: Array) -> str:
    """A transposed convolution over bins, (1, in, 1, bins) to (1, out, 1, 2 * bins); ``kernel`` is (in, out, 1, 5).

    Even and odd bins are two plain convolutions, whose results are interleaved.
    """
    parts = []
    for taken in COLUMNS:
        taps = kernel[..., [taken[offset] for offset in sorted(taken)]].transpose(1, 0, 2, 3)
        part = graph.conv(x, taps, bias, pads=[0, 1, 0, max(taken)])
        parts.append(graph.op("Unsqueeze", part, graph.integers(-1)))
    return graph.op("Reshape", graph.op("Concat", *parts, axis=-1), graph.integers(1, kernel.shape[1], 1, -1))


def parity(network: CausalUnet, model: onnx.ModelProto) -> float:
    """Difference in dB of the masked spectrum of three periods to PyTorch's."""
    import onnxruntime

    rng = np.random.default_rng(0)
    slope = 1.0 / (1.0 + np.arange(BINS) / 40.0)
    magnitude = np.abs(rng.normal(size=(1, 2, 3 * PERIOD, BINS)) * slope * 200).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(magnitude)).numpy()[:, ORDER[:-1]].reshape(1, -1, 3 * PERIOD, BINS)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    memories = {end.name: np.zeros(end.shape, np.float32) for end in session.get_inputs()[2:]}
    names, found = [f"{name}_next" for name in memories], []
    for frame in range(3 * PERIOD):
        heard = {"magnitude": magnitude[:, :, frame : frame + 1], "frame": np.array(frame)}
        mask, *following = session.run(["mask", *names], heard | memories)
        memories = dict(zip(memories, following, strict=True))
        found.append(mask)
    weight = np.tile(magnitude, (1, len(STEMS) - 1, 1, 1))
    error, signal = (np.concatenate(found, axis=2) - expected) * weight, expected * weight
    return float(20 * np.log10(np.linalg.norm(error) / np.linalg.norm(signal)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkpoints", type=Path, nargs="+", metavar="CHECKPOINT")
    parser.add_argument("--model", type=Path, default=Path(__file__).parents[1] / "stemplug-live")
    args = parser.parse_args()
    network = load(*args.checkpoints)
    exact, stored = build(network, np.float32), build(network, np.float16)
    errors = parity(network, exact), parity(network, stored)
    print(f"differs from PyTorch by {errors[0]:.0f} dB, as stored (fp16) by {errors[1]:.0f} dB")
    if not (errors[0] <= -90 and errors[1] <= -50):  # nor where it is not a number
        raise SystemExit("parity lost: nothing written")
    write(stored, args.model)


if __name__ == "__main__":
    main()
