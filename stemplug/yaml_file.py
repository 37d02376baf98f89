"""YAML files that people wrote: read with care, and told by the line where they are wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stemplug.errors import StemPlugError
from stemplug.files import read_regular

MAX_BYTES = 1 << 20

_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null")}

Place = tuple[str | int, ...]
"""Where something stands in a document: keys and indices from the top."""


@dataclass(frozen=True)
class YamlFile:
    """A YAML file: its data, and the line of each value."""

    path: Path
    data: Any
    lines: dict[Place, int]

    def locate(self, place: Place) -> str:
        """Name a place for a message: "FILE, line 3: chain[0].Gain"."""
        for end in range(len(place), -1, -1):  # what is missing is told at what should hold it
            if place[:end] in self.lines:
                dotted = dotted_place(place)
                return f"{self.path}, line {self.lines[place[:end]]}{': ' + dotted if dotted else ''}"
        return str(self.path)


def dotted_place(place: Place) -> str:
    """A place as people write it: "chain[0].Gain"."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place).lstrip(".")


def read_yaml(path: Path, error: type[StemPlugError]) -> YamlFile:
    """Read a YAML file of plain data: no tags, no aliases (which can grow without end), no key twice.

    Raises ``error``, naming file and line, for what cannot be read.
    """
    try:
        large = path.stat().st_size > MAX_BYTES
        text = "" if large else read_regular(path).decode("utf-8-sig")
    except OSError as failure:
        raise error(f"{path}: {(failure.strerror or str(failure)).lower()}.") from None
    except ValueError:
        raise error(f"{path}: no text. Expected a YAML file in UTF-8.") from None
    if large:
        raise error(f"{path}: larger than {MAX_BYTES} bytes. Expected a small YAML file.")
    lines: dict[Place, int] = {}
    try:
        node = _Loader(text).get_single_node()
        data = _plain(node, (), lines) if node else None
    except yaml.MarkedYAMLError as failure:
        mark = failure.problem_mark or failure.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise error(f"{path}{where}: not valid YAML ({failure.problem or failure.context}).") from None
    except (yaml.YAMLError, ValueError, RecursionError) as failure:
        raise error(f"{path}: not valid YAML ({str(failure).splitlines()[0][:200]}).") from None
    return YamlFile(path, data, lines)


_SCALARS: dict[str, tuple[str, Sequence[str]]] = {  # patterns, and the letters they may begin with
    "null": (r"null|~|", ["n", "~", ""]),
    "bool": (r"true|false", "tf"),
    "int": (r"[-+]?[0-9]+", "-+0123456789"),
    "float": (r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+.0123456789"),
}


class _Loader(yaml.SafeLoader):
    """Scalars as in YAML 1.2: 1e1 is a number, and yes, no and 1:30 are text."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases are not allowed", problem_mark=event.start_mark)
        return super().compose_node(parent, index)


def _plain(node: yaml.Node, place: Place, lines: dict[Place, int]) -> Any:
    """A node as dict, list or scalar; fills in ``lines``."""
    lines[place] = node.start_mark.line + 1
    if node.tag not in _TAGS:
        raise yaml.MarkedYAMLError(problem=f"the tag {node.tag} is not allowed", problem_mark=node.start_mark)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(child, (*place, index), lines) for index, child in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        table: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.value in table:
                raise yaml.MarkedYAMLError(
                    problem="a key stands twice, or is no text", problem_mark=key_node.start_mark
                )
            table[key_node.value] = _plain(value_node, (*place, key_node.value), lines)
        return table
    return _scalar(str(node.tag).rpartition(":")[2], node.value)


def _scalar(kind: str, text: str) -> Any:
    """Raises `ValueError` for a text that is none of its kind, which an explicit tag can claim."""
    if kind == "str":
        return text
    if not re.fullmatch(_SCALARS[kind][0], text):
        raise ValueError(f"'{text[:40]}' is no {kind}")
    if kind == "float":
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))
    if kind == "int":
        return int(text)
    return text == "true" if kind == "bool" else None


for _kind, (_pattern, _first) in _SCALARS.items():
    _resolver = f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$"), list(_first)
    _Loader.add_implicit_resolver(*_resolver)
