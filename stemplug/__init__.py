"""StemPlug: takes a song apart into stems, inside the chains people already have."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from stemplug.chain import Board, Mute, StemSplit
    from stemplug.engine import FileSeparation, Separator, Stems, StemStream, separate
    from stemplug.errors import (
        AudioError,
        Cancelled,
        ChainError,
        ModelError,
        OptionError,
        PluginError,
        SessionError,
        StageError,
        StemPlugError,
        TrackError,
        WorkerError,
    )
    from stemplug.tracks import FolderFormat, Selection, SplitResult, split
    from stemplug.tracks.chain import ChainResult, run_chain

# Names are imported at first use, so that `import stemplug` is quick and pulls in no heavy library.
_EXPORTS = {
    "Board": "stemplug.chain",
    "Mute": "stemplug.chain",
    "StemSplit": "stemplug.chain",
    "FileSeparation": "stemplug.engine",
    "Separator": "stemplug.engine",
    "StemStream": "stemplug.engine",
    "Stems": "stemplug.engine",
    "separate": "stemplug.engine",
    "ChainResult": "stemplug.tracks.chain",
    "FolderFormat": "stemplug.tracks",
    "Selection": "stemplug.tracks",
    "SplitResult": "stemplug.tracks",
    "run_chain": "stemplug.tracks.chain",
    "split": "stemplug.tracks",
    "AudioError": "stemplug.errors",
    "Cancelled": "stemplug.errors",
    "ChainError": "stemplug.errors",
    "ModelError": "stemplug.errors",
    "OptionError": "stemplug.errors",
    "PluginError": "stemplug.errors",
    "SessionError": "stemplug.errors",
    "StageError": "stemplug.errors",
    "StemPlugError": "stemplug.errors",
    "TrackError": "stemplug.errors",
    "WorkerError": "stemplug.errors",
}

__all__ = [
    "AudioError",
    "Board",
    "Cancelled",
    "ChainError",
    "ChainResult",
    "FileSeparation",
    "FolderFormat",
    "ModelError",
    "Mute",
    "OptionError",
    "PluginError",
    "Selection",
    "Separator",
    "SessionError",
    "SplitResult",
    "StageError",
    "StemPlugError",
    "StemSplit",
    "StemStream",
    "Stems",
    "TrackError",
    "WorkerError",
    "__version__",
    "run_chain",
    "separate",
    "split",
]


def __getattr__(name: str) -> object:
    if name in _EXPORTS:
        import importlib

        value: object = getattr(importlib.import_module(_EXPORTS[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'stemplug' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
