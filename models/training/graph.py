"""What the exports of U-Nets share: the ONNX graph, its comparison with PyTorch, and writing it into a model's folder.

The graphs compute what the networks do, in a form that ONNX Runtime's CPU kernels run faster: a transposed 5x5
convolution of stride 2 is four plain convolutions, one for each parity of the output, interleaved (same products, but
the blocked convolution kernels instead of GEMM and scatter); and the decoder leaves out what only the context of a
window would need (see `TRIM`), with the same result within it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from network import BATCH_NORM_EPSILON, LEAK
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[np.float32]
Weights = dict[str, Array]

# Which input offset carries which tap of a 5-tap, stride-2 transposed convolution (cropped by 1 and 2), for the even
# and the odd outputs.
TAPS: dict[int, dict[int, int]] = {0: {-1: 3, 0: 1}, 1: {-1: 4, 0: 2, 1: 0}}
# What the decoder cuts off before each level, 5 to 1, in frames of that level, on a side that is context: a frame at
# the cut needs one neighbour, so 3 more frames of the next finer level are wrong at the left, 1 at the right.
TRIM = {"left": (3, 9, 21, 45, 93), "right": (4, 9, 19, 39, 79)}
NO_CUT = 1 << 40


class Graph:
    """A growing list of ONNX nodes; weights are stored as ``dtype`` and cast back when the session folds constants."""

    def __init__(self, dtype: type[np.floating]) -> None:
        self.dtype = dtype
        self.nodes: list[onnx.NodeProto] = []
        self.casts: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._names = 0

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        self._names += 1
        name = f"{kind.lower()}_{self._names}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def split(self, x: str, parts: int) -> list[str]:
        """Cut the channels of ``x`` into equal parts."""
        self._names += 1
        names = [f"split_{self._names}_{i}" for i in range(parts)]
        self.nodes.append(helper.make_node("Split", [x], names, axis=1, num_outputs=parts))
        return names

    def interleaved(self, planes: list[str]) -> str:
        """Even and odd frames, of each the even and odd bins, (1, channels, frames, bins), to all frames and bins.

        As `DepthToSpace` of all channels in a row, but twice as fast.
        """
        size = self.op("Mul", self.op("Shape", planes[0]), self.integers(1, 1, 2, 2))
        planes = [self.op("Unsqueeze", plane, self.integers(4)) for plane in planes]
        rows = [self.op("Concat", *pair, axis=4) for pair in (planes[:2], planes[2:])]
        return self.op("Reshape", self.op("Concat", *rows, axis=3), size)

    def within(self, results: Callable[[], list[str]], inputs: Sequence[str] = ()) -> onnx.GraphProto:
        """A graph within the graph: the nodes that ``results`` adds, and what it returns."""
        outer, self.nodes = self.nodes, []
        made = results()
        ours = {name for node in self.nodes for name in node.output}
        names = [name if name in ours else self.op("Identity", name) for name in made]
        ends = [
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in some] for some in (inputs, names)
        ]
        graph = helper.make_graph(self.nodes, "within", *ends)
        self.nodes = outer
        return graph

    def scanned(self, body: Callable[..., list[str]], inputs: Sequence[str]) -> list[str]:
        """What ``body`` gives for each item of the inputs' first axis, stacked."""
        items = [f"{name}_item" for name in inputs]
        within = self.within(lambda: body(*items), items)
        names = [f"{end.name}_all" for end in within.output]
        self.nodes.append(helper.make_node("Scan", inputs, names, body=within, num_scan_inputs=len(items)))
        return names

    def weight(self, value: Array) -> str:
        """A constant that is stored as ``dtype``; cast outside of all graphs within, where the session folds it."""
        name = f"weight_{len(self.weights)}"
        store = self.dtype if value.size > 1024 else np.float32
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=store), name))
        if store is np.float32:
            return name
        self.casts.append(helper.make_node("Cast", [name], [f"cast_{name}"], to=TensorProto.FLOAT))
        return f"cast_{name}"

    def integers(self, *values: int, name: str = "") -> str:
        name = name or f"integers_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def scalar(self, value: int) -> str:
        name = f"integers_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(value, np.int64), name))
        return name

    def trimmed(self, x: str, left: int, right: int, name: str = "") -> str:
        """Cut frames off ``x``, on each side only where the input ``trim`` is 1; ``name`` is that of the constant."""
        whole, cut = self.integers(0, NO_CUT), self.integers(left, -right - NO_CUT, name=name)
        # (start, stop) = trim * cut + whole: (0, far away) or (left, -right)
        ends = self.op("Add", self.op("Mul", "trim", cut), whole)
        start, stop = (self.op("Slice", ends, self.integers(i), self.integers(i + 1)) for i in (0, 1))
        return self.op("Slice", x, start, stop, self.integers(2))

    def linear(self, x: str, kernel: Array, bias: Array) -> str:
        """(rows, in) to (rows, out); ``kernel`` is (out, in), as in PyTorch. With a `Relu` behind it, it is fused."""
        return self.op("Gemm", x, self.weight(kernel.T), self.weight(bias))

    def part(self, x: str, axis: int, start: int, stop: int) -> str:
        return self.op("Slice", x, self.integers(start), self.integers(stop), self.integers(axis))

    def conv(self, x: str, kernel: Array, bias: Array, **attributes: object) -> str:
        return self.op("Conv", x, self.weight(kernel), self.weight(bias), **attributes)

    def batch_norm(self, x: str, scale: Array, shift: Array) -> str:
        """Frozen batch norm. The published running statistics are 0 and 1, so only the affine part is left."""
        ones, zeros = np.ones_like(scale), np.zeros_like(scale)
        parameters = [self.weight(p) for p in (scale, shift, zeros, ones)]
        return self.op("BatchNormalization", x, *parameters, epsilon=BATCH_NORM_EPSILON)

    def scaled(self, x: str, scale: Array, shift: Array) -> str:
        """As `batch_norm`, by a convolution of each channel for itself: that is fused with a `LeakyRelu` behind it."""
        kernel = scale.astype(np.float32) / np.float32((1 + BATCH_NORM_EPSILON) ** 0.5)
        return self.conv(x, kernel.reshape(-1, 1, 1, 1), shift, group=len(kernel))

    def transposed_conv(self, x: str, kernel: Array, bias: Array) -> str:
        """(in, out, 5, 5) transposed convolution of stride 2, and `Relu`: four convolutions, one an output parity."""
        planes = []
        for rows in TAPS.values():
            for columns in TAPS.values():
                taps = kernel[:, :, [rows[o] for o in sorted(rows)]][:, :, :, [columns[o] for o in sorted(columns)]]
                pads = [1, 1, max(rows), max(columns)]
                plane = self.conv(x, taps.transpose(1, 0, 2, 3), bias, pads=pads)
                planes.append(self.op("Relu", plane))  # before they are put together it is fused
        return self.interleaved(planes)

    def transposed_conv_of_few(self, x: str, kernel: Array, bias: Array) -> str:
        """(in, out, 5, 5) transposed convolution of stride 2 to few channels: one convolution to those of all parities.

        Together they fill the block of channels that the kernels work on. So it costs little that 11 of 36 taps are
        0, and it is faster than the plain operator.
        """
        inside, out = kernel.shape[:2]
        taps = np.pad(kernel, ((0, 0), (0, 0), (1, 0), (1, 0))).reshape(inside, out, 3, 2, 3, 2)[:, :, ::-1, :, ::-1]
        taps = taps.transpose(3, 5, 1, 0, 2, 4).reshape(4 * out, inside, 3, 3)
        planes = self.conv(x, taps, np.tile(bias, 4), pads=[1, 1, 1, 1])
        return self.interleaved(self.split(planes, 4))

    def model(self, name: str, producer: str, masks: int, phases: int = 0) -> onnx.ModelProto:
        """The finished model: ``magnitude`` (1, 2, frames, bins) to ``mask`` (1, masks, frames, bins).

        ``trim`` (2) is 1 for a side, left or right, that is context: the masks lack 2 * TRIM[side][-1] frames there.
        ``spectrum`` (1, 2, frames, phases, 2) is there where it has ``phases``.
        """
        inputs = [
            helper.make_tensor_value_info("magnitude", TensorProto.FLOAT, [1, 2, "frames", "bins"]),
            helper.make_tensor_value_info("trim", TensorProto.INT64, [2]),
        ]
        if phases:
            shape = [1, 2, "frames", phases, 2]
            inputs.append(helper.make_tensor_value_info("spectrum", TensorProto.FLOAT, shape))
        outputs = [helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, masks, "inner", "bins"])]
        proto = helper.make_graph(self.casts + self.nodes, name, inputs, outputs, self.weights)
        model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        model.producer_name = f"stemplug {producer}"
        onnx.checker.check_model(model)
        return model


def unet(graph: Graph, x: str, weights: Weights, name: str = "") -> str:
    """One U-Net up to half the resolution: (1, 2, frames, bins) to (1, 32, frames / 2, bins / 2).

    The constants that say what is cut off begin with ``cut_`` and its ``name``.
    """
    skips: list[str] = []
    for level in range(1, 7):
        conv = weights[f"down{level}_conv.1.weight"], weights[f"down{level}_conv.1.bias"]
        skips.append(graph.conv(x, *conv, strides=[2, 2], pads=[1, 1, 2, 2]))
        norm = f"down{level}_act.0."
        if level < 6:
            normed = graph.scaled(skips[-1], weights[norm + "weight"], weights[norm + "bias"])
            x = graph.op("LeakyRelu", normed, alpha=LEAK)
    x = skips.pop()
    before = 0, 0
    for level, left, right in zip(range(1, 6), TRIM["left"], TRIM["right"], strict=True):
        x = graph.transposed_conv(x, weights[f"up{level}.0.weight"], weights[f"up{level}.0.bias"])
        x = graph.batch_norm(x, weights[f"up{level}.3.weight"], weights[f"up{level}.3.bias"])
        x = graph.trimmed(x, left - 2 * before[0], right - 2 * before[1], f"cut_{name}below{level}")
        x = graph.op("Concat", graph.trimmed(skips.pop(), left, right, f"cut_{name}skip{level}"), x, axis=1)
        before = left, right
    return x


Reference = Callable[[torch.Tensor], torch.Tensor]
"""A network in PyTorch: spectra (1, 2, frames, bins), complex, to masks (1, masks, frames, bins)."""


def parity(reference: Reference, model: onnx.ModelProto) -> tuple[float, float]:
    """Difference of the masked spectrum to the reference's, dB: of a whole music-like song, and of a window within."""
    import onnxruntime

    rng = np.random.default_rng(0)
    slope = 1.0 / (1.0 + np.arange(1024) / 40.0)
    parts = rng.normal(size=(1, 2, 1024, 1024)) * slope * 200, rng.uniform(0, 2 * np.pi, (1, 2, 1024, 1024))
    spectrum = (np.abs(parts[0]) * np.exp(1j * parts[1])).astype(np.complex64)
    magnitude = np.abs(spectrum)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    phases = next((value.shape[3] for value in session.get_inputs() if value.name == "spectrum"), 0)

    def run(frames: slice, context: int) -> Array:
        inputs = {"magnitude": np.ascontiguousarray(magnitude[:, :, frames]), "trim": np.full(2, context)}
        low = np.ascontiguousarray(spectrum[:, :, frames, :phases])
        found: Array = session.run(
            None, inputs | ({"spectrum": low.view(np.float32).reshape(*low.shape, 2)} if phases else {})
        )[0]
        return found

    with torch.no_grad():
        expected = reference(torch.from_numpy(spectrum)).numpy()
    whole = run(slice(None), 0)
    left, right, size = 193, 194, 640  # the networks' reach
    first = left - 2 * TRIM["left"][-1]
    inner = run(slice(128, 128 + size), 1)[:, :, first : first + size - left - right]
    within = slice(128 + left, 128 + size - right)

    def difference(found: Array, frames: slice) -> float:
        weight = np.tile(magnitude[:, :, frames], (1, expected.shape[1] // 2, 1, 1))
        error, signal = (found - expected[:, :, frames]) * weight, expected[:, :, frames] * weight
        return float(20 * np.log10(np.linalg.norm(error) / np.linalg.norm(signal)))

    return difference(whole, slice(None)), difference(inner, within)


def export(build: Callable[[type[np.floating]], onnx.ModelProto], reference: Reference, folder: Path) -> None:
    """Write a graph into a model's folder, see `write`; raises `SystemExit` where it strays from PyTorch."""
    exact, stored = build(np.float32), build(np.float16)
    errors = parity(reference, exact), parity(reference, stored)
    for label, (whole, window) in zip(("float32 weights", "as stored (fp16)"), errors, strict=True):
        print(f"{label}: differs from PyTorch by {whole:.0f} dB, a window with context by {window:.0f} dB")
    if not (np.max(errors[0]) <= -90 and np.max(errors[1]) <= -50):  # nor where it is not a number
        raise SystemExit("parity lost: nothing written")
    write(stored, folder)


def write(model: onnx.ModelProto, folder: Path) -> None:
    """Write ``folder/model.onnx``, and its hash into the manifest there."""
    path = folder / "model.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = folder / "manifest.toml"
    if manifest.exists():
        entry = r'(\[files\.model\][^\[]*sha256 = )"\w*"'
        manifest.write_text(re.sub(entry, rf'\1"{digest}"', manifest.read_text()))
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, sha256 {digest}")
