"""Stems as a REAPER project: one track a stem, its media beside the project.

Format: REAPER's text project, as its own files show it (nested ``<`` blocks, one setting a line); a setting that is
missing gets REAPER's default.
"""

from __future__ import annotations

from pathlib import Path

from stemplug.errors import ProjectError
from stemplug.tracks.project import Project, Track
from stemplug.tracks.rpp import Block, Rpp, quoted

_CUSTOM = 0x1000000  # this colour is set, rather than the theme's
_SOURCES = {".wav": "WAVE", ".flac": "FLAC", ".mp3": "MP3", ".ogg": "VORBIS"}


def project_text(project: Project) -> str:
    """Return a project whose items all lie at the project's position, for its length."""
    position, length = project.position / project.sample_rate, project.frames / project.sample_rate
    lines = [
        '<REAPER_PROJECT 0.1 "7.0" 0',
        f"  SAMPLERATE {project.sample_rate} 1 0",
        f"  TEMPO {project.tempo:.10g} 4 4",
        f"  CURSOR {position:.14f}",
    ]
    for track in project.tracks:
        red, green, blue = track.color
        lines += [
            "  <TRACK",
            f"    NAME {_quoted(track.name)}",
            f"    PEAKCOL {_CUSTOM | blue << 16 | green << 8 | red}",
            "    <ITEM",
            f"      POSITION {position:.14f}",
            f"      LENGTH {length:.14f}",
            "      LOOP 0",
            f"      NAME {_quoted(track.name)}",
            f"      <SOURCE {_SOURCES[Path(track.media).suffix.lower()]}",
            f"        FILE {_text(quoted(track.media))}",
            "      >",
            "    >",
            "  >",
        ]
    return "\n".join([*lines, ">", ""])


def write_reaper(path: Path, project: Project) -> None:
    """Write `project_text` to ``path``. Names of media that are no UTF-8 are kept byte for byte."""
    path.write_text(project_text(project), encoding="utf-8", errors="surrogateescape")


def read_reaper(path: Path) -> Project:
    """Return the project that `write_reaper` wrote; ``channels`` is 0, for the file does not tell.

    Raises
    ------
    TrackError
        If it is no REAPER project, or not one of stems that lie side by side.
    """
    rpp = Rpp(path)

    def value(block: Block, name: str) -> str:
        line = rpp.find(block.children, name)
        words = rpp.words(line) if line else []
        if len(words) < 2:
            raise rpp.error(block, f"{name} is missing. Give a project that 'stemplug split --as reaper' wrote.")
        return words[1].text

    def number(block: Block, name: str) -> float:
        try:
            return float(value(block, name))
        except ValueError:
            raise rpp.error(block, f"{name} is no number. Give a project as it was written.") from None

    rate = int(number(rpp.root, "SAMPLERATE"))
    tracks, places = [], set()
    for track in rpp.root.blocks("TRACK"):
        items = list(track.blocks("ITEM"))
        sources = [source for item in items for source in item.blocks("SOURCE")]
        if len(items) != 1 or len(sources) != 1:
            raise rpp.error(track, "one item with one source was expected. Use 'stemplug project show' for projects.")
        color = int(number(track, "PEAKCOL"))
        rgb = color & 255, color >> 8 & 255, color >> 16 & 255
        tracks.append(Track(value(track, "NAME"), rgb, value(sources[0], "FILE")))
        places.add((round(number(items[0], "POSITION") * rate), round(number(items[0], "LENGTH") * rate)))
    if len(places) != 1:
        raise ProjectError(f"'{path}': {len(places)} places in time, one was expected for all stems.")
    ((position, frames),) = places
    return Project(path.stem, rate, 0, frames, tuple(tracks), position, number(rpp.root, "TEMPO"))


def _quoted(text: str) -> str:
    return _text(quoted(" ".join(text.split())))


def _text(line: bytes) -> str:
    return line.decode(errors="surrogateescape")
