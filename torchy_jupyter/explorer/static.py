"""The explorer as static HTML that survives being saved and reopened untrusted.

Then only ``<img src="data:…">``, ``<details>``, ``<pre>``, tables and inline styles are left: no
style sheets, scripts, inline SVG or CSS variables. Colours are readable on light and dark.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape

from torchy.report import format_bytes, format_seconds
from torchy_jupyter.explorer.snapshot import Line, ShownKernel, ShownTrace, Snapshot, Source

GREY = "color: #808890"
FLAME = "color: #d9641e"
CODE = "font-family: monospace; line-height: 1.4; margin: 4px 0px"
MOST_PICTURES = 6
LARGEST_PICTURE = (
    200_000  # characters; what is larger is listed: it would be saved with the notebook
)


def static_html(snapshot: Snapshot, svgs: Mapping[int, str], key: str) -> str:
    """Render a snapshot.

    Parameters
    ----------
    snapshot
        What to show.
    svgs
        The graphs that have been laid out, by the position of their trace.
    key
        The widget of the same key hides this copy.
    """
    facts = " · ".join(f"<b>{escape(value)}</b> {escape(what)}" for value, what in snapshot.facts)
    parts = [
        f'<div class="torchy-static torchy-static-{escape(key)}">',
        f'<div><b style="{FLAME}">Torchy</b> <b>{escape(snapshot.title)}</b>'
        f' <span style="{GREY}">{facts}</span></div>',
    ]
    if snapshot.traces:
        parts += [_source(source) for source in snapshot.sources]
        parts.append(_flushes(snapshot.traces))
        parts += [
            _graph(trace, svgs.get(index))
            for index, trace in enumerate(snapshot.traces[:MOST_PICTURES])
        ]
        parts += [_kernel(kernel) for kernel in snapshot.kernels]
    else:
        parts.append(f'<div style="{GREY}">No op was deferred in this cell.</div>')
    parts += [f'<div style="{GREY}">{escape(note)}</div>' for note in snapshot.notes]
    return "\n".join([*parts, "</div>"])


def _details(summary: str, body: str, opened: bool = False) -> str:
    return f"<details{' open' * opened}><summary>{summary}</summary>{body}</details>"


def _source(source: Source) -> str:
    most = max((line.seconds for line in source.lines), default=0.0)
    lines = "\n".join(_line(line, most) for line in source.lines)
    body = f'<pre style="{CODE}">{lines}</pre>'
    return _details(f"{escape(source.name)}: time by line", body, opened=True)


def _line(line: Line, most: float) -> str:
    share = line.seconds / most if most else 0.0
    heat = (
        f"background-color: rgba(230, 110, 30, {0.08 + 0.32 * share:.2f})" if line.seconds else ""
    )
    time = format_seconds(line.seconds) if line.seconds else ""
    flags = f'  <span style="{FLAME}">⚑ {escape("; ".join(line.flushes))}</span>'
    return (
        f'<span style="{GREY}">{time:>8} {line.number:>4}  </span>'
        f'<span style="{heat}">{escape(line.text) or " "}</span>{flags if line.flushes else ""}'
    )


def _flushes(traces: tuple[ShownTrace, ...]) -> str:
    head = ("trace", "why it was flushed", "where", "ops", "tier", "time", "not allocated")
    rows = "".join(
        "<tr>"
        + "".join(f'<td style="text-align: left">{escape(text)}</td>' for text in texts)
        + "</tr>"
        for texts in (
            (
                _numbered(trace),
                trace.reason,
                trace.place or "—",
                f"{trace.op_count:,}",
                trace.tier,
                format_seconds(trace.seconds),
                format_bytes(trace.bytes_saved) if trace.bytes_saved else "—",
            )
            for trace in traces
        )
    )
    titles = "".join(f'<th style="text-align: left">{title}</th>' for title in head)
    body = f"<table><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table>"
    return _details("Why flushed", body, opened=len(traces) <= MOST_PICTURES)


def _graph(trace: ShownTrace, svg: str | None) -> str:
    if svg is None or len(svg) > LARGEST_PICTURE:
        lines = "\n".join(escape(op.text) for op in trace.ops)
        body = f'<pre style="{CODE}">{lines}</pre>'
    else:
        data = base64.b64encode(svg.encode()).decode()
        body = f'<div><img alt="graph" src="data:image/svg+xml;base64,{data}"></div>'
    return _details(f"Graph of trace {_numbered(trace)} ({escape(trace.reason)})", body)


def _kernel(kernel: ShownKernel) -> str:
    took = kernel.compile_seconds
    note = f", compiled in {format_seconds(took)}" if took is not None else ", not compiled"
    _, text = kernel.levels[0]
    body = f'<pre style="{CODE}">{escape(text)}</pre>'
    return _details(f"Kernel {escape(kernel.id[:8])}{note}", body)


def _numbered(trace: ShownTrace) -> str:
    return f"{trace.number} ×{trace.count}" if trace.count > 1 else str(trace.number)
