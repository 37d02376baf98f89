"""Parts of the exported graphs against what they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

onnx = pytest.importorskip("onnx", reason="needs onnx: the extra [train]")
pytest.importorskip("torch", reason="needs PyTorch: the extra [train]")
import onnxruntime  # noqa: E402
from graph import Graph  # noqa: E402

Array = NDArray[np.float32]


def run(graph: Graph, x: Array, *outs: str) -> list[Array]:
    """What a graph of the input "x" computes."""
    heard = [onnx.helper.make_tensor_value_info("x", 1, x.shape)]
    ends = [onnx.helper.make_tensor_value_info(name, 1, None) for name in outs]
    proto = onnx.helper.make_graph(graph.casts + graph.nodes, "test", heard, ends, graph.weights)
    model = onnx.helper.make_model(proto, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[Array] = session.run(None, {"x": x})
    return found


@pytest.mark.parametrize("frames", [1, 4])
def test_planes_are_interleaved_as_by_depth_to_space(frames: int) -> None:
    graph = Graph(np.float32)
    x = np.random.default_rng(0).normal(size=(1, 12, frames, 5)).astype(np.float32)
    expected = graph.op("DepthToSpace", "x", blocksize=2, mode="DCR")
    first, second = run(graph, x, expected, graph.interleaved(graph.split("x", 4)))
    assert first.shape == (1, 3, 2 * frames, 10) and np.array_equal(first, second)


def test_a_body_is_run_for_each_item() -> None:
    """With weights of its own, of which one is stored in 16 bits, and more than one input and result."""
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(5, 7, 64)).astype(np.float32), rng.normal(size=(32, 64)).astype(np.float16)
    graph = Graph(np.float16)

    def body(item: str, twice: str) -> list[str]:
        heard = graph.linear(item, kernel.astype(np.float32), np.zeros(32, np.float32))
        return [heard, graph.op("Add", item, twice)]

    heard, thrice = run(graph, x, *graph.scanned(body, ["x", graph.op("Add", "x", "x")]))
    assert np.allclose(heard, x @ kernel.T.astype(np.float32), atol=1e-4) and np.array_equal(thrice, 2 * x + x)
