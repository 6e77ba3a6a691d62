"""Which ops need not run: nobody can see, nor will read, what they write."""

from __future__ import annotations

from collections.abc import Sequence

from torchy.ir.trace import Trace
from torchy.plan.touch import Touch


def live_in_effect(
    trace: Trace, touches: Sequence[Touch], live: frozenset[int], dead_inputs: frozenset[int]
) -> frozenset[int]:
    """Return the buffers whose last values can be seen after the flush.

    Parameters
    ----------
    live
        Buffers that the program can still reach.
    dead_inputs
        Inputs that nothing outside the trace reaches any more. A write to any other input is seen.
    """
    written = {buffer for touch in touches for _, buffer in touch.writes}
    inputs = {buffer.index for buffer in trace.buffers if buffer.creator is None}
    return live | ((written & inputs) - dead_inputs)


def never_read(touches: Sequence[Touch]) -> frozenset[int]:
    """Return the buffers whose last values no op of the trace reads."""
    unread: set[int] = set()
    for touch in touches:
        unread.difference_update(buffer for _, buffer in touch.reads)
        unread.update(buffer for _, buffer in touch.writes)
    return frozenset(unread)


def find_dead(trace: Trace, touches: Sequence[Touch], live: frozenset[int]) -> frozenset[int]:
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
    for index in range(len(touches) - 1, -1, -1):
        touch = touches[index]
        useful = not touch.writes
        for view, buffer in touch.writes:
            if buffer in wanted:
                useful |= view not in overwritten.get(buffer, ())
            if buffer in touched:
                useful |= trace.buffers[buffer].creator == index
        if not useful:
            dead.add(index)
            continue
        touched |= touch.buffers
        for view, buffer in touch.writes:
            if view in touch.overwrites:
                overwritten.setdefault(buffer, set()).add(view)
        for _, buffer in touch.reads:
            wanted.add(buffer)
            overwritten.pop(buffer, None)
    return frozenset(dead)
