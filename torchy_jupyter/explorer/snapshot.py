"""What the explorer shows of a report, with its lines found in the cells' texts.

Made once, when the cell has ended. The static page, the widget and the saved file all render this.
"""

from __future__ import annotations

import linecache
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torchy.explain import Finding
from torchy.report import RanNowRecord, Report, format_seconds
from torchy.report import Source as Where
from torchy_jupyter.explorer.flushes import Alike, Flushes, alike, launched, soon
from torchy_jupyter.explorer.shown import (
    Account,
    Birth,
    CellSource,
    Counts,
    Line,
    Lines,
    Note,
    Raised,
    ShownFlush,
    ShownGroup,
    ShownKernel,
    Snapshot,
)
from torchy_jupyter.explorer.watched import Costs, Watched
from torchy_jupyter.explorer.words import AT_END, flush_reason

MOST_FLUSHES = 40  # different ones; what is equal is shown once, with a count
# of a cell's time: an op that ran as eager for less is told of only where it flushes
NOTICED = 0.02


def take(
    report: Report,
    cells: Mapping[str, CellSource],
    seconds: float | None = None,
    hints: Iterable[str] = (),
    costs: Costs | None = None,
    raised: Raised | None = None,
    watched: Watched | None = None,
) -> Snapshot:
    """Make a snapshot of a report.

    Parameters
    ----------
    report
        What happened.
    cells
        Texts by the file name of their code; the newest last.
    seconds
        What the cell took; default: what its flushes did.
    hints
        More notes to show.
    costs
        What eager would have taken; without, nothing is estimated.
    raised
        What the cell has raised.
    watched
        What was looked at while it ran.
    """
    costs = costs or Costs(None, None)
    texts = _Texts(cells)
    cell_seconds = report.totals.seconds if seconds is None else seconds
    everything = alike(report)
    heaviest = _heaviest(everything)
    makes = Flushes(costs, soon(cell_seconds), texts.line)
    flushes = []
    for one in heaviest:
        where = one.newest.where
        if one.newest.reason == AT_END and (where is None or where.file == texts.running):
            where = texts.end
        text = texts.line(where.file, where.line) if where else ""
        reason = flush_reason(one.newest.reason, text, _why_now(report.ran_now, where))
        flushes.append(makes.shown(one, reason, where, texts.place(where)))
    used = {group.kernel for flush in flushes for group in flush.groups}
    asleep = [event for event in report.events if event.kind == "asleep"]
    others = [event for event in report.events[-20:] if event.kind != "asleep"]
    notes = [f"{event.kind}: {event.text}" for event in others]
    hidden = sum(one.count for one in everything) - sum(one.count for one in heaviest)
    hidden += report.totals.traces - sum(one.count for one in everything)
    if hidden > 0:
        notes.append(f"{hidden:,} more flushes are only counted.")
    birth = watched.birth() if watched else None
    found = watched.likely_findings() if watched else ()
    sources = _sources(flushes, report.ran_now, raised, texts, cell_seconds, birth, found)
    unequal = watched.unequal() if watched else None
    for row in unequal or ():
        notes.append(f"other bits than eager: {row.text}")
    return Snapshot(
        title=texts.title,
        counts=_counts(report, everything),
        account=_account(report, heaviest, flushes, sources, cell_seconds, costs.measured),
        asleep=_asleep(asleep[-1].text, texts.place(asleep[-1].where)) if asleep else "",
        error=_failed(raised, texts),
        birth=_born(birth, texts),
        equal=None if unequal is None else not unequal,
        keeps=bool(watched and watched.keeps),
        findings=tuple(
            finding.to_dict() | {"place": texts.place(Where(finding.file, finding.line))}
            for finding in found
        ),
        notes=(*notes, *hints),
        sources=sources,
        flushes=tuple(flushes),
        ran_now=tuple(sorted(report.ran_now, key=lambda record: record.began)),
        kernels=tuple(
            ShownKernel(key, kernel.compile_seconds, tuple((name, "") for name in kernel.levels))
            for key, kernel in report.kernels.items()
            if key in used
        ),
    )


class _Texts:
    """The lines of cells and files, and what to call them."""

    def __init__(self, cells: Mapping[str, CellSource]) -> None:
        self.cells = cells
        self.running = list(cells)[-1] if cells else None
        self._lines = {file: cell.text.split("\n") for file, cell in cells.items()}

    @property
    def title(self) -> str:
        return self.cells[self.running].name if self.running is not None else "notebook"

    @property
    def end(self) -> Where | None:
        """The last line of the running cell."""
        if self.running is None:
            return None
        return Where(self.running, len(self._lines[self.running]))

    def line(self, file: str, number: int) -> str:
        lines = self._lines.get(file)
        if lines is None:
            return linecache.getline(file, number).rstrip()
        return lines[number - 1] if 0 < number <= len(lines) else ""

    def all_lines(self, file: str) -> Mapping[int, str]:
        """Return a cell's lines by number; none of another file."""
        return dict(enumerate(self._lines.get(file, ()), 1))

    def name(self, file: str) -> str:
        return self.cells[file].name if file in self.cells else os.path.basename(file)

    def place(self, where: Where | None) -> str:
        return f"{self.name(where.file)}, line {where.line}" if where else ""


def _heaviest(everything: list[Alike]) -> list[Alike]:
    """Leave out those that took least time, if there are too many."""
    if len(everything) <= MOST_FLUSHES:
        return everything
    ranked = sorted(range(len(everything)), key=lambda index: -everything[index].seconds)
    return [everything[index] for index in sorted(ranked[:MOST_FLUSHES])]


def _failed(raised: Raised | None, texts: _Texts) -> str:
    if raised is None:
        return ""
    place = texts.place(raised.where)
    return f"{raised}" + (f" ({place})" if place else "")


def _born(birth: Any, texts: _Texts) -> Birth | None:
    if birth is None:
        return None
    place = texts.place(Where(birth.file, birth.line)) if birth.file and birth.line else ""
    short = f"first {birth.kind}: " + (f"line {birth.line}" if birth.line else birth.short)
    return Birth(short, _birth_text(birth) + (f" ({place})" if place else ""))


def _birth_text(birth: Any) -> str:
    """Return in words where the first NaN was born."""
    turn = f" in turn {birth.iteration}, counted from 0" if birth.iteration else ""
    given = "; ".join(operand.text for operand in birth.operands)
    return f"the first {birth.kind} is born here: `{birth.short}`{turn}" + (
        f" was given {given}" if given else ""
    )


def _advice(finding: Finding) -> str:
    gain = ""
    if finding.gain_seconds is not None:
        gain = f", the change brings {format_seconds(finding.gain_seconds)}"
    return f"{finding.text} · costs ~{format_seconds(finding.lost_seconds)}{gain}"


def _asleep(why: str, place: str) -> str:
    return f"{why} (since {place})" if place else why


def _counts(report: Report, everything: list[Alike]) -> Counts:
    totals = report.totals
    kernels = calls = one_by_one = 0
    for one in everything:
        groups = one.newest.groups
        calls += one.count * sum(group.kind == "call" for group in groups)
        for group in groups:
            launches = one.compiled if launched(group) else 0
            kernels += launches
            one_by_one += (one.count - launches) * len(group.ops) * (group.kind == "fused")
    return Counts(
        ops=totals.ops,
        kernels=kernels,
        calls=calls,
        one_by_one=one_by_one,
        eager=totals.ran_now,
        flushes=totals.traces,
        bytes_saved=totals.bytes_saved,
    )


def _account(
    report: Report,
    shown: list[Alike],
    flushes: Sequence[ShownFlush],
    sources: Sequence[Lines],
    cell: float,
    compared: bool,
) -> Account:
    """Share a cell's time: what has been measured, and the rest."""
    kernels = interpreted = calls = eager_ops = unknown = 0.0
    for one, flush in zip(shown, flushes, strict=True):
        for group in flush.groups:
            eager_ops += group.eager
            as_kernel = group.seconds * one.compiled_share * launched(group)
            kernels += as_kernel
            if group.kind == "call":
                calls += group.seconds
            else:
                interpreted += group.seconds - as_kernel
        guessed = {op.group for op in flush.ops if not op.known}
        unknown += sum(g.seconds for g in flush.groups if g.compiled and g.id in guessed)
        if compared:  # eager runs what is dead, too
            eager_ops += flush.count * sum(op.eager * op.count for op in flush.ops if op.dead)
    inside = kernels + interpreted + calls
    hidden = max(0.0, report.totals.seconds - sum(flush.seconds for flush in flushes))
    flushing = max(0.0, report.totals.seconds - hidden - inside)
    prepared, eager = report.totals.prepared, _sampled(report)
    watching = report.totals.watching
    known = inside + hidden + prepared + watching
    cell = max(cell, known)
    eager = min(eager, cell - known)  # a sample may be too slow
    outside = cell - known - eager
    on_lines = sum(line.seconds for source in sources for line in source.lines)
    # Python's part is the same without Torchy; what recording took is not known by itself
    estimated = hidden < 0.1 * cell and unknown <= 0.1 * kernels
    return Account(
        cell=cell,
        kernels=kernels,
        interpreted=interpreted,
        calls=calls,
        eager=eager,
        prepared=prepared,
        hidden=hidden,
        watching=watching,
        outside=outside,
        unplaced=max(0.0, inside + eager - on_lines),
        eager_cell=eager + max(0.0, outside - flushing) + eager_ops if estimated else 0.0,
        measured=compared,
    )


def _sampled(report: Report) -> float:
    return sum(record.seconds for record in report.ran_now)


def _why_now(records: Sequence[RanNowRecord], where: Where | None) -> dict[str, str]:
    """Return by op why it ran as eager: what is known of a line goes first."""
    here = (where.file, where.line) if where else None
    ranked = sorted(records, key=lambda record: (record.file, record.line) == here)
    return {record.short: record.why for record in ranked}


@dataclass(slots=True)
class _Happened:
    """What is known of a line so far."""

    seconds: float = 0.0
    estimated: bool = False
    ops: int = 0
    chips: dict[str, None] = field(default_factory=dict)  # in their order
    notes: list[Note] = field(default_factory=list)


def _sources(
    flushes: Sequence[ShownFlush],
    ran_now: Sequence[RanNowRecord],
    raised: Raised | None,
    texts: _Texts,
    cell: float,
    birth: Any,
    advice: Sequence[Finding],
) -> tuple[Lines, ...]:
    """Collect what happened on each line, the running cell first, other files by their name."""
    lines: dict[tuple[str, int], _Happened] = {}

    def at(file: str, line: int) -> _Happened:
        return lines.setdefault((file, line), _Happened())

    for flush in flushes:
        group_of = {group.id: group for group in flush.groups}
        for op in flush.ops:
            if op.file is None or op.line is None:
                continue
            here = at(op.file, op.line)
            here.ops += op.count * flush.count
            here.seconds += op.seconds
            group = None if op.group is None else group_of.get(op.group)
            if group is not None:
                here.estimated |= _shares(group, flush)
                here.chips[group.letter or "f"] = None
    for record in ran_now:
        if record.file is None or record.line is None:
            continue
        here = at(record.file, record.line)
        here.seconds += record.seconds
        here.chips["~"] = None
        if record.seconds > NOTICED * cell:
            times = f" ×{record.count}" if record.count > 1 else ""
            took = format_seconds(record.seconds)
            text = f"`{record.short}` ran as eager{times}: {record.why} · {took}"
            here.notes.append(Note("eager", text))
    for index, flush in enumerate(flushes):
        if flush.file is not None and flush.line is not None:
            at(flush.file, flush.line).notes.append(Note("flush", _flag(index, flush), index))
    for finding in advice:
        at(finding.file, finding.line).notes.append(Note("finding", _advice(finding)))
    if birth is not None and birth.file is not None and birth.line is not None:
        numbers = [flush.number for flush in flushes]
        of = numbers.index(birth.trace) if birth.trace in numbers else None
        at(birth.file, birth.line).notes.append(Note("nan", _birth_text(birth), of))
    if raised is not None and raised.where is not None:
        at(raised.where.file, raised.where.line).notes.append(Note("error", str(raised)))
    files = {file for file, _ in lines} | ({texts.running} if texts.running else set())
    found = []
    for file in sorted(files, key=lambda f: (f != texts.running, f not in texts.cells, f)):
        happened = {line: here for (name, line), here in lines.items() if name == file}
        all_lines = texts.all_lines(file)
        found.append(
            Lines(
                file,
                texts.name(file),
                tuple(
                    _line(number, texts.line(file, number), happened.get(number, _Happened()))
                    for number in sorted({*all_lines, *happened})
                ),
            )
        )
    return tuple(found)


def _shares(group: ShownGroup, flush: ShownFlush) -> bool:
    """Tell if ops of several lines share a group's time."""
    ops = {op.index: op for op in flush.ops}
    return len({(ops[index].file, ops[index].line) for index in group.ops}) > 1


def _line(number: int, text: str, here: _Happened) -> Line:
    return Line(
        number, text, here.seconds, here.estimated, here.ops, tuple(here.chips), tuple(here.notes)
    )


def _flag(index: int, flush: ShownFlush) -> str:
    times = f" ×{flush.count:,}" if flush.count > 1 else ""
    ops = f"{flush.op_count:,} op{'s' * (flush.op_count != 1)}"
    return f"flush {index + 1}{times}: {flush.reason} · {ops}, {format_seconds(flush.seconds)}"
