"""The stages of a mix-down: pieces of work whose results are kept by the hash of all that goes into them."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from stemplug.audio import Audio
from stemplug.errors import TrackError

LIBRARIES = ("stemplug", "dawdreamer", "pedalboard", "numpy", "scipy", "soxr", "soundfile", "onnxruntime", "pyloudnorm")
"""Whose versions decide what a render gives."""
MAX_CACHE_BYTES = 8 << 30


def versions() -> dict[str, str]:
    """The installed versions of `LIBRARIES`."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def digest(data: Any) -> str:
    """SHA-256 of plain data, in hex."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Stage:
    """A piece of work: ``work`` turns the audio of ``inputs`` into audio, ``(channels, frames)``.

    Attributes
    ----------
    name:
        For people: the field of the session, and what is done.
    settings:
        Plain data which together with the inputs decides the result's bits.
    """

    name: str
    settings: Any
    inputs: tuple[Stage, ...]
    work: Callable[[Sequence[Audio]], Audio] = field(repr=False)

    def __post_init__(self) -> None:
        _ = self.key  # now, where the inputs have theirs: later it would recurse through the whole session

    @cached_property
    def key(self) -> str:
        """The content hash."""
        return digest([versions_digest(), self.settings, [stage.key for stage in self.inputs]])


_versions: list[str] = []


def versions_digest() -> str:
    """Hash of `versions`, told once."""
    if not _versions:
        _versions.append(digest(versions()))
    return _versions[0]


class Cache:
    """Results by key, in a folder. What was used longest ago goes first when it grows beyond `MAX_CACHE_BYTES`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, key: str, suffix: str) -> Path:
        """Where the result of a key is or will be."""
        return self._folder / f"{key}.{suffix}"

    def audio(self, key: str) -> Audio | None:
        """The audio of a stage, mapped from the disk; None where it is not there, or damaged."""
        path = self.path(key, "npy")
        try:
            audio: Audio = np.load(path, mmap_mode="r", allow_pickle=False)
            os.utime(path)
        except (OSError, ValueError, EOFError):
            return None
        return audio

    def keep_audio(self, key: str, audio: Audio) -> Audio:
        """Keep the audio of a stage, and return it as `audio` does."""

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.save(file, np.ascontiguousarray(audio, np.float32))

        self.keep(self.path(key, "npy"), write)
        kept = self.audio(key)
        return audio if kept is None else kept

    def keep(self, path: Path, write: Callable[[Path], object]) -> None:
        """Let ``write`` make a file, which then appears whole at ``path``; raises `TrackError` where it cannot."""
        temporary = path.with_name(f".{os.getpid()}-{path.name}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write(temporary)
            os.replace(temporary, path)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise TrackError(
                f"cannot write to the cache '{self._folder}': {reason}. Choose another, or none."
            ) from None
        finally:
            temporary.unlink(missing_ok=True)

    def prune(self, limit: int = MAX_CACHE_BYTES) -> None:
        """Forget what was used longest ago, until the rest is within ``limit`` bytes."""
        entries = []
        for path in self._folder.glob("[0-9a-f]*.*"):
            with suppress(OSError):
                entries.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= limit:
                return
            with suppress(OSError):
                path.unlink()
                total -= size


class Runner:
    """Renders stages, each once. ``done`` is called with every stage and whether it came from the cache."""

    def __init__(self, cache: Cache, done: Callable[[Stage, bool], None] = lambda stage, cached: None) -> None:
        self._cache, self._done = cache, done
        self._results: dict[str, Audio] = {}

    def render(self, target: Stage) -> Audio:
        """The audio of a stage; what it needs is rendered first, unless it is there already."""
        waiting = [target]
        while waiting:
            stage = waiting[-1]
            if stage.key not in self._results:
                audio = self._cache.audio(stage.key)
                missing = [each for each in stage.inputs if each.key not in self._results] if audio is None else []
                if missing:
                    waiting += missing
                    continue
                self._done(stage, audio is not None)
                if audio is None:
                    made = stage.work([self._results[each.key] for each in stage.inputs])
                    audio = self._cache.keep_audio(stage.key, made)
                self._results[stage.key] = audio
            waiting.pop()
        return self._results[target.key]
