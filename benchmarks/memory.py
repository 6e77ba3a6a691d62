"""One whole program, in a process of its own, eagerly or under Torchy: first run, steady speed, peak memory; prints JSON.

A session a step, as a cell is. What it takes once for a process, the first session, comes before.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.programs import PROGRAMS

STEPS = 12  # whose memory counts
STEADY = 40  # whose speed counts, once three in a row have only repeated their flushes
MOST = 400  # until then


def status(field: str) -> int:
    """Return bytes of what the kernel tells of this process."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition(f"{field}:")[2].split()[0]) * 1024


def measure(name: str, lazily: bool, pool: bool, warm: int = STEPS) -> dict[str, Any]:
    """Return what one program takes: seconds, and bytes above those that are there when it begins.

    ``warm``: how many steps come at least before its speed counts.
    """
    found: dict[str, Any] = {}

    def region() -> AbstractContextManager[Any]:
        if not lazily:
            return nullcontext()
        import torchy

        return torchy.lazy(memory_pool=pool)

    start = time.perf_counter()
    with region():
        torch.ones(2).add_(1).sum().item()
    found["start"] = time.perf_counter() - start
    torch.manual_seed(0)
    step = PROGRAMS[name]()
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    resident = status("VmRSS")
    results: list[float] = []
    times: list[float] = []
    settled = 0
    while len(times) < warm or (lazily and settled < 3 and len(times) < MOST):
        start = time.perf_counter()
        with region() as session:
            results.append(step())
        times.append(time.perf_counter() - start)
        if session is not None:
            counters = session.counters
            settled = settled + 1 if counters["repeated"] == counters["flushes"] else 0
            ops = counters["recorded"] + counters["run_now"]
            if len(times) == 1:
                found |= {"ops": ops, "signatures": counters["policy_calls"]}
        if len(times) == STEPS:
            found["peak"] = status("VmHWM") - resident
    steady = []
    for _ in range(STEADY):
        start = time.perf_counter()
        with region():
            results.append(step())
        steady.append(time.perf_counter() - start)
    return found | {
        "first": times[0],
        "first_twelve": sum(times[:STEPS]),
        "settled": len(times),
        "steady": median(steady),
        "results": results,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", choices=PROGRAMS)
    parser.add_argument("--lazily", action="store_true")
    parser.add_argument("--no-pool", action="store_true")
    parser.add_argument("--warm", type=int, default=STEPS)
    options = parser.parse_args()
    print(json.dumps(measure(options.program, options.lazily, not options.no_pool, options.warm)))
