"""What in a program costs most, and what to do about it: at most three findings, with what a change would bring.

What a change brings is measured where the inputs of its flushes are kept (``keep=``): they run anew as they were and as they
would be, by turns. Where they are not, nothing is said of that.
"""

from __future__ import annotations

import ast
import math
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import torch

import torchy.face
from torchy.explain.eager import TINY_OP
from torchy.explain.played import Played, gain
from torchy.ir.listing import short_op
from torchy.ir.trace import Source
from torchy.record.codes import Reason, WhyNow
from torchy.record.reasons import WHY_NOW, WORDS
from torchy.record.source import raised_by_program
from torchy.report import Report
from torchy.report.records import Record, TraceRecord, count_of, format_seconds
from torchy.watch.keeper import Keeper
from torchy.watch.store import KeptFlush

MOST_FINDINGS = 3
# of a cell's time that a finding must cost, and seconds
LEAST_SHARE, LEAST_SECONDS = 0.05, 1e-3
MAGIC = re.compile(r"^([^\S\n]*)[%!].*$", re.MULTILINE)  # a line for IPython
MOST_TIMED = 16  # flushes of a place whose times are looked at
MANY = 8  # flushes on one line: it is in a loop
MOST_PLAYED, PLAYED_SECONDS = (
    8,
    0.02,
)  # flushes that run anew, a few dozen times, and what they took
FILLING = 0.5e-9  # seconds for each element that is made
MOST_MADE = 1 << 26  # elements of a tensor that is made to see how long that takes
FLUSH_SECONDS = 15e-6  # that a flush costs beside its kernels and calls, at least: measured
NO_LOOKS = frozenset(
    (WORDS[Reason.LENGTH], WORDS[Reason.BYTES], WORDS[Reason.STATE], "settings changed", "flush()")
)
FACTORIES = frozenset(
    "zeros ones full arange linspace logspace eye tensor as_tensor from_numpy tril_indices".split()
)


@dataclass(frozen=True, slots=True)
class Finding(Record):
    """Something that costs time, and what to change.

    Parameters
    ----------
    kind
        "look", "dtype", "made", or "shared".
    text
        What it is, and what to do; code stands between backquotes.
    file, line
        Where.
    lost_seconds
        What it costs, estimated.
    gain_seconds
        What the change brings: measured on a few of its flushes (of "made": by making such tensors), and scaled to all; None
        where that cannot be done.
    """

    shown = "kind text file line lost_seconds gain_seconds"
    kind: str
    text: str
    file: str
    line: int
    lost_seconds: float
    gain_seconds: float | None = None

    def __str__(self) -> str:
        """Return a line for readers."""
        brings = ""
        if self.gain_seconds is not None:
            brings = f"; the change brings {format_seconds(max(0.0, self.gain_seconds))}, measured"
        lost = format_seconds(self.lost_seconds)
        return f"line {self.line}: {self.text} (costs ~{lost}{brings})"


def findings(
    report: Report,
    seconds: float,
    sources: Mapping[str, str] | None = None,
    keeper: Keeper | None = None,
    names: Mapping[str, object] | None = None,
    measure: bool = True,
) -> tuple[Finding, ...]:
    """Return what costs most, the worst first; nothing where nothing is worth it.

    Parameters
    ----------
    seconds
        What the program took, or its cell.
    sources
        The program's text, by file: tensors that are made in loops are looked for there.
    keeper
        Has the inputs of the flushes; without, no gain is measured.
    names
        The program's variables: what it makes in loops may be of sizes that they say.
    measure
        False: nothing is tried, all is estimated.
    """
    least = max(LEAST_SECONDS, LEAST_SHARE * seconds)
    found = [*_looks(report), *_dtypes(report), *_shared(report)]
    for file, text in (sources or {}).items():
        found += _made(report, file, text, names or {}, measure)
    # measured, a look may turn out to cost more than was estimated
    found = [
        f for f in found if f.lost_seconds >= least or (keeper and measure and f.kind == "look")
    ]
    found.sort(key=lambda finding: -finding.lost_seconds)
    found = found[: 2 * MOST_FINDINGS]
    if keeper is not None and measure:
        found = [_measured(finding, report, keeper) for finding in found]
    found = [f for f in found if f.lost_seconds >= least]
    found = [f for f in found if f.gain_seconds is None or f.gain_seconds >= least / 2]
    found.sort(key=lambda finding: -finding.lost_seconds)
    return tuple(found[:MOST_FINDINGS])


# --- a look in a loop


def _alike(report: Report) -> list[tuple[list[TraceRecord], int]]:
    """Return the records of each trace, the newest last, and how many flushes it had: those that are only counted, too."""
    found: dict[int, list[TraceRecord]] = {}
    for record in report.traces:
        found.setdefault(id(record.trace), []).append(record)
    older: dict[int, int] = {}
    for counted in report.older:
        older[id(counted.trace)] = older.get(id(counted.trace), 0) + counted.count
    return [(records, len(records) + older.get(key, 0)) for key, records in found.items()]


def _looks(report: Report) -> Iterator[Finding]:
    """Find lines that look at a value again and again."""
    counts: dict[Source, int] = {}
    looks: dict[Source, list[TraceRecord]] = {}
    for record in report.traces:
        if record.where is not None and _is_look(record.reason):
            counts[record.where] = counts.get(record.where, 0) + 1
            looks.setdefault(record.where, []).append(record)
    for older in report.older:
        if older.where in counts and _is_look(older.reason):
            counts[older.where] += older.count
    for where, count in counts.items():
        if count >= MANY:
            costs = [
                max(FLUSH_SECONDS, record.seconds - sum(g.seconds or 0.0 for g in record.groups))
                for record in looks[where][-MOST_TIMED:]
            ]
            yield Finding(
                "look",
                f"this looks at a value {count:,} times, and each look runs what was recorded until then:"
                " look every few turns, or after the loop",
                where.file,
                where.line,
                count * statistics.median(costs),
            )


def _is_look(reason: str) -> bool:
    """Tell if a flush happened since the program looked at a value, which it might have done elsewhere."""
    return reason not in NO_LOOKS and not reason.endswith("runs now")


# --- a dtype that is mixed in


def _dtypes(report: Report) -> Iterator[Finding]:
    """Find ops where a float64 tensor makes float32 work float64."""
    lost: dict[Source, float] = {}
    what: dict[Source, str] = {}
    for records, count in _alike(report):
        newest = records[-1]
        mixing = [index for index in range(len(newest.trace.ops)) if _mixes(newest, index)]
        if not mixing:
            continue
        first = newest.trace.ops[mixing[0]]
        if first.source is None:
            continue
        wide = [
            sum(
                group.seconds or 0.0
                for group in record.groups
                if any(op >= mixing[0] and _is_wide(record, op) for op in group.ops)
            )
            for record in records[-MOST_TIMED:]
        ]
        seconds = count * statistics.median(wide) / 2
        lost[first.source] = lost.get(first.source, 0.0) + seconds
        what[first.source] = short_op(first.name)
    for source, seconds in lost.items():
        yield Finding(
            "dtype",
            f"`{what[source]}` mixes float32 with float64, so all that comes of it is computed in float64:"
            " convert what is float64 with `.float()` where it is made",
            source.file,
            source.line,
            seconds,
        )


def _mixes(record: TraceRecord, index: int) -> bool:
    """Tell if an op makes float64 of float32 and float64 tensors."""
    trace = record.trace
    op = trace.ops[index]
    dtypes = {trace.views[view].dtype for view in op.reads if trace.views[view].rank > 0}
    return {torch.float32, torch.float64} <= dtypes and _is_wide(record, index)


def _is_wide(record: TraceRecord, index: int) -> bool:
    results = [view for view in record.trace.ops[index].results if view is not None]
    return any(record.trace.views[view].dtype is torch.float64 for view in results)


# --- what NumPy shares


def _shared(report: Report) -> Iterator[Finding]:
    """Find ops that ran as eager since something outside torch can see their memory."""
    lines: dict[Source, float] = {}
    for record in report.ran_now:
        if record.why == WHY_NOW[WhyNow.SHARED] and record.file and record.line:
            where = Source(record.file, record.line)
            lines[where] = lines.get(where, 0.0) + record.seconds
    for where, seconds in lines.items():
        yield Finding(
            "shared",
            "these ops ran as eager: their memory is shared with NumPy (or somebody else outside of torch), which may"
            " write to it unseen: hand out a copy, `x.numpy().copy()`, or compute on `torch.tensor(array)`",
            where.file,
            where.line,
            seconds,
        )


# --- a tensor that is made in a loop


def _made(
    report: Report, file: str, text: str, names: Mapping[str, object], measure: bool
) -> Iterator[Finding]:
    """Find tensors that each turn of a loop makes, and that are the same each time."""
    try:
        tree = ast.parse(MAGIC.sub(r"\1pass", text))
    except SyntaxError:  # no Python
        return
    counts: dict[int, int] = {}  # how often a line with ops was passed, at least
    for records, count in _alike(report):
        per_line: dict[tuple[int, str], int] = {}
        for op in records[-1].trace.ops:
            if op.source is not None and op.source.file == file:
                key = (op.source.line, op.name)
                per_line[key] = per_line.get(key, 0) + count
        passed: dict[int, int] = {}
        for (line, _), times in per_line.items():
            passed[line] = max(passed.get(line, 0), times)
        for line, times in passed.items():
            counts[line] = counts.get(line, 0) + times
    for loop, calls in _loops(tree):
        changing = {
            name.id
            for name in ast.walk(loop)
            if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
        }
        in_loop = max((counts.get(line, 0) for line in _lines(loop)), default=0)
        for call in calls:
            maker = _factory(call)
            used = {name.id for name in ast.walk(call) if isinstance(name, ast.Name)} - {"torch"}
            turns = counts.get(call.lineno, in_loop)
            if maker is None or used & changing or turns < MANY or _is_written(loop, call):
                continue
            seconds = _making(call, names, measure)
            if seconds is not None:
                yield Finding(
                    "made",
                    f"`torch.{maker}` makes the same tensor in each of {count_of(turns, 'turn')}: make it once,"
                    " before the loop",
                    file,
                    call.lineno,
                    seconds * (turns - 1),
                    seconds * (turns - 1) if measure else None,
                )


def _loops(tree: ast.AST) -> Iterator[tuple[ast.For | ast.While, list[ast.Call]]]:
    """Yield each loop with the calls that belong to no loop within it."""

    def calls(node: ast.AST) -> Iterator[ast.Call]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.For, ast.While, ast.FunctionDef, ast.Lambda)):
                continue
            if isinstance(child, ast.Call):
                yield child
            yield from calls(child)

    for node in ast.walk(tree):
        if isinstance(node, (ast.For, ast.While)):
            yield node, [call for each in node.body for call in _calls_of(each, calls)]


def _calls_of(
    node: ast.stmt, within: Callable[[ast.AST], Iterator[ast.Call]]
) -> Iterator[ast.Call]:
    """Yield the calls of a statement, unless it is a loop of its own."""
    if not isinstance(node, (ast.For, ast.While, ast.FunctionDef)):
        yield from within(node)


def _is_written(loop: ast.For | ast.While, call: ast.Call) -> bool:
    """Tell whether what a call makes is written to in the loop, or kept: then each turn needs one of its own."""
    names = {
        target.id
        for node in ast.walk(loop)
        if isinstance(node, ast.Assign) and node.value is call
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(loop):
        match node:
            case ast.AugAssign(target=ast.Name(id=name)) if name in names:
                return True
            case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store()) if name in names:
                return True
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method)) if (
                name in names and method.endswith("_")
            ):
                return True
            case ast.Call(func=ast.Attribute(attr="append"), args=[ast.Name(id=name)]) if (
                name in names
            ):
                return True
            case ast.Call(func=ast.Attribute(attr="append"), args=[kept]) if kept is call:
                return True
            case ast.keyword(arg="out", value=ast.Name(id=name)) if name in names:
                return True
    return False


def _lines(loop: ast.For | ast.While) -> range:
    return range(loop.lineno, (loop.end_lineno or loop.lineno) + 1)


def _factory(call: ast.Call) -> str | None:
    match call.func:
        case ast.Attribute(value=ast.Name(id="torch"), attr=name) if name in FACTORIES:
            return name
    return None


def _making(call: ast.Call, names: Mapping[str, object], measure: bool) -> float | None:
    """Return the seconds that making a tensor takes, tried or estimated; None where its arguments are not known."""

    def value(node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=constant):
                return constant
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                return [value(part) for part in parts]
            case ast.Attribute(value=ast.Name(id="torch"), attr=name) if isinstance(
                getattr(torch, name, None), torch.dtype
            ):
                return getattr(torch, name)
            case ast.Name(id=name) if isinstance(names.get(name), (int, float, tuple)):
                return names[name]
        raise ValueError("not known")

    try:
        positional = [value(argument) for argument in call.args]
        named = {k.arg: value(k.value) for k in call.keywords if k.arg is not None}
        function = getattr(torch, _factory(call) or "")
        sizes = [n for value in positional for n in (value if isinstance(value, list) else [value])]
        elements = math.prod(n for n in sizes if isinstance(n, int) and n > 1)
        if elements > MOST_MADE:
            return None
        if not measure:
            return TINY_OP + elements * FILLING
        times = []
        for _ in range(5):
            begin = perf_counter()
            function(*positional, **named)
            times.append(perf_counter() - begin)
    except Exception as error:  # whatever the program gives it
        if raised_by_program(error):
            raise
        return None
    return statistics.median(times)


# --- measuring


def _measured(finding: Finding, report: Report, keeper: Keeper) -> Finding:
    """Measure what a change brings, if that can be done."""
    if finding.kind not in ("look", "dtype") or torchy.face.current_session() is not None:
        return finding
    numbers = {record.number for record in report.traces if _concerns(finding, record)}
    flushes = [kept for kept in keeper.flushes if kept.number in numbers and kept.alive]
    seconds = {record.number: record.seconds for record in report.traces}
    played = _consecutive(flushes, seconds)
    if not played or (finding.kind == "look" and len(played) < 2):
        return finding
    try:
        of = Played(keeper.store, played)
        changed = {"merged": True} if finding.kind == "look" else {"narrow": True}
        saved = gain(of.seconds, lambda: of.seconds(**changed))
    except (
        Exception
    ) as error:  # inputs that are gone, ops that cannot be called so: then nothing is said
        if raised_by_program(error):
            raise
        return finding
    count = len(numbers)
    if finding.kind == "look":
        where = Source(finding.file, finding.line)
        count += sum(older.count for older in report.older if older.where == where)
    saved *= count / len(played)
    return replace(finding, gain_seconds=saved, lost_seconds=saved or finding.lost_seconds)


def _concerns(finding: Finding, record: TraceRecord) -> bool:
    if finding.kind == "look":
        return record.where == Source(finding.file, finding.line)
    return any(
        op.source == Source(finding.file, finding.line) and _mixes(record, op.index)
        for op in record.trace.ops
    )


def _consecutive(flushes: Sequence[KeptFlush], seconds: Mapping[int, float]) -> list[KeptFlush]:
    """Return the last flushes that follow each other, so many that they can be run again and again."""
    found: list[KeptFlush] = []
    spent = 0.0
    for flush in reversed(flushes):
        spent += seconds.get(flush.number, 0.0)
        if found and flush.number != found[-1].number - 1:
            break
        if len(found) >= MOST_PLAYED or (len(found) >= 2 and spent > PLAYED_SECONDS):
            break
        found.append(flush)
    return found[::-1]
