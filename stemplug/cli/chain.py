"""``stemplug chain``."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Annotated

import typer

from stemplug.cli.split import emit, progress_bar, warn_saturated

EXAMPLES = """Examples:

stemplug chain karaoke.yaml song.flac -o karaoke.wav

stemplug chain mix.yaml song.wav -o mix.flac --stems stems
"""


def chain_command(
    board: Annotated[Path, typer.Argument(metavar="BOARD", readable=False, help="A chain saved as YAML.")],
    song: Annotated[Path, typer.Argument(metavar="SONG", readable=False, help="An audio file.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", readable=False, help="What to write: .wav, .flac, ...")
    ],
    stems: Annotated[
        Path | None, typer.Option(metavar="DIR", readable=False, help="Also write the processed stems there.")
    ] = None,
    bit_depth: Annotated[str | None, typer.Option(help="16, 24, 32f.", show_default="the song's, at least 24")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object instead of paths.")] = False,
) -> None:
    """Run a song through a chain of effects and stem splits (a Board saved as YAML; see the README).

    The paths of what was written are printed one a line.
    """
    from stemplug.chain import Board
    from stemplug.tracks import Selection, duration
    from stemplug.tracks.chain import run_chain

    loaded = Board.load(board)
    with progress_bar(song, duration(song, Selection())) as progress:
        result = run_chain(
            loaded, song, output, stems=stems, bit_depth=bit_depth, overwrite=overwrite, progress=progress
        )
    if as_json:
        tracks = [
            {**track.as_dict(), "path": str(path)}
            for track, path in zip(result.stem_tracks, result.stem_paths, strict=True)
        ]
        peak = None if result.peak_db == -float("inf") else result.peak_db
        emit(json.dumps({"song": str(song), "path": str(result.path), "peak_db": peak, "stems": tracks}))
    else:
        for path in (result.path, *result.stem_paths):
            emit(str(path))
    if result.saturated:
        warn_saturated(song, "mix", result.beyond_full_scale, result.peak_db, "Put a Limiter at the end")
    for track in result.stem_tracks:
        if track.saturated:
            warn_saturated(song, track.stem, track.beyond_full_scale, track.peak_db, "Turn the branch down")


chain_command.__doc__ = f"{inspect.cleandoc(chain_command.__doc__ or '')}\n\n{EXAMPLES}"
