"""``stemplug split``."""

from __future__ import annotations

import inspect
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stemplug.errors import OptionError, StemPlugError, TrackError

if TYPE_CHECKING:
    from stemplug.engine.separator import Progress
    from stemplug.tracks import SplitResult

EXAMPLES = """Examples:

stemplug split song.flac -o stems

stemplug split *.mp3 -o karaoke --fold vocals --stems instrumental

stemplug split album/ -o stems --format flac --name "{song} ({stem})"

stemplug split song.flac -o projects --as reaper
"""


def seconds(text: str) -> float:
    """Parse seconds, "m:ss" or "h:mm:ss"."""
    try:
        parts = [float(part) for part in text.split(":")]
        if not 1 <= len(parts) <= 3 or not all(0 <= part < math.inf for part in parts):
            raise ValueError
        return sum(part * 60.0**power for power, part in enumerate(reversed(parts)))
    except ValueError:
        raise typer.BadParameter(f"'{text}' is no time. Give seconds (90.5) or minutes and seconds (1:30.5).") from None


def split_command(
    songs: Annotated[
        list[Path], typer.Argument(metavar="SONG", readable=False, help="Audio files, or folders of them.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", readable=False, help="Where the stems go.")],
    model: Annotated[str, typer.Option(help="Name or folder of a model; see 'stemplug models list'.")] = "default",
    stems: Annotated[str | None, typer.Option(metavar="A,B", help="Only these, say vocals.")] = None,
    fold: Annotated[str | None, typer.Option(metavar="STEM", help="Two stems: this one and the rest.")] = None,
    layout: Annotated[
        str, typer.Option("--as", help="folder, multichannel, stem.mp4, reaper or dawproject.")
    ] = "folder",
    format: Annotated[
        str | None, typer.Option(help="wav, flac, ogg or mp3; aac or alac in stem.mp4.", show_default="wav or aac")
    ] = None,
    bit_depth: Annotated[str | None, typer.Option(help="16, 24, 32f.", show_default="the song's, at least 24")] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Path of a track below DIR; {song}, {stem}, {model}.", show_default="{song}/{stem}"),
    ] = None,
    tempo: Annotated[float, typer.Option(metavar="BPM", help="Of a project, 1 to 960.")] = 120.0,
    clip: Annotated[str, typer.Option(help="Beyond full scale: none, clamp or rescale (all stems alike).")] = "none",
    start: Annotated[float | None, typer.Option(parser=seconds, metavar="TIME", help="From here: 90 or 1:30.")] = None,
    end: Annotated[float | None, typer.Option(parser=seconds, metavar="TIME", help="Up to here.")] = None,
    threads: Annotated[int | None, typer.Option(help="1 to 256.", show_default="all cores")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, coreml or directml.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace tracks that exist.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a song instead of paths.")] = False,
) -> int:
    """Split songs into stems.

    The default model makes vocals, drums, bass and other; --fold vocals makes vocals and instrumental.
    The tracks' paths are printed one a line.
    --as reaper and --as dawproject write a project of a DAW, --as multichannel one WAV, --as stem.mp4 a file for DJ
    software. A song that fails is reported and the others go on; the exit code is that of the first failure.
    """
    from stemplug.engine import Separator
    from stemplug.tracks import FolderFormat, Selection, check_apart, duration, plan, split

    options = FolderFormat(format, bit_depth, name, clip, overwrite, layout, tempo)
    names = None if stems is None else tuple(stem.strip() for stem in stems.split(",") if stem.strip())
    selection = Selection(names, fold, start, end)
    if start is not None and end is not None and start >= end:
        raise OptionError(f"--start {start:g} is not before --end {end:g}.")
    found = plan(songs, options, model)
    separator = Separator(model, threads=threads, device=device)
    check_apart(found, output, selection.names(separator.stems), options, separator.manifest.name)
    code = 0
    for song in found:
        try:
            with progress_bar(song, duration(song, selection)) as progress:
                result = split(
                    song, output, separator=separator, selection=selection, options=options, progress=progress
                )
            report(song, result, as_json)
        except StemPlugError as error:
            code = code or error.exit_code
            print(f"stemplug: {error}", file=sys.stderr)
            if as_json:
                emit(json.dumps({"song": str(song), "error": str(error), "exit_code": error.exit_code}))
    return code


split_command.__doc__ = f"{inspect.cleandoc(split_command.__doc__ or '')}\n\n{EXAMPLES}"


def emit(line: str) -> None:
    """Print a line for programs on stdout."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains again at exit
        raise TrackError(f"cannot print '{line}': {(error.strerror or str(error)).lower()}.") from None


def report(song: Path, result: SplitResult, as_json: bool) -> None:
    """Print paths (or JSON) on stdout, warnings on stderr."""
    if as_json:
        tracks = [{**t.as_dict(), "path": str(p)} for t, p in zip(result.tracks, result.paths, strict=True)]
        package = str(result.package) if result.package else None
        emit(json.dumps({"song": str(song), "seconds": result.seconds, "tracks": tracks, "package": package}))
    else:
        for path in dict.fromkeys([*result.paths, *([result.package] if result.package else [])]):
            emit(str(path))
    if result.note:
        print(f"stemplug: {printable(song.name)}: {result.note}.", file=sys.stderr)
    for track in result.tracks:
        if track.saturated:
            advice = "--clip rescale turns all stems down"
            warn_saturated(song, track.stem, track.beyond_full_scale, track.peak_db, advice)


def warn_saturated(song: Path, track: str, samples: int, peak_db: float, advice: str) -> None:
    """Tell on stderr that a track's format cut samples off."""
    print(
        f"stemplug: {printable(song.name)}: {track}: {samples} samples lay beyond full scale (peak {peak_db:+.1f} dB) "
        f"and were cut off. WAV with --bit-depth 32f keeps them. {advice}.",
        file=sys.stderr,
    )


def printable(name: str) -> str:
    """A file's name as a terminal may show it."""
    return "".join(c if c.isprintable() else "?" for c in name.encode("utf-8", "replace").decode())


@contextmanager
def progress_bar(song: Path, seconds: float) -> Iterator[Progress]:
    """Show a bar with speed and time left on stderr while it is a terminal, and a line at the end of each song."""
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    label = printable(song.name)
    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TextColumn("{task.fields[speed]}"),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
    )
    begin = time.monotonic()

    def speed(fraction: float) -> str:
        return f"{fraction * seconds / max(1e-6, time.monotonic() - begin):.0f}x realtime"

    with progress.Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=1.0, speed="")
        yield lambda fraction, stage: bar.update(task, completed=fraction, speed=speed(fraction))
    line = f"{label}: {seconds:.0f} s of music in {time.monotonic() - begin:.1f} s, {speed(1)}"
    console.print(line, markup=False, emoji=False, soft_wrap=True)
