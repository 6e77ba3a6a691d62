"""Runs all microbenchmarks, each case in a fresh process; prints a table and writes build/bench.json."""

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

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = "peer", "first call", "new size", "median", "vs eager", "of roofline", "equal"


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


def duration(seconds: float) -> str:
    """Return a time with three digits: ``24.3 µs``."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            value = seconds / scale
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return a table as text: names to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            text.rjust(width) if column else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def case_table(case: dict[str, Any]) -> str:
    """Return one case as text."""
    lines = [list(COLUMNS)]
    failures = []
    for name, found in case["peers"].items():
        if "failed" in found:
            failures.append(f"{name} failed: {found['failed']}")
            continue
        lines.append(
            [
                name,
                duration(found["first_call"]),
                duration(found["new_size"]),
                duration(found["median"]),
                f"{found['ratio']:.2f}x",
                f"{found['of_roofline']:.0%}",
                "yes" if found["equal"] else f"no, {found['max_ulp']} ulp",
            ]
        )
    title = (
        f"{case['ops']} ops, {case['size']} x {case['size']}: {case['bytes'] / 1e6:.3g} MB must move,"
        f" which a copy does in {duration(case['copy']['median'])}"
    )
    return "\n".join([title, aligned(lines), *failures])


def recording_table(recording: dict[str, Any]) -> str:
    """Return what recording costs as text."""
    lines = [["16 floats, µs per op", "op", "flush"]]
    for name, found in recording.items():
        flush = f"{found['flush_us']:.2f}" if found["flush_us"] > 0.01 else ""
        lines.append([name, f"{found['op_us']:.2f}", flush])
    return aligned(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmarks that the command line selects (all of them)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--ops", type=int, nargs="*", default=LENGTHS)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--seconds", type=float, default=10.0, help="of rounds, per case")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench.json")
    options = parser.parse_args(arguments)

    # The walker is built once for a torch: that is no part of a first call.
    subprocess.run([sys.executable, "-m", "torchy", "build"], check=True)
    here = machine()
    print("\n".join(facts(here)), flush=True)
    cases = []
    for ops in options.ops:
        for size in options.sizes:
            case = run_json(
                "benchmarks.case", str(ops), str(size), "--seconds", str(options.seconds)
            )
            print(f"\n{case_table(case)}", flush=True)
            cases.append(case)
    recording = run_json("benchmarks.recording")
    print(f"\n{recording_table(recording)}\n")
    print(
        f"Medians of rounds by turns, each a loop of {ROUND_CALLS} calls or more. First call: in a fresh process with "
        "empty caches, compiler imports included."
    )
    print(
        "New size: the first call with operands 7/8 as long. Equal: all three results have eager's bits."
    )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    result = {"machine": here, "chains": cases, "recording": recording}
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"All figures: {options.output}")


def facts(here: dict[str, Any]) -> Iterable[str]:
    """Yield what the figures depend on, a line each."""
    yield f"{here['cpu']}, {here['cores']} cores, {here['threads']} threads, {here['vectors']}"
    yield f"torch {here['torch']}, Python {here['python']}, huge pages {here['huge_pages']}"
    if here["load"] > 0.3 * here["cores"]:
        yield f"The machine is busy (load {here['load']}): figures of threaded peers will be too high."


if __name__ == "__main__":
    main()
