"""Whether recording pays: a session that does not pay goes to sleep.

What eager would have taken is estimated: so much for each op, and so much for each byte that the fused ones move.
What Torchy took is measured. Calls of torch's own ops take the same either way: they are left out. First sights do not
count: they are paid once.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import torch

EAGER_BANDWIDTH = 8e9  # bytes a second through memory, by an op on large operands: measured
RECORDING = 1.0  # recording an op at a known place costs about one tiny eager op more
ENOUGH_SECONDS = 0.05  # of flushes, before anything is decided
ENOUGH_FLUSHES = 32
RUN_NOW_SHARE = 0.97  # of ops that are not recorded, from which on walking them is for nothing


def tiny_op_seconds(rounds: int = 5, ops: int = 50) -> float:
    """Return what eager takes for an op on a few elements: the best of some rounds."""
    x = torch._C._VariableFunctions.ones(16)
    add = torch._C.TensorBase.__add__  # torch's own, whatever the program has put in its place
    best = float("inf")
    for _ in range(rounds):
        begin = perf_counter()
        for _ in range(ops):
            add(x, x)
        best = min(best, (perf_counter() - begin) / ops)
    return best


@dataclass(slots=True)
class Pace:
    """The balance of one session.

    Parameters
    ----------
    tiny_op
        Seconds that eager takes for an op on a few elements.
    """

    tiny_op: float
    eager: float = 0.0
    ours: float = 0.0
    flushes: int = 0
    recorded: int = 0
    run_now: int = 0

    def add(self, ops: int, bytes_moved: int, seconds: float) -> None:
        """Note a flush of a known plan: its ops, the bytes eager moves for those that are fused, what it took."""
        self.eager += ops * self.tiny_op + bytes_moved / EAGER_BANDWIDTH
        self.ours += ops * self.tiny_op * RECORDING + seconds
        self.flushes += 1

    def loses(self) -> bool:
        """Return True if flushes have cost more than eager would have; forgets the past then and now."""
        if self.flushes < ENOUGH_FLUSHES or self.ours < ENOUGH_SECONDS:
            return False
        lost = self.ours > self.eager
        self.eager, self.ours, self.flushes = 0.0, 0.0, 0
        return lost

    def only_walks(self, recorded: int, run_now: int) -> bool:
        """Return True if almost no op has been recorded since this was asked last."""
        here = run_now - self.run_now
        there = recorded - self.recorded
        self.recorded, self.run_now = recorded, run_now
        return here > RUN_NOW_SHARE * (here + there)
