"""What a session did: all of its records, as a snapshot."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torchy.report.chrome import trace_events
from torchy.report.records import (
    EventRecord,
    KernelRecord,
    OlderRecord,
    RanNowRecord,
    Record,
    Totals,
    TraceRecord,
    count_of,
    format_bytes,
    format_seconds,
)


@dataclass(frozen=True, slots=True, repr=False)
class Report(Record):
    """A snapshot of what one session did.

    Parameters
    ----------
    traces
        The newest ones, oldest first; ``totals`` counts all.
    kernels
        Every kernel that the session used, by id.
    events
        The newest ones, oldest first.
    ran_now
        What was not recorded, in the order in which it was first met.
    older
        Flushes that ``totals`` counts and ``traces`` has no more; without those of which only the number is known.
    """

    shown = "traces kernels events totals ran_now older"
    traces: tuple[TraceRecord, ...]
    kernels: Mapping[str, KernelRecord]
    events: tuple[EventRecord, ...]
    totals: Totals
    ran_now: tuple[RanNowRecord, ...] = ()
    older: tuple[OlderRecord, ...] = ()

    def __repr__(self) -> str:
        """Return the summary."""
        return f"<torchy.Report\n{textwrap.indent(self.summary(), '  ')}\n>"

    @property
    def compiled_kernels(self) -> int:
        """How many of the kernels have been compiled."""
        return sum(kernel.compile_seconds is not None for kernel in self.kernels.values())

    def summary(self) -> str:
        """Return a few lines of text: counts, flush reasons, events."""
        totals = self.totals
        lines = [
            f"{count_of(totals.traces, 'trace')}: {count_of(totals.ops, 'op')} recorded,"
            f" {totals.fused:,} fused, {totals.dead:,} dead;"
            + (f" {count_of(totals.ran_now, 'op')} ran now;" if totals.ran_now else "")
            + f" {count_of(self.compiled_kernels, 'kernel')} compiled;"
            f" {format_bytes(totals.bytes_saved)} saved;"
            f" {format_seconds(totals.seconds)} in flushes"
        ]
        reasons: dict[str, int] = {}
        for trace in self.traces:
            reasons[trace.reason] = reasons.get(trace.reason, 0) + 1
        if reasons:
            ranked = sorted(reasons.items(), key=lambda item: -item[1])
            shown = ", ".join(
                reason if count == 1 else f"{reason} (x{count})" for reason, count in ranked[:6]
            )
            lines.append(
                f"flushed by: {shown}"
                + (f", {len(ranked) - 6} more reasons" if len(ranked) > 6 else "")
            )
        lines += [f"{event.kind}: {event.text}" for event in self.events[-5:]]
        return "\n".join(lines)

    def with_file_names(self, names: Mapping[str, str]) -> Report:
        """Return the same report with other names for files in its listings: ``cell 4``."""
        return replace(
            self, traces=tuple(replace(trace, file_names=dict(names)) for trace in self.traces)
        )

    def to_chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """Write what happened as a time line, for Perfetto or ``chrome://tracing``: flushes, steps, what ran as eager."""
        events = trace_events(self.traces, self.ran_now, self.events)
        text = json.dumps({"traceEvents": events, "displayTimeUnit": "ms"})
        Path(path).write_text(text, encoding="utf-8")

    def to_json(self, indent: int | None = None) -> str:
        """Return all of it as JSON text; :meth:`to_dict` gives the same as Python objects."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)
