"""Running a trace op by op, as torch itself would have."""

from __future__ import annotations

from collections.abc import Sequence

from torchy.ir.trace import Trace
from torchy.plan.plan import FusedGroup, Plan

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


def group_releases(
    trace: Trace, group: FusedGroup, allocated: Sequence[int], release: Sequence[int]
) -> list[Release]:
    """Return for each op of a group that is interpreted the buffers that nobody needs after it.

    Parameters
    ----------
    allocated
        What the plan has allocated for the group: the rest of what the group makes lives and dies within it.
    release
        What the plan releases after the group.
    """
    last: dict[int, int] = {}
    for at, op in enumerate(group.ops):
        for view in (*trace.ops[op].reads, *trace.ops[op].writes):
            last[trace.buffer_of(view)] = at
    gone = {buffer for buffer in last if trace.buffers[buffer].creator in group.ops}
    gone.difference_update(allocated)
    releases: list[list[int]] = [[] for _ in group.ops]
    for buffer in sorted(gone.union(release)):
        releases[last[buffer]].append(buffer)
    return [tuple(buffers) for buffers in releases]
