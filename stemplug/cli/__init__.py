"""The command line. One file a command: parse, call one public function, print."""

from stemplug.cli.program import main

__all__ = ["main"]
