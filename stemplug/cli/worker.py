"""``stemplug worker status|stop|logs``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

app = typer.Typer(help="The process that separates for the VST3 plugin.")


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False) -> None:
    """Say whether a worker runs, and for whom it separates."""
    from stemplug.worker.client import ask

    found = ask("status")
    if as_json:
        print(json.dumps({"running": False} if found is None else {"running": True, **found}, indent=1))
    elif found is None:
        print("no worker runs; the plugin starts one when it needs it.")
    else:
        print(
            f"worker {found['pid']}, stemplug {found['version']}, up for {found['uptime_seconds']:.0f} s, "
            f"{found['memory_mb']} MB"
        )
        for instance in found["instances"]:
            print(f"  {instance['name']}: {instance['profile']}, load {instance['load']:.0%}")


@app.command()
def stop() -> None:
    """End the worker; plugins start another one when they need it."""
    from stemplug.worker import client

    print("stopped." if client.stop() else "no worker runs.")


@app.command()
def logs(
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many lines from the end.")] = 50,
) -> None:
    """Print the ends of the worker's log and of the plugin's, and where they are."""
    from stemplug.worker.places import LOG, PLUGIN_LOG, log_folder

    for name in (LOG, PLUGIN_LOG):
        path = log_folder() / name
        print(f"==> {path}")
        if path.is_file():
            print("\n".join(path.read_text(errors="replace").splitlines()[-lines:]))
