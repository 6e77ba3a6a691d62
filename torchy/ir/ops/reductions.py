"""The op table: ops that make one value of each row. One line an op; which overloads are deferred is in ``calls.py``.

An op is an operator over some dimensions, and what is done to its result. In which order eager combines the elements is
not said here: it is a backend's to know, for each operator and dtype.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from torchy.ir.ops.resolve import lookup, named_arguments
from torchy.ir.trace import Constant, Op, Operand, Trace


@dataclass(frozen=True, slots=True)
class RowSpec:
    """One line of the table.

    Parameters
    ----------
    operator
        See :class:`torchy.ir.kernel.Reduction`.
    finish
        The name of an op that is done to the result and the number of elements in a row; empty: none.
    """

    operator: str
    finish: str = ""


REDUCTIONS: Final[Mapping[str, RowSpec]] = {
    "sum": RowSpec("sum"),
    "mean": RowSpec("sum", finish="div"),
    "amax": RowSpec("max"),
    "amin": RowSpec("min"),
}


class RowReduction(NamedTuple):
    """One op of a trace, as a reduction of rows.

    Parameters
    ----------
    spec
        Its line of the table.
    operand
        What it reduces.
    dimensions
        Those of the operand that make up a row, counted from the first.
    """

    spec: RowSpec
    operand: Operand
    dimensions: tuple[int, ...]


def row_reduction(op: Op, trace: Trace) -> RowReduction | None:
    """Return an op as a reduction of rows; None if it is none, names no dimensions, or converts what it reduces."""
    known = lookup(op.name)
    spec = REDUCTIONS.get(known.name) if known is not None else None
    if spec is None or op.result_mode is not None or op.writes != op.results:
        return None
    named = named_arguments(op)
    operand, given = named.get("self"), named.get("dim")
    (result,) = op.results
    if not isinstance(operand, Operand) or not isinstance(given, Constant) or result is None:
        return None
    view, made = trace.views[operand.view], trace.views[result]
    if view.dtype is not made.dtype or trace.buffers[made.buffer].creator != op.index:
        return None
    dimensions = (given.value,) if isinstance(given.value, int) else given.value
    if not isinstance(dimensions, tuple) or not dimensions or not view.rank:
        return None
    return RowReduction(spec, operand, tuple(sorted(d % view.rank for d in dimensions)))
