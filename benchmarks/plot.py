"""What whole programs came to, as a picture: a line for each program, a dot for each way of running it."""

from __future__ import annotations

import math
from html import escape
from typing import Any

from benchmarks.tables import speeds

WIDTH, NAMES, RIGHT = 860, 150, 30  # pixels: of all, of the programs' names, beside the last tick
TOP, ROW = 64, 17
INK, FAINT, TORCHY, COMPILE = "#24292f", "#d0d7de", "#0969da", "#bc4c00"


def speed_plot(found: dict[str, Any], title: str) -> str:
    """Return an SVG picture of how fast programs are against eager, the fastest first.

    Parameters
    ----------
    found
        By program what the suite has measured; ``torch.compile`` is drawn where that ran.
    title
        Stands above it.
    """
    rows = {name: {"Torchy": speeds(row)["a session a step"]} for name, row in found.items()}
    for name, row in found.items():
        if "steady" in row.get("compile", {}):
            rows[name]["torch.compile"] = row["eager"]["steady"] / row["compile"]["steady"]
    shown = [speed for row in rows.values() for speed in row.values()]
    low, high = min(0, *map(_octave, shown)), max(1, *(_octave(speed) + 1 for speed in shown))
    bottom = TOP + ROW * len(rows)

    def x(speed: float) -> float:
        return NAMES + (math.log2(speed) - low) / (high - low) * (WIDTH - NAMES - RIGHT)

    parts = [_text(NAMES, 20, title, "start", 15)]
    for octave in range(low, high + 1):
        at = x(2.0**octave)
        width = 2 if octave == 0 else 1
        parts.append(
            f'<path d="M{at:.1f} {TOP - 8}V{bottom}" stroke="{FAINT}" stroke-width="{width}"/>'
        )
        parts.append(_text(at, TOP - 14, "eager" if octave == 0 else f"{2.0**octave:g}x", "middle"))
    ways = {"Torchy": TORCHY} | ({"torch.compile": COMPILE} if _compiles(rows) else {})
    for place, (way, color) in enumerate(reversed(ways.items())):
        right = WIDTH - RIGHT - 110 * place
        parts += [_dot(right - 92, 16, color), _text(right - 84, 20, way, "start")]
    ordered = sorted(rows.items(), key=lambda item: -item[1]["Torchy"])
    for number, (name, row) in enumerate(ordered):
        y = TOP + ROW * number + ROW / 2
        parts.append(_text(NAMES - 10, y + 4, name, "end"))
        parts += [
            _dot(x(row[way]), y, color) for way, color in reversed(ways.items()) if way in row
        ]
    size = f'width="{WIDTH}" height="{bottom + 12}" viewBox="0 0 {WIDTH} {bottom + 12}"'
    paper = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return "\n".join(
        [f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', paper, *parts, "</svg>", ""]
    )


def _octave(speed: float) -> int:
    return math.floor(math.log2(speed))


def _compiles(rows: dict[str, dict[str, float]]) -> bool:
    return any("torch.compile" in row for row in rows.values())


def _dot(x: float, y: float, color: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{color}"/>'


def _text(x: float, y: float, text: str, anchor: str, size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-family="sans-serif" font-size="{size}"'
        f' fill="{INK}">{escape(text)}</text>'
    )
