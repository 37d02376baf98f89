"""`Board`: a pedalboard whose stages may also be stem splits, other boards and functions."""

from __future__ import annotations

import itertools
import numbers
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, MutableSequence
from typing import Any, TypeAlias

import numpy as np
import pedalboard
from numpy.typing import NDArray

from stemplug.chain.layout import Layout
from stemplug.chain.lines import Call, Function, Line, Native, Series, TappedLine, flatten
from stemplug.engine import Stems
from stemplug.errors import AudioError, OptionError, StageError

MAX_RATE = 1_000_000


class CustomStage(ABC):
    """A stage of StemPlug's own that is no function: `StemSplit`."""

    @abstractmethod
    def parts(self) -> list[object]:
        """The stage and all that is inside it: a change of any of them is a change of the board."""

    @abstractmethod
    def line(self) -> Line:
        """The stage, ready to process audio."""


Stage: TypeAlias = pedalboard.Plugin | CustomStage | Function | None


class Board(pedalboard.Pedalboard):
    """A list of stages that process audio one after the other.

    What `pedalboard.Pedalboard` is and does, and besides: its stages may be `StemSplit`, functions ``(audio,
    sample_rate) -> audio``, and other boards with such stages; `split` also returns the stems; `flush` ends a stream.

    Parameters
    ----------
    plugins:
        The stages: pedalboard's plugins and containers, external plugins, boards, stem splits, functions, None.

    Raises
    ------
    StageError
        For what is no stage.
    """

    def __init__(self, plugins: Iterable[Stage] | None = None) -> None:
        super().__init__([])
        self._stages: list[Any] = []
        self._lock = threading.RLock()
        self._compiled: tuple[list[object], Series] | None = None
        self._layout: Layout | None = None  # of the stream, while there is one
        self._channels, self._sample_rate = 0, 0.0
        self._failure: BaseException | None = None
        self._steady: tuple[Native, float, int] | None = None  # a stream through nothing but plugins
        if plugins is not None and (isinstance(plugins, (str, bytes)) or not isinstance(plugins, Iterable)):
            raise StageError(f"Board takes a list of stages, not {_shown(plugins)}: write Board([...]).")
        self.extend(plugins or [])

    # A list, as pedalboard's containers are meant to be.

    def __len__(self) -> int:
        return len(self._stages)

    def __getitem__(self, index: Any) -> Any:
        return Board(self._stages[index]) if isinstance(index, slice) else self._stages[index]

    def __setitem__(self, index: Any, plugin: Any) -> None:
        stages = list(plugin) if isinstance(index, slice) else [plugin]
        for stage in stages:
            _check(self, stage)
        self._stages[index] = stages if isinstance(index, slice) else plugin
        self._mirror()

    def __delitem__(self, index: Any) -> None:
        del self._stages[index]
        self._mirror()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._stages)

    def __contains__(self, plugin: object) -> bool:
        return plugin in self._stages

    def insert(self, index: int, plugin: Stage) -> None:
        """Insert a stage before ``index``; raises `StageError` for what is none."""
        _check(self, plugin)
        self._stages.insert(index, plugin)
        self._mirror()

    def append(self, plugin: Stage) -> None:
        """Append a stage; raises `StageError` for what is none."""
        self.insert(len(self), plugin)

    def remove(self, plugin: Stage) -> None:
        """Remove the first stage that equals ``plugin``; raises `ValueError` where there is none."""
        if plugin not in self._stages:
            raise ValueError("remove(x): x not in list")
        del self[self._stages.index(plugin)]

    extend: Any = MutableSequence.extend
    pop: Any = MutableSequence.pop
    clear: Any = MutableSequence.clear
    reverse: Any = MutableSequence.reverse
    index: Any = MutableSequence.index
    count: Any = MutableSequence.count
    __reversed__: Any = MutableSequence.__reversed__

    def __iadd__(self, plugins: Iterable[Stage]) -> Board:
        self.extend(plugins)
        return self

    def __add__(self, plugins: Iterable[Stage]) -> Board:
        return Board([*self._stages, *plugins])

    def _mirror(self) -> None:
        """Tell pedalboard what is in the list, so that a board of plugins can stand wherever a Pedalboard can.

        Where a stage is none of pedalboard's, a plugin that stands there twice makes pedalboard refuse to run the
        board, rather than leave the stage out.
        """
        self._steady = None
        base = pedalboard.Pedalboard
        while base.__len__(self):
            base.__delitem__(self, 0)
        dummy = pedalboard.Gain(0)
        for plugin in self._stages if self.native else [dummy, dummy]:
            base.append(self, plugin)

    # Processing.

    @property
    def native(self) -> bool:
        """Whether all stages are pedalboard's own, so that it may stand inside pedalboard's containers."""
        return all(_is_native(stage) for stage in self._stages)

    def process(
        self,
        input_array: NDArray[np.floating[Any]],
        sample_rate: float,
        buffer_size: int = 8192,
        reset: bool = True,
    ) -> NDArray[np.float32]:
        """Process a song, or with ``reset=False`` the next block of a stream.

        Parameters
        ----------
        input_array:
            float32 or float64: ``(channels, frames)``, ``(frames, channels)`` or ``(frames,)``; mono or stereo where
            there is a stem split, else any number of channels.
        sample_rate:
            Hz.
        buffer_size:
            Frames that pedalboard's plugins are given at a time, at least 1.
        reset:
            True processes a whole song, and returns as many frames. False goes on where the last call ended, and
            returns what is ready, at most as many frames, beginning with the first; `flush` returns the rest.

        Returns
        -------
        float32, in the layout of ``input_array``.

        Raises
        ------
        TypeError, RuntimeError
            As pedalboard, for arrays that are no audio, or a plugin that stands in a board twice.
        AudioError
            For a bad sample rate; at a stem split also for more than two channels or samples that are NaN.
        OptionError
            If the board was changed while it streams.
        """
        return self._run(input_array, sample_rate, buffer_size, reset)

    __call__ = process  # type: ignore[assignment]  # pedalboard's stub has another name for the array

    def split(
        self,
        input_array: NDArray[np.floating[Any]],
        sample_rate: float,
        buffer_size: int = 8192,
        reset: bool = True,
    ) -> tuple[NDArray[np.float32], Stems]:
        """Process as `process` does, and return the stems as well.

        Returns
        -------
        The mix, and the stems ``(channels, frames)`` as they leave the board's stem split, with branch and gain; what
        follows in the board is in the mix alone. In a stream a stem's frames may come out before those of the mix;
        with those of `flush_split` both are as long as the song.

        Raises
        ------
        OptionError
            If the board has no `StemSplit`, or several in series.
        """
        with self._lock, self._split_line().tapped() as stems:
            mix = self._run(input_array, sample_rate, buffer_size, reset)
            channels = Layout.of(mix, sample_rate, self._layout, self._channels).channels(mix)
            return mix, Stems(stems(channels), round(sample_rate))

    @property
    def stem_names(self) -> tuple[str, ...]:
        """Names of the stems that `split` gives; raises what it raises."""
        return self._split_line().names

    def flush(self) -> NDArray[np.float32]:
        """End a stream: return the frames held back, in the stream's layout. The next call begins anew."""
        with self._lock:
            self._check_usable()
            layout, channels, line = self._layout, self._channels, self._compile()
            try:
                tail = line.flush() if layout else None
            except BaseException as error:
                self._failure = error
                raise
            self._end()
            if layout is None:
                return np.zeros(0, np.float32)
            return layout.outward(np.zeros((channels, 0), np.float32) if tail is None else tail)

    def flush_split(self) -> tuple[NDArray[np.float32], Stems]:
        """End a stream of `split`: `flush`, and the stems that were held back."""
        with self._lock, self._split_line().tapped() as stems:
            channels, sample_rate = self._channels, self._sample_rate
            if not self._layout:
                raise OptionError("there is no stream to end. Give split(..., reset=False) a block before.")
            tail = self.flush()
            return tail, Stems(stems(channels), round(sample_rate))

    def reset(self) -> None:
        """Forget the stream and all state of the plugins, such as the tail of a reverb."""
        with self._lock:
            self._end()
            self._compile().reset()

    def to_dict(self) -> dict[str, Any]:
        """The board as plain data (dict, list, str, float), for `from_dict`, JSON or YAML.

        Raises `ChainError` for what only Python can hold: functions, impulse responses given as arrays, external
        plugins that were not loaded by `from_dict` and so do not tell their path.
        """
        from stemplug.chain import saved

        return saved.to_dict(self)

    @staticmethod
    def from_dict(data: object) -> Board:
        """The board that `to_dict` described (format: stemplug/chain/saved.py).

        Raises `ChainError`, which names the place, for what is none.
        """
        from stemplug.chain import saved

        return saved.from_dict(data)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the board to a YAML file, replacing one that is there; raises what `to_dict` raises."""
        from stemplug.chain import saved

        saved.save(self, path)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Board:
        """Read a board from a YAML file; raises `ChainError`, which names file and line, for what is none."""
        from stemplug.chain import saved

        return saved.load(path)

    def parts(self) -> list[object]:
        """The board and all stages, those inside stem splits and boards included."""
        return [self, *itertools.chain.from_iterable(_parts(stage) for stage in self._stages)]

    def line(self) -> Series:
        """The stages, ready to process audio: those of pedalboard that follow each other as one."""
        lines: list[Line] = []
        for native, run in itertools.groupby(self._stages, key=_is_native):
            if native:
                lines.append(Native(list(run)))
                continue
            for stage in run:
                if isinstance(stage, Board):
                    lines += stage.line().lines
                else:
                    lines.append(stage.line() if isinstance(stage, CustomStage) else Call(stage))
        return Series(lines)

    def _run(self, array: NDArray[Any], sample_rate: float, buffer_size: int, reset: bool) -> NDArray[np.float32]:
        if self._steady and not reset:
            native, rate, size = self._steady
            if sample_rate == rate and buffer_size == size and native.continues(array):
                return native.advance(array, rate, size)
        _check_settings(sample_rate, buffer_size)
        with self._lock:
            if reset:
                self._end()
            self._check_usable()
            line = self._compile()
            if reset:
                return self._whole(line, array, sample_rate, buffer_size)
            layout = Layout.of(array, sample_rate, self._layout, self._channels)
            audio = layout.inward(array)
            self._layout, self._channels, self._sample_rate = layout, len(audio), sample_rate
            try:
                ready = layout.outward(line.push(audio, sample_rate, buffer_size))
                if np.may_share_memory(ready, array):
                    ready = ready.copy()
                only = line.lines[0] if len(line.lines) == 1 else None
                if isinstance(only, Native) and layout == Layout(2, False):
                    self._steady = only, sample_rate, buffer_size
                return ready
            except BaseException as error:
                self._failure = error  # a block is missing: what followed would be out of place
                raise

    def _whole(self, line: Series, array: NDArray[Any], sample_rate: float, buffer_size: int) -> NDArray[np.float32]:
        layout = Layout.of(array, sample_rate)
        if self.native:
            native = line.lines[0] if line.lines else Native([])
            assert isinstance(native, Native)
            return native.as_pedalboard(array, layout.channels(array), sample_rate, buffer_size)
        return layout.outward(line.whole(layout.inward(array), sample_rate, buffer_size))

    def _compile(self) -> Series:
        """The stages at work: made when first used and after each change of the board."""
        parts = self.parts()[1:]  # without itself, so that it goes as soon as nobody holds it
        if self._compiled:
            known, line = self._compiled
            if len(known) == len(parts) and all(old is new for old, new in zip(known, parts, strict=True)):
                return line
            if self._layout:
                return self._recompile(line, parts)
        _check_parts(parts)
        self._compiled = parts, self.line()
        return self._compiled[1]

    def _recompile(self, line: Series, parts: list[object]) -> Series:
        """Go on with other plugins while streaming, as pedalboard can."""
        only = line.lines[0] if line.lines else None
        if not self.native or not (only is None or (isinstance(only, Native) and not only.holds)):
            raise OptionError(
                "the board was changed while it streams and holds frames back. Undo that to go on, or call reset()."
            )
        _check_parts(parts)
        if only:
            only.replace(self._stages)
        else:
            line = self.line()
        self._compiled = parts, line
        return line

    def _split_line(self) -> TappedLine:
        splits = [line for line in self._compile().lines if isinstance(line, TappedLine)]
        if len(splits) != 1:
            raise OptionError(f"the stems are those of one StemSplit; the board has {len(splits) or 'none'} in series.")
        return splits[0]

    def _end(self) -> None:
        """Forget the stream, but not the state of plugins."""
        self._layout, self._channels, self._failure, self._steady = None, 0, None, None
        if self._compiled:
            self._compiled[1].drop()

    def _check_usable(self) -> None:
        if self._failure:
            raise OptionError(f"the stream has failed ({self._failure}). Call reset() to begin another.")


def _is_native(stage: Stage) -> bool:
    return stage is None or (stage.native if isinstance(stage, Board) else isinstance(stage, pedalboard.Plugin))


def _parts(stage: Stage) -> list[object]:
    if isinstance(stage, (Board, CustomStage)):
        return stage.parts()
    return list(flatten([stage])) if isinstance(stage, pedalboard.Plugin) else [stage]


def _check(board: Board, stage: object) -> None:
    """Raise `StageError` unless ``stage`` may stand in ``board``."""
    if isinstance(stage, pedalboard.Plugin):
        pedalboard.Pedalboard([stage])  # refuses instruments
    elif isinstance(stage, type) or not (stage is None or isinstance(stage, CustomStage) or callable(stage)):
        advice = " Put () after it." if isinstance(stage, type) else ""
        advice = " Write Board([...]) around it." if isinstance(stage, (list, tuple)) else advice
        raise StageError(
            f"{_shown(stage)} is no stage; expected a plugin of pedalboard, a Board, a StemSplit or a function "
            f"(audio, sample_rate) -> audio.{advice}"
        )
    if any(part is board for part in _parts(stage)):
        raise StageError("a board cannot stand inside itself.")


def _check_parts(parts: list[object]) -> None:
    """Refuse what pedalboard cannot run: a plugin that stands there twice, a board with other stages inside a Mix."""
    plugins = [part for part in parts if isinstance(part, pedalboard.Plugin)]
    for plugin in plugins:
        if isinstance(plugin, pedalboard.PluginContainer) and not isinstance(plugin, Board):
            for part in flatten([plugin]):
                if _refuses(part):
                    raise StageError(
                        f"a Board with a stem split or a function stands inside {type(plugin).__name__}, which runs "
                        "plugins only. Use Board and StemSplit around it."
                    )
    seen: set[int] = set()
    for plugin in plugins:
        if id(plugin) in seen:
            twice = pedalboard.Pedalboard([plugin, plugin])
            twice(np.zeros((1, 1), np.float32), 44100)  # raises: the error is pedalboard's
        seen.add(id(plugin))


def _refuses(part: pedalboard.Plugin) -> bool:
    """Whether a part of a container is a board with other stages, of which pedalboard may know only the dummies."""
    if isinstance(part, Board):
        return not part.native
    return isinstance(part, pedalboard.PluginContainer) and len(part) == 2 and part[0] is part[1]


def _check_settings(sample_rate: object, buffer_size: object) -> None:
    """Refuse what would hang or crash pedalboard; it tells itself what is no number."""
    if isinstance(sample_rate, numbers.Real) and not 1 <= float(sample_rate) <= MAX_RATE:
        raise AudioError(f"sample rate {sample_rate}; expected 1 to {MAX_RATE} Hz.")
    if isinstance(buffer_size, numbers.Integral) and buffer_size < 1:
        raise OptionError(f"buffer_size {buffer_size}; expected at least 1 frame.")


def _shown(thing: object) -> str:
    return f"{type(thing).__name__} {str(thing)[:60]!r}"
