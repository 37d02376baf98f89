"""In which pass of a render each node has its turn. Knows nothing of audio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from stemplug.engine import Separator
from stemplug.errors import OptionError, unknown


@dataclass(frozen=True)
class ProcessorNode:
    """A processor of DawDreamer, and the names of what it hears."""

    name: str
    processor: Any
    inputs: tuple[str, ...]
    latency_samples: int | None = None
    partial_inputs: bool = False

    def latency(self) -> int:
        """Frames by which its output is late: as told, or as the plugin reports."""
        if self.latency_samples is not None:
            return self.latency_samples
        report = getattr(self.processor, "get_latency_samples", None)
        return int(report()) if report else 0


@dataclass(frozen=True)
class SplitNode:
    """A split, and the name of what it takes apart."""

    name: str
    input: str
    separator: Separator

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)

    @property
    def outputs(self) -> dict[str, str]:
        """Stem by the name of the output."""
        return {f"{self.name}.{stem}": stem for stem in self.separator.stems}


Node = ProcessorNode | SplitNode


@dataclass(frozen=True)
class Plan:
    """The passes: which processors are rendered in each, and which splits follow it."""

    processors: list[list[ProcessorNode]]
    splits: list[list[SplitNode]]
    crossing: frozenset[str]
    """Names of processors that a split or a later pass hears."""


def make_plan(nodes: Mapping[str, Node], latencies: Mapping[str, int]) -> Plan:
    """Assign each node to a pass.

    A pass ends where audio has to leave the engine: at a split, and behind each processor with latency, so that its
    output can be put right before anything else hears it. All that a processor hears is therefore aligned, with other
    paths as with automation and MIDI.

    Raises
    ------
    OptionError
        For inputs that are not there, and cycles.
    """
    makers: dict[str, Node] = {}
    for node in nodes.values():
        makers.update(dict.fromkeys(node.outputs if isinstance(node, SplitNode) else [node.name], node))
    for node in nodes.values():
        for name in node.inputs:
            if name not in makers:
                raise OptionError(
                    f"'{node.name}' hears '{name}', which was not added. {unknown('input', name, makers)}"
                )
    try:
        order = list(
            TopologicalSorter(
                {node.name: [makers[i].name for i in node.inputs] for node in nodes.values()}
            ).static_order()
        )
    except CycleError as error:
        raise OptionError(f"the graph has a cycle: {' -> '.join(error.args[1])}. Take one connection out.") from None
    turn: dict[str, int] = {}
    for node in (nodes[name] for name in order):
        turn[node.name] = max([0, *(_ready(makers[name], node, turn, latencies) for name in node.inputs)])
    passes = range(1 + max(turn.values(), default=0))
    heard = {name for node in nodes.values() for name in node.inputs if _leaves(makers[name], node, turn)}
    in_order = [nodes[name] for name in order]
    return Plan(
        [[n for n in in_order if isinstance(n, ProcessorNode) and turn[n.name] == number] for number in passes],
        [[n for n in in_order if isinstance(n, SplitNode) and turn[n.name] == number] for number in passes],
        frozenset(name for name in heard if isinstance(makers[name], ProcessorNode)),
    )


def _ready(source: Node, listener: Node, turn: Mapping[str, int], latencies: Mapping[str, int]) -> int:
    """The first pass in which ``listener`` can hear ``source``. Splits come after the processors of their pass."""
    if isinstance(listener, SplitNode):
        return turn[source.name]
    late = isinstance(source, SplitNode) or latencies[source.name] > 0
    return turn[source.name] + (1 if late else 0)


def _leaves(source: Node, listener: Node, turn: Mapping[str, int]) -> bool:
    return isinstance(listener, SplitNode) or turn[source.name] < turn[listener.name]
