"""Which ops need not run: nobody can see, nor will read, what they write."""

from __future__ import annotations

from collections.abc import Sequence

from torchy.ir.trace import Trace
from torchy.plan.roles import Role


def live_in_effect(
    trace: Trace, roles: Sequence[Role], live: frozenset[int], dead_inputs: frozenset[int]
) -> frozenset[int]:
    """Return the buffers whose last values can be seen after the flush.

    Parameters
    ----------
    live
        Buffers that the program can still reach.
    dead_inputs
        Inputs that nothing outside the trace reaches any more. A write to any other input is seen.
    """
    written = {trace.buffer_of(view) for role in roles for view in role.writes}
    inputs = {buffer.index for buffer in trace.buffers if buffer.creator is None}
    return live | ((written & inputs) - dead_inputs)


def never_read(trace: Trace, roles: Sequence[Role]) -> frozenset[int]:
    """Return the buffers whose last values no op of the trace reads."""
    unread: set[int] = set()
    for role in roles:
        unread.difference_update(trace.buffer_of(view) for view in role.reads)
        unread.update(trace.buffer_of(view) for view in role.writes)
    return frozenset(unread)


def find_dead(trace: Trace, roles: Sequence[Role], live: frozenset[int]) -> frozenset[int]:
    """Return the indices of the ops that need not run.

    Walks the trace from its end. A buffer is *wanted* from there on if it is live or a needed op reads
    it; a write through a view is then still useless if all of that view is overwritten before
    anything reads that buffer. An op that writes nothing is there for its effect, and stays; so does
    one that creates a buffer which a needed op fills, for whoever runs the ops one by one.

    Parameters
    ----------
    live
        Buffers seen after the flush: see :func:`live_in_effect`.
    """
    wanted = set(live)
    overwritten: dict[int, set[int]] = {}  # by buffer: views filled later, before any read
    touched: set[int] = set()
    dead = set()
    for index in range(len(roles) - 1, -1, -1):
        role = roles[index]
        if role.writes and not any(
            (trace.buffers[buffer].creator == index and buffer in touched)
            or (buffer in wanted and view not in overwritten.get(buffer, ()))
            for view, buffer in buffers_of(trace, role.writes)
        ):
            dead.add(index)
            continue
        touched.update(buffer for _, buffer in buffers_of(trace, role.reads + role.writes))
        for view, buffer in buffers_of(trace, role.overwrites):
            overwritten.setdefault(buffer, set()).add(view)
        for _, buffer in buffers_of(trace, role.reads):
            wanted.add(buffer)
            overwritten.pop(buffer, None)
    return frozenset(dead)


def buffers_of(trace: Trace, views: Sequence[int]) -> list[tuple[int, int]]:
    """Return views, each with its buffer."""
    return [(view, trace.buffer_of(view)) for view in views]
