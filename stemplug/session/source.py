"""Session files: read, checked, and told by line and field where they are wrong."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from stemplug.errors import ChainError, SessionError, StemPlugError, unknown
from stemplug.session.schema import Session
from stemplug.yaml_file import Place, YamlFile, dotted_place, read_yaml

MAX_SHOWN = 60


class Source:
    """A session file and what it says.

    Session files may come from anyone: they name files in their own folder only, and run no native code, unless
    ``trust`` is given.

    Attributes
    ----------
    inputs:
        The files that were asked for with `input_at`, and their SHA-256.

    Raises `SessionError`, naming file, line and field, for what is no session.
    """

    def __init__(self, path: Path, *, trust: bool = False) -> None:
        self._file: YamlFile = read_yaml(path, SessionError)
        self.path, self.trust = path, trust
        self.inputs: dict[Path, str] = {}
        self._folder = path.resolve().parent
        if not isinstance(self._file.data, dict):
            self.fail((), "expected a session: version, tracks, deliverables.")
        try:
            self.session = Session.model_validate(self._file.data)
        except ValidationError as error:
            self.fail(*self._worst(error.errors()))

    def fail(self, place: Place, message: str) -> NoReturn:
        """Raise a `SessionError` about a place of the file."""
        raise SessionError(f"{self._file.locate(place)}: {message}") from None

    @contextmanager
    def at(self, place: Place) -> Iterator[None]:
        """What goes wrong inside is wrong at ``place``."""
        try:
            yield
        except SessionError:
            raise
        except ChainError as error:  # built from one stage, so it names a place below "chain[0]"
            inner, _, text = str(error).partition(": ")
            self.fail(self._below(place, inner.removeprefix("chain[0]")), text)
        except StemPlugError as error:
            self.fail(place, str(error))

    def file_at(self, place: Place, name: str, *, folder: bool = False) -> Path:
        """The file (or ``folder``: plugin bundle) that the session names; raises `SessionError` for one it may not."""
        target = Path(name)
        try:
            path = (self._folder / target).resolve()
            exists = path.is_file() or (folder and path.is_dir())
        except (OSError, ValueError, RuntimeError):
            self.fail(place, f"'{name[:MAX_SHOWN]}' is no path.")
        if not self.trust and (target.is_absolute() or not path.is_relative_to(self._folder)):
            self.fail(
                place,
                f"'{name[:MAX_SHOWN]}' is outside of the session's folder. Put the file beside the session, "
                "or use --trust if you know who wrote it.",
            )
        if not exists:
            near = [str(each.relative_to(self._folder)) for each in self._folder.glob("*") if each.is_file()]
            found = "is no regular file" if path.exists() else "is not there"
            self.fail(place, f"the file {found}. {unknown('file', name[:MAX_SHOWN], near[:20])}")
        return path

    def input_at(self, place: Place, name: str, *, folder: bool = False) -> Path:
        """`file_at` for a file whose content goes into the render: it is hashed."""
        path = self.file_at(place, name, folder=folder)
        if path not in self.inputs:
            try:
                self.inputs[path] = sha256(path)
            except OSError as error:
                self.fail(place, f"'{name[:MAX_SHOWN]}' cannot be read: {(error.strerror or str(error)).lower()}.")
        return path

    def shown(self, path: Path) -> str:
        """A file's name for a report: below the session's folder where it is there."""
        return path.relative_to(self._folder).as_posix() if path.is_relative_to(self._folder) else str(path)

    def _below(self, place: Place, inner: str) -> Place:
        """The place that reads as ``place`` followed by ``inner``."""
        wanted = dotted_place(place) + inner
        return next((known for known in self._file.lines if dotted_place(known) == wanted), place)

    def _worst(self, errors: list[ErrorDetails]) -> tuple[Place, str]:
        """Of all that is wrong, what stands deepest: of the alternatives of a field that is the one that was meant."""
        told = [(self._place(error), error) for error in errors]
        place, error = max(told, key=lambda each: len(each[0]))
        return place, _message(error, [each for where, each in told if where == place])

    def _place(self, error: ErrorDetails) -> Place:
        """Without what pydantic adds: names of types, of alternatives, of keys."""
        place: Place = ()
        for key in error["loc"]:
            if (*place, key) in self._file.lines:
                place = (*place, key)
        if error["type"] == "missing":
            return (*place, error["loc"][-1])
        return (*place, error["ctx"]["key"]) if error["type"] == "unknown_key" else place


def _message(error: ErrorDetails, alternatives: list[ErrorDetails]) -> str:
    """Say it in words of ours: what was found, what was expected."""
    kind, given = error["type"], error.get("input")
    if kind == "missing":
        return f"the field '{error['loc'][-1]}' is missing."
    if kind == "unknown_key":
        return error["msg"]
    if kind == "literal_error" and isinstance(given, str):
        return unknown("value", given[:MAX_SHOWN], re.findall(r"'([^']*)'", error["ctx"]["expected"]))
    wanted = [each["msg"].replace("Input should be ", "").replace("Input should ", "to ") for each in alternatives]
    if any("beats" in each for each in wanted):
        wanted = ["seconds (1.5) or beats ('4 beats'), 0 or more"]
    elif "[key]" in error["loc"]:
        wanted = ["a name of letters, digits, spaces, - and _"]
    return f"found {_shown(given)}; expected {' or '.join(dict.fromkeys(wanted))}."


def _shown(data: Any) -> str:
    if data is None:
        return "nothing"
    if isinstance(data, (dict, list)):
        return "settings (name: value)" if isinstance(data, dict) else f"a list of {len(data)}"
    return f"the {'text' if isinstance(data, str) else type(data).__name__} {str(data)[:MAX_SHOWN]!r}"


def sha256(path: Path) -> str:
    """Of a file, or of all files of a folder, in hex."""
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.is_file())
        hashes = [[str(each.relative_to(path)), sha256(each)] for each in files]
        return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
