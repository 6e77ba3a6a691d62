"""The C library's allocator (glibc's), and what a program reads from memory that nobody has written."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sized
from typing import Any

ALLOCATOR = ctypes.CDLL(None)
M_MMAP_THRESHOLD, M_PERTURB = -3, -6  # options of mallopt
FILLS = (0, 1, 0x55, 0xAA)  # what malloc fills memory with; 0: with nothing


def is_steady(run: Callable[[], Any], differences: Callable[[Any, Any], Sized]) -> bool:
    """Tell whether what is run has the same outcome each time, whatever unwritten memory holds."""
    outcomes = []
    try:
        for byte in FILLS:
            ALLOCATOR.mallopt(M_PERTURB, byte)
            outcomes.append(run())
    finally:
        ALLOCATOR.mallopt(M_PERTURB, 0)
    return not any(differences(outcomes[0], other) for other in outcomes[1:])
