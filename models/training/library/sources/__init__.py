"""Where songs come from: each module's ``jobs`` yields them one by one, nothing where its material is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ctypes.util import find_library
from dataclasses import dataclass
from importlib.util import find_spec
from shutil import which

from ..songs import Job, Settings
from ..sounds import BANKS
from . import game, groove, lmms, mma, recorded, soundtracks, synth, tracker, voices


@dataclass(frozen=True)
class Source:
    """How much of a library comes from where, and the programs, packages of Python and libraries that this needs."""

    jobs: Callable[[Settings], Iterator[Job]]
    share: float
    programs: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()

    def lacks(self, settings: Settings) -> str:
        """Name what is missing, if anything."""
        bank = "fluidsynth" not in self.programs or any(settings.offer(bank) for bank in BANKS)
        missing = [program for program in self.programs if not which(program)]
        missing += [package for package in self.packages if not find_spec(package)]
        missing += [f"lib{library}" for library in self.libraries if not find_library(library)]
        return next(iter(missing), "" if bank else "a soundfont")


SOURCES = {
    "groove": Source(groove.jobs, 0.22, ("fluidsynth",)),
    "mma": Source(mma.jobs, 0.4, ("mma", "fluidsynth")),
    "game": Source(game.jobs, 0.2, ("fluidsynth",)),
    "songs": Source(recorded.jobs, 1),  # few and dear: all of them, early
    "synth": Source(synth.jobs, 0.18),
    "soundtracks": Source(soundtracks.jobs, 0.3),
    "tracker": Source(tracker.jobs, 0.3, libraries=("openmpt",)),
    "lmms": Source(lmms.jobs, 0.3, ("lmms",)),
    "voices": Source(voices.jobs, 0.1, packages=("pyworld",)),
}
