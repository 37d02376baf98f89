"""``stemplug session`` and ``stemplug render``."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from stemplug.cli.split import emit, printable

app = typer.Typer(help="Mix-down sessions: see also 'stemplug render'.", no_args_is_help=True)

EXAMPLES = """Examples:

stemplug render karaoke.yaml -o karaoke

stemplug render album.yaml -o masters --only cd --dry-run
"""


@app.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of session files, for editors that complete and check them."""
    from stemplug.session import json_schema

    emit(json.dumps(json_schema(), indent=1))


def render_command(
    session: Annotated[Path, typer.Argument(metavar="SESSION", readable=False, help="A session in YAML.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", readable=False, help="Where it all goes.")],
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help="This deliverable; may be repeated.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, list the stages, write nothing.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Allow files outside of the session's folder, plugins, native Faust.")
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="DIR", readable=False, help="Keeps stages.", show_default="in the user's cache"),
    ] = None,
    use_cache: Annotated[bool, typer.Option("--use-cache/--no-cache", help="Whether stages are kept.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print render.json instead of paths.")] = False,
) -> None:
    """Render a mix-down session: tracks, splits, effects and buses become mixes, stems and masters.

    The paths of what was written are printed one a line; render.json tells what went in and how loud it is.
    """
    from stemplug.session import render

    def progress(stage: str, cached: bool) -> None:
        print(f"{'cached' if cached else 'render'}  {printable(stage)}", file=sys.stderr)

    result = render(
        session,
        output,
        only=tuple(only or ()),
        dry_run=dry_run,
        overwrite=overwrite,
        trust=trust,
        cache=cache,
        use_cache=use_cache,
        progress=progress,
    )
    if dry_run:
        for stage, cached in result.stages:
            progress(stage, cached)
    if as_json:
        emit(json.dumps(result.report))
    else:
        for path in result.paths:
            emit(str(path))
    for remark in result.remarks:
        print(f"stemplug: {printable(remark)}", file=sys.stderr)


render_command.__doc__ = f"{inspect.cleandoc(render_command.__doc__ or '')}\n\n{EXAMPLES}"
