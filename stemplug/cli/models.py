"""``stemplug models list|info|verify``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

app = typer.Typer(help="The models that are installed.")


@app.command("list")
def list_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List the models that can be named."""
    from stemplug.engine import installed_models

    entries = installed_models()
    if as_json:
        print(json.dumps([entry.as_dict() for entry in entries], indent=1))
        return
    for entry in entries:
        default = "  (default)" if entry.default else "  (default, live)" if entry.default_live else ""
        print(f"{entry.name}  {entry.version}  {', '.join(entry.stems)}  {entry.licence}  {entry.path}{default}")


@app.command()
def info(model: Annotated[str, typer.Argument(help="Name or folder of a model.")] = "default") -> None:
    """Print all that a model's manifest says, as JSON."""
    from stemplug.engine import model_info

    print(json.dumps(model_info(model).manifest, indent=1))


@app.command()
def verify(
    models: Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="By default all.")] = None,
) -> None:
    """Compare every file of the models with the hash in its manifest."""
    from stemplug.engine import installed_models, model_info

    for entry in [model_info(name) for name in models] if models else installed_models():
        entry.verify()
        print(f"{entry.name}: ok ({entry.path})")
