"""Compares two runs of the benchmarks: what became slower, or takes more memory, by more than 3%; fails if anything did."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.tables import aligned

TOLERANCE = 0.03
NOISE = {
    "median": 0.10,
    "share": 0.08,
    "speed": 0.08,
    "steady": 0.15,
    "first": 0.25,
    "first_twelve": 0.2,
    "peak": 0.05,
}


def figures(result: dict[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Yield name, kind and value of each figure; less is better."""
    for case in result.get("chains", ()):
        peer = case["peers"].get("Torchy", {})
        if "ratio" in peer:
            yield f"chain of {case['ops']}, {case['size']}", "median", 1 / peer["ratio"]
    recording = result.get("recording", {})
    for section in ("schemas", "traces"):
        for name, row in recording.get(section, {}).items():
            yield f"{section}: {name}", "share", row["share"]
    for row in recording.get("looks", ()):
        yield f"{row['compute']}, {row['look']}", "speed", 1 / row["speed"]
    for name, row in result.get("rows", {}).items():
        yield f"rows: {name}", "speed", 1 / row["ratio"]
    for suite in ("memory", "programs", "models"):
        for name, row in result.get(suite, {}).items():
            for figure in ("first", "first_twelve", "steady"):
                yield f"{name}: {figure}", figure, row["torchy"][figure] / row["eager"][figure]
            yield f"{name}: peak", "peak", row["torchy"]["peak"]


def compare(old: dict[str, Any], new: dict[str, Any]) -> tuple[list[list[str]], int]:
    """Return a line for each figure that changed by more than its noise, and how many became worse.

    Times are held against eager's in the same run, so that a slower machine is no slower Torchy.
    """
    before = {name: value for name, _, value in figures(old)}
    lines, worse = [], 0
    for name, kind, value in figures(new):
        if name not in before:
            continue
        change = value / before[name] - 1
        if abs(change) > max(TOLERANCE, NOISE[kind]):
            worse += change > 0
            verdict = "worse" if change > 0 else "better"
            lines.append([name, f"{before[name]:.3g}", f"{value:.3g}", f"{change:+.0%}", verdict])
    return lines, worse


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare two files; return 1 if anything became worse."""
    parser = argparse.ArgumentParser(prog="make bench-check", description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    options = parser.parse_args(arguments)
    old, new = (json.loads(path.read_text()) for path in (options.old, options.new))
    lines, worse = compare(old, new)
    print(aligned([["figure, against eager", "old", "new", "change", ""], *lines]))
    print(f"{len(lines)} figures changed by more than their noise, {worse} of them for the worse")
    return int(worse > 0)


if __name__ == "__main__":
    sys.exit(main())
