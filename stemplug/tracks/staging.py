"""All or nothing: files are written beside their target, synced, and moved there at once."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

from stemplug.errors import TrackError

try:
    import fcntl
except ImportError:  # Windows: two runs on one output are not detected there
    fcntl = None  # type: ignore[assignment]

PREFIX = ".stemplug-"


class Staging:
    """A hidden folder in ``root``, locked by this process, whose files become ``targets`` when committed.

    A folder left behind by a process that was killed is taken over by the next run on the same output; one that a
    living process holds is an error.

    Parameters
    ----------
    root:
        The output folder; it is made, and removed again if nothing is committed.
    targets:
        Final paths below ``root``. The last one is written last: where it exists, all others are complete.
    """

    def __init__(self, root: Path, targets: list[Path]) -> None:
        self.root, self.targets = root, targets
        key = hashlib.sha256(b"\0".join(os.fsencode(t) for t in targets)).hexdigest()[:12]
        self.folder = root / f"{PREFIX}{key}"
        self._made = _make_folders(root)
        try:
            self._lock = self._acquire()
            for entry in os.scandir(self.folder):
                os.unlink(entry.path)
        except BaseException:
            self._remove_made()
            raise

    def _acquire(self) -> int:
        """Make and lock the folder; returns the descriptor that holds the lock."""
        for _ in range(20):
            with contextlib.suppress(FileExistsError):
                self.folder.mkdir()
            try:
                lock = os.open(self.folder, os.O_RDONLY)
            except FileNotFoundError:
                continue  # the other run has just finished
            try:
                if fcntl:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.stat(self.folder), os.fstat(lock)):
                    return lock
            except BlockingIOError:
                os.close(lock)
                break
            except FileNotFoundError:
                pass
            os.close(lock)
        raise TrackError(f"another run is writing to '{self.root / self.targets[0]}'. Wait for it, or end it.")

    def path(self, index: int) -> Path:
        """Where to write the file that becomes ``targets[index]``."""
        return self.folder / str(index)

    def commit(self) -> list[Path]:
        """Sync the files and move them to their targets; returns those paths."""
        finals = [self.root / target for target in self.targets]
        for index in range(len(finals)):
            _sync(self.path(index))
        parents = {final.parent for final in finals}
        if len(parents) == 1 and self.root not in parents and not (parent := parents.pop()).exists():
            self._rename_folder(parent)
        else:
            self._rename_files(finals)
        self._made = []
        self.close()
        return finals

    def _rename_folder(self, parent: Path) -> None:
        """The usual case, a new folder of its own: one rename, so there is no moment between nothing and all."""
        for index, target in enumerate(self.targets):
            os.replace(self.path(index), self.folder / target.name)
        parent.parent.mkdir(parents=True, exist_ok=True)
        os.rename(self.folder, parent)
        _sync(parent)
        _sync(parent.parent)

    def _rename_files(self, finals: list[Path]) -> None:
        """Into folders that hold other things. Without the last target, the marker, what is there is not whole."""
        finals[-1].unlink(missing_ok=True)
        for final in finals:
            final.parent.mkdir(parents=True, exist_ok=True)
        for index, final in enumerate(finals):
            os.replace(self.path(index), final)
        for folder in {final.parent for final in finals}:
            _sync(folder)

    def close(self) -> None:
        """Remove what was not committed."""
        if self._lock < 0:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1
        self._remove_made()

    def _remove_made(self) -> None:
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _make_folders(path: Path) -> list[Path]:
    """Make a folder and its parents; returns those that were not there, outermost first."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()][::-1]
    path.mkdir(parents=True, exist_ok=True)
    return missing


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems cannot sync folders
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
