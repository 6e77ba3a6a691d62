"""What was measured, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

COLUMNS = "peer", "first call", "new size", "median", "vs eager", "of roofline", "equal"
MIB = 1 << 20


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
    """Return one chain as text."""
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


def recording_tables(found: dict[str, Any]) -> str:
    """Return what recording, flushing and sessions cost as text."""

    def shares(title: str, rows: dict[str, Any]) -> str:
        lines = [[title, "eager", "Torchy", "share", "speed"]]
        for name, row in rows.items():
            figures = f"{row['eager_ns']:.0f} ns", f"{row['torchy_ns']:.0f} ns"
            lines.append([name, *figures, f"{row['share']:.2f}", f"{1 / row['share']:.2f}x"])
        return aligned(lines)

    looks = [["8192 x 512, a session a step", "eager", "Torchy", "speed", "page faults"]]
    for row in found["looks"]:
        name = f"{row['compute']}, {row['look']}"
        figures = f"{row['eager_ms']:.2f} ms", f"{row['torchy_ms']:.2f} ms"
        looks.append([name, *figures, f"{row['speed']:.2f}x", f"{row['faults']:.0f}"])
    sessions = [["16 floats", "µs"], *([k, f"{v:.2f}"] for k, v in found["sessions"].items())]
    return "\n\n".join(
        [
            shares("recorded at a known place, an op on 16 floats", found["schemas"]),
            shares("recorded and flushed, per op", found["traces"]),
            aligned(sessions),
            aligned(looks),
        ]
    )


def memory_table(found: dict[str, Any]) -> str:
    """Return what whole programs take as text."""
    times = ("first", "first_twelve", "steady")
    lines = [
        ["a session a step", "first run", "", "twelve", "", "steady", "", "speed", "from", "peak MiB", "",
         "equal"]
    ]  # fmt: skip
    for name, row in found.items():
        eager, torchy = row["eager"], row["torchy"]
        cells = [
            f"{duration(eager[figure])} -> \t{duration(torchy[figure])}".split("\t")
            for figure in times
        ]
        speed = f"{eager['steady'] / torchy['steady']:.2f}x"
        peaks = f"{eager['peak'] / MIB:.0f} ->", f"{torchy['peak'] / MIB:.0f}"
        equal = "yes" if row["equal"] else "no"
        settled = f"{torchy['settled']}"
        lines.append(
            [name, *(cell for pair in cells for cell in pair), speed, settled, *peaks, equal]
        )
    return aligned(lines)
