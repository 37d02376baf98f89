"""`render`: a session file becomes its deliverables, all or none."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from stemplug.audio import Audio
from stemplug.session.loudness import TOLERANCE_LU, Leveled, dithered, measure, normalize
from stemplug.session.plan import Output, Planner
from stemplug.session.schema import SONG, Deliverable
from stemplug.session.source import Source, sha256
from stemplug.session.stages import Cache, Runner, Stage, digest, versions, versions_digest
from stemplug.tracks.encode import check_format, check_rate_of, open_track
from stemplug.tracks.folder import check_target
from stemplug.tracks.staging import Staging, unwritable
from stemplug.tracks.wav import TrackTags

REPORT = "render.json"
BY = "rendered by StemPlug"
_CODEC_ATTEMPTS = 4
Progress = Callable[[str, bool], None]
"""Told the name of each stage that is rendered, and whether it comes from the cache."""


@dataclass(frozen=True)
class Rendered:
    """What a render gave: the files, what is in `REPORT`, the stages in order and whether the cache had them.

    After a dry run ``paths`` are those that would be written, and ``report`` has no deliverables.
    """

    paths: list[Path]
    report: dict[str, Any]
    stages: list[tuple[str, bool]] = field(default_factory=list)

    @property
    def remarks(self) -> list[str]:
        """What the deliverables miss: "mix.wav: ..."."""
        return [f"{each['file']}: {text}" for each in self.report["deliverables"] for text in each["remarks"]]


def render(
    session: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    only: tuple[str, ...] = (),
    dry_run: bool = False,
    overwrite: bool = False,
    trust: bool = False,
    cache: str | os.PathLike[str] | None = None,
    use_cache: bool = True,
    progress: Progress | None = None,
) -> Rendered:
    """Render a session file into a folder.

    Must be called on the main thread: DawDreamer's first render crashes elsewhere.

    Parameters
    ----------
    session:
        A YAML file, see `stemplug.session.schema`.
    output:
        The folder for the deliverables and ``render.json``.
    only:
        Names of deliverables; all by default.
    dry_run:
        Check and plan, and write nothing.
    overwrite:
        Replace files that exist.
    trust:
        Let the session use files outside of its folder, VST3 plugins, and Faust code that reaches out of Faust.
    cache:
        A folder for the results of stages; by default in the user's cache folder.
    use_cache:
        False renders everything anew, and keeps nothing.
    progress:
        See `Progress`.

    Raises
    ------
    SessionError
        Naming file, line and field, for what is no session or cannot be rendered.
    OptionError
        If files exist already, or there is no deliverable of a name.
    TrackError
        If the files cannot be written.
    """
    path, folder = Path(session), Path(output)
    source = Source(path, trust=trust)
    try:
        planners = _planners(source)
        jobs = [(planner, prefix, each) for prefix, planner in planners.items() for each in planner.outputs(only)]
    except RecursionError:
        source.fail((), "its effects or buses are nested too deep.")
    targets = [Path(prefix) / f"{each.name}.{each.deliverable.format}" for _, prefix, each in jobs] + [Path(REPORT)]
    for _, _, each in jobs:
        _check_form(source, each)
    for target in targets:
        for file in (path, *source.inputs):
            check_target(folder / target, file, overwrite=overwrite)
    report: dict[str, Any] = {
        "session": {"file": path.name, "sha256": sha256(path)},
        "versions": versions(),
        "models": {name: hash for planner in planners.values() for name, hash in planner.models.items()},
        "inputs": {source.shown(file): hash for file, hash in sorted(source.inputs.items())},
        "deliverables": [],
    }
    stages: list[tuple[str, bool]] = []
    with ExitStack() as stack:
        if not use_cache:
            cache = stack.enter_context(tempfile.TemporaryDirectory(prefix="stemplug-"))
        kept = Cache(Path(cache) if cache else _cache_folder())
        if dry_run:
            planned = _planned([each.stage for _, _, each in jobs], kept)
            return Rendered([folder / target for target in targets], report, planned)

        def done(stage: Stage, cached: bool) -> None:
            stages.append((stage.name, cached))
            if progress:
                progress(stage.name, cached)

        try:
            staging = stack.enter_context(Staging(folder, targets, overwrite=overwrite))
            runner = Runner(kept, done)
            for index, (planner, _, each) in enumerate(jobs):
                file, about = _delivered(each, planner, runner, kept, path.stem)
                shutil.copyfile(file, staging.path(index))
                report["deliverables"].append({"file": targets[index].as_posix(), **about})
            staging.path(len(jobs)).write_text(json.dumps(report, indent=1) + "\n", encoding="ascii")
            paths = staging.commit()
        except OSError as error:
            raise unwritable(folder, error) from None
        kept.prune()
    return Rendered(paths, report, stages)


def _planners(source: Source) -> dict[str, Planner]:
    """A planner, or one for each song, by the folder of its deliverables."""
    songs, planners = source.session.songs, dict[str, Planner]()
    used = any(clip.file == SONG for track in source.session.tracks.values() for clip in track.clips)
    if songs and not used:
        source.fail(("songs",), f"no clip has file: {SONG}, so all songs would give the same.")
    for index, song in enumerate(songs):
        source.file_at(("songs", index), song)
        prefix = Path(song).stem
        if not prefix.strip("."):
            source.fail(("songs", index), "the file's name gives no name for a folder. Rename it.")
        if prefix.casefold() == REPORT:
            source.fail(("songs", index), f"a folder named '{prefix}' would stand where {REPORT} goes. Rename it.")
        if prefix.casefold() in (known.casefold() for known in planners):
            source.fail(("songs", index), f"two songs are called '{prefix}', the name of their folder. Rename one.")
        planners[prefix] = Planner(source, song)
    return planners or {"": Planner(source)}


def _check_form(source: Source, output: Output) -> None:
    """Raise `SessionError` unless format, depth and rate fit together."""
    deliverable = output.deliverable
    place = ("deliverables", output.name.partition("/")[0])
    with source.at(place):
        check_format(deliverable.format, deliverable.bit_depth)
        check_rate_of(deliverable.format, source.session.sample_rate)


def _cache_folder() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("stemplug", appauthor=False)) / "sessions"


def _planned(targets: list[Stage], cache: Cache) -> list[tuple[str, bool]]:
    """The stages that a render would need, and whether the cache has them."""
    stages: dict[str, tuple[str, bool]] = {}
    waiting = targets[::-1]
    while waiting:
        stage = waiting.pop()
        if stage.key not in stages:
            cached = cache.path(stage.key, "npy").exists()
            stages[stage.key] = stage.name, cached
            waiting += [] if cached else stage.inputs[::-1]
    return list(stages.values())[::-1]


def _delivered(
    output: Output, planner: Planner, runner: Runner, cache: Cache, title: str
) -> tuple[Path, dict[str, Any]]:
    """The file of a deliverable, in the cache, and what is to be said of it."""
    deliverable, rate = output.deliverable, planner.time.sample_rate
    name = output.name.rpartition("/")[2]
    key = digest([versions_digest(), output.stage.key, deliverable.model_dump(), name, title])
    file, about = cache.path(key, deliverable.format), cache.path(key, "json")
    try:
        known = json.loads(about.read_text(encoding="ascii"))
        if known["sha256"] == sha256(file):
            return file, known
    except (OSError, ValueError):
        pass
    audio, lower = runner.render(output.stage), 0.0
    for _ in range(_CODEC_ATTEMPTS):
        made, level = _leveled(audio, rate, deliverable, lower)
        cache.keep(file, partial(_encode, made, rate, deliverable, TrackTags(name, title, f"{name} of {title}, {BY}")))
        known = {"of": deliverable.of, "sha256": sha256(file), **_judged(file, deliverable, level)}
        above = known["above_db"]
        del known["above_db"]
        if not deliverable.loudness or above <= 0:
            break
        lower += above + 0.01  # what a codec adds to peaks shows when it is done
    cache.keep(about, lambda path: path.write_text(json.dumps(known), encoding="ascii"))
    return file, known


def _leveled(audio: Audio, rate: int, deliverable: Deliverable, lower_db: float) -> tuple[Audio, Leveled]:
    """Audio at the deliverable's loudness, under its ceiling less ``lower_db``, and with dither."""
    level, target = Leveled(), deliverable.loudness
    if target:
        audio, level = normalize(audio, rate, target, lower_db=lower_db)
    if _bits(deliverable) == "16" and deliverable.dither:
        audio = dithered(audio, 16)
    return audio, level


def _encode(audio: Audio, rate: int, deliverable: Deliverable, tags: TrackTags, path: Path) -> None:
    encoder = open_track(path, deliverable.format, _bits(deliverable), rate, len(audio), tags)
    try:
        encoder.write(np.asarray(audio))
    finally:
        encoder.close()


def _judged(file: Path, deliverable: Deliverable, level: Leveled) -> dict[str, Any]:
    """Measure the file that was written, and tell what it misses."""
    samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    found, remarks = measure(np.ascontiguousarray(samples.T), rate), []
    if level.missed:
        remarks.append(level.missed)
    target = deliverable.loudness
    if target and not level.missed and abs(found.lufs - target.lufs) > TOLERANCE_LU:
        remarks.append(f"{found.lufs:.2f} LUFS in place of {target.lufs:g}, by the format's doing.")
    ceiling = target.true_peak_db if target else 0.0
    above = found.true_peak_db - ceiling
    if above > 0:
        remarks.append(
            f"true peak {found.true_peak_db:+.2f} dBTP, above {ceiling:g}. "
            + ("Lower true_peak_db, or use wav or flac." if target else "Give it a loudness, or turn the master down.")
        )
    numbers = {"lufs": found.lufs, "true_peak_db": found.true_peak_db, **asdict(level)}
    del numbers["missed"]
    rounded = {key: round(value, 2) if math.isfinite(value) else None for key, value in numbers.items()}
    return {**rounded, "remarks": remarks, "above_db": above}


def _bits(deliverable: Deliverable) -> str | None:
    """The bit depth: 24 where none is asked for, none for lossy formats."""
    return None if deliverable.format in ("ogg", "mp3") else deliverable.bit_depth or "24"
