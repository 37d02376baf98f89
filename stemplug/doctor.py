"""What works on this machine: found by trying it, not by asking what is installed."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import stemplug
from stemplug.audio import AudioReader
from stemplug.engine import Separator, installed_models
from stemplug.engine.separator import usable_threads
from stemplug.errors import ModelError, StemPlugError
from stemplug.machine import describe_machine
from stemplug.models.catalogue import ENVIRONMENT, search_path
from stemplug.models.sessions import PROVIDERS
from stemplug.tracks.encode import FORMATS, open_track
from stemplug.tracks.wav import TrackTags

LIBRARIES = ("numpy", "onnxruntime", "pedalboard", "soundfile", "soxr", "av", "pydantic", "yaml", "typer", "rich")
EXTRAS = {"dawdreamer": "for SplitGraph: pip install 'stemplug[dawdreamer]'"}
_INSTALL = {
    "cuda": "for NVIDIA GPUs: pip install onnxruntime-gpu in place of onnxruntime",
    "coreml": "only on macOS, where onnxruntime brings it",
    "directml": "only on Windows: pip install onnxruntime-directml in place of onnxruntime",
}


@dataclass
class Examination:
    """What was found, in order; ``problems`` say what to do. The exit code is 0 if the default model runs."""

    facts: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    exit_code: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return all that was found as JSON types."""
        return {"facts": self.facts, "problems": self.problems, "exit_code": self.exit_code}

    def text(self) -> str:
        """Return aligned ``key: value`` lines, then the problems."""
        width = max(map(len, self.facts)) + 1
        lines = [f"{key + ':':{width}} {value}" for key, value in self.facts.items()]
        return "\n".join(lines + [f"problem: {problem}" for problem in self.problems])


def examine() -> Examination:
    """Try models, devices and formats, and describe the machine. Takes a second or two and leaves nothing behind."""
    found = Examination()
    facts = found.facts
    facts["stemplug"] = f"{stemplug.__version__} ({Path(stemplug.__file__).parent})"
    facts["python"] = f"{platform.python_version()} ({sys.executable})"
    facts["system"] = f"{platform.platform()}; {describe_machine()}"
    facts["threads"] = f"{usable_threads()} usable"
    for library in LIBRARIES:
        facts[library] = _version(library)
    for library, purpose in EXTRAS.items():
        facts[library] = _version(library) if importlib.util.find_spec(library) else f"not installed ({purpose})"
    _try_models(found)
    _try_devices(found)
    _try_formats(found)
    free = shutil.disk_usage(tempfile.gettempdir()).free
    facts["temporary files"] = f"{tempfile.gettempdir()}, {free / 1e9:.0f} GB free"
    facts["model folders"] = os.pathsep.join(map(str, search_path()))
    facts[ENVIRONMENT] = os.environ.get(ENVIRONMENT, "(not set)")
    return found


def _version(library: str) -> str:
    """Of the module, where it tells it: another package may have brought it, as onnxruntime-gpu does onnxruntime."""
    module = importlib.import_module(library)
    return str(getattr(module, "__version__", None) or importlib.metadata.version(library))


def _try_models(found: Examination) -> None:
    models = installed_models()
    if not models:
        found.exit_code = ModelError.exit_code
        found.problems.append("no model is installed: reinstall StemPlug, or set STEMPLUG_MODELS to their folder.")
    for entry in models:
        label = f"model {entry.name}"
        try:
            entry.verify()
            found.facts[label] = f"{entry.version}, ok: {', '.join(entry.stems)} ({entry.path})"
        except StemPlugError as error:
            found.facts[label] = "damaged"
            found.problems.append(str(error))


def _try_devices(found: Examination) -> None:
    """Run the default model on a fifth of a second of noise on every device."""
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 8820)).astype(np.float32)
    for device in PROVIDERS:
        try:
            separator = Separator(device=device)
            deviation = float(np.abs(separator.separate(noise, 44100).sum() - noise).max())
            found.facts[f"device {device}"] = f"works ({separator.provider}, stems sum up within {deviation:.0e})"
        except StemPlugError as error:
            hint = _INSTALL.get(device)
            found.facts[f"device {device}"] = f"not available ({hint})" if hint else "does not work"
            if device == "cpu":
                found.exit_code = error.exit_code
                found.problems.append(str(error))


def _try_formats(found: Examination) -> None:
    """Write a tenth of a second in every format and read it back."""
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 4410)).astype(np.float32)
    working = []
    with tempfile.TemporaryDirectory(prefix="stemplug-doctor-") as folder:
        for format in FORMATS:
            path = Path(folder, f"noise.{format}")
            try:
                track = open_track(path, format, None, 44100, 2, TrackTags("noise", "noise", "doctor"))
                track.write(noise)
                track.close()
                with AudioReader(path) as reader:
                    frames = sum(block.shape[1] for block in reader.blocks())
                if frames != noise.shape[1]:
                    raise OSError(f"{frames} frames of {noise.shape[1]} came back")
                working.append(format)
            except (OSError, RuntimeError, StemPlugError) as error:
                found.problems.append(f"format {format}: {error}. Reinstall the package soundfile.")
    found.facts["formats"] = f"{', '.join(working)} (written and read back)"
