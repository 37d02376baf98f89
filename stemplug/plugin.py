"""The VST3 plugin: where it is, and what it must know of this installation.

The bundle ``StemPlug.vst3`` is built by ``pip install`` into the package, or by ``make plugin``. In its
``Contents/Resources/stemplug.json`` stand the interpreter that runs the worker, and the models with their latencies,
so that the plugin answers its host without starting anything.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import stemplug
from stemplug.engine import Separator, installed_models
from stemplug.engine.installed import ModelInfo
from stemplug.errors import PluginError, StemPlugError
from stemplug.models.catalogue import DEFAULT_LIVE_MODEL, DEFAULT_MODEL
from stemplug.worker.lanes import OFFLINE_LANES

BUNDLE = "StemPlug.vst3"
SETTINGS = Path("Contents", "Resources", "stemplug.json")
RATES = (8_000, 16_000, 22_050, 32_000, 44_100, 48_000, 88_200, 96_000, 176_400, 192_000)
"""Sample rates whose latency the plugin is told; at others it takes the longest time among them."""
LATENCIES = ("low", "balanced", "high")
_COMPUTE_SECONDS = 0.037
"""What a live window of any model may take in the worker, with what the machine does beside it; and a hop at most."""


def path() -> Path:
    """Return the bundle, ready to load: its worker runs in this interpreter, with the models that are installed now.

    Where the package cannot be written to, that is a copy in the user's data folder.

    Raises
    ------
    PluginError
        If the plugin was not built, or cannot be copied.
    """
    bundle = _built()
    settings = _settings(bundle)
    if _read(bundle) == settings:
        return bundle
    try:
        _write(bundle, settings)
        return bundle
    except OSError:
        import platformdirs

        own = Path(platformdirs.user_data_dir("stemplug", appauthor=False)) / "plugin"
        return install(own) if _read(own / BUNDLE) != settings else own / BUNDLE


def install(folder: str | os.PathLike[str] | None = None) -> Path:
    """Copy the bundle into ``folder``, by default the user's folder of VST3 plugins; returns where it is.

    A bundle of ours that is there is replaced; hosts that have it loaded keep the old one until they are started anew.

    Raises
    ------
    PluginError
        If the plugin was not built, or something else is there, or the folder cannot be written to.
    """
    target = Path(folder if folder is not None else user_folder()).expanduser() / BUNDLE
    source = _built()
    _check_ours(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".stemplug-", dir=target.parent) as staging:
            copy, old = Path(staging, BUNDLE), Path(staging, "old")
            shutil.copytree(source, copy)
            _write(copy, _settings(source))
            if target.exists():
                target.rename(old)
            try:
                copy.rename(target)
            except OSError:
                with suppress(OSError):
                    old.rename(target)
                raise
    except OSError as error:
        raise PluginError(f"'{target}': {(error.strerror or str(error)).lower()}. Give another --dir.") from None
    return target


def uninstall(folder: str | os.PathLike[str] | None = None) -> Path:
    """Remove the bundle from ``folder``, by default the user's folder of VST3 plugins; returns where it was.

    Raises
    ------
    PluginError
        If it is not there, is not ours, or cannot be removed.
    """
    target = Path(folder if folder is not None else user_folder()).expanduser() / BUNDLE
    _check_ours(target)
    if not target.exists():
        raise PluginError(f"'{target}' is not there: nothing to uninstall. Give the --dir where it was installed.")
    try:
        shutil.rmtree(target)
    except OSError as error:
        raise PluginError(f"'{target}': {(error.strerror or str(error)).lower()}.") from None
    return target


def user_folder() -> Path:
    """The folder in which hosts look for this user's VST3 plugins (VST3 documentation, "Plug-in locations")."""
    if sys.platform == "darwin":
        return Path.home() / "Library/Audio/Plug-Ins/VST3"
    if sys.platform == "win32":
        return Path(os.environ["LOCALAPPDATA"], "Programs", "Common", "VST3")
    return Path.home() / ".vst3"


def _built() -> Path:
    """The bundle that was built for this package: ``make plugin`` in a checkout, or pip's."""
    package = Path(__file__).parent
    for folder in (package.parent / "build" / "plugin", package / "embedded", *_beside_editable()):
        if (folder / BUNDLE / "Contents").is_dir():
            return folder / BUNDLE
    raise PluginError(
        "The VST3 plugin was not built. Install a C++ compiler, CMake's needs (Debian: g++, juce-modules-source-data, "
        "nlohmann-json3-dev), and StemPlug again; or run 'make plugin' in its source."
    )


def _beside_editable() -> list[Path]:
    """Where pip puts what it builds for a checkout: beside other packages."""
    import sysconfig

    return [Path(sysconfig.get_path("platlib"), "stemplug", "embedded")]


def _check_ours(target: Path) -> None:
    if target.is_symlink() or (target.exists() and not (target / "Contents").is_dir()):
        raise PluginError(f"'{target}' is there and is no plugin of ours. Remove it, or give another --dir.")


def _read(bundle: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((bundle / SETTINGS).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write(bundle: Path, settings: dict[str, Any]) -> None:
    """Replace the settings at once: a host may be reading them."""
    target = bundle / SETTINGS
    target.parent.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=target.parent, prefix=".stemplug-", delete=False) as file:
        json.dump(settings, file, indent=1)
    os.chmod(file.name, 0o644)
    os.replace(file.name, target)


def _settings(bundle: Path) -> dict[str, Any]:
    """What the plugin is told. Measuring latencies takes seconds, so what is there for the same models is kept."""
    models = installed_models()
    content = [[entry.name, str(entry.path), json.dumps(entry.manifest, sort_keys=True)] for entry in models]
    key = hashlib.sha256(
        json.dumps([stemplug.__version__, OFFLINE_LANES, _COMPUTE_SECONDS, content]).encode()
    ).hexdigest()
    defaults = {"live": DEFAULT_LIVE_MODEL, "offline": DEFAULT_MODEL}
    settings: dict[str, Any] = {"python": sys.executable, "key": key, "defaults": defaults}
    known = _read(bundle)
    if known is not None and known.get("key") == key and "models" in known:
        return settings | {"models": known["models"]}
    entries = []
    for entry in models:
        with suppress(StemPlugError):  # a model that does not load is none for the plugin
            entries.append(_describe(entry))
    return settings | {"models": entries}


def _describe(entry: ModelInfo) -> dict[str, Any]:
    """A model with its latencies, and what a window may take, in the profiles that it has: offline, and maybe live."""
    live = LATENCIES if "live" in entry.manifest["profiles"] else ()
    separators = {name: Separator(entry.name, "live", latency=name) for name in live}
    latencies = {name: _latencies(separator, 0) for name, separator in separators.items()}
    latencies["offline"] = _latencies(Separator(entry.name), OFFLINE_LANES)
    compute = {name: _compute(separator) for name, separator in separators.items()} | {"offline": 0.0}
    return {
        "name": entry.name,
        "sha256": entry.digest,
        "stems": list(entry.stems),
        "residual": entry.manifest["residual"],
        "latencies": latencies,
        "compute": compute,
    }


def _compute(separator: Separator) -> float:
    """Seconds that a window may take: one that took longer than its hop would be late for ever."""
    rate = RATES[-1]
    return min(_COMPUTE_SECONDS, separator.stream(rate).hop_samples / rate)


def _latencies(separator: Separator, waiting: int) -> dict[str, int]:
    """Frames by sample rate; ``waiting`` windows may be at work beside the one that is due."""
    streams = [separator.stream(rate) for rate in RATES]
    return {str(s.sample_rate): s.latency_samples + waiting * s.hop_samples for s in streams}
