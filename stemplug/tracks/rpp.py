"""REAPER's project text, read so that every byte of it can be written back.

The package ``rpp`` (PyPI) builds a tree and writes the project anew from it, with line ends, indentation and quotes of
its own. What has to stay as it is, byte for byte, is safest if nobody writes it again: this reader tells where blocks
and lines lie, and `edited` replaces single spans of the file.

Format, as REAPER's own files and "State Chunk Definitions" (github.com/ReaTeam/Doc) show it: a line that begins with
``<`` opens a block, one that begins with ``>`` closes it, each other line is a setting: words, parted by blanks, and
quoted by one of ``"``, ``'`` and ````` where they hold blanks. Contents of effects are base64 and notes begin with
``|``, so neither opens or closes anything.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from stemplug.errors import ProjectError, TrackError
from stemplug.files import read_regular

MAX_BYTES = 1 << 27
MAX_LINE_BYTES = 1 << 20
MAX_DEPTH = 100
ROOT = "REAPER_PROJECT"
_WORD = re.compile(rb"""(["'`])(.*?)(?:\1|$)|\S+""", re.DOTALL)
_SHOWN = 60  # characters of a name in a message


class Line(NamedTuple):
    """A line: ``number`` counts from 1; ``start`` to ``end`` are its bytes, indentation included, line end not."""

    number: int
    start: int
    end: int


class Word(NamedTuple):
    """A word of a line, without its quotes; ``start`` to ``end`` are its bytes, quotes included."""

    text: str
    start: int
    end: int


class Edit(NamedTuple):
    """The bytes ``start`` to ``end`` become ``content``."""

    start: int
    end: int
    content: bytes


@dataclass
class Block:
    """``<NAME ...`` up to ``>``: ``end`` lies behind the line end of the latter."""

    name: str
    line: Line
    end: int = 0
    children: list[Block | Line] = field(default_factory=list)

    def blocks(self, name: str) -> Iterator[Block]:
        """The blocks of that name directly in this one."""
        return (child for child in self.children if isinstance(child, Block) and child.name == name)


class Rpp:
    """A project file. Raises `TrackError` with the line where it is none, damaged or beyond all measure."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ProjectError(f"'{path}' is larger than {MAX_BYTES >> 20} MB. Give a REAPER project (.rpp).")
            self.data = read_regular(path)
        except TrackError:
            raise
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ProjectError(f"cannot read '{path}': {reason.lower()}. Give a REAPER project (.rpp).") from None
        self.root = self._parse()
        self.newline = b"\r\n" if self.data[self.root.line.end :].startswith(b"\r\n") else b"\n"

    def error(self, line: Line | Block | int, message: str) -> TrackError:
        """An error that names file and line."""
        number = line if isinstance(line, int) else line.line.number if isinstance(line, Block) else line.number
        return ProjectError(f"'{self.path}', line {number}: {message}")

    def _lines(self) -> Iterator[tuple[Line, int]]:
        """Each line, and where the next one begins. Only line feeds end lines; a return before them belongs to it."""
        start, number = 0, 0
        while start < len(self.data):
            number += 1
            feed = self.data.find(b"\n", start)
            after = len(self.data) if feed < 0 else feed + 1
            if after - start > MAX_LINE_BYTES:
                raise self.error(number, f"more than {MAX_LINE_BYTES >> 20} MB in a line. Save the project in REAPER.")
            end = start + len(self.data[start:after].rstrip(b"\r\n"))
            if self.data.find(b"\0", start, end) >= 0:
                raise self.error(number, "a NUL byte, so this is no text. Give a REAPER project (.rpp).")
            yield Line(number, start, end), after
            start = after

    def _parse(self) -> Block:
        root: Block | None = None
        stack: list[Block] = []
        for line, after in self._lines():
            text = self.data[line.start : line.end].lstrip()
            if root and not stack:
                if text:
                    raise self.error(line, "text behind the end of the project. Open and save it in REAPER.")
            elif not root and not re.match(rb"<REAPER_PROJECT(\s|$)", text):
                raise self.error(line, f"a REAPER project begins with '<{ROOT}'. Give one that REAPER saved (.rpp).")
            elif text.startswith(b"<"):
                block = Block(_decoded(text[1:].split(None, 1)[0]) if text[1:].strip() else "", line)
                root = root or block
                if stack:
                    stack[-1].children.append(block)
                stack.append(block)
                if len(stack) > MAX_DEPTH:
                    raise self.error(line, f"more than {MAX_DEPTH} blocks inside one another. Save it in REAPER.")
            elif text.startswith(b">"):
                stack.pop().end = after
            else:
                stack[-1].children.append(line)
        if not root:
            raise self.error(1, f"the file is empty, '<{ROOT}' was expected. Give one that REAPER saved (.rpp).")
        if stack:
            name = shown(stack[-1].name)
            raise self.error(stack[-1], f"'<{name}' is never closed by '>': a cut-off file? Take a backup (.rpp-bak).")
        return root

    def words(self, line: Line) -> list[Word]:
        """The words of a line."""
        text, start = self.data[line.start : line.end], line.start
        return [
            Word(_decoded(word[0] if word[1] is None else word[2]), start + word.start(), start + word.end())
            for word in _WORD.finditer(text)
        ]

    def word(self, line: Line | None, index: int) -> str:
        """A word of a line; "" where the line or the word is missing."""
        words = self.words(line) if line else []
        return words[index].text if len(words) > index else ""

    def number(self, line: Line | None, index: int, default: float) -> float:
        """A number of a line; ``default`` where the line or the number is missing."""
        text = self.word(line, index)
        if line is None or not text:
            return default
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            name = self.word(line, 0)
            raise self.error(line, f"{name} has '{shown(text)}' for a number. Open the project in REAPER and save it.")
        return number

    def setting(self, block: Block, name: str, values: str, *, words: int) -> Edit:
        """Replace the first ``words`` values of a setting; a missing one goes behind the name, or to the begin."""
        if line := self.find(block.children, name):
            found = self.words(line)
            return Edit(found[0].end, found[min(words, len(found) - 1)].end, f" {values}".encode())
        after = self.find(block.children, "NAME") or block.line
        at = self.data.index(b"\n", after.start) + 1
        return Edit(at, at, self.indent(block.line) + f"  {name} {values}".encode() + self.newline)

    def find(self, lines: Iterable[Block | Line], name: str) -> Line | None:
        """The first of the lines that begins with that word; blocks are passed over."""
        word = name.encode()
        for line in lines:
            if isinstance(line, Line) and self.data[line.start : line.end].split(None, 1)[:1] == [word]:
                return line
        return None

    def indent(self, line: Line) -> bytes:
        """What stands before a line's first word."""
        text = self.data[line.start : line.end]
        return text[: len(text) - len(text.lstrip())]


def edited(data: bytes, edits: Iterable[Edit], start: int = 0, end: int | None = None) -> bytes:
    """Return ``data[start:end]`` with all edits done, whose offsets count from the begin of ``data``."""
    pieces, position = [], start
    for edit in sorted(edits, key=lambda edit: edit.start):  # stable: insertions at one place keep their order
        assert position <= edit.start <= edit.end, "edits overlap"
        pieces += [data[position : edit.start], edit.content]
        position = edit.end
    return b"".join([*pieces, data[position:end]])


def quoted(text: str) -> bytes:
    """A word in whichever quotes it does not hold; what holds all three loses its backquotes, as in REAPER."""
    for quote in "\"'":
        if quote not in text:
            return f"{quote}{text}{quote}".encode(errors="surrogateescape")
    return ("`" + text.replace("`", "'") + "`").encode(errors="surrogateescape")


def quotable(text: str) -> str:
    """A text as a project can hold it whatever it is: no control characters, and no backquotes."""
    return re.sub(r"[\x00-\x1f\x7f]", "_", text).replace("`", "'")


def shown(name: str) -> str:
    """A name from a project as a message may show it: printable, and not longer than a line."""
    clean = "".join(c if c.isprintable() else "?" for c in name.encode("utf-8", "replace").decode())
    return clean if len(clean) <= _SHOWN else clean[: _SHOWN - 3] + "..."


def _decoded(word: bytes) -> str:
    return word.decode(errors="surrogateescape")
