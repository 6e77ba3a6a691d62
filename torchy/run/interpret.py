"""Running a trace op by op, as torch itself would have."""

from __future__ import annotations

from torchy.ir.trace import Trace
from torchy.plan.plan import Call, FusedGroup, Plan

Release = tuple[int, ...]


def interpretation(trace: Trace, plan: Plan, live: frozenset[int]) -> list[tuple[int, Release]]:
    """Return the ops to run, in program order, each with the buffers that nobody needs after it.

    What is live is never released; of inputs, the walker keeps those that the program can still reach.
    """
    dead = frozenset(plan.dead)
    last: dict[int, int] = {}
    for op in trace.ops:
        if op.index in dead:
            continue
        for view in op.reads + op.writes:
            last[trace.views[view].buffer] = op.index
    releases: dict[int, list[int]] = {}
    for buffer, op_index in last.items():
        if buffer not in live:
            releases.setdefault(op_index, []).append(buffer)
    return [
        (op.index, tuple(releases.get(op.index, ()))) for op in trace.ops if op.index not in dead
    ]


def group_releases(trace: Trace, step: FusedGroup | Call, allocated: frozenset[int]) -> Release:
    """Return the buffers that live and die within a group: interpreted, they get memory too."""
    if isinstance(step, Call):
        return ()
    made = {trace.buffer_of(view) for op in step.ops for view in trace.ops[op].writes}
    return tuple(
        buffer
        for buffer in sorted(made)
        if trace.buffers[buffer].creator in step.ops and buffer not in allocated
    )
