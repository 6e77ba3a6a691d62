"""The graph of a flush as DOT: ops as nodes, fused groups as clusters."""

from __future__ import annotations

import graphviz

from torchy.report import format_bytes, format_seconds
from torchy_jupyter.explorer.shown import ShownFlush, ShownGroup, ShownOp

MOST_NODES = 300  # above that, a fused group is one node
FONT = "Courier"

INK, EDGE, CALL, DEAD = "#1b1f24", "#5f6873", "#eef0f3", "#f6f7f9"
HUES = ("#2463ab", "#2a7a4a", "#6a1a58", "#87690a", "#6b2418")  # of kernels, one after another
GROUNDS = ("#e9f0f8", "#e8f3ec", "#f3e8f0", "#f6f1de", "#f5e9e7")


def digraph(flush: ShownFlush) -> graphviz.Digraph:
    """Return the graph of one flush."""
    graph = graphviz.Digraph(
        graph_attr={"bgcolor": "transparent", "nodesep": "0.18", "ranksep": "0.2", "pad": "0.1"},
        node_attr={
            "shape": "box",
            "style": "rounded,filled",
            "fontname": FONT,
            "fontsize": "10",
            "fontcolor": INK,
            "height": "0.26",
            "margin": "0.1,0.03",
            "penwidth": "0.8",
        },
        edge_attr={
            "color": EDGE,
            "arrowsize": "0.5",
            "penwidth": "0.8",
            "fontsize": "8",
            "fontname": FONT,
            "fontcolor": EDGE,
        },
    )
    collapsed = len(flush.ops) > MOST_NODES
    name_of: dict[int, str] = {}
    for group in flush.groups:
        members = [op for op in flush.ops if op.group == group.id]
        if group.kind == "call":
            _add_op(graph, members[0], EDGE, CALL)
            name_of[members[0].index] = _op_id(members[0].index)
        elif collapsed:
            name_of |= {op.index: f"group-{group.id}" for op in members}
            graph.node(
                f"group-{group.id}",
                _group_label(group, members),
                fillcolor=_ground(group),
                color=_hue(group),
            )
        else:
            name_of |= {op.index: _op_id(op.index) for op in members}
            _add_cluster(graph, group, members)
    for op in flush.ops:
        if op.index not in name_of:
            name_of[op.index] = _op_id(op.index)
            _add_op(graph, op, EDGE, DEAD)
    _add_edges(graph, flush, name_of)
    return graph


def hue_of(letter: str) -> int:
    """Return which of the colours a kernel has."""
    return (ord(letter[-1]) - ord("A")) % len(HUES)


def _hue(group: ShownGroup) -> str:
    return HUES[hue_of(group.letter)]


def _ground(group: ShownGroup) -> str:
    return GROUNDS[hue_of(group.letter)]


def _add_cluster(graph: graphviz.Digraph, group: ShownGroup, members: list[ShownOp]) -> None:
    with graph.subgraph(name=f"cluster_{group.id}") as cluster:
        cluster.attr(
            label=_group_label(group, members),
            style="rounded",
            color=_hue(group),
            fontcolor=_hue(group),
            fontname=FONT,
            fontsize="9",
            labeljust="l",
            margin="7",
        )
        for op in members:
            _add_op(cluster, op, _hue(group), _ground(group))


def _add_op(graph: graphviz.Digraph, op: ShownOp, colour: str, fill: str) -> None:
    times = f" ×{op.count}" if op.count > 1 else ""
    name = f"  {op.variable}" if op.variable else ""
    graph.node(
        _op_id(op.index),
        graphviz.escape(f"{op.name}{times}{name}  {op.result}"),
        tooltip=graphviz.escape(op.text),
        fillcolor=fill,
        color=colour,
        style="rounded,filled,dashed" if op.dead else "rounded,filled",
    )


def _add_edges(graph: graphviz.Digraph, flush: ShownFlush, name_of: dict[int, str]) -> None:
    group_of = {op.index: op.group for op in flush.ops}
    drawn = set()
    for op in flush.ops:
        for reader in op.feeds:
            if reader not in name_of:
                continue
            edge = (name_of[op.index], name_of[reader])
            if edge in drawn or (edge[0] == edge[1] and edge[0].startswith("group")):
                continue
            drawn.add(edge)
            # of folded repeats: the next one reads what this one wrote
            look = {"constraint": "false", "style": "dashed"} if reader <= op.index else {}
            if group_of.get(reader) != op.group and op.bytes:
                look["label"] = f" {format_bytes(op.bytes)}"
            graph.edge(*edge, **look)


def _op_id(index: int) -> str:
    return f"op-{index}"


def _group_label(group: ShownGroup, members: list[ShownOp]) -> str:
    ops = sum(op.count for op in members) // group.count
    parts = [f"kernel {group.letter}", f"{ops} op{'s' * (ops != 1)}"]
    if group.count > 1:
        parts.append(f"×{group.count}")
    if group.seconds:
        parts.append(format_seconds(group.seconds))
    return str(graphviz.escape(" · ".join(parts)))
