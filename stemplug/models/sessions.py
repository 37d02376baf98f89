"""ONNX Runtime sessions: providers chosen by device, and errors in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stemplug.errors import ModelError, unknown

if TYPE_CHECKING:
    import onnxruntime

PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
"""Devices, best first, and what ONNX Runtime calls them."""


def available_devices() -> list[str]:
    """The devices that this machine's ONNX Runtime was built for, best first."""
    import onnxruntime

    built = onnxruntime.get_available_providers()
    return [device for device, provider in PROVIDERS.items() if provider in built]


def open_session(
    graph: bytes, name: str, *, threads: int, device: str, constants: Mapping[str, Sequence[int]]
) -> onnxruntime.InferenceSession:
    """Load an ONNX graph.

    Parameters
    ----------
    graph:
        The serialized model.
    name:
        Names the model in messages.
    threads:
        Threads of one call, the caller's included.
    device:
        "auto" takes the best that works, otherwise a key of `PROVIDERS`.
    constants:
        Replace constants of the graph, 64-bit integers, by name.

    Raises
    ------
    ModelError
        If the graph cannot be loaded, or the device that was asked for cannot be used.
    """
    import onnxruntime

    if device not in ("auto", *PROVIDERS):
        raise ModelError(unknown("device", device, ("auto", *PROVIDERS)))
    devices = available_devices()
    if device not in ("auto", *devices):
        raise ModelError(
            f"Device '{device}' was asked for, but this ONNX Runtime offers only {', '.join(devices)}. "
            "Install the matching onnxruntime package, or use --device auto."
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = False  # no faster with windows of several lengths, and a third more memory
    options.log_severity_level = 4  # errors come as exceptions; nothing is printed behind the caller's back
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    replaced = {key: onnxruntime.OrtValue.ortvalue_from_numpy(np.array(constants[key], np.int64)) for key in constants}
    for key, value in replaced.items():
        options.add_initializer(key, value)
    wanted = devices if device == "auto" else [device]
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=[PROVIDERS[d] for d in wanted])
    except Exception as error:  # onnxruntime's exceptions share no base but Exception
        if "bad_alloc" in str(error) or "allocate" in str(error):
            raise ModelError(f"{name}: out of memory. Close other programs, or use fewer threads.") from None
        reason = str(error).strip().splitlines()[0][:300]
        raise ModelError(f"{name}: ONNX Runtime cannot load the graph ({reason}). Reinstall the model.") from None
    session.replaced = replaced  # it reads them as long as it lives
    if device != "auto" and session.get_providers()[0] != PROVIDERS[device]:
        raise ModelError(
            f"Device '{device}' was asked for, but the session runs on {session.get_providers()[0]}: "
            "its driver or libraries are missing. Install them, or use --device auto."
        )
    return session


def failed(name: str, error: Exception) -> ModelError:
    """What to raise where a run of the graph raised ``error``."""
    reason = str(error).strip().splitlines()[0][:200]
    memory = " (out of memory? use fewer threads)" if "alloc" in str(error).lower() else ""
    return ModelError(f"{name}: inference failed: {reason}{memory}")


def check_ends(session: Any, name: str, inputs: dict[str, int], outputs: dict[str, int]) -> None:
    """Raise `ModelError` unless the graph's inputs and outputs have these names and ranks."""
    for kind, expected, found in (
        ("inputs", inputs, session.get_inputs()),
        ("outputs", outputs, session.get_outputs()),
    ):
        shapes = {end.name: len(end.shape) for end in found}
        if shapes != expected:
            raise ModelError(f"{name}: {kind} {shapes}, expected {expected} (name: rank). Not a model of this family.")
