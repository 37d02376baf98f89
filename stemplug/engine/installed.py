"""What the layers above may know of models without loading them."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stemplug.models import DEFAULT_LIVE_MODEL, DEFAULT_MODEL, ModelFolder, find_model, list_models


@dataclass(frozen=True)
class ModelInfo:
    """An installed model, as its manifest describes it."""

    name: str
    version: str
    licence: str
    stems: tuple[str, ...]
    path: Path
    default: bool
    default_live: bool
    manifest: dict[str, Any]

    def verify(self) -> None:
        """Compare every file with its hash; raises `ModelError` at the first that is wrong."""
        find_model(self.path).verify()

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of the manifest's list of files and their hashes: tells models of one name apart."""
        return hashlib.sha256(json.dumps(self.manifest["files"], sort_keys=True).encode()).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types, without the whole manifest."""
        fields = {**asdict(self), "path": str(self.path)}
        del fields["manifest"]
        return fields


def _info(folder: ModelFolder) -> ModelInfo:
    manifest = folder.manifest
    return ModelInfo(
        name=manifest.name,
        version=manifest.version,
        licence=manifest.licence,
        stems=tuple(manifest.stems),
        path=folder.path,
        default=folder.path.name == manifest.name == DEFAULT_MODEL,
        default_live=folder.path.name == manifest.name == DEFAULT_LIVE_MODEL,
        manifest=manifest.model_dump(mode="json", by_alias=True, exclude_none=True),
    )


def model_info(model: str | os.PathLike[str] = "default") -> ModelInfo:
    """Describe a model by name or folder; raises `ModelError` if there is none."""
    return _info(find_model(model))


def installed_models() -> list[ModelInfo]:
    """Describe all models that can be named, in the order of the search path."""
    return [_info(folder) for folder in list_models()]
