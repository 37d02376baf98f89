"""ONNX Runtime sessions: providers chosen by device, memory in common, and errors in plain words."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
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
End = tuple[str, list[Any]]
_SHARED = "session.use_env_allocators", "1"
# A model of one node, Identity, from x to y.
_IDENTITY = (
    b'\x08\t:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x12"
)


def available_devices() -> list[str]:
    """The devices that this machine's ONNX Runtime was built for, best first."""
    import onnxruntime

    built = onnxruntime.get_available_providers()
    return [device for device, provider in PROVIDERS.items() if provider in built]


class Session:
    """A loaded ONNX graph; safe to run from several threads at once.

    All graphs of a process take memory for what they compute from one arena, so that networks that run one after the
    other use the same. What one has taken goes back to the system when it is gone.

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

    Attributes
    ----------
    provider:
        What runs it, in ONNX Runtime's words.
    inputs, outputs:
        Type and shape of each, in ONNX Runtime's words.

    Raises
    ------
    ModelError
        If the graph cannot be loaded, or the device that was asked for cannot be used.
    """

    def __init__(
        self, graph: bytes, name: str, *, threads: int, device: str, constants: Mapping[str, Sequence[int]]
    ) -> None:
        import onnxruntime

        self._name = name
        wanted = _devices(device)
        _share_arena()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_mem_pattern = False  # no faster with windows of several lengths, and a third more memory
        options.log_severity_level = 4  # errors come as exceptions; nothing is printed behind the caller's back
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry(*_SHARED)
        replaced = {
            key: onnxruntime.OrtValue.ortvalue_from_numpy(np.array(constants[key], np.int64)) for key in constants
        }
        for key, value in replaced.items():
            options.add_initializer(key, value)
        try:
            session = onnxruntime.InferenceSession(graph, options, providers=[PROVIDERS[d] for d in wanted])
        except Exception as error:  # onnxruntime's exceptions share no base but Exception
            if "bad_alloc" in str(error) or "allocate" in str(error):
                raise ModelError(f"{name}: out of memory. Close other programs, or use fewer threads.") from None
            reason = str(error).strip().splitlines()[0][:300]
            raise ModelError(f"{name}: ONNX Runtime cannot load the graph ({reason}). Reinstall the model.") from None
        session.replaced = replaced  # it reads them as long as it lives
        self.provider: str = session.get_providers()[0]
        if device != "auto" and self.provider != PROVIDERS[device]:
            raise ModelError(
                f"Device '{device}' was asked for, but the session runs on {self.provider}: "
                "its driver or libraries are missing. Install them, or use --device auto."
            )
        self.inputs: dict[str, End] = {end.name: (end.type, end.shape) for end in session.get_inputs()}
        self.outputs: dict[str, End] = {end.name: (end.type, end.shape) for end in session.get_outputs()}
        self._held = [session]  # in a list, since it has to be gone before memory is given back
        weakref.finalize(self, _close, self._held).atexit = False

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Any]) -> list[Any]:
        """Compute outputs, by name; raises `ModelError`."""
        try:
            return list(self._held[0].run(outputs, inputs))
        except Exception as error:  # onnxruntime's exceptions share no base but Exception
            reason = str(error).strip().splitlines()[0][:200]
            memory = " (out of memory? use fewer threads)" if "alloc" in str(error).lower() else ""
            raise ModelError(f"{self._name}: inference failed: {reason}{memory}") from None

    def check_ends(self, inputs: dict[str, int], outputs: dict[str, int]) -> None:
        """Raise `ModelError` unless inputs and outputs have these names and ranks."""
        for kind, expected, ends in (("inputs", inputs, self.inputs), ("outputs", outputs, self.outputs)):
            found = {name: len(shape) for name, (_, shape) in ends.items()}
            if found != expected:
                raise ModelError(
                    f"{self._name}: {kind} {found}, expected {expected} (name: rank). Not a model of this family."
                )


def _devices(wanted: str) -> list[str]:
    """The devices to try, best first; raises `ModelError`."""
    if wanted not in ("auto", *PROVIDERS):
        raise ModelError(unknown("device", wanted, ("auto", *PROVIDERS)))
    devices = available_devices()
    if wanted not in ("auto", *devices):
        raise ModelError(
            f"Device '{wanted}' was asked for, but this ONNX Runtime offers only {', '.join(devices)}. "
            "Install the matching onnxruntime package, or use --device auto."
        )
    return devices if wanted == "auto" else [wanted]


@cache
def _share_arena() -> None:
    import onnxruntime

    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    info = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    onnxruntime.create_and_register_allocator(info, None)  # where another library did, it stays as it is


def _close(held: list[onnxruntime.InferenceSession]) -> None:
    """Let go of a session, and give back what of the arena nobody uses: that takes a run of some graph."""
    import onnxruntime

    held.clear()
    options, run_options = onnxruntime.SessionOptions(), onnxruntime.RunOptions()
    options.add_session_config_entry(*_SHARED)
    run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    with suppress(Exception):  # out of memory, say
        session = onnxruntime.InferenceSession(_IDENTITY, options, providers=[PROVIDERS["cpu"]])
        session.run(None, {"x": np.zeros(1, np.float32)}, run_options)
