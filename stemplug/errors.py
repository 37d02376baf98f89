"""All errors that StemPlug raises on purpose.

    StemPlugError
    |-- AudioError      (also ValueError)    audio that cannot be used: a file, an array, a sample rate
    |-- OptionError     (also ValueError)    a setting that does not exist or contradicts another
    |   `-- StageError  (also TypeError)     something that is no stage of a chain
    |-- ModelError      (also RuntimeError)  a model or a device that cannot be used
    |-- TrackError      (also OSError)       stems that cannot be written
    |-- ChainError      (also ValueError)    a saved chain that cannot be used
    |-- SessionError    (also ValueError)    a mix-down session that cannot be rendered
    |-- PluginError     (also RuntimeError)  the VST3 plugin
    |-- WorkerError     (also RuntimeError)  the process that serves the plugin
    `-- Cancelled                            the caller asked to stop

Each message says what was received, what was expected and what to do. ``exit_code`` is what the command line returns.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class StemPlugError(Exception):
    """Base of all errors that StemPlug raises on purpose."""

    exit_code = 1


class AudioError(StemPlugError, ValueError):
    """Audio that cannot be used: a file, an array or a sample rate."""

    exit_code = 3


class OptionError(StemPlugError, ValueError):
    """A setting that does not exist or contradicts another."""

    exit_code = 2


class StageError(OptionError, TypeError):
    """Something that is no stage of a chain."""


class ModelError(StemPlugError, RuntimeError):
    """A model or a device that cannot be used."""

    exit_code = 4


class TrackError(StemPlugError, OSError):
    """Stems that cannot be written."""

    exit_code = 6


class ProjectError(TrackError):
    """A project of a DAW that cannot be read, or holds what cannot be split."""

    exit_code = 3


class ChainError(StemPlugError, ValueError):
    """A saved chain that cannot be used."""

    exit_code = 3


class SessionError(StemPlugError, ValueError):
    """A mix-down session that cannot be rendered."""

    exit_code = 3


class PluginError(StemPlugError, RuntimeError):
    """The VST3 plugin cannot be found, installed or loaded."""

    exit_code = 5


class WorkerError(StemPlugError, RuntimeError):
    """The process that serves the plugin cannot be reached or started."""

    exit_code = 5


class Cancelled(StemPlugError):
    """The caller asked to stop; nothing was left behind."""

    exit_code = 130


def unknown(kind: str, name: object, choices: Iterable[str]) -> str:
    """Say that ``name`` is no known ``kind``, list the choices and suggest the nearest."""
    known = sorted(choices)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"Unknown {kind} '{name}'. Choices: {', '.join(known) or 'none'}.{hint}"
