"""The pass-through family: every stem is the mixture times a gain. No network, no files; for tests of the engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stemplug.errors import ModelError
from stemplug.models.catalogue import ModelFolder
from stemplug.models.handover import Handover
from stemplug.models.runner import Geometry, RunnerOptions, profile_settings
from stemplug.timing import Stopwatch


class IdentityRunner:
    """Scales windows by the gain of each stem."""

    provider = "none"

    def __init__(self, geometry: Geometry, gains: dict[str, float]) -> None:
        self.geometry = geometry
        self._gains = gains

    def __call__(
        self, mixtures: NDArray[np.float32], stems: Sequence[str], watch: Stopwatch, handover: Handover | None = None
    ) -> NDArray[np.float32]:
        """See `stemplug.models.Runner`."""
        with watch("inference"):
            gains = np.array([self._gains[stem] for stem in stems], np.float32)
            return mixtures[:, np.newaxis] * gains[:, np.newaxis, np.newaxis]

    def begin(self, first: int = 0) -> IdentityRunner:
        """See `stemplug.models.Runner`: windows do not depend on each other."""
        return self

    def infer_once(self) -> None:
        """See `stemplug.models.Runner`: there is no network."""


def load(folder: ModelFolder, options: RunnerOptions) -> IdentityRunner:
    """Make the runner from ``profiles.NAME`` (a `Geometry`) and ``settings.gains`` (a number a stem)."""
    manifest = folder.manifest
    try:
        gains = {stem: float(manifest.settings["gains"][stem]) for stem in manifest.stems}
        return IdentityRunner(Geometry(**profile_settings(manifest, options)), gains)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder.path}: settings or profile of an identity model are wrong ({error}).") from None
