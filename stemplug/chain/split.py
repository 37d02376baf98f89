"""`StemSplit`: the stage that takes the signal apart, sends each stem through a branch, and sums them again."""

from __future__ import annotations

import math
import numbers
import os
from collections import UserDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeAlias

import numpy as np

from stemplug.audio import Audio, Timeline, check_rate
from stemplug.chain.board import Board, CustomStage, Stage
from stemplug.chain.lines import Line, TappedLine
from stemplug.engine import Separator, Stems, StemStream, model_info, shared_separator
from stemplug.errors import OptionError, unknown

Branch: TypeAlias = Stage | Sequence[Stage]
"""What a stem goes through: a stage, a list of stages, a `Board`, or None, which leaves it as it is."""

REST = "rest"
MAX_GAIN_DB = 120
FIRST_FRAMES = 512
"""At least as many come out of a stream at first: external plugins never take more at a time than they began with."""
PARALLEL_FRAMES = 4096
"""Shorter blocks are not worth handing to threads."""


class Mute:
    """A stage that gives silence."""

    def __call__(self, audio: Audio, sample_rate: float) -> Audio:
        """Return zeros of the shape of ``audio``."""
        return np.zeros_like(audio)

    def __repr__(self) -> str:
        return "Mute()"


class Gains(UserDict[str, float]):
    """Gains in dB by branch; raises `OptionError` for a branch that is not there, or a gain that is none."""

    def __init__(self, branches: Iterable[str], gains: Mapping[str, float]) -> None:
        self._known = tuple(branches)
        super().__init__(gains)

    def __setitem__(self, name: str, gain: float) -> None:
        if name not in self._known:
            raise OptionError(f"gain_db: {unknown('branch', name, self._known)}")
        if isinstance(gain, bool) or not isinstance(gain, numbers.Real) or not -math.inf <= gain <= MAX_GAIN_DB:
            raise OptionError(f"gain_db: {name} {gain!r}; expected decibels, at most {MAX_GAIN_DB}.")
        super().__setitem__(name, float(gain))


class StemSplit(CustomStage):
    """Split the signal into stems, process each in a branch, and sum them.

    With empty branches the output is the input, within 1e-6: branches are aligned, whatever latency the plugins in
    them have.

    Parameters
    ----------
    model:
        A name of the catalogue, the folder of a model, or "default". Loaded when first used; stages that name the same
        model share it.
    separator:
        A loaded `Separator` to use instead.
    rest:
        The branch of all stems that are not named, summed. Works with every model, as does ``vocals``.
    gain_db:
        Gain in dB after the branches, by stem or "rest"; ``-math.inf`` mutes. May be changed at any time.
    branches:
        By name of the stem: a plugin, a list, a `Board`, a function ``(audio, sample_rate) -> audio``, `Mute`, or
        None. Stems that are not named stay as they are. ``split["vocals"]`` is the branch as a `Board`.

    Raises
    ------
    OptionError
        For a stem that the model lacks, or a gain that is none.
    ModelError
        If there is no such model.
    """

    def __init__(
        self,
        /,
        *,
        model: str | os.PathLike[str] = "default",
        separator: Separator | None = None,
        rest: Branch = None,
        gain_db: Mapping[str, float] | None = None,
        **branches: Branch,
    ) -> None:
        self.model = None if separator else model
        self._separator = separator
        self.stems = separator.stems if separator else model_info(model).stems
        gains = dict(gain_db or {})
        for name in [*branches, *(name for name in gains if name != REST)]:
            if name not in self.stems:
                raise OptionError(f"{unknown('stem', name, self.stems)} rest= takes all that have no branch.")
        self._rest = rest is not None or REST in gains
        own = [name for name in self.stems if not self._rest or name in branches or name in gains]
        if self._rest and len(own) == len(self.stems):
            raise OptionError(f"rest= has no stem left: all have a branch or gain of their own ({', '.join(own)}).")
        self._branches = {name: _as_board(branches.get(name)) for name in own}
        if self._rest:
            self._branches[REST] = _as_board(rest)
        self.gain_db = Gains(self._branches, gains)

    def __getitem__(self, name: str) -> Board:
        if name not in self._branches:
            raise KeyError(unknown("branch", name, self._branches))
        return self._branches[name]

    def __repr__(self) -> str:
        shown = [f"{name}={list(board)!r}" for name, board in self._branches.items() if len(board)]
        shown += [f"gain_db={dict(self.gain_db)!r}"] if self.gain_db else []
        return f"StemSplit({', '.join(shown)})"

    @property
    def branches(self) -> dict[str, Board]:
        """The branches by stem, "rest" last; those that do nothing are empty."""
        return dict(self._branches)

    @property
    def separator(self) -> Separator:
        """The loaded model."""
        if self._separator is None:
            assert self.model is not None
            self._separator = shared_separator(self.model)
        return self._separator

    def parts(self) -> list[object]:
        """See `CustomStage`."""
        return [self, *(part for board in self._branches.values() for part in board.parts())]

    def line(self) -> Line:
        """See `CustomStage`."""
        return SplitLine(self, {name: board.line() for name, board in self._branches.items()})

    def group(self, stems: Mapping[str, Audio]) -> dict[str, Audio]:
        """What goes into the branches: stems, and the sum of the rest."""
        grouped = {name: stem for name, stem in stems.items() if name in self._branches}
        if self._rest:
            others = [stem for name, stem in stems.items() if name not in self._branches]
            grouped[REST] = sum(others[1:], others[0])
        return grouped


def _as_board(branch: Branch) -> Board:
    if isinstance(branch, Board):
        return branch
    if isinstance(branch, Sequence):
        return Board(branch)
    return Board([] if branch is None else [branch])


class SplitLine(TappedLine):
    """A `StemSplit` at work.

    While it streams, all lanes of the separator are at work, at the price of a window's latency each but the first; and
    the stems come out evenly: after the latency each block brings out as many frames as it holds.
    """

    def __init__(self, stage: StemSplit, branches: Mapping[str, Line]) -> None:
        super().__init__()
        self._stage, self._branches = stage, dict(branches)
        self.names = tuple(branches)
        self._pool = ThreadPoolExecutor(len(self._branches), thread_name_prefix="stemplug-branch")
        self._stream: StemStream | None = None

    def whole(self, audio: Audio, sample_rate: float, buffer_size: int) -> Audio:
        """See `Line`."""
        if not audio.shape[1]:
            return audio
        stems = self._stage.group(self._stage.separator.separate(audio, check_rate(sample_rate)))
        return self._mix(self._each(stems, lambda line, stem: line.whole(stem, sample_rate, buffer_size)))

    def push(self, audio: Audio, sample_rate: float, buffer_size: int) -> Audio:
        """See `Line`."""
        channels, frames = audio.shape
        if self._stream is None:
            self._open(channels, check_rate(sample_rate))
        assert self._stream
        if sample_rate != self._stream.sample_rate:
            raise OptionError(f"a block at {sample_rate} Hz; the stream began with {self._stream.sample_rate} Hz.")
        self._stream.feed(audio, copy=True)
        self._settings = sample_rate, buffer_size
        self._pushed += frames
        self._receive(self._stream.collect(self._in_flight))
        due = self._pushed - self._latency - self._split
        return self._process(min(frames, due) if self._split or due >= min(frames, FIRST_FRAMES) else 0)

    def flush(self) -> Audio | None:
        """See `Line`."""
        if self._stream is None:
            return None
        self._stream.end()
        self._receive(self._stream.collect())
        ready = self._process(self._pushed - self._split)
        for name, line in self._branches.items():
            rest = line.flush()
            if rest is not None:
                self._processed[name].append(rest)
        tail = np.concatenate([ready, self._mix_processed()], axis=1)
        self._stream = None
        return tail

    def drop(self) -> None:
        """See `Line`."""
        if self._stream:
            self._stream.cancel()
        self._stream = None
        for line in self._branches.values():
            line.drop()

    def reset(self) -> None:
        """See `Line`."""
        self.drop()
        for line in self._branches.values():
            line.reset()

    def _open(self, channels: int, sample_rate: int) -> None:
        separator = self._stage.separator
        self._stream = separator.stream(sample_rate)
        self._in_flight = separator.lanes - 1
        self._latency = self._stream.latency_samples + self._in_flight * self._stream.hop_samples
        self._waiting = {name: Timeline(channels) for name in self._branches}  # stems
        self._processed = {name: Timeline(channels) for name in self._branches}
        self._pushed = self._split = self._mixed = 0  # frames: in, into the branches, out

    def _receive(self, stems: Stems) -> None:
        for name, stem in self._stage.group(stems).items():
            self._waiting[name].append(stem)

    def _process(self, frames: int) -> Audio:
        """Push the next frames of all stems through the branches, and mix what all of them have ready."""
        if frames > 0:
            start, self._split = self._split, self._split + frames
            stems = {name: waiting.read(start, self._split) for name, waiting in self._waiting.items()}
            for name, ready in self._each(stems, lambda line, stem: line.push(stem, *self._settings)).items():
                self._processed[name].append(ready)
                self._waiting[name].forget(self._split)
        return self._mix_processed()

    def _mix_processed(self) -> Audio:
        start, self._mixed = self._mixed, min(processed.end for processed in self._processed.values())
        mix = self._mix({name: processed.read(start, self._mixed) for name, processed in self._processed.items()})
        for processed in self._processed.values():
            processed.forget(self._mixed)
        return mix

    def _each(self, stems: Mapping[str, Audio], job: Callable[[Line, Audio], Audio]) -> dict[str, Audio]:
        """Run ``job`` for every branch, side by side where it is worth it."""
        if max(stem.shape[1] for stem in stems.values()) < PARALLEL_FRAMES:
            return {name: job(self._branches[name], stem) for name, stem in stems.items()}
        jobs = {name: self._pool.submit(job, self._branches[name], stem) for name, stem in stems.items()}
        wait(jobs.values())  # also where one has failed: none may go on behind the caller's back
        return {name: done.result() for name, done in jobs.items()}

    def _mix(self, stems: dict[str, Audio]) -> Audio:
        """Apply the gains and sum."""
        gains = {name: 10 ** (self._stage.gain_db.get(name, 0.0) / 20) for name in stems}
        stems = {name: stem if gains[name] == 1 else stem * np.float32(gains[name]) for name, stem in stems.items()}
        self._keep(stems)
        first, *others = stems.values()
        total = first + others[0] if others else first.copy()
        for stem in others[1:]:
            total += stem
        return total
