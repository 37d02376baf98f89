"""Where songs come from: each module's ``jobs`` yields them one by one, nothing where its material is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from shutil import which

from ..songs import Job, Settings
from ..sounds import BANKS
from . import game, groove, mma, recorded, synth


@dataclass(frozen=True)
class Source:
    """How much of a library comes from where, and the programs that this needs."""

    jobs: Callable[[Settings], Iterator[Job]]
    share: float
    programs: tuple[str, ...] = ()

    def lacks(self, settings: Settings) -> str:
        """Name what is missing, if anything."""
        bank = "fluidsynth" not in self.programs or any(settings.offer(bank) for bank in BANKS)
        return next((program for program in self.programs if not which(program)), "" if bank else "a soundfont")


SOURCES = {
    "groove": Source(groove.jobs, 0.22, ("fluidsynth",)),
    "mma": Source(mma.jobs, 0.4, ("mma", "fluidsynth")),
    "game": Source(game.jobs, 0.2, ("fluidsynth",)),
    "songs": Source(recorded.jobs, 1),  # few and dear: all of them, early
    "synth": Source(synth.jobs, 0.18),
}
