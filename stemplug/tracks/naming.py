"""From songs and stems to the names of files."""

from __future__ import annotations

import json
import os
import string
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from stemplug.audio.reader import SUFFIXES, PathLike
from stemplug.errors import AudioError, OptionError, unknown

DEFAULT_NAME, DEFAULT_FILE_NAME = "{song}/{stem}", "{song}"
_FIELDS = ("song", "stem", "model")
_NAME_BYTES = 255


def find_songs(inputs: Iterable[PathLike]) -> list[Path]:
    """Return the songs that ``inputs`` name: files as they are, folders searched through, in order.

    In folders, files are taken by their suffix; hidden ones, links to folders, and tracks that StemPlug wrote there (a
    ``stems.json`` beside them names them) are passed over.

    Raises
    ------
    AudioError
        If a folder holds no song.
    """
    songs: list[Path] = []
    for entry in inputs:
        path = Path(os.fsdecode(entry))
        if not os.path.isdir(path):  # unlike Path.is_dir, False for a name that is too long
            songs.append(path)
            continue
        found = [
            Path(root, file)
            for root, folders, files in os.walk(path)
            for file in files
            if Path(file).suffix.lower() in SUFFIXES and not _hidden(Path(root, file).relative_to(path))
        ]
        found = sorted(set(found) - set(_written(path)))
        if not found:
            raise AudioError(f"StemPlug finds no songs in the folder '{path}'. Expected WAV, FLAC, MP3, ...")
        songs += found
    return list(dict.fromkeys(songs))


def _written(folder: Path) -> Iterator[Path]:
    """The tracks below ``folder`` that reports of earlier splits name."""
    for report in folder.rglob("*stems.json"):
        try:
            found = json.loads(report.read_bytes())
            for file in [stem["file"] for stem in found["stems"]] + found.get("earlier", []):
                yield Path(os.path.normpath(report.parent / file))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # somebody else's file


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def check_template(template: str, *, one_file: bool = False) -> None:
    """Raise `OptionError` unless ``template`` is a relative path with the field {stem}, or without for ``one_file``."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise OptionError(f"--name '{template}': {error}. Example: '{DEFAULT_NAME}'.") from None
    fields = {field for _, field, _, _ in parsed if field is not None}
    if any(spec or conversion for _, _, spec, conversion in parsed):
        raise OptionError(f"--name '{template}': fields take no ':' and no '!'. Example: '{DEFAULT_NAME}'.")
    for field in fields - set(_FIELDS):
        raise OptionError(f"--name '{template}': {unknown('field', field, _FIELDS)}")
    if one_file and "stem" in fields:
        raise OptionError(f"--name '{template}': all stems go into one file, so leave {{stem}} out.")
    if not one_file and "stem" not in fields:
        raise OptionError(f"--name '{template}': {{stem}} is missing, so all stems would share one file.")
    parts = PurePosixPath(template.replace("\\", "/")).parts
    if ".." in parts or template.startswith(("/", "\\", "~")) or "\0" in template:
        raise OptionError(f"--name '{template}': it leads out of the output folder. Name files inside it.")
    if any(not part or part.startswith(".") for part in template.split("/")[1:]) or template.endswith("/"):
        raise OptionError(f"--name '{template}': a part of it is empty or hidden. Example: '{DEFAULT_NAME}'.")


def track_path(template: str, song: Path, stem: str, model: str, suffix: str) -> Path:
    """The path of a track below the output folder; raises `OptionError` where a name would be too long or unsafe."""
    name = song.stem or song.name
    path = Path(template.format(song=name, stem=stem, model=model) + "." + suffix)
    if path.is_absolute() or ".." in path.parts or name in (".", ".."):
        raise OptionError(f"'{song}' would be written to '{path}', out of the output folder. Rename the song.")
    for part in path.parts:
        if len(os.fsencode(part)) > _NAME_BYTES:
            raise OptionError(
                f"'{part[:40]}...' is a name of {len(os.fsencode(part))} bytes, {_NAME_BYTES} at most. "
                "Rename the song, or choose a shorter --name."
            )
    return path


def check_unique(songs: Iterable[Path], template: str, model: str) -> None:
    """Raise `OptionError` where two songs would be written to the same files."""
    by_target: dict[Path, list[Path]] = defaultdict(list)
    for song in songs:
        by_target[track_path(template, song, "stem", model, "wav")].append(song)
    for target, same in by_target.items():
        if len(same) > 1:
            raise OptionError(
                f"'{same[0]}' and '{same[1]}' would both be written to '{target.parent}'. "
                "Rename one, or split them into different folders."
            )
