"""Which node has its turn in which pass."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from stemplug.dawdreamer.plan import Node, ProcessorNode, SplitNode, make_plan
from stemplug.errors import OptionError


def processor(name: str, *inputs: str) -> ProcessorNode:
    return ProcessorNode(name, None, inputs)


def split(name: str, source: str) -> SplitNode:
    return SplitNode(name, source, SimpleNamespace(stems=("vocals", "drums")))  # type: ignore[arg-type]


def planned(*nodes: Node, **latencies: int) -> tuple[list[set[str]], list[set[str]], set[str]]:
    known = {node.name: latencies.get(node.name, 0) for node in nodes}
    plan = make_plan({node.name: node for node in nodes}, known)
    return (
        [{node.name for node in each} for each in plan.processors],
        [{node.name for node in each} for each in plan.splits],
        set(plan.crossing),
    )


def test_a_graph_without_splits_is_one_pass() -> None:
    found = planned(processor("song"), processor("eq", "song"), processor("master", "eq", "song"))
    assert found == ([{"song", "eq", "master"}], [set()], set())


def test_all_upstream_of_a_split_comes_before_it_and_once() -> None:
    found = planned(
        processor("song"),
        processor("eq", "song"),
        split("split", "eq"),
        processor("reverb", "split.vocals"),
        processor("master", "reverb", "split.drums", "eq"),
    )
    assert found == ([{"song", "eq"}, {"reverb", "master"}], [{"split"}, set()], {"eq"})


def test_splits_in_series_and_in_parallel_take_as_many_passes_as_stand_one_behind_the_other() -> None:
    found = planned(
        processor("a"),
        processor("b"),
        split("one", "a"),
        split("two", "b"),
        split("inner", "one.vocals"),
        processor("fx", "inner.drums"),
        split("last", "fx"),
        processor("master", "last.vocals", "two.drums", "a"),
    )
    assert found == (
        [{"a", "b"}, {"fx"}, {"master"}],
        [{"one", "two", "inner"}, {"last"}, set()],
        {"a", "b", "fx"},
    )


def test_a_pass_ends_behind_a_processor_with_latency() -> None:
    nodes = (
        processor("song"),
        processor("late", "song"),
        processor("later", "late"),
        processor("master", "later", "song"),
    )
    assert planned(*nodes) == ([{"song", "late", "later", "master"}], [set()], set())
    found = planned(*nodes, late=100, later=50)
    assert found == ([{"song", "late"}, {"later"}, {"master"}], [set()] * 3, {"song", "late", "later"})


def test_the_order_of_adding_does_not_matter() -> None:
    nodes = [processor("master", "split.drums"), split("split", "song"), processor("song")]
    assert planned(*nodes) == planned(*reversed(nodes))


@pytest.mark.parametrize(
    "nodes",
    [
        [processor("a", "b"), processor("b", "a")],
        [processor("a", "a")],
        [processor("a", "s.vocals"), split("s", "a")],
        [split("s", "t.vocals"), split("t", "s.drums")],
    ],
)
def test_cycles_are_told(nodes: list[Node]) -> None:
    with pytest.raises(OptionError, match="the graph has a cycle: .* -> "):
        planned(*nodes)


@pytest.mark.parametrize("name", ["split", "split.vocal", "son", ""])
def test_unknown_inputs_are_told_with_the_nearest(name: str) -> None:
    nodes = processor("song"), split("split", "song"), processor("master", name)
    with pytest.raises(OptionError, match=f"'master' hears '{name}', which was not added.*split.vocals"):
        planned(*nodes)
