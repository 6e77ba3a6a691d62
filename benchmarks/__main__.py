"""Runs the benchmarks, each case in a fresh process; prints tables and writes build/bench.json, with pictures beside it.

Suites: ``chains`` (the paper's microbenchmark, against TorchScript and torch.compile), ``recording`` (what recording and
flushing cost), ``programs`` (whole programs in fresh processes: first run, steady speed, peak memory), ``models`` (the
same of transformers), ``rows`` (rows, columns and activations between their neighbours), ``memory`` (of the programs those
that the promise on memory was made with), ``cells`` (what a notebook's cell costs from Enter to idle, with its explorer).
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
from benchmarks.plot import speed_plot
from benchmarks.programs import MEMORY
from benchmarks.tables import case_table, cell_table, recording_tables, row_table, whole_table
from benchmarks.whole import table

ROOT = Path(__file__).resolve().parent.parent
SUITES = ("chains", "recording", "rows", "memory", "programs", "models", "cells")
SECTIONS = ("schemas", "traces", "sessions", "looks")
ROUNDS = 3  # of each program, in fresh processes
PATIENCE = 150  # seconds that a program may take under torch.compile


def run_json(*command: str, timeout: float | None = None) -> Any:
    """Run a module of this package in a fresh process with empty caches; return what it prints last."""
    with tempfile.TemporaryDirectory(prefix="bench-") as caches:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": caches},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=timeout,
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


def whole(kind: str, names: Iterable[str], peers: Sequence[str], rounds: int) -> dict[str, Any]:
    """Run programs or models whole, eagerly and under Torchy by turns; of each figure the lowest counts."""
    found: dict[str, Any] = {}
    for name in names:
        runs: dict[str, list[dict[str, Any]]] = {"eager": [], "cold": [], "torchy": []}
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                cold = run_json("benchmarks.whole", kind, name, "cold", "--cache-dir", folder)
            runs["cold"].append(cold)
            lazily = run_json("benchmarks.whole", kind, name, "torchy")
            runs["torchy"].append(lazily)
            as_many = ("--steps", str(lazily["steps"]))  # so that all results can be compared
            runs["eager"].append(run_json("benchmarks.whole", kind, name, "eager", *as_many))
        pairs = zip(runs["eager"], runs["torchy"], strict=True)
        row: dict[str, Any] = {way: lowest(same) for way, same in runs.items()}
        row["equal"] = all(a["results"] == b["results"] for a, b in pairs)
        if "compile" in peers:
            row["compile"] = compiled(kind, name, runs["eager"][0]["first_results"])
        found[name] = row
        print(f"\r{len(found)}: {name}\033[K", end="", file=sys.stderr, flush=True)
    print(f"\n{whole_table(found)}", flush=True)
    return found


def lowest(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the lowest of each figure."""
    figures = (name for name, value in runs[0].items() if not isinstance(value, str))
    return {name: min(run[name] for run in runs) for name in figures}


def compiled(kind: str, name: str, expected: str) -> dict[str, Any]:
    """Run a program under torch.compile; return its figures, or why there are none."""
    try:
        found = run_json("benchmarks.whole", kind, name, "compile", timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done in {PATIENCE} s"}
    except subprocess.CalledProcessError as error:
        return {"failed": f"exit status {error.returncode}"}
    return lowest([found]) | {"equal": found["first_results"] == expected}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmarks that the command line selects (all of them)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--suite", nargs="*", choices=SUITES, default=SUITES)
    parser.add_argument("--ops", type=int, nargs="*", default=LENGTHS, help="lengths of chains")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="sizes of chains")
    parser.add_argument("--seconds", type=float, default=10.0, help="of rounds, per chain")
    parser.add_argument("--only", nargs="*", help="programs and models, by name (all)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of programs and models")
    parser.add_argument(
        "--peers", nargs="*", choices=("compile",), default=(), help="slow ones too"
    )
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
    if "rows" in options.suite:
        result["rows"] = run_json("benchmarks.rows")
        print(f"\n{row_table(result['rows'])}", flush=True)
    if "cells" in options.suite:
        result["cells"] = run_json("benchmarks.cells")
        print(f"\n{cell_table(result['cells'])}", flush=True)
    for suite in set(options.suite) & {"memory", "programs", "models"}:
        kind = "models" if suite == "models" else "programs"
        names = MEMORY if suite == "memory" else table(kind)
        wanted = [name for name in names if not options.only or name in options.only]
        result[suite] = whole(kind, wanted, options.peers, options.rounds)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\nAll figures: {options.output}")
    for suite in set(options.suite) & {"programs", "models"}:
        picture = options.output.with_name(f"{suite}.svg")
        picture.write_text(speed_plot(result[suite], f"{suite}, steady, against eager"))
        print(f"Drawn: {picture}")


def facts(here: dict[str, Any]) -> Iterable[str]:
    """Yield what the figures depend on, a line each."""
    yield f"{here['cpu']}, {here['cores']} cores, {here['threads']} threads, {here['vectors']}"
    yield f"torch {here['torch']}, Python {here['python']}, huge pages {here['huge_pages']}"
    if here["load"] > 0.3 * here["cores"]:
        yield f"The machine is busy (load {here['load']}): figures of threaded peers will be too high."


if __name__ == "__main__":
    main()
