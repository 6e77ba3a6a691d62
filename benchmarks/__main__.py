"""Runs the benchmarks, each case in a fresh process; prints tables and writes build/bench.json.

Suites: ``chains`` (the paper's microbenchmark, against TorchScript and torch.compile), ``recording`` (what recording and
flushing cost), ``memory`` (whole programs in fresh processes: first run, steady speed, peak memory).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.chains import LENGTHS, SIZES
from benchmarks.measure import ROUND_CALLS, machine
from benchmarks.programs import PROGRAMS
from benchmarks.tables import case_table, memory_table, recording_tables

ROOT = Path(__file__).resolve().parent.parent
SUITES = ("chains", "recording", "memory")
SECTIONS = ("schemas", "traces", "sessions", "looks")
MEMORY_ROUNDS = 3


def run_json(*command: str) -> Any:
    """Run a module of this package in a fresh process with empty caches; return what it prints last."""
    with tempfile.TemporaryDirectory(prefix="bench-") as caches:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": caches},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    return json.loads(done.stdout.splitlines()[-1])


def chains(lengths: Sequence[int], sizes: Sequence[int], seconds: float) -> list[dict[str, Any]]:
    """Run the paper's chains, and print each as it is done."""
    cases = []
    for ops in lengths:
        for size in sizes:
            case = run_json("benchmarks.case", str(ops), str(size), "--seconds", str(seconds))
            print(f"\n{case_table(case)}", flush=True)
            cases.append(case)
    print(
        f"\nMedians of rounds by turns, each a loop of {ROUND_CALLS} calls or more. First call: in a fresh process with "
        "empty caches, compiler imports included."
    )
    print(
        "New size: the first call with operands 7/8 as long. Equal: all three results have eager's bits."
    )
    return cases


def recording() -> dict[str, Any]:
    """Run what measures recording, each section in a process of its own."""
    found: dict[str, Any] = {}
    for section in SECTIONS:
        found |= run_json("benchmarks.recording", section)
    print(f"\n{recording_tables(found)}", flush=True)
    return found


def memory(rounds: int = MEMORY_ROUNDS) -> dict[str, Any]:
    """Run the whole programs, eagerly and under Torchy by turns; of each figure the lowest counts."""
    found: dict[str, Any] = {}
    for name in PROGRAMS:
        runs: dict[str, list[dict[str, Any]]] = {"eager": [], "torchy": []}
        for _ in range(rounds):
            lazily = run_json("benchmarks.memory", name, "--lazily")
            runs["torchy"].append(lazily)
            as_many = ("--warm", str(lazily["settled"]))  # so that all results can be compared
            runs["eager"].append(run_json("benchmarks.memory", name, *as_many))
        found[name] = {
            way: {
                figure: min(run[figure] for run in same)
                for figure in same[0]
                if figure != "results"
            }
            for way, same in runs.items()
        }
        pairs = zip(runs["eager"], runs["torchy"], strict=True)
        found[name]["equal"] = all(a["results"] == b["results"] for a, b in pairs)
    print(f"\n{memory_table(found)}", flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmarks that the command line selects (all of them)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--suite", nargs="*", choices=SUITES, default=SUITES)
    parser.add_argument("--ops", type=int, nargs="*", default=LENGTHS, help="lengths of chains")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="sizes of chains")
    parser.add_argument("--seconds", type=float, default=10.0, help="of rounds, per chain")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench.json")
    options = parser.parse_args(arguments)

    # The walker is built once for a torch: that is no part of a first call.
    subprocess.run([sys.executable, "-m", "torchy", "build"], check=True)
    here = machine()
    print("\n".join(facts(here)), flush=True)
    result: dict[str, Any] = {"machine": here}
    if "chains" in options.suite:
        result["chains"] = chains(options.ops, options.sizes, options.seconds)
    if "recording" in options.suite:
        result["recording"] = recording()
    if "memory" in options.suite:
        result["memory"] = memory()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\nAll figures: {options.output}")


def facts(here: dict[str, Any]) -> Iterable[str]:
    """Yield what the figures depend on, a line each."""
    yield f"{here['cpu']}, {here['cores']} cores, {here['threads']} threads, {here['vectors']}"
    yield f"torch {here['torch']}, Python {here['python']}, huge pages {here['huge_pages']}"
    if here["load"] > 0.3 * here["cores"]:
        yield f"The machine is busy (load {here['load']}): figures of threaded peers will be too high."


if __name__ == "__main__":
    main()
