"""What each op touches: views with their buffers, looked up once."""

from __future__ import annotations

from typing import NamedTuple

from torchy.ir.trace import Mode, Op, Operand, Trace
from torchy.plan.roles import Role, RowFormula


class Touch(NamedTuple):
    """What one op touches.

    Parameters
    ----------
    reads, writes
        The views of its role, each with its buffer.
    buffers
        Those of both.
    overwrites
        See :class:`Role`.
    walks
        Of a fusable op, the views with the way in which their memory is walked.
    """

    reads: list[tuple[int, int]]
    writes: list[tuple[int, int]]
    buffers: set[int]
    overwrites: tuple[int, ...]
    walks: list[tuple[int, Mode]]


def touch_of(trace: Trace, op: Op, role: Role) -> Touch:
    """Return what an op touches."""
    views = trace.views
    reads = [(view, views[view].buffer) for view in role.reads]
    writes = [(view, views[view].buffer) for view in role.writes]
    buffers = {buffer for _, buffer in reads + writes}
    return Touch(reads, writes, buffers, role.overwrites, _walks(op, role))


def _walks(op: Op, role: Role) -> list[tuple[int, Mode]]:
    if role.formula is None:
        return []
    if isinstance(role.formula, RowFormula):
        return role.formula.walks(role.writes)
    assert op.result_mode is not None
    result = [(view, op.result_mode) for view in role.writes]
    for item in role.formula.arguments:
        if isinstance(item, Operand):
            assert item.mode is not None  # roles.classify gives no formula otherwise
            result.append((item.view, item.mode))
    return result
