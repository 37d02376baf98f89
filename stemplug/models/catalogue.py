"""Where models are found: an explicit path, ``STEMPLUG_MODELS``, the user's data folder, the installed package."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from stemplug.errors import ModelError, unknown
from stemplug.files import read_regular
from stemplug.models.manifest import FILE_NAME, Manifest, ModelFile, read_manifest

DEFAULT_MODEL = "stemplug-4s"
DEFAULT_LIVE_MODEL = "stemplug-live"
ENVIRONMENT = "STEMPLUG_MODELS"


@dataclass(frozen=True)
class ModelFolder:
    """A model on disk whose manifest was read."""

    path: Path
    manifest: Manifest

    def _entry(self, key: str) -> ModelFile:
        entry = self.manifest.files.get(key)
        if entry is None:
            raise ModelError(f"{self.path / FILE_NAME}: files.{key} is missing. Reinstall the model.")
        return entry

    def owner(self, key: str) -> ModelFolder:
        """Return the model that a file belongs to: this one, or the one that the manifest names.

        Raises
        ------
        ModelError
            If the manifest has no such file, or no model of that name can be found.
        """
        name = self._entry(key).model
        found = self if name is None else _search(name)
        if found is None:
            raise ModelError(
                f"{self.manifest.name}: works only together with the model '{name}', which is missing. "
                f"Install it, or add the folder that holds it to {ENVIRONMENT}."
            )
        return found

    def read(self, key: str) -> bytes:
        """Return the content of a file of the model, after its SHA-256 was compared with the manifest's.

        Raises
        ------
        ModelError
            If it is missing, leaves the folder, or is not what the manifest says.
        """
        entry, folder = self._entry(key), self.owner(key).path
        path = folder / entry.path
        try:
            if not path.resolve().is_relative_to(folder.resolve()):
                raise ModelError(f"{path}: leads outside the model's folder; refused. Reinstall the model.")
            content = read_regular(path)
        except RuntimeError as error:  # a loop of links, before Python 3.13
            if isinstance(error, ModelError):
                raise
            raise ModelError(f"{path}: {error}. Reinstall the model.") from None
        except OSError as error:
            raise ModelError(f"{path}: {(error.strerror or str(error)).lower()}. Reinstall the model.") from None
        found = hashlib.sha256(content).hexdigest()
        if found != entry.sha256:
            models = "the model" if entry.model is None else f"'{entry.model}' and '{self.manifest.name}'"
            raise ModelError(
                f"{path}: SHA-256 {found[:12]}... ({len(content)} bytes), {entry.sha256[:12]}... expected: "
                f"damaged or changed. Reinstall {models}."
            )
        return content

    def verify(self) -> None:
        """Read every file of the model and compare its hash; raises `ModelError` at the first that is wrong."""
        for key in self.manifest.files:
            self.read(key)


def search_path() -> list[Path]:
    """The folders that hold models, first match wins."""
    import platformdirs

    package = Path(__file__).parents[1]
    embedded = package / "embedded"  # where the wheel puts the repository's models/
    return [
        *(Path(entry) for entry in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if entry),
        Path(platformdirs.user_data_dir("stemplug", appauthor=False)) / "models",
        embedded if embedded.is_dir() else package.parent / "models",
    ]


def find_model(model: str | os.PathLike[str] = "default", *, live: bool = False) -> ModelFolder:
    """Find a model by its name, by the path of its folder, or the ``"default"``, which is another one ``live``.

    Raises
    ------
    ModelError
        If there is no such model (the message lists those that there are), or its manifest cannot be read.
    """
    text = os.fspath(model)
    if os.sep in text or (os.altsep and os.altsep in text) or isinstance(model, os.PathLike):
        folder = Path(text).expanduser()
        return ModelFolder(folder, read_manifest(folder))
    default = DEFAULT_LIVE_MODEL if live else DEFAULT_MODEL
    name = default if text == "default" else text
    if found := _search(name):
        return found
    if os.path.isfile(Path(text) / FILE_NAME):
        return find_model(Path(text))
    raise ModelError(unknown("model", name, {found.manifest.name for found in list_models()}))


def _search(name: str) -> ModelFolder | None:
    """Look for a model on the search path."""
    for root in search_path():
        folder = root / name
        if name and folder.parent == root and os.path.isfile(folder / FILE_NAME):
            return _named(folder)
    return None


def _named(folder: Path) -> ModelFolder:
    """Read a model that is found by the name of its folder."""
    manifest = read_manifest(folder)
    if manifest.name != folder.name:
        raise ModelError(f"{folder}: the manifest's name is '{manifest.name}'. Rename the folder so.")
    return ModelFolder(folder, manifest)


def list_models() -> list[ModelFolder]:
    """All models that can be found by name, in the order of the search path; unreadable ones are left out."""
    found: dict[str, ModelFolder] = {}
    for root in search_path():
        for path in sorted(root.glob(f"*/{FILE_NAME}")):
            try:
                found.setdefault(path.parent.name, _named(path.parent))
            except ModelError:
                continue
    return list(found.values())
