"""What the explorer shows, as plain data: a report, with its lines found in the cells' texts.

Made once, when the cell has ended. The static page, the widget and the saved file all render this.
"""

from __future__ import annotations

import linecache
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torchy.report import OpRecord, Report, TraceRecord, format_bytes, format_seconds
from torchy_jupyter.explorer.fold import fold_repeats

MOST_TRACES = 40  # different ones; what is equal is shown once, with a count
MOST_OPS = 1500  # in one trace, repeats folded
MOST_TEXT = 60_000  # characters of one level of one kernel


@dataclass(frozen=True, slots=True)
class CellSource:
    """A cell as the user knows it: its name, and the text that was typed."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """What happened on a line: ops recorded there and their share of the time, flushes it caused."""

    number: int
    text: str
    ops: int
    seconds: float
    flushes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """A cell, all of it, or those lines of another file where something happened."""

    file: str
    name: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class ShownOp:
    """An op, or several alike (``count``) that it stands for."""

    index: int
    name: str
    text: str
    file: str | None
    line: int | None
    group: int | None
    dead: bool
    count: int
    operands: tuple[str, ...]
    results: tuple[str, ...]
    feeds: tuple[int, ...]  # indices of the shown ops that read what it wrote


@dataclass(frozen=True, slots=True)
class ShownGroup:
    """A group, or several alike that it stands for; ``seconds`` is the sum."""

    id: int
    kind: str
    ops: tuple[int, ...]
    kernel: str | None
    count: int
    seconds: float | None
    why_apart: str | None
    refused: str | None


@dataclass(frozen=True, slots=True)
class ShownTrace:
    """A trace, or ``count`` of them with the same ops, lines and reason; seconds and bytes are sums."""

    number: int
    count: int
    tier: str
    reason: str
    file: str | None
    line: int | None
    place: str
    seconds: float
    bytes_saved: int
    op_count: int
    ops: tuple[ShownOp, ...]
    groups: tuple[ShownGroup, ...]


@dataclass(frozen=True, slots=True)
class ShownKernel:
    """A kernel; its levels by name, from the most readable one down."""

    id: str
    compile_seconds: float | None
    levels: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is shown of one cell's report."""

    title: str
    facts: tuple[tuple[str, str], ...]  # (value, what): ("24", "ops")
    notes: tuple[str, ...]
    sources: tuple[Source, ...]
    traces: tuple[ShownTrace, ...]
    kernels: tuple[ShownKernel, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types (tuples for lists)."""
        return asdict(self)


def take(
    report: Report,
    cells: Mapping[str, CellSource],
    seconds: float | None = None,
    hints: Iterable[str] = (),
) -> Snapshot:
    """Make a snapshot of a report.

    Parameters
    ----------
    report
        What happened.
    cells
        Texts by the file name of their code; the newest last.
    seconds
        What the cell took.
    hints
        More notes to show.
    """
    alike = _heaviest(_alike(report))
    traces = [_shown_trace(records, cells) for records in alike]
    hidden = len(report.traces) - sum(map(len, alike))
    used = {group.kernel for trace in traces for group in trace.groups}
    notes = [f"{event.kind}: {event.text}" for event in report.events[-20:]]
    dropped = report.totals.traces - len(report.traces)
    if dropped:
        notes.append(
            f"The report keeps the last {len(report.traces):,} traces; {dropped:,} older ones are only counted."
        )
    if hidden:
        notes.append(f"{hidden:,} more traces are in last_explorer().report.traces.")
    return Snapshot(
        title=list(cells.values())[-1].name if cells else "notebook",
        facts=_facts(report, seconds),
        notes=(*notes, *hints),
        sources=_sources(traces, cells),
        traces=tuple(traces),
        kernels=tuple(
            ShownKernel(
                key,
                kernel.compile_seconds,
                tuple((name, _cut(text)) for name, text in kernel.levels.items()),
            )
            for key, kernel in report.kernels.items()
            if key in used
        ),
    )


def _facts(report: Report, seconds: float | None) -> tuple[tuple[str, str], ...]:
    totals = report.totals
    facts = [
        (f"{totals.ops:,}", "op" if totals.ops == 1 else "ops"),
        (f"{totals.ran_now:,}", "ran now"),
        (f"{totals.fused:,}", "fused"),
        (f"{totals.dead:,}", "dead"),
        (f"{report.compiled_kernels:,}", "compiled"),
        (f"{totals.traces:,}", "flush" if totals.traces == 1 else "flushes"),
        (format_bytes(totals.bytes_saved), "not allocated"),
        (format_seconds(totals.seconds), "in flushes"),
    ]
    if seconds is not None:
        facts.append((format_seconds(seconds), "cell"))
    return tuple(fact for fact in facts if fact[0] not in ("0", "0 B"))


def _alike(report: Report) -> list[list[TraceRecord]]:
    """Put traces that look alike together, in the order in which they first occur.

    Renders nothing: most of a thousand traces are of a few places.
    """
    by_place: dict[object, list[TraceRecord]] = {}
    for record in report.traces:
        key = (id(record.trace), id(record.plan), record.reason, record.where)
        by_place.setdefault(key, []).append(record)
    by_look: dict[object, list[TraceRecord]] = {}
    for records in by_place.values():
        newest = records[-1]
        look = (
            tuple((op.name, op.source) for op in newest.trace.ops),
            newest.plan and (newest.plan.dead, tuple(group.ops for group in newest.groups)),
            newest.reason,
            newest.where,
        )
        by_look.setdefault(look, []).extend(records)
    return list(by_look.values())


def _heaviest(alike: list[list[TraceRecord]]) -> list[list[TraceRecord]]:
    """Leave out those that took least time, if there are too many."""
    if len(alike) <= MOST_TRACES:
        return alike
    times = [sum(record.seconds for record in records) for records in alike]
    kept = sorted(range(len(alike)), key=lambda index: -times[index])[:MOST_TRACES]
    return [alike[index] for index in sorted(kept)]


def _shown_trace(records: list[TraceRecord], cells: Mapping[str, CellSource]) -> ShownTrace:
    newest = records[-1]
    seconds = sum(record.seconds for record in records)
    tiers = [record.tier for record in records]
    compiled = tiers.count("compiled")
    mixed = f"{compiled} compiled, {len(tiers) - compiled} interpreted"
    ops, groups = _fold(newest, seconds)
    where = newest.where
    return ShownTrace(
        number=records[0].number,
        count=len(records),
        tier=tiers[0] if compiled in (0, len(tiers)) else mixed,
        reason=newest.reason,
        file=where.file if where else None,
        line=where.line if where else None,
        place=f"{_name(where.file, cells)}, line {where.line}" if where else "",
        seconds=seconds,
        bytes_saved=sum(record.bytes_saved for record in records),
        op_count=len(newest.ops),
        ops=ops,
        groups=groups,
    )


def _fold(
    record: TraceRecord, seconds: float
) -> tuple[tuple[ShownOp, ...], tuple[ShownGroup, ...]]:
    """Fold a trace's repeats, and share the time of all traces like it among its groups."""
    looks = {
        group.id: (group.kind, group.kernel, tuple(record.ops[op].name for op in group.ops))
        for group in record.groups
    }
    tokens = [
        (op.name, op.file, op.line, op.dead, None if op.group is None else looks[op.group])
        for op in record.ops
    ]
    stands_for = fold_repeats(tokens)
    kept = sorted(set(stands_for))[:MOST_OPS]
    feeds = _data_flow(record.ops, stands_for)
    counts: dict[int, int] = {}
    for index in stands_for:
        counts[index] = counts.get(index, 0) + 1
    ops = tuple(
        ShownOp(
            index=index,
            name=op.short,
            text=op.text,
            file=op.file,
            line=op.line,
            group=op.group,
            dead=op.dead,
            count=counts[index],
            operands=tuple(operand.text for operand in op.operands),
            results=tuple(result.text for result in op.results if result is not None),
            feeds=tuple(sorted(feeds.get(index, ()))),
        )
        for index, op in ((index, record.ops[index]) for index in kept)
    )
    group_stands_for: dict[int, int] = {}
    for op in record.ops:
        if op.group is not None:
            kept_group = record.ops[stands_for[op.index]].group
            group_stands_for.setdefault(op.group, op.group if kept_group is None else kept_group)
    times = _times(record, seconds)
    groups = []
    for group in record.groups:
        members = [key for key, kept_group in group_stands_for.items() if kept_group == group.id]
        shown = tuple(op.index for op in ops if op.group == group.id)
        if members and shown:
            groups.append(
                ShownGroup(
                    id=group.id,
                    kind=group.kind,
                    ops=shown,
                    kernel=group.kernel,
                    count=len(members),
                    seconds=sum(times[key] for key in members),
                    why_apart=group.why_apart,
                    refused=group.refused,
                )
            )
    return ops, tuple(groups)


def _times(record: TraceRecord, seconds: float) -> dict[int, float]:
    """Share ``seconds`` among the groups: as measured, else by their number of ops."""
    measured = {group.id: group.seconds for group in record.groups}
    weights = {
        group.id: float(len(group.ops)) if None in measured.values() else group.seconds or 0.0
        for group in record.groups
    }
    total = sum(weights.values()) or 1.0
    return {key: seconds * weight / total for key, weight in weights.items()}


def _data_flow(ops: tuple[OpRecord, ...], stands_for: list[int]) -> dict[int, set[int]]:
    """Return for each shown op the shown ops that read what it wrote last into a buffer."""
    writers: dict[int, int] = {}
    feeds: dict[int, set[int]] = {}
    for op in ops:
        for operand in op.operands:
            if operand.buffer in writers:
                feeds.setdefault(writers[operand.buffer], set()).add(stands_for[op.index])
        for result in op.results:
            if result is not None:
                writers[result.buffer] = stands_for[op.index]
    return feeds


def _sources(traces: list[ShownTrace], cells: Mapping[str, CellSource]) -> tuple[Source, ...]:
    """Collect what happened on each line, the running cell first, other files by their name."""
    seconds: dict[tuple[str, int], float] = {}
    counts: dict[tuple[str, int], int] = {}
    flushes: dict[tuple[str, int], dict[str, int]] = {}  # how often for each reason
    for trace in traces:
        if trace.file is not None and trace.line is not None:
            reasons = flushes.setdefault((trace.file, trace.line), {})
            reasons[trace.reason] = reasons.get(trace.reason, 0) + trace.count
        per_op = {
            group.id: (group.seconds or 0.0) / (sum(_counts(trace, group)) or 1)
            for group in trace.groups
        }
        for op in trace.ops:
            if op.file is not None and op.line is not None:
                key = (op.file, op.line)
                counts[key] = counts.get(key, 0) + op.count * trace.count
                time = per_op.get(op.group, 0.0) if op.group is not None else 0.0
                seconds[key] = seconds.get(key, 0.0) + time * op.count
    running = list(cells)[-1] if cells else None
    files = {file for file, _ in (*counts, *flushes)} | ({running} if running else set())
    found = []
    for file in sorted(files, key=lambda file: (file != running, file not in cells, file)):
        happened = sorted({line for name, line in (*counts, *flushes) if name == file})
        texts = dict(enumerate(cells[file].text.split("\n"), 1)) if file in cells else {}
        lines = tuple(
            Line(
                number=number,
                text=texts.get(number) or linecache.getline(file, number).rstrip(),
                ops=counts.get((file, number), 0),
                seconds=seconds.get((file, number), 0.0),
                flushes=tuple(
                    f"{reason} ×{count}" if count > 1 else reason
                    for reason, count in flushes.get((file, number), {}).items()
                ),
            )
            for number in sorted({*texts, *happened})
        )
        found.append(Source(file, _name(file, cells), lines))
    return tuple(found)


def _counts(trace: ShownTrace, group: ShownGroup) -> list[int]:
    return [op.count for op in trace.ops if op.group == group.id]


def _name(file: str, cells: Mapping[str, CellSource]) -> str:
    return cells[file].name if file in cells else os.path.basename(file)


def _cut(text: str) -> str:
    if len(text) <= MOST_TEXT:
        return text
    return f"{text[:MOST_TEXT]}\n… {len(text) - MOST_TEXT:,} more characters are in the report"
