"""Zips that others wrote, and new ones: names and sizes are checked before anything is done with them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from stemplug.closing import Closing
from stemplug.errors import ProjectError, TrackError
from stemplug.tracks.staging import PREFIX, unwritable
from stemplug.tracks.xml_text import MAX_BYTES, Element, clean, parse

_AUDIO_BYTES = 16 << 30  # 3 h of 192 kHz stereo floats
_BLOCK = 1 << 20
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))}


class Archive(Closing):
    """A DAWproject being read; raises `TrackError` for whatever is wrong with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._name = f"StemPlug cannot read '{path}'"
        if not path.is_file():  # a pipe would not end
            raise ProjectError(f"{self._name}: no such file, or not a regular one. Check the path.")
        with self._reading():
            self._zip = zipfile.ZipFile(path)
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def __contains__(self, name: str) -> bool:
        return name in self._zip.NameToInfo

    @property
    def members(self) -> list[zipfile.ZipInfo]:
        """All members, in their order."""
        return self._zip.infolist()

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def _check(self) -> None:
        for name, count in Counter(self._zip.namelist()).items():
            if count > 1:
                raise ProjectError(f"{self._name}: it holds '{name}' {count} times. Export it again.")
        for info in self.members:
            reason = unsafe(info.orig_filename)
            if stat.S_ISLNK(info.external_attr >> 16):
                reason = "is a link"
            if reason:
                raise ProjectError(f"{self._name}: its member {info.orig_filename!r} {reason}. Do not trust this file.")
            if info.flag_bits & 1:
                raise ProjectError(f"{self._name}: '{info.filename}' is encrypted. Unlock it first.")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ProjectError(f"{self._name}: '{info.filename}' is neither stored nor deflated. Zip it again.")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn what zipfile raises for broken files into `TrackError`."""
        try:
            yield
        except TrackError:
            raise
        except OSError as error:
            raise ProjectError(f"{self._name}: {(error.strerror or str(error)).lower()}. Check the disk.") from None
        except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError) as error:
            raise ProjectError(
                f"{self._name}: it is no zip file, or cut off or broken ({str(error).rstrip('.')}). "
                "Expected a DAWproject; export or copy it again."
            ) from None

    @contextlib.contextmanager
    def checking(self, name: str) -> Iterator[None]:
        """Turn the ValueError of wrong content into a `TrackError` that names the member."""
        try:
            yield
        except ValueError as error:
            raise ProjectError(f"{self._name}: {name}: {error}. Export it again.") from None

    def document(self, name: str) -> tuple[bytes, Element]:
        """An XML member: its text, and the root element."""
        if name not in self:
            raise ProjectError(f"{self._name}: it holds no {name}. Expected a DAWproject.")
        with self._reading(), self._zip.open(name) as file:
            data = file.read(MAX_BYTES + 1)
        with self.checking(name):
            return data, parse(data)

    def blocks(self, name: str) -> Iterator[bytes]:
        """The content of a member, piece by piece; its size is what comes, not what the zip claims."""
        if name not in self:
            raise ProjectError(
                f"{self._name}: it holds no '{name}', though its project.xml refers to it. Export it again."
            )
        size = 0
        with self._reading(), self._zip.open(name) as file:
            while block := file.read(_BLOCK):
                size += len(block)
                if size > _AUDIO_BYTES:
                    raise ProjectError(f"{self._name}: '{name}' is larger than {_AUDIO_BYTES >> 30} GB. Shorten it.")
                yield block

    def extract(self, name: str, target: Path) -> None:
        """Write a member to ``target``."""
        try:
            with open(target, "wb") as file:
                for block in self.blocks(name):
                    file.write(block)
        except OSError as error:
            with contextlib.suppress(OSError):
                target.unlink()
            raise unwritable(target.parent, error) from None


def unsafe(name: str) -> str | None:
    """Why a path must not be followed: it leads out of its folder, or is no file's; None if it is safe."""
    parts = name.removesuffix("/").split("/")
    if any(ord(character) < 32 for character in name):
        return "has control characters in its name"
    if "\\" in name or re.match("[A-Za-z]:", name) or {"", ".", ".."} & set(parts):
        return "leads out of its folder"
    if any(part.split(".")[0].strip().lower() in _DEVICES for part in parts):
        return "has the name of a device"
    return None


@contextlib.contextmanager
def new_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip being written, that takes the place of ``path`` when all is in it; `TrackError` if it cannot be."""
    part = path.with_name(f"{PREFIX}{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]}.part")
    try:
        try:
            with open(part, "wb") as file:
                with zipfile.ZipFile(file, "w") as archive:
                    yield archive
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise unwritable(path.parent, error) from None


def add_file(archive: zipfile.ZipFile, name: str, source: Path) -> None:
    """Copy a file into a zip, piece by piece and as it is: audio hardly deflates."""
    try:
        file = open(source, "rb")  # noqa: SIM115 - closed below, where other errors are those of the zip
    except OSError as error:
        raise ProjectError(f"StemPlug cannot read '{source}': {(error.strerror or str(error)).lower()}.") from None
    with file:
        info = new_member(clean(name))
        info.file_size = os.fstat(file.fileno()).st_size  # beyond 2 GB the zip needs other headers
        with archive.open(info, "w") as member:
            shutil.copyfileobj(file, member, _BLOCK)


def copy_member(source: Archive, info: zipfile.ZipInfo, archive: zipfile.ZipFile, content: bytes | None = None) -> None:
    """Copy a member from zip to zip with its name, date, method and mode; ``content`` replaces what it holds."""
    target = zipfile.ZipInfo(info.filename, info.date_time)
    for name in ("compress_type", "external_attr", "create_system", "comment", "file_size"):
        setattr(target, name, getattr(info, name))
    with archive.open(target, "w") as member:
        for block in source.blocks(info.filename) if content is None else [content]:
            member.write(block)


def new_member(name: str) -> zipfile.ZipInfo:
    """Of a fixed date: the same stems give the same file."""
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    return info
