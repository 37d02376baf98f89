"""Stems as a REAPER project: one track a stem, its media beside the project.

Format: REAPER's text project, as its own files show it (nested ``<`` blocks, one setting a line); a setting that is
missing gets REAPER's default.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

COLORS = {
    "vocals": (235, 94, 85),
    "drums": (245, 176, 65),
    "bass": (88, 177, 123),
    "guitar": (93, 142, 214),
    "piano": (158, 115, 199),
    "other": (140, 140, 140),
}
_CUSTOM = 0x1000000  # this colour is set, rather than the theme's


@dataclass(frozen=True)
class ReaperTrack:
    """A track with one item: ``media`` lies beside the project."""

    name: str
    media: str


def project_text(tracks: list[ReaperTrack], sample_rate: int, position: float, length: float) -> str:
    """Return a project whose items all lie at ``position`` for ``length``, in seconds."""
    lines = ['<REAPER_PROJECT 0.1 "7.0" 0', f"  SAMPLERATE {sample_rate} 1 0", f"  CURSOR {position:.10f}"]
    for track in tracks:
        red, green, blue = COLORS.get(track.name.lower(), COLORS["other"])
        lines += [
            "  <TRACK",
            f"    NAME {_quoted(track.name)}",
            f"    PEAKCOL {_CUSTOM | blue << 16 | green << 8 | red}",
            "    <ITEM",
            f"      POSITION {position:.10f}",
            f"      LENGTH {length:.10f}",
            "      LOOP 0",
            f"      NAME {_quoted(track.name)}",
            "      <SOURCE WAVE",
            f"        FILE {_quoted(track.media)}",
            "      >",
            "    >",
            "  >",
        ]
    return "\n".join([*lines, ">", ""])


def write_project(path: Path, tracks: list[ReaperTrack], sample_rate: int, position: float, length: float) -> None:
    """Write `project_text` to ``path``."""
    path.write_text(project_text(tracks, sample_rate, position, length), encoding="utf-8")


def _quoted(text: str) -> str:
    """A string in whichever quotes it does not hold; what holds all three loses its backquotes, as in REAPER."""
    clean = " ".join(text.split())
    for quote in "\"'":
        if quote not in clean:
            return f"{quote}{clean}{quote}"
    return "`" + clean.replace("`", "'") + "`"
