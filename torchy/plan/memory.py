"""When the memory of each buffer is needed, and which buffers never need any.

Temporaries that a plan both allocates and releases are the ones that may share an arena: their lives
are what :func:`lifetimes` returns.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torchy.ir.trace import Trace
from torchy.plan.plan import Call, FusedGroup, Plan, Step


def touched(trace: Trace, step: Step) -> set[int]:
    """Return the buffers whose memory a step reads or writes."""
    if isinstance(step, FusedGroup):
        return {trace.buffer_of(view) for view in step.accesses}
    op = trace.ops[step.op]
    return {trace.buffer_of(view) for view in (*op.reads, *op.writes)}


def lifetimes(trace: Trace, steps: Sequence[Step]) -> dict[int, tuple[int, int]]:
    """Return for each buffer that is ever in memory the first and last step that touch it."""
    result: dict[int, tuple[int, int]] = {}
    for index, step in enumerate(steps):
        for buffer in touched(trace, step):
            first, _ = result.get(buffer, (index, index))
            result[buffer] = (first, index)
    return result


def schedule_memory(
    trace: Trace,
    steps: Sequence[Step],
    live: Collection[int],
    dead_inputs: Collection[int],
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """Return what to allocate before and what to release after each step.

    Parameters
    ----------
    live
        Buffers that are seen after the flush; never released.
    dead_inputs
        Inputs that nothing else holds; no other input is released.
    """
    allocate: list[list[int]] = [[] for _ in steps]
    release: list[list[int]] = [[] for _ in steps]
    calls = {step.op for step in steps if isinstance(step, Call)}
    for buffer, (first, last) in sorted(lifetimes(trace, steps).items()):
        creator = trace.buffers[buffer].creator
        if creator is not None and creator not in calls:
            allocate[first].append(buffer)
        if buffer not in live and (creator is not None or buffer in dead_inputs):
            release[last].append(buffer)
    return tuple(map(tuple, allocate)), tuple(map(tuple, release))


def never_stored(plan: Plan, trace: Trace) -> tuple[int, ...]:
    """Return the buffers that the trace creates and the plan gives no memory."""
    stored = lifetimes(trace, plan.steps)
    return tuple(
        buffer.index
        for buffer in trace.buffers
        if buffer.creator is not None and buffer.index not in stored
    )


def bytes_saved(plan: Plan, trace: Trace, sizes: Sequence[int]) -> int:
    """Return the memory that eager would have allocated for what the plan never stores.

    Parameters
    ----------
    sizes
        By buffer: its size in bytes.
    """
    return sum(sizes[buffer] for buffer in never_stored(plan, trace))
