"""The same flushes by eager: what each op takes there, and whether the bits are equal."""

from __future__ import annotations

from dataclasses import dataclass

from torchy.ir.listing import short_op
from torchy.ir.trace import Trace
from torchy.plan.memory import never_stored
from torchy.plan.plan import FusedGroup, ops_of
from torchy.record.native import Walker
from torchy.report.records import Record, count_of, format_seconds
from torchy.run.pace import tiny_op_seconds
from torchy.session.script import Script
from torchy.watch.flush import WatchedFlush
from torchy.watch.memory import same_bits, window


@dataclass(slots=True)
class ComparedRecord(Record):
    """One step of a trace, under Torchy and by eager: a kernel, a call, or what nobody needed.

    Parameters
    ----------
    trace
        The number of the first flush of the trace.
    kind
        "kernel", "call", or "dead": then only eager has run it.
    ops, names
        Indices of its ops in the trace, and their names.
    file, line
        Where the program called the first of them; None if that could not be told.
    count
        How many flushes are compared.
    seconds, eager_seconds
        Of all of them. Eager's ops ran by themselves; what calling them from Python takes is added.
    bytes, eager_bytes
        What its results take in memory, once: those that Torchy has stored, and all of them.
    equal
        Whether all that the flush has left to the program has eager's bits, as far as these ops have written it.
    """

    shown = (
        "trace kind ops names file line count seconds eager_seconds bytes eager_bytes equal text"
    )
    trace: int
    kind: str
    ops: tuple[int, ...]
    names: tuple[str, ...]
    file: str | None
    line: int | None
    count: int = 0
    seconds: float = 0.0
    eager_seconds: float = 0.0
    bytes: int = 0
    eager_bytes: int = 0
    equal: bool = True

    @property
    def text(self) -> str:
        """One line for readers."""
        times = f"{format_seconds(self.seconds)}, eager {format_seconds(self.eager_seconds)}"
        bits = "equal" if self.equal else "OTHER BITS"
        return f"{self.kind} {', '.join(self.names[:6])}: {times}, {count_of(self.count, 'time')}, {bits}"


class Comparison:
    """Runs each flush of a session once more, as eager does, on what it was given."""

    def __init__(self, walker: Walker) -> None:
        self._walker = walker
        # what calling an op from Python takes, beside its kernel
        self._call_seconds: float | None = None
        # by trace and plan (held, so that nobody else gets their addresses), and whether kernels ran
        self._rows: dict[tuple[int, int, bool], tuple[Script, list[ComparedRecord]]] = {}
        # by the ops of a trace: how many flushes, and eager's seconds of each op
        self._ops: dict[int, tuple[Trace, list[int], list[float]]] = {}

    def seconds_of(self, trace: Trace, op: int) -> float | None:
        """Return what an op takes eager, on the average; None if its trace has not been compared."""
        _, times, by_op = self._ops.get(id(trace.ops), (trace, [0], []))
        return by_op[op] / times[0] if times[0] else None

    @property
    def rows(self) -> tuple[ComparedRecord, ...]:
        """A row for each step of each trace."""
        return tuple(row for _, rows in self._rows.values() for row in rows)

    def end(self, flush: WatchedFlush) -> None:
        """Run it again, once it has run."""
        if self._call_seconds is None:
            self._call_seconds = max(0.0, tiny_op_seconds() - self._walker.tiny_call() * 1e-9)
        trace, script = flush.trace, flush.script
        key = (id(trace), id(script.entry.plan), script.compiled)
        if key not in self._rows:
            self._rows[key] = (script, _rows(flush))
        rows = self._rows[key][1]
        row_of = {op: row for row in rows for op in row.ops}
        for row, seconds in zip(rows, script.step_seconds(flush.times), strict=False):
            row.seconds += seconds
        for row in rows:
            row.count += 1
        _, times, by_op = self._ops.setdefault(id(trace.ops), (trace, [0], [0.0] * len(trace.ops)))
        times[0] += 1
        for op, seconds in flush.rerun(keep=tuple(flush.outputs)):
            row_of[op].eager_seconds += seconds + self._call_seconds
            by_op[op] += seconds + self._call_seconds
        for op in self._differing(flush):
            row_of[op].equal = False

    def _differing(self, flush: WatchedFlush) -> set[int]:
        """Return the ops that were the last to write what is not as eager has it."""
        trace, layouts, eager = flush.trace, flush.recording.layouts(), flush.replay.memory()
        other = {
            buffer
            for buffer, (address, count) in flush.made().items()
            if self._walker.hash(address, count) != self._walker.hash(eager[buffer], count)
        }
        return {
            op.index
            for op, view, values in (flush.windows() if other else ())
            # between the elements there may be anything
            if (buffer := trace.buffer_of(view)) in other
            and not same_bits(values, window(eager[buffer], values.dtype, layouts[view]))
        }


def _rows(flush: WatchedFlush) -> list[ComparedRecord]:
    """Return a row for each step of a flush's plan, then one for each op that nobody needed."""
    trace, entry = flush.trace, flush.script.entry
    unstored = (
        frozenset(never_stored(entry.plan, entry.trace)) if flush.script.compiled else frozenset()
    )
    sizes = flush.recording.buffer_bytes()
    rows = []
    for index, step in enumerate(entry.plan.steps):
        kernel = (
            isinstance(step, FusedGroup)
            and entry.kernels[index] is not None
            and flush.script.compiled
        )
        rows.append(_row(trace, flush.number, "kernel" if kernel else "call", ops_of(step)))
    rows += [_row(trace, flush.number, "dead", (op,)) for op in entry.plan.dead]
    for row in rows:
        made = {b.index for b in trace.buffers if b.creator in row.ops}
        row.eager_bytes = sum(sizes[buffer] for buffer in made)
        if row.kind != "dead":
            row.bytes = sum(sizes[buffer] for buffer in made - unstored)
    return rows


def _row(trace: Trace, number: int, kind: str, ops: tuple[int, ...]) -> ComparedRecord:
    source = trace.ops[ops[0]].source
    names = tuple(short_op(trace.ops[op].name) for op in ops)
    file, line = (source.file, source.line) if source else (None, None)
    return ComparedRecord(number, kind, ops, names, file, line)
