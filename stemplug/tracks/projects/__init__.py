"""Projects that exist: what they hold, and new ones in which a track is split into stems."""

from pathlib import Path
from types import ModuleType

from stemplug.errors import OptionError
from stemplug.tracks.projects import dawproject, reaper
from stemplug.tracks.projects.listing import Item, Take, Track
from stemplug.tracks.projects.splitting import SplitProject, Splitter, model_splitter

__all__ = ["Item", "SplitProject", "Splitter", "Take", "Track", "model_splitter", "show", "split_track"]

_KINDS: dict[str, ModuleType] = {kind.SUFFIX: kind for kind in (reaper, dawproject)}


def show(path: Path) -> list[Track]:
    """Return the tracks and items of a project.

    Raises
    ------
    OptionError
        If its suffix is not that of a format that StemPlug reads.
    TrackError
        If it cannot be read, with its line or member.
    """
    tracks: list[Track] = _kind(path).show(path)
    return tracks


def split_track(path: Path, new: Path, track: str, splitter: Splitter, *, overwrite: bool = False) -> SplitProject:
    """Split the audio of a track, and write a new project with stem tracks under it; see the format's module.

    Raises
    ------
    OptionError, TrackError, AudioError
        As `stemplug.tracks.projects.reaper.split_track`.
    """
    kind = _kind(path)
    if new.suffix.lower() != kind.SUFFIX:
        raise OptionError(f"-o '{new}': the new project ends in {kind.SUFFIX}. Name it '{new.stem}{kind.SUFFIX}'.")
    result: SplitProject = kind.split_track(path, new, track, splitter, overwrite=overwrite)
    return result


def _kind(path: Path) -> ModuleType:
    try:
        return _KINDS[path.suffix.lower()]
    except KeyError:
        known = " or ".join(_KINDS)
        raise OptionError(f"'{path}' is no project that StemPlug reads. Give one that ends in {known}.") from None
