"""What the walker says of each buffer where a trace ends: a byte, whose bits are the walker's (trace.h)."""

from __future__ import annotations

CREATED, WRITTEN, LIVE = 1, 2, 4
HEAVY = 8  # on the first of them: all that the flush needs at once is more than the bound allows


def live(flags: bytes) -> frozenset[int]:
    """Return the buffers that a trace has created or written, and that the program can still reach."""
    return frozenset(i for i, f in enumerate(flags) if f & LIVE and f & (CREATED | WRITTEN))


def dead_inputs(flags: bytes) -> frozenset[int]:
    """Return the buffers that were there before a trace, and that nothing outside it reaches any more."""
    return frozenset(i for i, f in enumerate(flags) if not f & (CREATED | LIVE))


def is_heavy(flags: bytes) -> bool:
    """Tell whether a flush would need more memory than its session's bound allows."""
    return bool(flags) and bool(flags[0] & HEAVY)
