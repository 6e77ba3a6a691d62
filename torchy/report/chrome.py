"""A report in the format of Chrome's tracing, which Perfetto reads: https://ui.perfetto.dev.

The format is described in "Trace Event Format" (Google, 2016): complete events (``X``) with a beginning and a duration in
microseconds, instants (``i``), and names of threads (``M``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torchy.report.records import EventRecord, RanNowRecord, TraceRecord

FLUSHES, STEPS, EAGER, EVENTS = 1, 2, 3, 4  # the rows
ROWS = {FLUSHES: "flushes", STEPS: "kernels and calls", EAGER: "ran as eager", EVENTS: "events"}
Event = dict[str, Any]


def trace_events(
    traces: Sequence[TraceRecord], ran_now: Sequence[RanNowRecord], events: Sequence[EventRecord]
) -> list[Event]:
    """Return the events of a report, in seconds since its session began.

    Within a flush, steps are known by what each took: they are drawn one after another from its beginning on. Of what ran
    as eager only the first time is drawn, as long as the average one.
    """
    found = [
        {"name": "thread_name", "ph": "M", "pid": 1, "tid": row, "args": {"name": name}}
        for row, name in ROWS.items()
    ]
    for record in traces:
        found += _flush(record)
    for run in ran_now:
        args = {"count": run.count, "seconds": run.seconds, "why": run.why, **_where(run)}
        found.append(_complete(run.short, EAGER, run.began, run.seconds / run.count, args))
    for event in events:
        args = {"text": event.text}
        found.append(
            {
                "name": event.kind,
                "ph": "i",
                "s": "p",
                "pid": 1,
                "tid": EVENTS,
                "ts": event.time * 1e6,
            }
            | {"args": args}
        )
    return found


def _flush(record: TraceRecord) -> Iterator[Event]:
    where = record.where
    yield _complete(
        f"flush {record.number}: {record.reason}",
        FLUSHES,
        record.began,
        record.seconds,
        {
            "ops": len(record.trace.ops),
            "tier": record.tier,
            "where": f"{record.file_name(where.file)}, line {where.line}" if where else None,
            "bytes never stored": record.bytes_saved,
        },
    )
    if record.prepared:
        begin = record.began - record.prepared
        yield _complete("planning, compiling", FLUSHES, begin, record.prepared, {})
    at = record.began
    for group in record.groups:
        seconds = group.seconds or 0.0
        ops = [record.ops[op] for op in group.ops]
        name = f"kernel {group.kernel[:8]}" if group.as_kernel and group.kernel else ops[0].short
        lines = sorted({op.line for op in ops if op.line is not None})
        args = {"ops": [op.text for op in ops], "lines": lines, "bytes": group.bytes_moved}
        yield _complete(name, STEPS, at, seconds, args)
        at += seconds


def _where(run: RanNowRecord) -> dict[str, Any]:
    return {"file": run.file, "line": run.line}


def _complete(name: str, row: int, begin: float, seconds: float, args: Event) -> Event:
    return {
        "name": name,
        "ph": "X",
        "pid": 1,
        "tid": row,
        "ts": begin * 1e6,
        "dur": seconds * 1e6,
        "args": args,
    }
