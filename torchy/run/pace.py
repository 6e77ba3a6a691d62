"""What eager takes for an op: the measure by which the walker tells whether recording pays (log.h)."""

from __future__ import annotations

from time import perf_counter

import torch

# What may go into interpreting a trace, by op, before it is planned: a third of what planning takes, since what has come
# so often mostly comes again.
INTERPRETED_SECONDS = 25e-6


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
