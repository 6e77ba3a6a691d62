"""Fair timing: all contenders by turns, in rounds, so that a noisy minute hits them all; medians of the rounds."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROUND_SECONDS = 0.02
ROUND_CALLS = 5  # at least, as in a loop: a region is entered and left once a round
WARM_UP_SECONDS = 0.5


@dataclass
class Contender:
    """Something to be timed: one call of ``run`` does the work once, looking at its result included."""

    run: Callable[[], object]
    region: Callable[[], AbstractContextManager[object]] = nullcontext

    def batch(self, calls: int) -> float:
        """Return the seconds that a batch of calls takes, per call."""
        run = self.run
        start = time.perf_counter()
        with self.region():
            for _ in range(calls):
                run()
        return (time.perf_counter() - start) / calls


def warm_up(contender: Contender) -> float:
    """Run at least three batches and for half a second; return the seconds of the fastest call."""
    fastest = contender.batch(1)
    end = time.perf_counter() + WARM_UP_SECONDS
    runs = 1
    while runs < 3 or time.perf_counter() < end:
        calls = max(1, min(1000, int(ROUND_SECONDS / fastest)))
        fastest = min(fastest, contender.batch(calls))
        runs += 1
    return fastest


def in_turns(
    contenders: Mapping[str, Contender], seconds: float, rounds: tuple[int, int] = (7, 61)
) -> dict[str, list[float]]:
    """Time contenders by turns.

    Parameters
    ----------
    contenders
        By name; warmed up here, one after the other.
    seconds
        How long to go on, for all of them together.
    rounds
        The fewest and the most rounds, whatever the time.

    Returns
    -------
    dict
        For each name the seconds per call in each round.
    """
    calls = {
        name: max(ROUND_CALLS, int(ROUND_SECONDS / warm_up(contender)))
        for name, contender in contenders.items()
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    fewest, most = rounds
    end = time.perf_counter() + seconds
    for turn in range(most):
        if turn >= fewest and time.perf_counter() > end:
            break
        for name, contender in contenders.items():
            times[name].append(contender.batch(calls[name]))
    return times


def summary(times: list[float]) -> dict[str, float]:
    """Return median and quartiles, in seconds, and the number of rounds."""
    low, middle, high = statistics.quantiles(times, n=4)
    return {"median": middle, "quartile_1": low, "quartile_3": high, "rounds": len(times)}


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, threads, load, versions, huge pages."""
    huge_pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "huge_pages": huge_pages.read_text().strip() if huge_pages.exists() else None,
        "load": round(os.getloadavg()[0], 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def cpu_name() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
