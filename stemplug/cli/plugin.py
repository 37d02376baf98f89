"""``stemplug plugin path|install|uninstall|check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stemplug.errors import OptionError, PluginError

app = typer.Typer(help="The VST3 plugin.")

User = Annotated[bool, typer.Option("--user", help="This user's folder of VST3 plugins (the default).")]
Dir = Annotated[Path | None, typer.Option("--dir", help="Another folder.")]


def _folder(user: bool, folder: Path | None) -> Path | None:
    if user and folder is not None:
        raise OptionError("--user and --dir: give one of them.")
    return folder


@app.command("path")
def path_command() -> None:
    """Print where the bundle is, ready to load."""
    from stemplug import plugin

    print(plugin.path())


@app.command()
def install(user: User = False, folder: Dir = None) -> None:
    """Copy the bundle to where hosts look for plugins."""
    from stemplug import plugin

    print(plugin.install(_folder(user, folder)))


@app.command()
def uninstall(user: User = False, folder: Dir = None) -> None:
    """Remove the bundle from there."""
    from stemplug import plugin

    print(f"removed {plugin.uninstall(_folder(user, folder))}")


@app.command()
def check(
    bundle: Annotated[Path | None, typer.Argument(help="By default that of 'stemplug plugin path'.")] = None,
) -> None:
    """Load the plugin in a process of its own, render a sound, and compare with what Python gives."""
    from stemplug import plugin
    from stemplug.plugin_check import check as check_bundle

    rows = check_bundle(plugin.path() if bundle is None else bundle)
    width = max(len(row.what) for row in rows)
    for row in rows:
        print(f"{'ok  ' if row.passed else 'FAIL'}  {row.what:{width}}  {row.found}")
    if not all(row.passed for row in rows):
        raise PluginError("the plugin does not do what it should. See 'stemplug worker logs'.")
