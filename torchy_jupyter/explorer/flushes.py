"""The flushes of a report as the explorer shows them: those that look alike once, with a count, and their times."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from time import perf_counter

from torchy.explain import Estimate
from torchy.ir.trace import Trace
from torchy.plan.plan import ops_of
from torchy.report import GroupRecord, OlderRecord, Report, Source, TraceRecord
from torchy_jupyter.explorer.fold import fold_repeats
from torchy_jupyter.explorer.shown import ShownFlush, ShownGroup, ShownOp
from torchy_jupyter.explorer.watched import Costs
from torchy_jupyter.explorer.words import assigned_name

MOST_OPS = 3000  # in one trace, repeats folded
MOST_TIMED = 16  # flushes of those that look alike whose steps' times are added up

Place = tuple[object, ...]
LineText = Callable[[str, int], str]


@dataclass(slots=True)
class Alike:
    """Flushes that look alike: the records that are kept, and what is known of the others."""

    records: list[TraceRecord]
    older: list[OlderRecord] = field(default_factory=list)

    @property
    def began(self) -> float:
        """When the first of them did."""
        older = [older.began for older in self.older if older.began is not None]
        return min([*older, self.records[0].began])

    @property
    def newest(self) -> TraceRecord:
        """The last of them."""
        return self.records[-1]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.records) + sum(older.count for older in self.older)

    @property
    def compiled(self) -> int:
        """How many of them ran kernels."""
        kept = sum(record.tier == "compiled" for record in self.records)
        return kept + sum(older.count for older in self.older if older.tier == "compiled")

    @property
    def seconds(self) -> float:
        """What all of them took."""
        kept = sum(record.seconds for record in self.records)
        return kept + sum(older.seconds for older in self.older)

    @property
    def compiled_share(self) -> float:
        """The share of the time that those took which ran kernels."""
        kept = sum(record.seconds for record in self.records if record.tier == "compiled")
        older = sum(older.seconds for older in self.older if older.tier == "compiled")
        return (kept + older) / (self.seconds or 1.0)

    @property
    def bytes_saved(self) -> int:
        """What all of them never stored."""
        kept = sum(record.bytes_saved for record in self.records)
        return kept + sum(older.bytes_saved for older in self.older)


def alike(report: Report) -> list[Alike]:
    """Put flushes that look alike together, in the order in which they first occur.

    Renders nothing: most of a thousand traces are of a few places.
    """
    by_place: dict[Place, Alike] = {}
    for record in report.traces:
        key = (id(record.trace), id(record.plan), record.reason, record.where)
        by_place.setdefault(key, Alike([])).records.append(record)
    for older in report.older:
        key = (id(older.trace), id(older.plan), older.reason, older.where)
        if key in by_place:
            by_place[key].older.append(older)
    by_look: dict[Place, Alike] = {}
    for one in by_place.values():
        newest = one.newest
        look = (
            tuple((op.name, op.source) for op in newest.trace.ops),
            newest.plan and (newest.plan.dead, tuple(map(ops_of, newest.plan.steps))),
            newest.reason,
            newest.where,
        )
        known = by_look.setdefault(look, Alike([]))
        known.records = sorted([*known.records, *one.records], key=lambda record: record.number)
        known.older += one.older
    return list(by_look.values())


def launched(group: GroupRecord | ShownGroup) -> bool:
    """Tell if a group is a kernel where its flush ran kernels."""
    return group.kind == "fused" and group.kernel is not None and group.refused is None


class Flushes:
    """Makes flushes shown; gives the fused groups of a cell letters, one after another.

    Parameters
    ----------
    costs
        What eager takes.
    until
        By ``perf_counter()``: until when ops may be tried for that.
    line_text
        Gives the text of a line of a file.
    """

    def __init__(self, costs: Costs, until: float, line_text: LineText) -> None:
        self._costs = costs
        self._until = until
        self._line_text = line_text
        self._letters = 0

    def shown(self, one: Alike, reason: str, where: Source | None, place: str) -> ShownFlush:
        """Return flushes that look alike as one; where and why they happened is told in the program's terms."""
        record = one.newest
        stands_for = fold_repeats(_looks(record))
        names = self._variables(record.trace)
        ops = self._ops(record, stands_for, names)
        groups = self._groups(one, ops, stands_for, names)
        seconds = _shares(ops, groups)
        return ShownFlush(
            number=record.number,
            count=one.count,
            reason=reason,
            file=where.file if where else None,
            line=where.line if where else None,
            place=place,
            began=one.began,
            seconds=one.seconds,
            bytes_saved=one.bytes_saved,
            op_count=len(record.trace.ops),
            ops=tuple(
                replace(op, seconds=took, eager=eager)
                for op, (took, eager) in ((op, seconds[op.index]) for op in ops)
            ),
            groups=tuple(groups),
        )

    def _ops(
        self, record: TraceRecord, stands_for: list[int], names: Mapping[int, str]
    ) -> list[ShownOp]:
        kept = sorted(set(stands_for))[:MOST_OPS]
        counts: dict[int, int] = {}
        for index in stands_for:
            counts[index] = counts.get(index, 0) + 1
        feeds = _data_flow(record.trace, stands_for)
        compiled = {group.id for group in record.groups if group.as_kernel}
        found = []
        for index in kept:
            op = record.op(index)
            results = [result for result in op.results if result is not None]
            wanted = self._costs.measured or op.group in compiled
            estimate = self._eager(record, index) if wanted else Estimate(0.0, True)
            found.append(
                ShownOp(
                    index=index,
                    name=op.short,
                    text=op.text,
                    file=op.file,
                    line=op.line,
                    group=op.group,
                    dead=op.dead,
                    count=counts[index],
                    variable=names.get(index, ""),
                    result=", ".join(result.text for result in results),
                    bytes=sum(result.nbytes or 0 for result in results),
                    stored=op.stored,
                    seconds=0.0,
                    eager=estimate.seconds,
                    known=estimate.known,
                    feeds=tuple(sorted(feeds.get(index, ()))),
                )
            )
        return found

    def _eager(self, record: TraceRecord, index: int) -> Estimate:
        return self._costs.of(record.trace, index, record.tensors, self._until)

    def _variables(self, trace: Trace) -> dict[int, str]:
        """Return by op what the program calls its result: the last op of a line that assigns one variable."""
        found = {}
        known: dict[Source, str] = {}
        for op, following in zip(trace.ops, (*trace.ops[1:], None), strict=True):
            source = op.source
            if source is None or (following is not None and following.source == source):
                continue
            if source not in known:
                known[source] = assigned_name(self._line_text(source.file, source.line))
            if known[source]:
                found[op.index] = known[source]
        return found

    def _groups(
        self,
        one: Alike,
        ops: list[ShownOp],
        stands_for: list[int],
        names: Mapping[int, str],
    ) -> list[ShownGroup]:
        record = one.newest
        view_names = {
            view: name for op, name in names.items() for view in record.trace.ops[op].writes
        }
        shown_in: dict[int, list[ShownOp]] = {}
        for op in ops:
            if op.group is not None:
                shown_in.setdefault(op.group, []).append(op)
        group_of = {op: group.id for group in record.groups for op in group.ops}
        like: dict[int, list[int]] = {}  # by shown group: those that it stands for
        for group in record.groups:
            shown = group_of.get(stands_for[group.ops[0]], group.id)
            like.setdefault(shown, []).append(group.id)
        times = _step_seconds(one)
        found = []
        for group in record.groups:
            members = shown_in.get(group.id)
            if not members:
                continue
            alike_groups = like.get(group.id, [group.id])
            seconds = sum(times[other] for other in alike_groups)
            eager = seconds
            if group.as_kernel or self._costs.measured:
                eager = sum(op.eager * op.count for op in members) * one.count
            found.append(
                ShownGroup(
                    id=group.id,
                    kind=group.kind,
                    letter=self._letter() if group.kind == "fused" else "",
                    ops=tuple(op.index for op in members),
                    kernel=group.kernel,
                    compiled=group.as_kernel,
                    count=len(alike_groups),
                    seconds=seconds,
                    eager=eager,
                    moved=one.count * len(alike_groups) * (group.bytes_moved or 0),
                    names=tuple(view_names.get(view, f"%{view}") for view in group.accesses),
                    numbers=group.numbers,
                    statements=tuple(stands_for[op] for op in group.statements),
                    why_apart=group.why_apart,
                    refused=group.refused,
                )
            )
        return found

    def _letter(self) -> str:
        number, self._letters = self._letters, self._letters + 1
        letter = ""
        while number >= 0:
            number, rest = divmod(number, 26)
            letter, number = chr(ord("A") + rest) + letter, number - 1
        return letter


def _looks(record: TraceRecord) -> list[object]:
    """Return for each op what must be equal for two to be shown as one."""
    ops = record.trace.ops
    dead = frozenset(record.plan.dead if record.plan else ())
    looks: dict[int, object] = {}  # by op, of its group with all lines: none is folded in its midst
    for group in record.groups:
        members = tuple((ops[op].name, ops[op].source) for op in group.ops)
        looks |= dict.fromkeys(group.ops, (group.kind, group.kernel, members))
    return [(op.name, op.source, op.index in dead, looks.get(op.index)) for op in ops]


def _step_seconds(one: Alike) -> list[float]:
    """Return what each step took in all the flushes, as measured in the newest of them."""
    timed = one.records[-MOST_TIMED:]
    steps = len(one.newest.groups)
    sums = [0.0] * steps
    for record in timed:
        for index, group in enumerate(record.groups):
            sums[index] += group.seconds or 0.0
    measured = sum(record.seconds for record in timed)
    factor = one.seconds / measured if measured else 0.0
    if not any(sums):  # nobody has timed them: by the number of ops
        ops = [len(group.ops) for group in one.newest.groups]
        return [one.seconds * count / (sum(ops) or 1) for count in ops]
    return [factor * seconds for seconds in sums]


def _shares(ops: list[ShownOp], groups: list[ShownGroup]) -> dict[int, tuple[float, float]]:
    """Share each group's seconds among its ops, by what eager takes for them; returns seconds and eager's by op."""
    by_index = {op.index: op for op in ops}
    found = {op.index: (0.0, 0.0) for op in ops}
    for group in groups:
        members = [by_index[index] for index in group.ops]
        weights = [(op.eager or 1e-6) * op.count for op in members]
        total = math.fsum(weights)
        for op, weight in zip(members, weights, strict=True):
            found[op.index] = (group.seconds * weight / total, group.eager * weight / total)
    return found


def _data_flow(trace: Trace, stands_for: list[int]) -> dict[int, set[int]]:
    """Return for each shown op the shown ops that read what it wrote last into a buffer."""
    writers: dict[int, int] = {}
    feeds: dict[int, set[int]] = {}
    for op in trace.ops:
        for view in op.reads:
            buffer = trace.buffer_of(view)
            if buffer in writers:
                feeds.setdefault(writers[buffer], set()).add(stands_for[op.index])
        for result in op.results:
            if result is not None:
                writers[trace.buffer_of(result)] = stands_for[op.index]
    return feeds


def soon(seconds: float) -> float:
    """Return until when, by ``perf_counter()``, ops may be tried after a cell of so many seconds: each kind is once."""
    return perf_counter() + min(0.05, max(0.004, 0.1 * seconds))
