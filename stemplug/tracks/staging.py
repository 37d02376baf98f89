"""All or nothing: files are written beside their target, synced, and moved there at once."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from pathlib import Path

from stemplug.closing import Closing
from stemplug.errors import TrackError

try:
    import fcntl
except ImportError:  # Windows: two runs on one output are not detected there
    fcntl = None  # type: ignore[assignment]

PREFIX = ".stemplug-"
_CANNOT_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
"""What file systems say that cannot sync at all."""


class Staging(Closing):
    """A hidden folder in ``root``, locked by this process, whose files become ``targets`` when committed.

    The last target is the marker: it names the lock, and it is written last, so where it exists, all others are
    complete. A folder left behind by a process that was killed is taken over by the next run with the same marker; one
    that a living process holds is an error.

    Parameters
    ----------
    root:
        The output folder; it is made, and removed again if nothing is committed.
    targets:
        Final paths below ``root``.
    overwrite:
        Whether files that exist may be replaced.
    """

    def __init__(self, root: Path, targets: list[Path], *, overwrite: bool = False) -> None:
        self.root, self.targets, self._overwrite = root, targets, overwrite
        self.folder = root / f"{PREFIX}{hashlib.sha256(os.fsencode(targets[-1])).hexdigest()[:12]}"
        self._lock = -1
        self._made = _make_folders(root)
        try:
            self._lock = self._acquire()
            for entry in os.scandir(self.folder):
                shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
        except BaseException:
            self._unlock()
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
            if not _try_lock(lock):
                os.close(lock)
                break
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(self.folder), os.fstat(lock)):
                    return lock
            os.close(lock)
        raise TrackError(f"another run is writing to '{self.root / self.targets[0]}'. Wait for it, or end it.")

    def path(self, index: int) -> Path:
        """Where to write the file that becomes ``targets[index]``."""
        return self.folder / str(index)

    def commit(self) -> list[Path]:
        """Sync the files and move them to their targets; returns those paths. If it fails, nothing has changed.

        Raises
        ------
        OSError
            FileExistsError if a target has appeared meanwhile and may not be replaced, or what the system says.
        """
        finals = [self.root / target for target in self.targets]
        for index in range(len(finals)):
            sync(self.path(index))
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
        # From here on the hidden name is free, and may be another run's.
        self._unlock()
        _sync_folder(parent)
        _sync_folder(parent.parent)

    def _rename_files(self, finals: list[Path]) -> None:
        """Into folders that hold other things. Without the marker, what is there is not whole."""
        if not self._overwrite:
            for final in filter(os.path.lexists, finals):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))
        made = [folder for final in finals for folder in _make_folders(final.parent)]
        with contextlib.ExitStack() as undo:
            for folder in made:
                undo.callback(_remove_empty, folder)
            undo.callback(_restore, *self._put_aside(finals[-1], len(finals) - 1))
            finals[-1].unlink(missing_ok=True)
            for index, final in enumerate(finals):
                backup = self._put_aside(final, index) if final is not finals[-1] else (None, final)
                undo.callback(_restore, *backup)
                os.replace(self.path(index), final)
            undo.pop_all()
        for folder in {final.parent for final in finals}:
            _sync_folder(folder)

    def _put_aside(self, final: Path, index: int) -> tuple[Path | None, Path]:
        """Keep a file that is to be replaced, until all are; returns what `_restore` needs."""
        if not os.path.lexists(final):
            return None, final
        old = self.folder / f"{index}.old"
        try:
            os.link(final, old, follow_symlinks=False)  # so that there is no moment without it
        except OSError:
            os.rename(final, old)
        return old, final

    def close(self) -> None:
        """Remove what was not committed."""
        if self._lock >= 0:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._unlock()
            self._remove_made()

    def _unlock(self) -> None:
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def _remove_made(self) -> None:
        for folder in reversed(self._made):
            _remove_empty(folder)


def unwritable(folder: Path, error: OSError) -> TrackError:
    """What the system said while tracks were written to ``folder``, with advice."""
    if isinstance(error, TrackError):
        return error
    reason = (error.strerror or str(error)).lower()
    if isinstance(error, FileExistsError) and str(error.filename).startswith(f"{folder}{os.sep}"):
        return TrackError(f"'{error.filename}' has appeared meanwhile. Use --overwrite to replace it.")
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = "Choose another folder, or free some space." if full else "Choose another folder or --name."
    return TrackError(f"cannot write to '{folder}': {reason}. {advice}")


def _try_lock(descriptor: int) -> bool:
    """Lock a folder; False if another process holds it. Where the file system has no locks, all may go on."""
    if fcntl:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
    return True


def _restore(old: Path | None, final: Path) -> None:
    if old is None:
        final.unlink(missing_ok=True)
    else:
        os.replace(old, final)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _make_folders(path: Path) -> list[Path]:
    """Make a folder and its parents; returns those that were not there, outermost first."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()][::-1]
    path.mkdir(parents=True, exist_ok=True)
    return missing


def sync(path: Path) -> None:
    """Wait until what was written to a file is on the disk; raises `OSError` where it will not get there."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    """As `sync`; but the files are in their place by then, so it is too late to fail."""
    with contextlib.suppress(OSError):
        sync(path)
