"""Chains as plain data, so that they can be saved, shared and used by the command line.

A chain is ``{"chain": [STAGE, ...]}``. A stage is null, a name ("Mute", "Reverb"), or a name with its settings:
``{"Reverb": {"room_size": 0.2}}``. `Board`, `Mix`, `Chain` and `Pedalboard` hold a list of stages; `StemSplit` holds
``model``, ``gain_db``, and a stage or a list of stages for each stem and ``rest``; `VST3` holds ``path`` and, where
needed, ``name``, ``parameters`` and ``state`` (base64).
"""

from __future__ import annotations

import base64
import math
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pedalboard
import yaml

from stemplug.chain.board import Board
from stemplug.chain.split import REST, Mute, StemSplit
from stemplug.errors import ChainError, StemPlugError, unknown
from stemplug.yaml_file import Place, dotted_place, read_yaml

CHAIN = "chain"
PLUGINS: dict[str, type[Any]] = {
    name: plugin
    for name, plugin in vars(pedalboard).items()
    if isinstance(plugin, type)
    and issubclass(plugin, pedalboard.Plugin)
    and not issubclass(plugin, (pedalboard.PluginContainer, pedalboard.ExternalPlugin))
    and plugin is not pedalboard.Plugin
    and "IIRFilter" not in name  # an abstract base
}
CONTAINERS: dict[str, type[Any]] = {
    "Board": Board,
    "Chain": pedalboard.Chain,
    "Mix": pedalboard.Mix,
    "Pedalboard": pedalboard.Pedalboard,
}
NAMES = [*PLUGINS, *CONTAINERS, "StemSplit", "Mute", "VST3"]

_paths: WeakKeyDictionary[Any, tuple[str, str | None]] = WeakKeyDictionary()  # of external plugins, and their names


class _Fault(Exception):
    """Something wrong at a place of the data."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.place = place


def parameters(plugin: type[Any]) -> list[str]:
    """Names of the settings of a plugin of pedalboard: the arguments of its constructor, as pybind11 documents them."""
    signature = (plugin.__init__.__doc__ or "").strip().splitlines()[0]
    return [name for name in re.findall(r"[(,] ?(\w+): ", signature) if name != "self"]


def to_dict(board: Board) -> dict[str, Any]:
    """A board as plain data; raises `ChainError` for what only Python can hold, such as functions."""
    try:
        return {CHAIN: [_describe(stage, (CHAIN, index)) for index, stage in enumerate(board)]}
    except _Fault as fault:
        raise ChainError(f"{dotted_place(fault.place)}: {fault}") from None


def from_dict(data: object) -> Board:
    """The board that `to_dict` described; raises `ChainError`, naming the place, for what is none."""
    try:
        return _build_chain(data)
    except _Fault as fault:
        raise ChainError(f"{dotted_place(fault.place) or 'a chain'}: {fault}") from None


def save(board: Board, path: str | os.PathLike[str]) -> None:
    """Write a board to a YAML file, replacing one that is there."""
    text = yaml.safe_dump(to_dict(board), sort_keys=False, allow_unicode=True)
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, target)
    except (OSError, ValueError) as error:
        with suppress(OSError, ValueError):
            temporary.unlink()
        reason = getattr(error, "strerror", None) or str(error)
        raise ChainError(f"cannot write '{target}': {reason.lower()}.") from None


def load(path: str | os.PathLike[str]) -> Board:
    """Read a board from a YAML file; raises `ChainError`, naming file and line, for what is none."""
    file = read_yaml(Path(path), ChainError)
    try:
        return _build_chain(file.data)
    except _Fault as fault:
        raise ChainError(f"{file.locate(fault.place)}: {fault}") from None


def _describe(stage: Any, place: Place) -> Any:
    name = type(stage).__name__
    if stage is None:
        return None
    if isinstance(stage, Mute):
        return "Mute"
    if isinstance(stage, StemSplit):
        return {"StemSplit": _describe_split(stage, (*place, "StemSplit"))}
    if isinstance(stage, pedalboard.ExternalPlugin):
        return {"VST3": _describe_external(stage, place)}
    if isinstance(stage, pedalboard.PluginContainer):
        return {name: [_describe(inner, (*place, name, index)) for index, inner in enumerate(stage)]}
    if name not in PLUGINS:
        raise _Fault(place, f"{stage!r} cannot be saved: only plugins can. Build this chain in Python.")
    settings = {}
    for key in parameters(type(stage)):
        if hasattr(stage, key):
            settings[key] = _describe_value(getattr(stage, key), (*place, name, key))
    return {name: settings} if settings else name


def _describe_value(value: Any, place: Place) -> Any:
    if hasattr(type(value), "__members__"):
        return value.name
    if isinstance(value, float):
        return float(str(np.float32(value)))  # pedalboard's are float32
    if isinstance(value, (bool, int, str)):
        return value
    raise _Fault(place, f"{type(value).__name__} cannot be saved. Give a file instead.")


def _describe_split(split: StemSplit, place: Place) -> dict[str, Any]:
    if split.model is None:
        raise _Fault(place, "a separator cannot be saved. Give StemSplit a model by name or folder.")
    table: dict[str, Any] = {"model": os.fspath(split.model)}
    for name, board in split.branches.items():
        if len(board) or REST in split.branches:  # beside a rest an empty branch says that the stem is not in it
            table[name] = [_describe(stage, (*place, name, index)) for index, stage in enumerate(board)]
    if split.gain_db:
        table["gain_db"] = {name: float(gain) for name, gain in split.gain_db.items()}
    return table


def _describe_external(plugin: Any, place: Place) -> dict[str, Any]:
    if plugin not in _paths:
        raise _Fault(place, f"{plugin!r} does not tell its path. Load it with {{'VST3': {{'path': ...}}}}.")
    path, name = _paths[plugin]
    state = base64.b64encode(plugin.raw_state).decode()
    return {"path": path, **({"name": name} if name else {}), "state": state}


def _build_chain(data: object) -> Board:
    table = _table(data, (), (CHAIN,))
    if CHAIN not in table:
        raise _Fault((), f"'{CHAIN}' is missing: the list of stages.")
    try:
        return _build_board(table[CHAIN], (CHAIN,))
    except RecursionError:
        raise _Fault((CHAIN,), "its stages are nested too deep.") from None


def _build_board(data: object, place: Place) -> Board:
    """A stage or a list of stages as a board."""
    if isinstance(data, list):
        return Board([_build(stage, (*place, index)) for index, stage in enumerate(data)])
    return Board([] if data is None else [_build(data, place)])


def _build(data: object, place: Place) -> Any:
    if data is None:
        return None
    if isinstance(data, dict) and len(data) == 1:
        name, settings = next(iter(data.items()))
    elif isinstance(data, str):
        name, settings = data, None
    else:
        raise _Fault(place, f"expected a stage: a name, or one name with its settings, not {_shown(data)}.")
    if name not in NAMES:
        raise _Fault(place, unknown("stage", name, NAMES))
    inner = (*place, name)
    if name == "Mute":
        _table(settings, inner, ())
        return Mute()
    if name == "StemSplit":
        return _build_split(_table(settings, inner), inner)
    if name == "VST3":
        return _build_external(_table(settings, inner, ("path", "name", "parameters", "state")), inner)
    if name in CONTAINERS:
        board = _build_board([] if settings is None else settings, inner)
        if name != "Board" and not board.native:
            raise _Fault(inner, f"{name} runs plugins only. Put a Board or StemSplit around it, or in its place.")
        return board if name == "Board" else CONTAINERS[name](list(board))
    return _build_plugin(PLUGINS[name], _table(settings, inner, parameters(PLUGINS[name])), inner)


def _build_plugin(plugin: type[Any], settings: Mapping[str, Any], place: Place) -> Any:
    values, defaults = {}, None
    with suppress(TypeError):  # Convolution needs its file
        defaults = plugin()
    for key, value in settings.items():
        kind = type(getattr(defaults, key, None))
        members = getattr(kind, "__members__", None)
        if members is not None and (not isinstance(value, str) or value not in members):
            raise _Fault((*place, key), unknown("value", value, members))
        if isinstance(value, float) and not math.isfinite(value):
            raise _Fault((*place, key), f"{value} is no finite number.")
        if kind in (float, int) and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise _Fault((*place, key), f"{_shown(value)}; expected a number.")
        values[key] = members[value] if members is not None else value
    if plugin is pedalboard.Convolution and not os.path.isfile(str(values.get("impulse_response_filename"))):
        raise _Fault((*place, "impulse_response_filename"), "expected the path of an audio file.")
    return _guarded(lambda: plugin(**values), place)


def _build_split(settings: Mapping[str, Any], place: Place) -> StemSplit:
    options: dict[str, Any] = {}
    for key, value in settings.items():
        if key == "model":
            if not isinstance(value, str):
                raise _Fault((*place, key), f"{_shown(value)}; expected the name or folder of a model.")
            options[key] = value
        elif key == "gain_db":
            options[key] = _table(value, (*place, key))
        elif key == "separator":
            raise _Fault((*place, key), "a separator is for Python. Name a model.")
        else:
            options[key] = _build_board(value, (*place, key))
    split: StemSplit = _guarded(lambda: StemSplit(**options), place)
    return split


def _build_external(settings: Mapping[str, Any], place: Place) -> Any:
    path = settings.get("path")
    if not isinstance(path, str):
        raise _Fault((*place, "path"), "expected the path of a VST3 plugin.")
    name, state = settings.get("name"), settings.get("state")
    plugin = _guarded(lambda: pedalboard.VST3Plugin(path, plugin_name=name), place)
    if state is not None:
        _guarded(lambda: setattr(plugin, "raw_state", base64.b64decode(state, validate=True)), (*place, "state"))
    for key, value in _table(settings.get("parameters"), (*place, "parameters"), plugin.parameters).items():
        _guarded(partial(setattr, plugin, key, value), (*place, "parameters", key))
    _paths[plugin] = path, name
    return plugin


def _guarded(make: Callable[[], Any], place: Place) -> Any:
    """Run ``make``; what it refuses is wrong at ``place``."""
    try:
        return make()
    except StemPlugError as error:
        raise _Fault(place, str(error)) from None
    except (TypeError, ValueError, RuntimeError, ImportError, AttributeError, OverflowError) as error:
        text = str(error).splitlines()[0]
        raise _Fault(place, text if "incompatible" not in text else "a value is of the wrong kind.") from None


def _table(data: object, place: Place, allowed: Any = None) -> Mapping[str, Any]:
    """``data`` as a table with known keys."""
    if data is None:
        return {}
    if not isinstance(data, Mapping):
        raise _Fault(place, f"expected settings (name: value), not {_shown(data)}.")
    for key in data:
        if allowed is not None and key not in allowed:
            raise _Fault((*place, key), unknown("setting", key, allowed))
    return data


def _shown(data: object) -> str:
    kind = "null" if data is None else type(data).__name__
    return kind if isinstance(data, (dict, list)) or data is None else f"{kind} {str(data)[:60]!r}"
