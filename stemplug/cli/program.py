"""The program ``stemplug``: its commands, and what becomes of errors and signals.

Exit codes: 0 done; 1 an internal error; 2 a wrong option; 3 a song that cannot be read; 4 a model or device that cannot
be used; 5 the plugin or its worker; 6 tracks that cannot be written; 130 interrupted (Ctrl-C); 143 ended (SIGTERM).
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import Annotated, NoReturn

import typer
from typer.exceptions import Abort, TyperException

import stemplug
from stemplug.cli import bench, chain, doctor, models, plugin, project, session, split, worker
from stemplug.errors import StemPlugError

INTERNAL, USAGE, INPUT, OUTPUT, INTERRUPTED, TERMINATED = 1, 2, 3, 6, 130, 143

app = typer.Typer(
    name="stemplug",
    help="Takes songs apart into stems: vocals, drums, bass and the rest.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("split")(split.split_command)
app.command("chain")(chain.chain_command)
app.add_typer(project.app, name="project")
app.add_typer(session.app, name="session")
app.command("render")(session.render_command)
app.add_typer(models.app, name="models")
app.add_typer(plugin.app, name="plugin")
app.add_typer(worker.app, name="worker")
app.command("doctor")(doctor.doctor_command)
app.command("bench")(bench.bench_command)


class Terminated(BaseException):
    """SIGTERM came: unwind, so that nothing half-written is left."""


def _version(wanted: bool) -> None:
    if wanted:
        print(f"stemplug {stemplug.__version__}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Takes songs apart into stems: vocals, drums, bass and the rest."""


def _end(number: int, frame: FrameType | None) -> NoReturn:
    _no_more_signals()  # once is enough; cleaning up takes a moment
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _no_more_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def say(message: str) -> None:
    """Print a message for people on stderr."""
    print(f"stemplug: {message}", file=sys.stderr)


def run(arguments: list[str]) -> int:
    """Run the program and return its exit code; every error ends in one message, without a traceback."""
    try:
        # Not app(): it would turn Ctrl-C and a closed pipe into exit codes of its own.
        with typer.main.get_command(app).make_context("stemplug", list(arguments) or ["--help"]) as invocation:
            code = invocation.command.invoke(invocation)
        if sys.stdout:
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except typer.Exit as done:
        return done.exit_code if arguments else USAGE
    except StemPlugError as error:
        say(str(error))
        return error.exit_code
    except TyperException as error:
        say(error.format_message())
        context = getattr(error, "ctx", None)
        print(f"Try '{context.command_path if context else 'stemplug'} --help'.", file=sys.stderr)
        return USAGE
    except (KeyboardInterrupt, Abort):
        say("cancelled; nothing half-written was left.")
        return INTERRUPTED
    except Terminated:
        say("ended by SIGTERM; nothing half-written was left.")
        return TERMINATED
    except BrokenPipeError:
        # What reads our paths has gone. The songs so far are written; Python must not complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return OUTPUT
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO):
            return _internal(error)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        say(f"cannot print the result: {(error.strerror or str(error)).lower()}.")
        return OUTPUT
    except MemoryError:
        say("out of memory. Use fewer --threads, close other programs, or split a part with --start and --end.")
        return INPUT
    except Exception as error:
        return _internal(error)


def _internal(error: Exception) -> int:
    """Say that the fault is ours, in one message; with STEMPLUG_DEBUG let Python show where."""
    if os.environ.get("STEMPLUG_DEBUG"):
        raise error
    text = str(error).strip().splitlines()
    say(
        f"internal error, please report: {type(error).__name__}: {text[0] if text else ''} "
        f"(stemplug {stemplug.__version__}, Python {sys.version.split()[0]}, {sys.platform}). "
        "STEMPLUG_DEBUG=1 shows where."
    )
    return INTERNAL


def _tidy_descriptors() -> None:
    """No file of ours may become descriptor 1 or 2, where libraries print; and what they print stays out of sight."""
    with suppress(OSError):
        while (null := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        if sys.stderr and not os.environ.get("STEMPLUG_DEBUG"):
            sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
            os.dup2(null, 2)
        os.close(null)


def main() -> NoReturn:
    """Entry point of the program."""
    _tidy_descriptors()
    for stream in (sys.stdout, sys.stderr):  # file names need not be valid text
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="surrogateescape" if stream is sys.stdout else "backslashreplace")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    try:
        code = run(sys.argv[1:])
        _no_more_signals()  # all is done: what is left is Python's own end, which would print a traceback
    except (KeyboardInterrupt, Terminated) as late:  # while the last message was printed
        code = TERMINATED if isinstance(late, Terminated) else INTERRUPTED
    sys.exit(code)
