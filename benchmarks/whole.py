"""One whole program or model, in a process of its own: first run, steady speed, peak memory; prints a line of JSON.

Eagerly, as torch is installed; under Torchy, a session a step, as a cell is, and one session for all steps; or compiled by
torch.compile. What is needed once for a process, the first session, comes before.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.step import Step

Region = Callable[[], AbstractContextManager[Any]]

WAYS = ("eager", "cold", "torchy", "compile")
SOURCES = {"programs": "benchmarks.programs:PROGRAMS", "models": "benchmarks.models:MODELS"}
STEPS = 12  # whose memory counts
PATIENCE = 400, 10.0  # steps and seconds, until three in a row have only repeated their flushes
TURNS = 3  # of each way of running in one process
TURN_STEPS = 12, 240  # at least and at most
TURN_SECONDS = 0.3
COMPILED_STEPS = 40


def table(kind: str) -> Mapping[str, Callable[[], Step]]:
    """Return the programs, or the models: what makes each."""
    module, _, name = SOURCES[kind].partition(":")
    found: Mapping[str, Callable[[], Step]] = getattr(import_module(module), name)
    return found


def status(field: str) -> int:
    """Return bytes of what the kernel tells of this process."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition(f"{field}:")[2].split()[0]) * 1024


class Run:
    """A program that has been begun: what its steps took and gave."""

    def __init__(self, make: Callable[[], Step]) -> None:
        torch.manual_seed(0)
        self.step = make()
        self.times: list[float] = []
        self._results = hashlib.sha256()
        self._first_steps = ""
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
        self._resident = status("VmRSS")
        self.peak = 0

    def once(self, region: Region = nullcontext) -> Any:
        """Do a step in a region of its own; return what that gives."""
        start = time.perf_counter()
        with region() as session:
            result = self.step()
        self.times.append(time.perf_counter() - start)
        self._note(result)
        return session

    def several(self, steps: int, region: Region) -> list[float]:
        """Do steps in one region; return their seconds, with each its share of what entering and leaving takes."""
        start = time.perf_counter()
        inner = 0.0
        with region():
            for _ in range(steps):
                self.once()
                inner += self.times[-1]
        around = (time.perf_counter() - start - inner) / steps
        return [seconds + around for seconds in self.times[-steps:]]

    def _note(self, result: object) -> None:
        self._results.update(repr(result).encode())
        if len(self.times) == STEPS:
            self.peak = status("VmHWM") - self._resident
            self._first_steps = self._results.hexdigest()

    def facts(self) -> dict[str, Any]:
        """Return what holds for all ways of running."""
        return {
            "first": self.times[0],
            "first_twelve": sum(self.times[:STEPS]),
            "peak": self.peak,
            "steps": len(self.times),
            "results": self._results.hexdigest(),
            "first_results": self._first_steps,
        }


def eagerly(make: Callable[[], Step], steps: int) -> dict[str, Any]:
    """Return what eager takes for so many steps: seconds, bytes above what is there when it begins."""
    run = Run(make)
    for _ in range(steps):
        run.once()
    return run.facts() | {"steady": median(run.times[STEPS:])}


def compiled(make: Callable[[], Step]) -> dict[str, Any]:
    """Return the same for torch.compile."""
    run = Run(make)
    run.step = torch.compile(run.step)
    for _ in range(STEPS + COMPILED_STEPS):
        run.once()
    return run.facts() | {"steady": median(run.times[STEPS:])}


def started(cache_dir: str | None = None) -> dict[str, Any]:
    """Open the first session of the process; return what that takes."""
    import torchy

    start = time.perf_counter()
    with torchy.lazy(cache_dir=cache_dir):
        torch.ones(2).add_(1).sum().item()
    return {"start": time.perf_counter() - start}


def coldly(make: Callable[[], Step], folder: str) -> dict[str, Any]:
    """Return what first runs take under Torchy where nothing but the walker is kept on disk, in an empty folder."""
    import torchy
    from torchy.record import building

    walker = building.build()
    for file in (walker, walker.with_suffix(".sha256")):
        shutil.copy(file, folder)
    found = started(folder)
    run = Run(make)
    for _ in range(STEPS):
        run.once(torchy.lazy)
    return found | run.facts()


def lazily(make: Callable[[], Step]) -> dict[str, Any]:
    """Return the same for Torchy, and what eager takes in a process that has its memory pool."""
    import torchy

    found = started()
    run = Run(make)
    settled, (most, seconds) = 0, PATIENCE
    end = time.perf_counter() + seconds
    while len(run.times) < STEPS or (
        settled < 3 and len(run.times) < most and time.perf_counter() < end
    ):
        counters = run.once(torchy.lazy).counters
        settled = settled + 1 if counters["repeated"] == counters["flushes"] else 0
        if len(run.times) == 1:
            ops = counters["recorded"] + counters["run_now"]
            found |= {"ops": ops, "signatures": counters["policy_calls"]}
    found |= {"settled": len(run.times)}
    fewest, most = TURN_STEPS
    steps = min(max(fewest, int(TURN_SECONDS / run.times[-1])), most)
    ways: dict[str, list[float]] = {"steady": [], "one_session": [], "pool": []}
    for _ in range(TURNS):
        for _ in range(steps):
            run.once(torchy.lazy)
        ways["steady"] += run.times[-steps:]
        ways["one_session"] += run.several(steps, torchy.lazy)
        ways["pool"] += run.several(steps, nullcontext)
    return found | run.facts() | {way: median(times) for way, times in ways.items()}


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=SOURCES)
    parser.add_argument("name")
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--steps", type=int, default=STEPS + TURN_STEPS[1], help="of eager")
    parser.add_argument("--cache-dir", help="an empty folder, for what runs cold")
    options = parser.parse_args()
    make = table(options.kind)[options.name]
    if options.way == "eager":
        found = eagerly(make, options.steps)
    elif options.way == "compile":
        found = compiled(make)
    elif options.way == "cold":
        found = coldly(make, options.cache_dir)
    else:
        found = lazily(make)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
