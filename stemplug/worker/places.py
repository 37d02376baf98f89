"""Where worker and plugin meet: the folder of the socket, and the one of the logs. cpp_shim/source/platform_linux.cpp
looks in the same places."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from stemplug.errors import WorkerError

RUNTIME, STATE = "STEMPLUG_RUNTIME_DIR", "XDG_STATE_HOME"
SOCKET, LOCK, LOG, PLUGIN_LOG = "worker.sock", "worker.lock", "worker.log", "plugin.log"


def runtime_folder() -> Path:
    """The folder of the socket: ``$STEMPLUG_RUNTIME_DIR``, ``$XDG_RUNTIME_DIR/stemplug`` or ``/tmp/stemplug-UID``."""
    if own := os.environ.get(RUNTIME):
        return Path(own)
    if xdg := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(xdg, "stemplug")
    return Path("/tmp" if os.name == "posix" else tempfile.gettempdir(), f"stemplug-{os.getuid()}")


def make_runtime_folder() -> Path:
    """Make that folder, for this user alone; raises `WorkerError` where it belongs to somebody else."""
    folder = runtime_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise WorkerError(f"'{folder}' is not this user's folder. Remove it, or set {RUNTIME} to another.")
        if stat.S_IMODE(found.st_mode) & 0o077:
            folder.chmod(0o700)
    except OSError as error:
        if isinstance(error, WorkerError):
            raise
        raise WorkerError(f"'{folder}': {(error.strerror or str(error)).lower()}. Set {RUNTIME} to another.") from None
    return folder


def log_folder() -> Path:
    """The folder of the logs, in the user's state folder."""
    state = os.environ.get(STATE)
    return (Path(state) if state else Path.home() / ".local" / "state") / "stemplug"
