"""What a model says of itself: ``manifest.toml``, read and checked before anything of the model is loaded."""

from __future__ import annotations

import tomllib
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from stemplug.errors import ModelError
from stemplug.files import read_regular

SCHEMA = 1
FILE_NAME = "manifest.toml"
LIVE = "live"
"""The profile that has settings for each latency: a table of tables."""
_MAX_BYTES = 1 << 20

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelFile(_Strict):
    """A file of the model, relative to its folder, and the SHA-256 of its content.

    Or a file of another ``model``, found by name: so that what two models share is installed once.
    """

    path: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    model: Name | None = None

    @property
    def place(self) -> str:
        """The path; behind the other model's name, where the file is another's."""
        return self.path if self.model is None else f"{self.model}/{self.path}"

    @field_validator("path")
    @classmethod
    def _inside(cls, value: str) -> str:
        parts = PurePosixPath(value).parts
        if not parts or ".." in parts or value.startswith("/") or "\\" in value or ":" in value or "\0" in value:
            raise ValueError("must lie inside the model's folder")
        return value


class Manifest(_Strict):
    """The manifest of a model.

    ``stems`` are in the order in which the runner gives them; ``residual`` is the one that also receives what the
    model does not explain. ``reference_level_db`` is the level of the loudest passage (dBFS, RMS over 93 ms) at which
    the engine lets the model hear every song; without it songs come as they are. ``settings`` and ``profiles`` (a
    table a profile) belong to the family, ``metrics`` are for people (dB SDR by stem, with the set's name).
    """

    schema_version: Annotated[int, Field(alias="schema")]
    name: Name
    version: str
    licence: str
    origin: str
    family: Name
    stems: Annotated[list[Name], Field(min_length=2, max_length=16)]
    residual: Name
    sample_rate: Annotated[int, Field(ge=8_000, le=192_000)]
    channels: Annotated[int, Field(ge=1, le=2)]
    reference_level_db: Annotated[float | None, Field(ge=-60, le=0)] = None
    files: dict[str, ModelFile] = {}
    settings: dict[str, Any] = {}
    profiles: dict[str, dict[str, Any]]
    metrics: dict[str, Any] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        if len(set(self.stems)) != len(self.stems):
            raise ValueError("stems: a name stands twice")
        if self.residual not in self.stems:
            raise ValueError(f"residual: '{self.residual}' is none of the stems")
        if "offline" not in self.profiles:
            raise ValueError("profiles: 'offline' is missing")
        if not all(isinstance(settings, dict) for settings in self.profiles.get(LIVE, {}).values()):
            raise ValueError("profiles: 'live' is no table of latencies")
        return self


def read_manifest(folder: Path) -> Manifest:
    """Read and check ``folder/manifest.toml``.

    Raises
    ------
    ModelError
        If it is missing, malformed, or of a newer schema than this version of StemPlug knows.
    """
    path = folder / FILE_NAME
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ModelError(f"{path}: larger than {_MAX_BYTES} bytes, so no manifest. Reinstall the model.")
        table = tomllib.loads(read_regular(path).decode())
    except OSError as error:
        raise ModelError(f"{path}: {(error.strerror or str(error)).lower()}. Give a model's folder or name.") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not valid TOML ({error}). Reinstall the model.") from None
    schema = table.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise ModelError(f"{path}: schema {schema}, this StemPlug reads up to {SCHEMA}. Update StemPlug.")
    if schema != SCHEMA:
        raise ModelError(f"{path}: schema {schema!r}, expected {SCHEMA}. Reinstall the model.")
    try:
        return Manifest.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"{path}: {where + ': ' if where else ''}{first['msg']}. Correct it or reinstall.") from None
