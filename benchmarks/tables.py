"""What was measured, as text."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import geometric_mean
from typing import Any

COLUMNS = "peer", "first call", "new size", "median", "vs eager", "of roofline", "equal"
MIB = 1 << 20
SLOW = 0.98  # below it a program is slower than it may be


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


def row_table(rows: dict[str, dict[str, Any]]) -> str:
    """Return what rows take, eager beside the memory pool and Torchy, as text."""
    lines = [["8192 x 512 unless it says otherwise", "eager", "Torchy", "faster", "equal"]]
    for name, row in rows.items():
        figures = duration(row["eager"]), duration(row["torchy"]), f"{row['ratio']:.2f}x"
        lines.append([name, *figures, "yes" if row["equal"] else "NO"])
    return aligned(lines)


def cell_table(cells: dict[str, dict[str, float]]) -> str:
    """Return what cells cost in a kernel, as text."""
    lines = [["from Enter to idle", "plain", "--quiet", "explorer", "more", "sent"]]
    for name, cell in cells.items():
        more = cell["explorer"] - cell["quiet"]
        figures = (duration(cell[way]) for way in ("plain", "quiet", "explorer"))
        lines.append([name, *figures, duration(more), f"{cell['bytes'] / 1000:.0f} kB"])
    return aligned(lines)


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


def whole_table(found: dict[str, Any]) -> str:
    """Return what whole programs take as text, and what that comes to."""
    title = "steady: a session a step", "eager", "Torchy", "speed", "one session", "beside the pool"
    first = "first run", "caches cold", "warm", "of the bound"
    lines = [[*title, *first, "settled", "peak MiB", "", "equal"]]
    lines[0] += (
        ["torch.compile", "first"] if any("compile" in row for row in found.values()) else []
    )
    for name, row in found.items():
        eager, cold, torchy = row["eager"], row["cold"], row["torchy"]
        lines.append(
            [
                name,
                duration(eager["steady"]),
                duration(torchy["steady"]),
                *(f"{speed:.2f}x" for speed in speeds(row).values()),
                f"{duration(eager['first'])} ->",
                duration(cold["first"]),
                duration(torchy["first"]),
                f"{cold['first'] / first_run_bound(row):.2f}",
                f"{torchy['settled']}",
                f"{eager['peak'] / MIB:.0f} ->",
                f"{torchy['peak'] / MIB:.0f}",
                "yes" if row["equal"] else "NO",
                *compiled_cells(row),
            ]
        )
    return "\n\n".join([aligned(lines), whole_summary(found)])


def speeds(row: dict[str, Any]) -> dict[str, float]:
    """Return how fast Torchy is against eager: a session a step, and one session; and against eager with the pool."""
    eager, torchy = row["eager"], row["torchy"]
    return {
        "a session a step": eager["steady"] / torchy["steady"],
        "one session": eager["steady"] / torchy["one_session"],
        "beside the pool": torchy["pool"] / torchy["steady"],
    }


def first_run_bound(row: dict[str, Any]) -> float:
    """Return the seconds that a first run may take, caches cold: eager's, and so much for each op and signature."""
    torchy = row["torchy"]
    allowed: float = (
        1.25 * row["eager"]["first"] + 4e-6 * torchy["ops"] + 150e-6 * torchy["signatures"]
    )
    return allowed


def compiled_cells(row: dict[str, Any]) -> list[str]:
    """Return what torch.compile came to, if it was asked."""
    found = row.get("compile")
    if found is None:
        return []
    if "failed" in found:
        return [found["failed"], ""]
    bits = "" if found["equal"] else ", other bits"
    return [f"{row['eager']['steady'] / found['steady']:.2f}x{bits}", duration(found["first"])]


def whole_summary(found: dict[str, Any]) -> str:
    """Return what the programs come to together."""
    lines = []
    for way in speeds(next(iter(found.values()))):
        of_all = {name: speeds(row)[way] for name, row in found.items()}
        slow = [f"{name} {speed:.2f}" for name, speed in of_all.items() if speed < SLOW]
        mean = geometric_mean(of_all.values())
        lines.append(
            f"{way}: {mean:.2f}x, geometric mean of {len(of_all)}; below {SLOW}: {', '.join(slow) or 'none'}"
        )
    late = [name for name, row in found.items() if row["cold"]["first"] > first_run_bound(row)]
    warm = geometric_mean(row["eager"]["first"] / row["torchy"]["first"] for row in found.values())
    lines.append(
        f"first runs, caches cold, beyond the bound: {', '.join(late) or 'none'}; warm: {warm:.2f}x"
    )
    return "\n".join(lines)
