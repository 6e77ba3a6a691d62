"""Runs batches of random programs in processes of their own, several at a time, until the time is up."""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "semantics"))

from batch import MARK, Coverage, Failure
from isolation import Servers
from programs import TIERS, Program

FILE = str(Path(__file__).with_name("batch.py"))
SECONDS = 900.0  # a batch that takes longer hangs
ONE = 60.0  # so does one program


def start_servers(count: int) -> Servers:
    """Start processes with what makes programs loaded."""
    return Servers(count, preload=("preload", "batch"), folder=Path(__file__).parent)


def batches(
    servers: Servers,
    seed: int,
    count: int,
    shrink: bool,
    seconds: float = math.inf,
    most: float = math.inf,
) -> Iterator[tuple[Coverage, Failure | None]]:
    """Yield what batches of so many programs covered and found, until the time is up or there were enough."""
    deadline, started = time.monotonic() + seconds, 0
    with ThreadPoolExecutor(len(servers)) as pool:
        running: set[Future] = set()
        while True:
            while time.monotonic() < deadline and started < most and len(running) < len(servers):
                running.add(pool.submit(run_batch, servers, seed + started, count, shrink))
                started += 1
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()


def run_batch(
    servers: Servers, seed: int, count: int, shrink: bool
) -> tuple[Coverage, Failure | None]:
    """Run one batch; where its process dies or breaks, find out of which program, and of how much of it."""
    kind, value, log = servers.call(
        FILE, "run_batch", {"seed": seed, "count": count, "shrink": shrink}, SECONDS
    )
    if kind == "passed":
        coverage, failure = value
    else:
        programs = log.split(MARK + "\n")[1:]
        coverage = Coverage(programs=len(programs))
        if kind == "failed" or not programs:
            raise RuntimeError(f"the batch of seed {seed} {kind}: {value}\n{log[-3000:]}")
        program = Program.from_json(programs[-1].splitlines()[0])
        failure = Failure(program, TIERS[-1], [f"the process {value} (seed {seed})"], whole=True)
    if failure is not None and failure.whole and shrink and fails(servers, failure.program):
        program = shortest(failure.program, functools.partial(fails, servers))
        failure = dataclasses.replace(failure, program=program, whole=False)
    return coverage, failure


def fails(servers: Servers, program: Program) -> bool:
    """Tell whether a program differs from eager in a process of its own, or that process dies or hangs."""
    kind, found, _ = servers.call(FILE, "judge", {"program": program}, ONE)
    return kind != "passed" or bool(found)


def shortest(program: Program, fails: Callable[[Program], bool]) -> Program:
    """Leave out the statements without which a program still fails."""
    size = len(program.lines) // 2
    while size:
        start = 0
        while start < len(program.lines):
            lines = program.lines[:start] + program.lines[start + size :]
            shorter = dataclasses.replace(
                program, lines=lines, before=min(program.before, len(lines))
            )
            if fails(shorter):
                program = shorter
            else:
                start += size
        size //= 2
    return program
