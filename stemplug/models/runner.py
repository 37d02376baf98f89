"""What a runner is, and the catalogue of model families.

A runner turns windows of the mixture into windows of stems, all of one fixed size. It knows nothing of files, sample
rates, chunking or fades: the engine does those once, for all families. A new family is one file with a function
``load`` and one line in `FAMILIES`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stemplug.errors import ModelError, unknown
from stemplug.models.catalogue import ModelFolder
from stemplug.models.handover import Handover
from stemplug.models.manifest import LIVE, Manifest
from stemplug.timing import Stopwatch

FAMILIES = {
    "causal": "stemplug.models.causal",
    "identity": "stemplug.models.identity",
    "spleeter": "stemplug.models.spleeter",
}


@dataclass(frozen=True)
class Geometry:
    """How the engine cuts the signal for a runner; all in frames at the model's rate.

    A window covers ``left + hop + fade + right`` frames. Of the stems that come back the outer ``left`` and ``right``
    frames are context and thrown away; over ``fade`` frames neighbouring windows are cross-faded. Towards the end of a
    song a window's hop may be shorter, by whole steps; step 0 says that it may not.

    Where it ``remembers``, the network has the windows before in mind: they must come in order, silent ones too.
    """

    hop: int
    fade: int
    left: int
    right: int
    step: int = 0
    remembers: bool = False

    def __post_init__(self) -> None:
        steps = self.hop % self.step == 0 and self.fade <= self.step if self.step else True
        if self.hop < 1 or min(self.fade, self.left, self.right, self.step) < 0 or self.fade > self.hop or not steps:
            raise ValueError(
                f"{self}: expected hop >= 1, left, right, step >= 0, 0 <= fade <= hop, hop a whole number of steps, "
                "fade at most a step."
            )

    @property
    def window(self) -> int:
        """Frames of one whole window."""
        return self.left + self.hop + self.fade + self.right

    @property
    def latency(self) -> int:
        """Output frame n depends on input up to frame n + latency: the first of a hop waits for its whole window."""
        return self.hop + self.fade + self.right - 1


def fade_in(frames: int) -> NDArray[np.float32]:
    """The gain that each frame of what sets in is faded with: with its mirror image, it sums to 1."""
    gain: NDArray[np.float64] = np.sin((np.arange(frames) + 0.5) * (np.pi / 2 / max(1, frames))) ** 2
    return gain.astype(np.float32)


class Windows(Protocol):
    """What separates windows of the mixture."""

    def __call__(
        self, mixtures: NDArray[np.float32], stems: Sequence[str], watch: Stopwatch, handover: Handover | None = None
    ) -> NDArray[np.float32]:
        """Separate windows.

        Parameters
        ----------
        mixtures:
            ``(batch, channels, geometry.window)``, with the manifest's channels, at its sample rate; or shorter by
            whole steps.
        stems:
            Names of the stems to compute, some or all of the manifest's.
        watch:
            Counts the time of the stages "stft", "inference" and "istft".
        handover:
            By it windows may spare each other work; the stems are the same within what windows differ from one whole.

        Returns
        -------
        ``(batch, len(stems), channels, frames)``, a new array of the mixtures' frames.
        """
        ...


class Runner(Windows, Protocol):
    """One loaded model. Safe to call from several threads at once; each window is then the first of a stream."""

    geometry: Geometry
    provider: str

    def begin(self, first: int = 0) -> Windows:
        """What separates the windows of one stream; where the network remembers them, in order and one at a time.

        It may treat windows unlike by their number; ``first`` is that of the first one.
        """
        ...

    def infer_once(self) -> None:
        """Run the network alone on one silent window: what all else is measured against."""
        ...


@dataclass(frozen=True)
class RunnerOptions:
    """How to run: a profile of the manifest, threads of one call, and the device (auto, cpu, cuda, ...).

    ``latency`` chooses among the settings of the profile "live", which has some for each.
    """

    profile: str = "offline"
    latency: str | None = None
    threads: int = 1
    device: str = "auto"


def profile_settings(manifest: Manifest, options: RunnerOptions) -> dict[str, Any]:
    """The settings of the profile that ``options`` choose; raises `ModelError` where the model has none such."""
    if options.profile not in manifest.profiles:
        raise ModelError(f"{manifest.name}: {unknown('profile', options.profile, manifest.profiles)}")
    profile = manifest.profiles[options.profile]
    if options.profile != LIVE:
        return profile
    if options.latency not in profile:
        raise ModelError(f"{manifest.name}: {unknown('latency', options.latency, profile)}")
    settings: dict[str, Any] = profile[options.latency]
    return settings


def load_runner(folder: ModelFolder, options: RunnerOptions) -> Runner:
    """Load a model with the runner of its family.

    Raises
    ------
    ModelError
        If the family or profile is unknown, a file is not what the manifest says, or the device is not there.
    """
    manifest = folder.manifest
    if manifest.family not in FAMILIES:
        message = unknown("model family", manifest.family, FAMILIES)
        raise ModelError(f"{folder.path}: {message} A newer StemPlug may know it.")
    profile_settings(manifest, options)
    runner: Runner = importlib.import_module(FAMILIES[manifest.family]).load(folder, options)
    return runner
