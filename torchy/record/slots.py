"""What the walker says of each buffer where a trace ends: a byte of :class:`.codes.SlotFlag`."""

from __future__ import annotations

from torchy.record.codes import SlotFlag

CREATED, WRITTEN, LIVE, HEAVY = (int(flag) for flag in SlotFlag)  # plain: there may be many buffers


def live(flags: bytes) -> frozenset[int]:
    """Return the buffers that a trace has created or written, and that the program can still reach."""
    return frozenset(i for i, f in enumerate(flags) if f & LIVE and f & (CREATED | WRITTEN))


def dead_inputs(flags: bytes) -> frozenset[int]:
    """Return the buffers that were there before a trace, and that nothing outside it reaches any more."""
    return frozenset(i for i, f in enumerate(flags) if not f & (CREATED | LIVE))


def is_heavy(flags: bytes) -> bool:
    """Tell whether a flush would need more memory than its session's bound allows."""
    return bool(flags) and bool(flags[0] & HEAVY)
