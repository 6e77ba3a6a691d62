"""Values of the past: any op's of any flush that is kept, recomputed bit by bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from torchy.ir.listing import listing, short_op
from torchy.ir.trace import Op, Trace
from torchy.report.records import count_of
from torchy.watch.flush import WatchedFlush
from torchy.watch.store import KeptFlush, NotKept, Store


class _Target(NamedTuple):
    """Of which op, or before which op, a view's value is asked for."""

    view: int
    op: int
    before: bool


class Keeper:
    """Keeps the flushes of one session, and tells the values that were in them.

    Attributes
    ----------
    flushes
        In the order in which they ran; those that are not kept any more, too.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.flushes: list[KeptFlush] = []

    def begin(self, flush: WatchedFlush) -> None:
        """Keep a flush that is about to run."""
        self.flushes.append(self.store.begin(flush))

    def end(self, flush: WatchedFlush) -> None:
        """Note what it has made."""
        kept = self.flushes[-1]
        if kept.replay is not None:
            self.store.end(kept, flush)

    def traces(self) -> list[tuple[Trace, list[KeptFlush]]]:
        """Return each trace, in the order in which it was first met, with its flushes."""
        found: dict[str, tuple[Trace, list[KeptFlush]]] = {}
        names: dict[int, str] = {}  # by address; places that are alike have traces that are
        for kept in self.flushes:
            trace = kept.trace
            if id(trace) not in names:
                names[id(trace)] = listing(trace)
            found.setdefault(names[id(trace)], (trace, []))[1].append(kept)
        return list(found.values())

    def value(
        self, op: str | int, step: int | None = None, trace: int | None = None
    ) -> torch.Tensor:
        """Return a value as it was: see :meth:`torchy.Session.value`."""
        target, flushes = self._find(op, trace)
        if step is None and len(flushes) > 1:
            raise ValueError(
                f"{_name(op)} was computed {count_of(len(flushes), 'time')}: say which, step=0 to step={len(flushes) - 1}"
            )
        index = _checked(
            step or 0, len(flushes), f"{_name(op)} was computed {count_of(len(flushes), 'time')}"
        )
        try:
            with self.store.lock:  # flushes that run again serve one at a time
                return self._recompute(flushes[index], target)
        except NotKept as error:
            kept = _ranges([i for i, flush in enumerate(flushes) if flush.alive])
            raise NotKept(f"{_name(op)}, step {index}: {error}; kept are {kept}") from None

    def steps(self, op: str | int, trace: int | None = None) -> list[bool]:
        """Return for each execution of an op of a trace whether it can be answered: see :meth:`value`."""
        return [flush.alive for flush in self._find(op, trace)[1]]

    def _find(self, op: str | int, trace: int | None) -> tuple[_Target, list[KeptFlush]]:
        """Return what is asked for, and the flushes in which it was computed."""
        if isinstance(op, bool) or not isinstance(op, (str, int)):
            raise TypeError(
                f"op is a name as in the listing, '%3', or the index of an op, not {op!r}"
            )
        traces = self.traces()
        if not traces:
            raise NotKept("nothing has been kept: no op was recorded and flushed with keep=")
        if trace is not None:
            found = [each for each in traces if any(kept.number == trace for kept in each[1])]
            if not found:
                numbers = _ranges([kept.number for kept in self.flushes], "trace")
                raise ValueError(f"there is no trace {trace}: kept are {numbers}")
            return _target(found[0][0], op), found[0][1]
        having = [each for each in traces if _has(each[0], op)] or traces[-1:]
        if len(having) > 1:
            choices = "; ".join(
                f"trace={flushes[0].number} ({count_of(len(each.ops), 'op')} from"
                f" {each.ops[0].source}, {count_of(len(flushes), 'time')})"
                for each, flushes in having[:8]
            )
            raise ValueError(f"{_name(op)} is in {len(having)} traces; say which: {choices}")
        return _target(having[0][0], op), having[0][1]

    def _recompute(self, kept: KeptFlush, target: _Target) -> torch.Tensor:
        """Run a flush again, all of it: what it answers counts only if all that it makes is as it was."""
        store = self.store
        inputs = store.inputs_of(kept)
        replay = kept.required()
        buffer = replay.trace.buffer_of(target.view)
        replay.give(inputs)
        value: torch.Tensor | None = None

        def look() -> torch.Tensor | None:
            view = replay.view(target.view)
            return None if view is None else view.clone()

        try:
            if target.before and target.op == 0:
                value = look()
            for index, _ in replay.run(keep=(*kept.outputs, buffer)):
                if index == target.op - target.before and value is None:
                    value = look()
            store.require_same(kept)
        finally:
            replay.drop()
        if value is None:
            raise NotKept("it has no memory there")
        return value


def _target(trace: Trace, op: str | int) -> _Target:
    """Return what a name in the listing, or the index of an op, stands for.

    Raises
    ------
    ValueError
        If it stands for nothing, or for several things; the message names them.
    """
    if isinstance(op, int):
        if not _has(trace, op):
            raise ValueError(
                f"there is no op {op}: the trace has {count_of(len(trace.ops), 'op')}, from 0"
            )
        index = op
        made = [
            view
            for view in (*trace.ops[index].results, *trace.ops[index].writes)
            if view is not None
        ]
        if not made:
            raise ValueError(f"op {index}, {trace.ops[index].name}, has no result")
        return _Target(made[0], index, before=False)
    if not _has(trace, op):
        raise ValueError(
            f"there is no {op!r} in the trace: its views are %0 to %{len(trace.views) - 1}"
        )
    view = int(op.removeprefix("%"))
    writers = [each for each in trace.ops if view in each.writes]
    if len(writers) > 1:
        choices = ", ".join(f"{each.index} ({_line(each)})" for each in writers[:8])
        raise ValueError(f"%{view} is written by several ops; say which, by its index: {choices}")
    if writers:
        return _Target(view, writers[0].index, before=False)
    reader = next(each for each in trace.ops if view in each.reads)
    return _Target(view, reader.index, before=True)


def _has(trace: Trace, op: str | int) -> bool:
    """Tell if a trace has an op, or a view, of that name."""
    if isinstance(op, int):
        return 0 <= op < len(trace.ops)
    number = op.removeprefix("%")
    return number.isdecimal() and int(number) < len(trace.views)


def _name(op: str | int) -> str:
    return op if isinstance(op, str) else f"op {op}"


def _line(op: Op) -> str:
    return f"{short_op(op.name)}, {op.source}" if op.source else short_op(op.name)


def _checked(index: int, count: int, what: str) -> int:
    if isinstance(index, bool) or not isinstance(index, int):
        raise TypeError(f"a number is wanted, not {index!r}")
    if not 0 <= index < count:
        raise ValueError(f"{what}: there is no {index}, numbers are 0 to {count - 1}")
    return index


def _ranges(numbers: Sequence[int], noun: str = "step") -> str:
    """Return numbers as text: ``steps 0 and 32 to 47``."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    if not runs:
        return f"no {noun}s"
    texts = [" to ".join(map(str, run)) for run in runs]
    joined = texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
    return f"{noun}{'s' * (len(set(numbers)) > 1)} {joined}"
