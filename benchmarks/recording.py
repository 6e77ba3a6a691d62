"""What recording costs: microseconds per op on 16 floats, eagerly and at a known place; prints a line of JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from statistics import median
from typing import Any

import torch

import torchy

OPS = 200  # in one trace
BATCHES = 25
ROUNDS = 31


def record(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Call so many ops, and look at nothing."""
    for _ in range(OPS):
        x = x + y
    return x


def time_batch(
    region: AbstractContextManager[object],
    flush: Callable[[], object],
    operands: tuple[torch.Tensor, torch.Tensor],
) -> tuple[float, float]:
    """Return the microseconds per op of recording a batch of traces, and of flushing them."""
    recording = flushing = 0.0
    clock = time.perf_counter
    with region:
        for _ in range(BATCHES):
            start = clock()
            result = record(*operands)
            recorded = clock()
            flush()
            recording += recorded - start
            flushing += clock() - recorded
            del result
    return 1e6 * recording / OPS / BATCHES, 1e6 * flushing / OPS / BATCHES


def under(operands: tuple[torch.Tensor, torch.Tensor], **settings: Any) -> tuple[float, float]:
    """Time a batch in a session of its own."""
    return time_batch(torchy.lazy(**settings), torchy.flush, operands)


def eagerly(operands: tuple[torch.Tensor, torch.Tensor]) -> tuple[float, float]:
    """Time a batch without Torchy; there is nothing to flush."""
    return time_batch(nullcontext(), lambda: None, operands)


def measure() -> dict[str, Any]:
    """Return medians of rounds in turns: eager's own, and those of each way to run."""
    plain = (torch.rand(16), torch.rand(16))
    with_grad = (torch.rand(16), torch.rand(16, requires_grad=True))
    contenders: dict[str, Callable[[], tuple[float, float]]] = {
        "eager": lambda: eagerly(plain),
        "eager, with grad": lambda: eagerly(with_grad),
        "recorded, interpreted": lambda: under(plain, compile="never"),
        "recorded, compiled": lambda: under(plain, compile="always"),
        "recorded, with grad": lambda: under(with_grad, compile="never"),
        "passed through": lambda: under(plain, mode="pass_through"),
    }
    for run in contenders.values():
        run()
        run()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, run in contenders.items():
            times[name].append(run())
    return {
        name: {
            "op_us": median(op for op, _ in rounds),
            "flush_us": median(flush for _, flush in rounds),
        }
        for name, rounds in times.items()
    }


if __name__ == "__main__":
    print(json.dumps(measure()))
