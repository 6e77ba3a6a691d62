"""What a valid loop nest is, as a table of rules: checked by tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torchy.codegen.loops import LoopNest

Rule = Callable[[LoopNest], Iterator[str]]

_ALONE = {"call": "call", "reduction": "reduce"}  # kinds of stages that are one node, and its op


def check_nest(nest: LoopNest) -> list[str]:
    """Return what is wrong with a loop nest, a line each; empty if nothing is."""
    return [f"{text} ({name})" for name, rule in RULES for text in rule(nest)]


def _inputs_first(nest: LoopNest) -> Iterator[str]:
    for index, node in enumerate(nest.nodes):
        if any(i >= index for i in node.inputs):
            yield f"v{index} uses {node.inputs}"


def _uniform_of_uniform(nest: LoopNest) -> Iterator[str]:
    same = set(nest.uniform)
    for index in nest.uniform:
        if nest.nodes[index].op in ("load", "call", "reduce") or not same.issuperset(
            nest.nodes[index].inputs
        ):
            yield f"v{index} is not the same for all elements"
    same |= set(nest.rows)
    for index in nest.rows:
        if nest.nodes[index].op != "reduce" and not same.issuperset(nest.nodes[index].inputs):
            yield f"v{index} is not the same along a row"


def _staged_in_order(nest: LoopNest) -> Iterator[str]:
    there = {*nest.uniform, *(i for i, node in enumerate(nest.nodes) if node.op == "load")}
    rows = set(nest.rows)
    for position, stage in enumerate(nest.stages):
        of_stage = [nest.nodes[i].op for i in stage.nodes]
        alone = _ALONE.get(stage.kind)
        if alone is not None and of_stage != [alone]:
            yield f"stage {position}, a {stage.kind}, has {of_stage}"
        if stage.kind == "loop" and (
            rows.intersection(stage.nodes) or {"call", "reduce"}.intersection(of_stage)
        ):
            yield f"stage {position}, a loop, has {of_stage}"
        if stage.kind == "row" and (not rows.issuperset(stage.nodes) or "reduce" in of_stage):
            yield f"stage {position}, of rows, has {of_stage}"
        for index in stage.nodes:
            if index in there or not there.issuperset(nest.nodes[index].inputs):
                yield f"v{index} is in stage {position}: twice, or before what it uses"
            there.add(index)
        for store in stage.stores:
            if nest.stores[store][1] not in there:
                yield f"store {store} is in stage {position}, before its value"
    if sorted(s for stage in nest.stages for s in stage.stores) != list(range(len(nest.stores))):
        yield "stores are missing, or in several stages"


def _loaded_before_stored(nest: LoopNest) -> Iterator[str]:
    """A stage may load and store one access, vector by vector; what is of rows is loaded before all stages."""
    stored: dict[int, int] = {}
    for position, stage in enumerate(nest.stages):
        for store in stage.stores:
            stored.setdefault(nest.stores[store][0], position)
    early = set(nest.rows)
    for position, stage in enumerate(nest.stages):
        used = [i for index in stage.nodes for i in nest.nodes[index].inputs]
        used += [nest.stores[store][1] for store in stage.stores]
        for index in used:
            node = nest.nodes[index]
            if (
                node.op == "load"
                and index not in early
                and position > stored.get(int(node.detail or 0), position)
            ):
                yield f"stage {position} loads access {node.detail}, which has been stored"


RULES: tuple[tuple[str, Rule], ...] = (
    ("a node comes after its inputs", _inputs_first),
    ("what is computed once depends on nothing that moves", _uniform_of_uniform),
    ("each stage has its kind of nodes, once, in order", _staged_in_order),
    ("an access is loaded before it is stored", _loaded_before_stored),
)
