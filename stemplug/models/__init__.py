"""Models: manifests, the catalogue, one runner a family. Mixture windows in, stem windows out."""

from stemplug.models.catalogue import (
    DEFAULT_LIVE_MODEL,
    DEFAULT_MODEL,
    ModelFolder,
    find_model,
    list_models,
    search_path,
)
from stemplug.models.handover import Handover
from stemplug.models.manifest import LIVE, Manifest, ModelFile, read_manifest
from stemplug.models.runner import FAMILIES, Geometry, Runner, Windows, fade_in, load_runner

__all__ = [
    "DEFAULT_LIVE_MODEL",
    "DEFAULT_MODEL",
    "FAMILIES",
    "LIVE",
    "Geometry",
    "Handover",
    "Manifest",
    "ModelFile",
    "ModelFolder",
    "Runner",
    "Windows",
    "fade_in",
    "find_model",
    "list_models",
    "load_runner",
    "read_manifest",
    "search_path",
]
