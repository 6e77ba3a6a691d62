"""Where the first NaN or infinity is born: not in the data, not meant, and not passed on."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import Any

import torch

from torchy.ir.dtypes import BY_CODE
from torchy.ir.listing import op_text, short_op, type_text
from torchy.ir.trace import Constant, Layout, Number, Op, Trace, View
from torchy.record.native import Handle, Walker
from torchy.report.records import Record
from torchy.session.script import Recording
from torchy.watch.flush import WatchedFlush
from torchy.watch.memory import window

_CODES = {dtype: code for code, dtype in enumerate(BY_CODE)}


ALWAYS = 8  # suspicions of a trace that are followed


class Odd(IntFlag):
    """What is no finite number: see scan.h."""

    NONE = 0
    NAN = 1
    INFINITY = 2


@dataclass(frozen=True, slots=True)
class RangeRecord(Record):
    """What was among the elements of an operand: the range of the finite ones, and how many are not."""

    shown = "name type least greatest nans infinities text"
    name: str
    type: str
    least: float | None
    greatest: float | None
    nans: int
    infinities: int

    @classmethod
    def of(cls, name: str, type: str, values: torch.Tensor) -> RangeRecord:
        """Look at a tensor."""
        plain = values.abs() if values.is_complex() else values.double()
        finite = plain[plain.isfinite()]
        some = finite.numel() > 0
        return cls(
            name,
            type,
            finite.min().item() if some else None,
            finite.max().item() if some else None,
            int(plain.isnan().sum()),
            int(plain.isinf().sum()),
        )

    @property
    def text(self) -> str:
        """One line for readers."""
        span = (
            "no finite element"
            if self.least is None
            else f"{self.least:.6g} to {self.greatest:.6g}"
        )
        counts = ((self.nans, "NaN"), (self.infinities, "inf"))
        odd = "".join(f", {count:,} {what}" for count, what in counts if count)
        return f"{self.name}: {self.type}, {span}{odd}"


@dataclass(frozen=True, slots=True)
class BirthRecord(Record):
    """Where the first NaN or infinity was born.

    Parameters
    ----------
    kind
        "NaN" or "inf".
    op
        The op's line in the listing: ``%13: f32[8] = log(%12)``; its name if it ran as eager.
    name
        As the dispatcher spells it: ``aten::log``.
    file, line
        Where the program called it; None if that could not be told.
    trace, index
        The number of the flush, and of the op in its trace; None if it ran as eager.
    step
        How often that op of that trace had run before; None if it ran as eager.
    iteration
        How often ops of that name on that line had run before.
    operands
        What it was given.
    count
        How many elements of its results were born so.
    """

    shown = "kind op name short file line trace index step iteration operands count"
    kind: str
    op: str
    name: str
    file: str | None
    line: int | None
    trace: int | None
    index: int | None
    step: int | None
    iteration: int | None
    operands: tuple[RangeRecord, ...]
    count: int | None

    @property
    def short(self) -> str:
        """The name without namespace and overload: ``log``."""
        return short_op(self.name)


class Hunter:
    """Looks for the first birth in a session, until it is found.

    Parameters
    ----------
    flushes
        Gives the traces of the flushes so far, each with how many these were; a trace may come several times.
    """

    def __init__(self, walker: Walker, flushes: Callable[[], Iterable[tuple[Trace, int]]]) -> None:
        self._walker = walker
        self._flushes = flushes
        self._alarms: dict[int, tuple[Trace, int]] = {}  # by the ops of a trace
        self._order = 0  # of what was found: how many ops had been recorded before
        self._found: BirthRecord | None = None

    def end(self, flush: WatchedFlush, handle: Handle) -> None:
        """Run a suspect flush again, once it has run, and look at each op.

        Of suspicions of one trace that turn out to be none the first ones are followed, then every second, fourth, eighth...
        """
        if self._found is not None or not flush.is_suspect():
            return
        trace, alarms = self._alarms.get(id(flush.trace.ops), (flush.trace, 0))
        self._alarms[id(trace.ops)] = (trace, alarms + 1)
        if alarms >= ALWAYS and alarms & (alarms - 1):
            return
        self._found = self._hunt(flush)
        if self._found is not None and self._found.index is not None:
            before = self._walker.counters(handle).recorded - len(flush.trace.ops)
            self._order = before + self._found.index

    @property
    def found(self) -> BirthRecord | None:
        """What flushes have shown."""
        return self._found

    def look(self, handle: Handle) -> BirthRecord | None:
        """Return the first birth so far; of ops that ran as eager, too."""
        told = self._walker.birth(handle)
        if told is not None and (self._found is None or told[2] <= self._order):
            return self._of_op_now(*told)
        return self._found

    def _of_op_now(
        self, name: str, line: int, _recorded: int, kinds: int, operands: Sequence[Any]
    ) -> BirthRecord:
        source = self._walker.source(line)
        ranges = []
        for position, (code, address, data) in enumerate(operands):
            words = tuple(memoryview(data).cast("q"))
            rank, dtype = len(words) // 2, BY_CODE[code]
            layout = Layout(words[:rank], words[rank:], 0)
            text = type_text(View(0, 0, dtype, rank), layout)
            ranges.append(
                RangeRecord.of(f"operand {position}", text, window(address, dtype, layout))
            )
        return BirthRecord(
            kind="NaN" if kinds & Odd.NAN else "inf",
            op=short_op(name),
            name=name,
            file=source.file if source else None,
            line=source.line if source else None,
            trace=None,
            index=None,
            step=None,
            iteration=None,
            operands=tuple(ranges),
            count=None,
        )

    def _hunt(self, flush: WatchedFlush) -> BirthRecord | None:
        trace, replay = flush.trace, flush.replay
        before: dict[int, torch.Tensor] = {}  # what the next op overwrites

        def prepare(index: int) -> None:
            before.clear()
            if index < len(trace.ops):
                op = trace.ops[index]
                for view in set(op.writes).intersection(op.reads):
                    value = replay.view(view)
                    if value is not None:
                        before[view] = value.clone()

        run = flush.rerun()  # keeps an op's operands until the next one has run
        prepare(0)
        for index, _ in run:
            born = self._born(flush, trace.ops[index], before)
            if born is not None:
                return born
            prepare(index + 1)
        return None

    def _born(
        self, flush: WatchedFlush, op: Op, before: dict[int, torch.Tensor]
    ) -> BirthRecord | None:
        replay = flush.replay
        views = dict.fromkeys((*(view for view in op.results if view is not None), *op.writes))
        results = {view: replay.view(view) for view in views}
        if not any(value is not None and self._odd(value) for value in results.values()):
            return None
        operands = {view: before.get(view, replay.view(view)) for view in dict.fromkeys(op.reads)}
        given = [(value, self._odd(value)) for value in operands.values() if value is not None]
        numbers = Odd.NONE
        for number in _numbers(op, flush.recording):
            numbers |= (
                Odd.NAN
                if number != number
                else Odd.INFINITY
                if abs(number) == float("inf")
                else Odd.NONE
            )
        for value in results.values():
            if value is None or not self._odd(value):
                continue
            kind, count = _births(op, value, given, numbers)
            if count:
                return self._record(flush, op, kind, count, operands)
        return None

    def _odd(self, value: torch.Tensor) -> Odd:
        if not (value.is_floating_point() or value.is_complex()):
            return Odd.NONE
        words = struct.pack(f"={2 * value.dim()}q", *value.shape, *value.stride())
        address = value.data_ptr()
        return (
            Odd(self._walker.odd(address, _CODES[value.dtype], words))
            if value.numel()
            else Odd.NONE
        )

    def _record(
        self,
        flush: WatchedFlush,
        op: Op,
        kind: str,
        count: int,
        operands: dict[int, torch.Tensor | None],
    ) -> BirthRecord:
        trace, layouts = flush.trace, flush.recording.layouts()
        source = op.source
        flushes = list(self._flushes())
        before = sum(times * _runs(known, op, len(known.ops)) for known, times in flushes)
        return BirthRecord(
            kind=kind,
            op=op_text(trace, op, layouts, flush.recording.numbers()),
            name=op.name,
            file=source.file if source else None,
            line=source.line if source else None,
            trace=flush.number,
            index=op.index,
            step=sum(times for known, times in flushes if known.ops is trace.ops),
            iteration=before + _runs(trace, op, op.index),
            operands=tuple(
                RangeRecord.of(f"%{view}", type_text(trace.views[view], layouts[view]), value)
                for view, value in operands.items()
                if value is not None
            ),
            count=count,
        )


def _births(
    op: Op, value: torch.Tensor, given: Sequence[tuple[torch.Tensor, Odd]], numbers: Odd
) -> tuple[str, int]:
    """Return of what kind, and how many, elements of a result are born: where no operand's has passed them on.

    Of a pointwise op this is told element by element; else an operand that has any may have passed on all.
    """
    passed = numbers
    for _, odd in given:
        passed |= odd
    plain = torch.view_as_real(value) if value.is_complex() else value
    pointwise = op.result_mode is not None
    nan, infinite = plain.isnan(), plain.isinf()
    if pointwise and not value.is_complex():
        for operand, odd in given:
            if odd & Odd.NAN:
                nan &= ~operand.isnan()
            if odd:
                infinite &= operand.isfinite()
        if numbers & Odd.NAN:
            nan &= False
        if numbers:
            infinite &= False
    else:
        nan &= not passed & Odd.NAN
        infinite &= not passed
    if count := int(nan.sum()):
        return "NaN", count
    return "inf", int(infinite.sum())


def _runs(trace: Trace, op: Op, end: int) -> int:
    """Return how many of a trace's first ops are of an op's name, and stand on its line."""
    return sum(each.name == op.name and each.source == op.source for each in trace.ops[:end])


def _numbers(op: Op, recording: Recording) -> Iterator[float]:
    numbers = recording.numbers()
    for argument in op.arguments:
        for item in argument if isinstance(argument, tuple) else (argument,):
            if isinstance(item, Number):
                yield float(numbers[item.index])
            elif isinstance(item, Constant) and isinstance(item.value, float):
                yield item.value
