"""Which views are known to have equal sizes, and which equal sizes and strides.

A trace knows no sizes, but it knows where they are equal: an operand with ``same_sizes`` has its op's
sizes, and a LINEAR one its op's strides too; so have the results of reductions of the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from torchy.ir.trace import Mode, Trace
from torchy.plan.roles import Role, RowFormula


class Spaces:
    """Classes of views: ``sizes[view]`` and ``layout[view]`` name the class that a view is in."""

    def __init__(self, trace: Trace, roles: Sequence[Role]) -> None:
        sizes = list(range(len(trace.views)))
        layout = list(range(len(trace.views)))
        for op in trace.ops:
            if op.result_mode is None or not op.results or op.results[0] is None:
                continue
            result = op.results[0]
            dense = op.result_mode is Mode.LINEAR
            for operand in op.operands():
                linear = operand.mode is Mode.LINEAR
                if operand.same_sizes or linear:
                    _join(sizes, operand.view, result)
                if linear and dense:
                    _join(layout, operand.view, result)
        results: dict[tuple[object, ...], int] = {}
        for role in roles:
            if isinstance(role.formula, RowFormula):
                rows = role.formula.op
                for view, mode in role.formula.walks(role.writes):
                    if mode is Mode.LINEAR:
                        first = rows.rows
                    elif mode is Mode.ROW:
                        key = _find(layout, rows.rows), rows.dimensions, trace.views[view].rank
                        first = results.setdefault(key, view)
                    else:
                        continue
                    for classes in (sizes, layout):
                        _join(classes, first, view)
        self.sizes = _classes(sizes)
        self.layout = _classes(layout)


def _classes(parents: list[int]) -> list[int]:
    """Return for each item the first of its class; a parent comes before what it is the parent of."""
    classes: list[int] = []
    for item, parent in enumerate(parents):
        classes.append(item if parent == item else classes[parent])
    return classes


def _find(parents: list[int], item: int) -> int:
    while parents[item] != item:
        parents[item] = parents[parents[item]]
        item = parents[item]
    return item


def _join(parents: list[int], one: int, other: int) -> None:
    if parents[one] == parents[other]:
        return
    one, other = _find(parents, one), _find(parents, other)
    if one < other:
        parents[other] = one
    else:
        parents[one] = other
