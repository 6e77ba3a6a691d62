"""The explorer as static HTML that survives being saved and reopened untrusted.

Then only ``<img src="data:…">``, ``<details>``, ``<pre>``, tables and inline styles are left: no
style sheets, scripts, inline SVG or CSS variables. Colours are readable on light and dark.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from torchy.report import format_bytes, format_seconds
from torchy_jupyter.explorer.shown import Line, Lines, ShownFlush, Snapshot
from torchy_jupyter.explorer.summary import summary

GREY = "color: #747c85"
FLAME = "color: #c2571a"
CODE = "font-family: monospace; line-height: 1.4; margin: 4px 0px"
SIGNS = {"flush": "⚑ ", "nan": "✕ ", "finding": "◆ "}
MOST_OPS = 120  # of the heaviest flush, that are listed


def static_html(snapshot: Snapshot, key: str, loop_nests: Mapping[str, str]) -> str:
    """Render a snapshot.

    Parameters
    ----------
    snapshot
        What to show.
    key
        The widget of the same key hides this copy.
    loop_nests
        The texts of the kernels to show, by the letters under which they ran.
    """
    first, *others = summary(snapshot)
    facts = " · ".join([f"<b>{escape(first)}</b>", *map(escape, others)]).replace("*", "")
    parts = [
        f'<div class="torchy-static torchy-static-{escape(key)}">',
        f'<div><b style="{FLAME}">Torchy</b> {facts}</div>',
    ]
    for what in (
        snapshot.error,
        snapshot.birth.text.replace("`", "") if snapshot.birth else "",
        snapshot.asleep,
    ):
        if what:
            parts.append(f'<div style="{FLAME}">{escape(what)}</div>')
    if snapshot.flushes or snapshot.ran_now:
        parts += [_source(source) for source in snapshot.sources]
    if snapshot.flushes:
        parts.append(_flushes(snapshot.flushes))
        heaviest = max(snapshot.flushes, key=lambda flush: flush.seconds)
        parts.append(_ops(snapshot.flushes.index(heaviest), heaviest))
        parts += [_details(f"kernel {escape(k)}", _pre(text)) for k, text in loop_nests.items()]
    if snapshot.equal is not None:
        said = "All bits are eager's." if snapshot.equal else "OTHER BITS than eager."
        parts.append(f"<div>{said}</div>")
    for finding in snapshot.findings:
        advice = f"{finding['place']}: {finding['text']}".replace("`", "")
        parts.append(f"<div>◆ {escape(advice)}</div>")
    parts += [f'<div style="{GREY}">{escape(note)}</div>' for note in snapshot.notes]
    return "\n".join([*parts, "</div>"])


def _details(summary: str, body: str, opened: bool = False) -> str:
    return f"<details{' open' * opened}><summary>{summary}</summary>{body}</details>"


def _pre(text: str) -> str:
    return f'<pre style="{CODE}">{escape(text)}</pre>'


def _source(source: Lines) -> str:
    most = max((line.seconds for line in source.lines), default=0.0)
    lines = "\n".join(_line(line, most) for line in source.lines)
    body = f'<pre style="{CODE}">{lines}</pre>'
    return _details(f"{escape(source.name)}: time by line", body, opened=True)


def _line(line: Line, most: float) -> str:
    share = line.seconds / most if most else 0.0
    heat = f"background-color: rgba(226, 104, 24, {0.1 + 0.4 * share:.2f})" if share else ""
    time = f"{'~' * line.estimated}{format_seconds(line.seconds)}" if line.seconds else ""
    chips = " ".join(line.chips[:3])
    rows = [
        f'<span style="{heat}">{time:>8}</span><span style="{GREY}"> {chips:<5} {line.number:>4}  </span>'
        f"{escape(line.text)}"
    ]
    rows += [
        f'{"":>21}<span style="{FLAME if note.kind == "flush" else GREY}">'
        f"{SIGNS.get(note.kind, '')}{escape(note.text.replace('`', ''))}</span>"
        for note in line.notes
    ]
    return "\n".join(rows)


def _flushes(flushes: tuple[ShownFlush, ...]) -> str:
    head = ("flush", "why", "where", "ops", "time", "never touched memory")
    rows = "".join(
        "<tr>"
        + "".join(f'<td style="text-align: left">{escape(text)}</td>' for text in texts)
        + "</tr>"
        for texts in (
            (
                f"{index} ×{flush.count:,}" if flush.count > 1 else str(index),
                flush.reason.replace("`", ""),
                flush.place or "—",
                f"{flush.op_count:,}",
                format_seconds(flush.seconds),
                format_bytes(flush.bytes_saved) if flush.bytes_saved else "—",
            )
            for index, flush in enumerate(flushes, 1)
        )
    )
    titles = "".join(f'<th style="text-align: left">{title}</th>' for title in head)
    body = f"<table><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table>"
    return _details("why each flush happened", body)


def _ops(index: int, flush: ShownFlush) -> str:
    letters = {group.id: group.letter or "f" for group in flush.groups}
    lines = []
    for op in flush.ops[:MOST_OPS]:
        of = "" if op.group is None else letters.get(op.group, "")
        times = f" ×{op.count}" if op.count > 1 else ""
        said = "never run" if op.dead else "" if op.stored else "never stored"
        name = op.variable and f"  # {op.variable}"
        lines.append(f"{of:>3}  {op.text}{times}{name}{'  # ' * bool(said)}{said}")
    if len(flush.ops) > MOST_OPS:
        lines.append(f"     … {len(flush.ops) - MOST_OPS:,} more")
    return _details(f"flush {index + 1}, op by op", _pre("\n".join(lines)))
