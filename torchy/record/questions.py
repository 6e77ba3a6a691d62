"""What the walker asks of Python, and why it flushes: its codes (codes.h), and the words for them."""

from __future__ import annotations

import enum


class Ask(enum.IntEnum):
    """What the walker asks; the numbers are the walker's."""

    FLUSH = 0
    PLACE = 1
    CLASSIFY = 2
    PACE = 3
    PAUSE = 4
    PLACES = 5


REASONS = (
    "{} runs now",  # an operand is pending
    "{} reads the memory",
    "max_ops recorded",
    "memory bound reached",
    "process state changed",
    "{} writes what a pending op reads",
    "{} on another thread",
    "{}",
)
CALLED = 7  # the last of them: by Python, for a reason of its own
OP_READERS = {"aten::_local_scalar_dense": "item()", "aten::equal": "torch.equal"}


def reason_in_words(reason: int, text: str) -> str:
    """Return what the report says of a flush for one of the walker's reasons."""
    if text in OP_READERS:
        return OP_READERS[text]
    return REASONS[reason].format(text or "memory access")
