"""``stemplug project show|split``: projects of a DAW that exist."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stemplug.cli.split import emit, printable, progress_bar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stemplug.tracks.projects import Item, Track

app = typer.Typer(help="Projects of a DAW that exist: REAPER (.rpp), DAWproject (.dawproject).")

Project = Annotated[Path, typer.Argument(metavar="FILE", readable=False, help="A project (.rpp, .dawproject).")]


@app.command()
def show(
    file: Project,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a track.")] = False,
) -> None:
    """List tracks and items: position and length in seconds, then the takes; with several, * marks the active one."""
    from stemplug.tracks.projects import show

    for track in show(file):
        if as_json:
            emit(json.dumps(asdict(track)))
        else:
            for line in (_track_line(track), *map(_item_line, track.items)):
                emit(line)


def _track_line(track: Track) -> str:
    marks = [word for word, is_so in (("folder", track.folder), ("muted", track.muted)) if is_so]
    return f"{track.number:3}  {'  ' * track.depth}{printable(track.name) or '(no name)'} {' '.join(marks)}".rstrip()


def _item_line(item: Item) -> str:
    takes = [
        f"{'*' if take.active and len(item.takes) > 1 else ''}{take.kind} {printable(take.file or take.name)}".rstrip()
        for take in item.takes
    ]
    return f"     {item.position:10.3f}  {item.length:10.3f}  {' | '.join(takes)}"


@app.command()
def split(
    file: Project,
    track: Annotated[str, typer.Option(metavar="NAME", help="Name of the track, or its number.")],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="NEW", readable=False, help="The new project, best in FILE's folder."),
    ],
    model: Annotated[str, typer.Option(help="Name or folder of a model; see 'stemplug models list'.")] = "default",
    fold: Annotated[str | None, typer.Option(metavar="STEM", help="Two stems: this one and the rest.")] = None,
    threads: Annotated[int | None, typer.Option(help="1 to 256.", show_default="all cores")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, coreml or directml.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace NEW and stems that exist.")] = False,
) -> None:
    """Split the audio of a track, and write a new project with a folder of stem tracks under it.

    Every item is split the same way, with its takes, fades and gain; the track is muted. All else, effects and routing
    included, stays byte for byte. The paths of the new project and of its stems are printed: they lie in "NEW Stems"
    beside a REAPER project, and in a DAWproject.

    Example: stemplug project split song.rpp --track Drums -o "song stems.rpp"
    """
    from stemplug.engine import Separator
    from stemplug.tracks import Selection, duration
    from stemplug.tracks.projects import Splitter, model_splitter, split_track

    separator = Separator(model, threads=threads, device=device)

    def run(song: Path, folder: Path) -> Mapping[str, Path]:
        with progress_bar(song, duration(song, Selection())) as progress:
            return model_splitter(separator, fold, progress).split(song, folder)

    stems = model_splitter(separator, fold).stems
    result = split_track(file, output, track, Splitter(stems, run), overwrite=overwrite)
    for path in (result.path, *result.media):
        emit(str(path))
    for note in result.notes:
        print(f"stemplug: {note}", file=sys.stderr)
