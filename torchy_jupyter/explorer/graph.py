"""The graph of a trace as DOT: ops as nodes, fused groups as clusters, an id on each of them."""

from __future__ import annotations

import graphviz

from torchy.report import format_seconds
from torchy_jupyter.explorer.snapshot import ShownGroup, ShownOp, ShownTrace

MOST_NODES = 300  # above that, a fused group is one node
FONT = "Courier"  # other names are measured wrongly by the wasm engine

# Seen as they are only in the static image; the widget's style sheet has its own, light and dark.
INK, EDGE, FUSED, OP, CALL, DEAD = "#1f2933", "#8a94a0", "#e8894a", "#fdf1e7", "#e3edf9", "#eeeeee"


def dot(trace: ShownTrace, prefix: str = "") -> str:
    """Return a trace's graph in the DOT language.

    Parameters
    ----------
    trace
        What to draw.
    prefix
        Comes before every id: nodes are ``{prefix}op-3``, clusters and collapsed groups
        ``{prefix}group-0``.
    """
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
        edge_attr={"color": EDGE, "arrowsize": "0.5", "penwidth": "0.8"},
    )
    collapsed = len(trace.ops) > MOST_NODES
    name_of: dict[int, str] = {}
    for group in trace.groups:
        members = [op for op in trace.ops if op.group == group.id]
        if group.kind == "call":
            _add_op(graph, members[0], prefix, "call", CALL)
            name_of[members[0].index] = _op_id(members[0].index)
        elif collapsed:
            name_of |= {op.index: f"group-{group.id}" for op in members}
            graph.node(
                f"group-{group.id}",
                _group_label(group, members),
                id=f"{prefix}group-{group.id}",
                **{"class": "group"},
                fillcolor=OP,
                color=FUSED,
            )
        else:
            name_of |= {op.index: _op_id(op.index) for op in members}
            _add_cluster(graph, group, members, prefix)
    for op in trace.ops:
        if op.index not in name_of:
            name_of[op.index] = _op_id(op.index)
            _add_op(graph, op, prefix, "dead" if op.dead else "op", DEAD)
    _add_edges(graph, trace, name_of)
    return str(graph.source)


def svg(source: str) -> str | None:
    """Lay a graph out with the ``dot`` program; None if there is none, or it fails."""
    try:
        text = graphviz.Source(source).pipe(format="svg", encoding="utf-8", quiet=True)
    except (graphviz.ExecutableNotFound, graphviz.CalledProcessError, OSError):
        return None
    return str(text[text.index("<svg") :])


def _add_cluster(
    graph: graphviz.Digraph, group: ShownGroup, members: list[ShownOp], prefix: str
) -> None:
    with graph.subgraph(name=f"cluster_{group.id}") as cluster:
        cluster.attr(
            label=_group_label(group, members),
            id=f"{prefix}group-{group.id}",
            **{"class": "group"},
            style="rounded",
            color=FUSED,
            fontcolor=FUSED,
            fontname=FONT,
            fontsize="9",
            labeljust="l",
            margin="7",
        )
        for op in members:
            _add_op(cluster, op, prefix, "op", OP)


def _add_op(graph: graphviz.Digraph, op: ShownOp, prefix: str, kind: str, fill: str) -> None:
    result = op.results[0] if op.results else ""
    times = f" ×{op.count}" if op.count > 1 else ""
    graph.node(
        _op_id(op.index),
        graphviz.escape(f"{op.name}{times}  {result}"),
        id=f"{prefix}{_op_id(op.index)}",
        tooltip=graphviz.escape(op.text),
        **{"class": kind},
        fillcolor=fill,
        color=FUSED if kind == "op" else EDGE,
    )


def _add_edges(graph: graphviz.Digraph, trace: ShownTrace, name_of: dict[int, str]) -> None:
    drawn = set()
    for op in trace.ops:
        for reader in op.feeds:
            if reader not in name_of:
                continue
            edge = (name_of[op.index], name_of[reader])
            if edge in drawn or (edge[0] == edge[1] and edge[0].startswith("group")):
                continue
            drawn.add(edge)
            # of folded repeats: the next one reads what this one wrote
            back = {"constraint": "false", "style": "dashed"} if reader <= op.index else {}
            graph.edge(*edge, **back)


def _op_id(index: int) -> str:
    return f"op-{index}"


def _group_label(group: ShownGroup, members: list[ShownOp]) -> str:
    ops = sum(op.count for op in members) // group.count
    parts = [
        f"kernel {group.kernel[:8]}" if group.kernel else f"group {group.id}",
        f"{ops} op{'s' * (ops != 1)}",
    ]
    if group.count > 1:
        parts.append(f"×{group.count}")
    if group.seconds:
        parts.append(format_seconds(group.seconds))
    return str(graphviz.escape(" · ".join(parts)))
