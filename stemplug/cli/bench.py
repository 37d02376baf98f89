"""``stemplug bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bench_command(
    song: Annotated[Path | None, typer.Argument(help="A song; by default noise is made.")] = None,
    seconds: Annotated[float, typer.Option(help="Length of the made song.")] = 240.0,
    rounds: Annotated[int, typer.Option(help="Rounds; medians are printed.", min=1)] = 3,
    model: Annotated[str, typer.Option(help="Name or folder of a model.")] = "default",
    threads: Annotated[int | None, typer.Option(help="1 to 256.", show_default="all cores")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, coreml or directml.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Measure speed, where the time goes, and memory: a WAV file in, 24-bit WAV stems out."""
    import json

    from stemplug.bench import measure

    result = measure(song, seconds=seconds, rounds=rounds, model=model, threads=threads, device=device)
    print(json.dumps(result.as_dict(), indent=1) if as_json else result.text())
