"""`SplitGraph`: stem splits anywhere in a graph of DawDreamer, with plugin delay compensation."""

from __future__ import annotations

import numbers
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from stemplug.audio import Audio, check_rate
from stemplug.dawdreamer.plan import Node, Plan, ProcessorNode, SplitNode, make_plan
from stemplug.engine import Separator, Stems, shared_separator
from stemplug.errors import AudioError, OptionError, StageError, unknown

try:
    import dawdreamer
except ImportError:
    raise ImportError("SplitGraph needs DawDreamer. Install it: pip install 'stemplug[dawdreamer]'") from None

MAX_SECONDS = 24 * 3600
MAX_ATTEMPTS = 4


class SplitGraph:
    """A graph on a `dawdreamer.RenderEngine`, some nodes of which split audio into stems.

    The processors are DawDreamer's own: automation, MIDI, tempo and Faust work as ever. `render` loads graphs into the
    engine and runs it, as often as there are splits and processors with latency one behind the other; what they share
    is rendered once. Load a graph of your own before you render without SplitGraph.

    What it adds to DawDreamer: splits; parallel paths and automation are aligned by the latency that plugins report,
    and the whole is not late; the length is exact; a graph that DawDreamer would render wrong, with a warning or
    without, is an error.

    Parameters
    ----------
    engine:
        The engine that makes the processors. Faust processors must be compiled before its first render: DawDreamer
        0.9 cannot compile any later. Do not call `enable_all_buses` on plugins.

    Examples
    --------
    >>> import dawdreamer, numpy as np
    >>> engine = dawdreamer.RenderEngine(44100, 512)
    >>> song = engine.make_playback_processor("song", np.zeros((2, 44100), np.float32))
    >>> graph = SplitGraph(engine)
    >>> graph.add(song)
    >>> graph.split("split", "song")
    >>> graph.render(0.5)
    >>> graph.stems("split")
    Stems(vocals, drums, bass, other; 2 channels, 22050 frames, 44100 Hz)
    """

    def __init__(self, engine: Any) -> None:
        if not isinstance(engine, dawdreamer.RenderEngine):
            raise StageError(f"SplitGraph takes a dawdreamer.RenderEngine, not {type(engine).__name__}.")
        self._engine = engine
        self._rate = check_rate(engine.__getstate__()["sample_rate"], "the engine")
        self._nodes: dict[str, Node] = {}
        self._audio: dict[str, Audio] = {}
        self._stems: dict[str, Stems] = {}

    def add(
        self,
        processor: Any,
        inputs: Sequence[str] = (),
        *,
        latency_samples: int | None = None,
        partial_inputs: bool = False,
    ) -> None:
        """Add a processor of the engine.

        Parameters
        ----------
        processor:
            Made by the engine.
        inputs:
            Names of processors and stems ("split.vocals"), which may be added later. As in DawDreamer their channels
            follow one another, they are not summed: mix with ``engine.make_add_processor``.
        latency_samples:
            By how many frames its output is late; by default what a plugin reports.
        partial_inputs:
            Whether inputs of the processor may stay unconnected, say those of a side chain.

        Raises
        ------
        OptionError
            For a processor of another engine, or one that was added already.
        """
        if not isinstance(processor, dawdreamer.ProcessorBase):
            raise StageError(f"add() takes a processor that the engine made, not {type(processor).__name__}.")
        name = processor.get_name()
        if self._engine.get_processor(name) is not processor:
            raise OptionError(f"'{name}' is a processor of another engine, or was replaced by one of the same name.")
        if isinstance(inputs, str) or not all(isinstance(each, str) for each in inputs):
            raise StageError(f"'{name}': inputs {inputs!r}; expected a list of names.")
        if latency_samples is not None and (not isinstance(latency_samples, numbers.Integral) or latency_samples < 0):
            raise OptionError(f"'{name}': latency_samples {latency_samples!r}; expected 0 or more frames.")
        self._insert(ProcessorNode(name, processor, tuple(inputs), latency_samples, partial_inputs))

    def split(
        self,
        name: str,
        input: str,
        *,
        model: str | os.PathLike[str] = "default",
        separator: Separator | None = None,
    ) -> None:
        """Add a split: it makes "NAME.STEM" for each stem of the model, to be heard by other nodes.

        Parameters
        ----------
        name:
            Of the split.
        input:
            Name of a processor or stem, mono or stereo.
        model, separator:
            A model by name or folder, or a loaded `Separator`.

        Raises
        ------
        OptionError
            If the name is taken.
        ModelError
            If there is no such model.
        """
        if not isinstance(input, str):
            raise StageError(f"'{name}': input {input!r}; expected the name of one processor or stem.")
        self._insert(SplitNode(name, input, separator or shared_separator(model)))

    def _insert(self, node: Node) -> None:
        taken = {*self._nodes, *self._outputs()}
        for name in [node.name, *(node.outputs if isinstance(node, SplitNode) else ())]:
            if name in taken:
                raise OptionError(f"the graph has a node '{name}' already. Choose another name.")
        self._nodes[node.name] = node

    @property
    def sample_rate(self) -> int:
        """That of the engine, in Hz."""
        return self._rate

    def latency_samples(self, name: str) -> int:
        """Frames by which a processor is late, for which `render` makes up."""
        node = self._nodes.get(name)
        if not isinstance(node, ProcessorNode):
            raise OptionError(unknown("processor", name, self._nodes))
        return node.latency()

    def render(self, duration: float, *, beats: bool = False) -> None:
        """Render the graph from the start.

        Parameters
        ----------
        duration:
            Seconds, or with ``beats`` quarter notes at the engine's tempo.

        Raises
        ------
        OptionError
            For inputs that are not there, cycles, channels that do not match, processors that the engine lost.
        AudioError
            If what is to be split has more than two channels, or samples that are NaN.
        """
        frames = self._frames(duration, beats)
        for _ in range(MAX_ATTEMPTS):
            self._check_processors()
            latencies = self._latencies()
            plan = make_plan(self._nodes, latencies)
            self._check_channels()
            self._audio, self._stems = {}, {}
            try:
                if self._render(plan, latencies, frames):
                    return
            except BaseException:
                self._audio, self._stems = {}, {}  # they would be those of half a render
                raise
        raise OptionError("a plugin changes its latency with each render, so nothing can be aligned to it.")

    def _render(self, plan: Plan, latencies: Mapping[str, int], frames: int) -> bool:
        """Run all passes; False as soon as a plugin reports another latency than planned with."""
        wanted = plan.crossing | self._ends()
        for processors, splits in zip(plan.processors, plan.splits, strict=True):
            if processors:
                self._render_pass(processors, wanted, latencies, frames)
                if self._latencies() != latencies:
                    return False
            for split in splits:
                stems = self._separate(split)
                self._stems[split.name] = stems
                self._audio.update({name: stems[stem] for name, stem in split.outputs.items()})
        return True

    def _render_pass(
        self, processors: list[ProcessorNode], wanted: frozenset[str], latencies: Mapping[str, int], frames: int
    ) -> None:
        here = {node.name for node in processors}
        replayed = sorted({name for node in processors for name in node.inputs} - here)
        recorded = [node for node in processors if node.name in wanted or node.processor.record]
        tail = max(latencies[name] for name in here)
        with self._replaying(replayed) as (names, players), _recording(recorded):
            graph: list[tuple[Any, list[str]]] = [(player, []) for player in players]
            graph += [(node.processor, [names.get(name, name) for name in node.inputs]) for node in processors]
            seconds = (frames + tail + 0.5) / self._rate  # half a frame: DawDreamer cuts off what is not whole
            if not self._engine.load_graph(graph) or not self._engine.render(seconds):
                raise OptionError(f"DawDreamer refused to render {', '.join(sorted(here))}.")
            for node in recorded:  # at once: the next render would write over it
                late = latencies[node.name]
                self._audio[node.name] = np.ascontiguousarray(node.processor.get_audio()[:, late : late + frames])

    @contextmanager
    def _replaying(self, names: list[str]) -> Iterator[tuple[dict[str, str], list[Any]]]:
        """Players of audio that is there already: their names by what they play. Taken away afterwards.

        They would take part in every later render, and hold their audio.
        """
        players, aliases = [], {}
        try:
            for name in names:
                alias = aliases[name] = f"{name} (rendered)"
                if self._engine.get_processor(alias) is not None:
                    raise OptionError(f"the engine has a processor '{alias}', a name that SplitGraph needs. Rename it.")
                audio = np.array(self._audio[name], np.float32)
                players.append(self._engine.make_playback_processor(alias, audio))
            yield aliases, players
        finally:
            for player in players:
                self._engine.remove_processor(player.get_name())

    def _separate(self, split: SplitNode) -> Stems:
        audio = self._audio[split.input]
        try:
            return split.separator.separate(audio, self._rate)
        except AudioError as error:
            raise AudioError(f"'{split.name}' cannot split '{split.input}': {error}") from None

    def _outputs(self) -> dict[str, SplitNode]:
        """The split that makes each stem, by the stem's name."""
        return {name: node for node in self._nodes.values() if isinstance(node, SplitNode) for name in node.outputs}

    def _ends(self) -> frozenset[str]:
        """Processors that nothing hears: the results."""
        heard = {name for node in self._nodes.values() for name in node.inputs}
        return frozenset(self._nodes) - heard

    def _latencies(self) -> dict[str, int]:
        return {name: node.latency() for name, node in self._nodes.items() if isinstance(node, ProcessorNode)}

    def _frames(self, duration: float, beats: bool) -> int:
        if not self._nodes:
            raise OptionError("the graph is empty. Call add() before render().")
        number = isinstance(duration, numbers.Real) and not isinstance(duration, bool) and 0 < duration < 1e9
        seconds = self._seconds_of(float(duration)) if beats and number else duration
        if not number or not seconds <= MAX_SECONDS:
            raise OptionError(f"duration {duration!r}; expected more than 0 and at most {MAX_SECONDS} seconds.")
        return max(1, round(seconds * self._rate))

    def _seconds_of(self, beats: float) -> float:
        """How long so many quarter notes take, by the tempo map: one value a pulse, of which the last goes on."""
        state = self._engine.__getstate__()
        tempos, pulses = np.asarray(state["bpm_automation"], np.float64), beats * state["ppqn"]
        lengths = 60 / tempos / state["ppqn"]
        whole = min(max(0, int(pulses)), len(tempos) - 1)
        return float(lengths[:whole].sum() + (pulses - whole) * lengths[whole])

    def _check_processors(self) -> None:
        for node in self._nodes.values():
            if not isinstance(node, ProcessorNode):
                continue
            if self._engine.get_processor(node.name) is not node.processor:
                raise OptionError(f"the engine has no processor '{node.name}' any more, or another of that name.")
            _disarm(node.processor)

    def _check_channels(self) -> None:
        """DawDreamer drops channels that are too many, and leaves inputs silent where there are too few."""
        outputs: dict[str, int] = {}
        for name, node in self._nodes.items():
            if isinstance(node, ProcessorNode):
                outputs[name] = node.processor.get_num_output_channels()
        for node in self._nodes.values():
            if not isinstance(node, ProcessorNode) or (
                not node.inputs and getattr(node.processor, "n_midi_events", False)
            ):
                continue  # some instruments have inputs
            given = [self._channels_of(name, outputs) for name in node.inputs]
            takes = node.processor.get_num_input_channels()
            if sum(given) > takes or (sum(given) < takes and not node.partial_inputs):
                each = [f"'{name}' ({count})" for name, count in zip(node.inputs, given, strict=True)]
                heard = ", ".join(each) or "nothing"
                raise OptionError(
                    f"'{node.name}' takes {takes} channels and hears {sum(given)}: {heard}. Mix them with an "
                    "AddProcessor, or convert mono and stereo before; partial_inputs=True leaves inputs unconnected."
                )

    def _channels_of(self, name: str, outputs: Mapping[str, int]) -> int:
        """Channels of a processor, or of a stem: those of what was split."""
        makers = self._outputs()
        while name in makers:
            name = makers[name].input
        return outputs[name]

    def get_audio(self, name: str) -> Audio:
        """Return what a node gave in the last render, ``(channels, frames)``, aligned and of the exact length.

        Kept are stems, what nothing else hears, what crossed passes, and processors whose ``record`` is set.

        Raises
        ------
        OptionError
            If there is no such node, or it was not kept.
        """
        if name in self._audio:
            return self._audio[name]
        names = [*self._nodes, *self._outputs()]
        if name not in names:
            raise OptionError(unknown("node", name, names))
        if isinstance(self._nodes.get(name), SplitNode):
            raise OptionError(f"'{name}' is a split: ask for {name}.STEM, or stems('{name}').")
        raise OptionError(f"the audio of '{name}' was not kept. Set its record to True, and call render().")

    def stems(self, name: str) -> Stems:
        """Return the stems of a split from the last render; raises `OptionError` if there is none."""
        splits = [node.name for node in self._nodes.values() if isinstance(node, SplitNode)]
        if name not in splits:
            raise OptionError(unknown("split", name, splits))
        if name not in self._stems:
            raise OptionError(f"'{name}' has no stems yet. Call render().")
        return self._stems[name]


def _disarm(processor: Any) -> None:
    """Undo an `enable_all_buses` that would crash.

    DawDreamer 0.9.0 hands a plugin buffers for the channels it had when it was loaded. With buses enabled later it
    writes beyond them. A plugin that has more buses than the main ones (`can_set_bus` is False for its own layout), of
    which only the main ones were active, loses nothing when the others are disabled.
    """
    if not hasattr(processor, "disable_nonmain_buses"):
        return
    channels = processor.get_num_input_channels(), processor.get_num_output_channels()
    if max(channels) <= 2 and not processor.can_set_bus(*channels):
        processor.disable_nonmain_buses()


@contextmanager
def _recording(nodes: list[ProcessorNode]) -> Iterator[None]:
    """Set ``record``, and put it back."""
    before = [node.processor.record for node in nodes]
    for node in nodes:
        node.processor.record = True
    try:
        yield
    finally:
        for node, record in zip(nodes, before, strict=True):
            node.processor.record = record
