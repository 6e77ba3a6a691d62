"""The records of a report: what can be read of traces, kernels and events."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal, TypeVar

from torchy.ir.dtypes import short_name
from torchy.ir.listing import Layouts, Numbers, argument_text, listing, op_text, short_op, type_text
from torchy.ir.reproducer import reproducer
from torchy.ir.trace import Layout, Number, Source, Trace, View
from torchy.plan.listing import plan_listing
from torchy.plan.memory import never_stored
from torchy.plan.plan import FusedGroup, Plan, Step, ops_of

Tier = Literal["interpreted", "compiled"]
Seconds = Sequence[float | None]
Refused = Mapping[int, str]
Item = TypeVar("Item")


class Record:
    """What can be given as JSON types: the attributes that its class names in ``shown``."""

    __slots__ = ()
    shown: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return {name: _plain(getattr(self, name)) for name in self.shown.split()}


@dataclass(frozen=True, slots=True)
class TensorRecord(Record):
    """The layout of one operand or result in one recording; sizes are None if it is not known.

    ``view`` is its number in the listing (``%3``); views with equal ``buffer`` share memory. ``nbytes`` counts its elements'
    bytes. ``text`` gives dtype and sizes, and strides where they say more: ``f32[64, 10]``.
    """

    shown = "view buffer dtype sizes strides offset nbytes text"
    view: int
    buffer: int
    dtype: str
    sizes: tuple[int, ...] | None
    strides: tuple[int, ...] | None
    offset: int | None
    nbytes: int | None
    text: str

    @classmethod
    def of(cls, view: View, layout: Layout | None) -> TensorRecord:
        """Record a view, with its layout in one recording."""
        return cls(
            view.index,
            view.buffer,
            short_name(view.dtype),
            tuple(layout.sizes) if layout else None,
            tuple(layout.strides) if layout else None,
            layout.offset if layout else None,
            math.prod(layout.sizes) * view.dtype.itemsize if layout else None,
            type_text(view, layout),
        )


@dataclass(frozen=True, slots=True)
class OpRecord(Record):
    """One recorded op.

    Parameters
    ----------
    name
        As the dispatcher spells it: ``aten::add.Tensor``.
    file, line
        Where the program called it; None if that could not be told.
    operands, results
        Layouts of the tensors that it reads and gives (None: an undefined result).
    group
        Id of the group that ran it; None if it is dead, or was interpreted without a plan.
    dead
        True if nobody could reach its result: it never ran.
    stored
        False if its results never touched memory: a kernel computed and used them, or it is dead.
    text
        Its line in the listing, without the source: ``%3: f32[64, 10] = add(%1, %2)``.
    """

    shown = "index name short file line operands results group dead stored text"
    index: int
    name: str
    file: str | None
    line: int | None
    operands: tuple[TensorRecord, ...]
    results: tuple[TensorRecord | None, ...]
    group: int | None
    dead: bool
    stored: bool
    text: str

    @property
    def short(self) -> str:
        """The name without namespace and overload: ``add``."""
        return short_op(self.name)


@dataclass(frozen=True, slots=True)
class GroupRecord(Record):
    """One step of a plan: ops that ran as one kernel, or a "call" of one op of torch's own.

    Parameters
    ----------
    ops
        Indices of its ops.
    kernel
        Key into ``Report.kernels``; None for a call.
    as_kernel
        Whether it ran as a kernel: else torch ran its ops one by one.
    seconds
        None where the step was not timed by itself.
    bytes_moved
        The size of all that it reads and writes; None if sizes are not known.
    accesses, numbers
        For each of the kernel's accesses the view that it reaches; the numbers that it is given, as text.
    statements
        For each statement of the kernel's form, as its loop nest counts them, the op that it is of.
    why_apart
        Why it was not joined with the step before, in words; None if there is nothing to say.
    refused
        Why its kernel was not launched this time, in words: torch ran its ops one by one. None if it was.
    """

    shown = "id kind ops kernel as_kernel seconds bytes_moved accesses numbers statements why_apart refused"
    id: int
    kind: Literal["fused", "call"]
    ops: tuple[int, ...]
    kernel: str | None
    as_kernel: bool
    seconds: float | None
    bytes_moved: int | None
    accesses: tuple[int, ...]
    numbers: tuple[str, ...]
    statements: tuple[int, ...]
    why_apart: str | None
    refused: str | None


@dataclass(frozen=True, eq=False)
class TraceRecord(Record):
    """One flushed trace. What is not stored is rendered when first read, and then kept.

    Parameters
    ----------
    number
        Counts the session's traces from 0; stays right when old records are dropped.
    reason
        Why the trace was flushed, in words: ``item()``, ``aten::sort runs now``.
    where
        The line of the program that made it flush.
    tier
        "compiled" if a kernel ran in it, else "interpreted".
    began, seconds
        When the flush began, in seconds since the session did, and what it took.
    prepared
        What planning and, where the program waited for it, compiling took before, in seconds.
    watching
        What keeping, comparing or looking for NaNs took, in seconds.
    bytes_saved
        Memory that eager would have allocated for the intermediates that were never stored.
    trace, plan, kernels, layouts, numbers, step_seconds, refused
        What it is rendered from: see :meth:`ReportBuilder.trace`.
    file_names
        How to call files in the listing: ``{"/tmp/ipykernel_1/2.py": "cell 4"}``.
    """

    shown = (
        "number reason where tier began seconds prepared watching bytes_saved ops groups listing"
    )
    number: int
    reason: str
    where: Source | None
    tier: Tier
    began: float
    seconds: float
    prepared: float
    watching: float
    bytes_saved: int
    trace: Trace = field(repr=False)
    plan: Plan | None = field(repr=False, default=None)
    kernels: Sequence[str | None] = field(repr=False, default=())
    layouts: Layouts | Callable[[], Layouts] = field(repr=False, default=())
    numbers: Numbers | Callable[[], Numbers] = field(repr=False, default=())
    step_seconds: Seconds | Callable[[], Seconds] = field(repr=False, default=())
    refused: Refused | Callable[[], Refused] = field(repr=False, default_factory=dict)
    file_names: Mapping[str, str] = field(repr=False, default_factory=dict)

    @cached_property
    def _layouts(self) -> Layouts:
        known = self.layouts() if callable(self.layouts) else self.layouts
        return [*known, *[None] * (len(self.trace.views) - len(known))]

    @cached_property
    def _numbers(self) -> Numbers:
        return self.numbers() if callable(self.numbers) else self.numbers

    @cached_property
    def tensors(self) -> tuple[TensorRecord, ...]:
        """Every view of the trace, by its number."""
        return tuple(map(self._tensor, range(len(self.trace.views))))

    @cached_property
    def _tensors(self) -> dict[int, TensorRecord]:
        return {}

    def _tensor(self, view: int) -> TensorRecord:
        if view not in self._tensors:
            self._tensors[view] = TensorRecord.of(self.trace.views[view], self._layouts[view])
        return self._tensors[view]

    @cached_property
    def ops(self) -> tuple[OpRecord, ...]:
        """The recorded ops, in order."""
        return tuple(map(self.op, range(len(self.trace.ops))))

    def op(self, index: int) -> OpRecord:
        """Return one of the recorded ops: all of a long trace take milliseconds."""
        op, group = self.trace.ops[index], self._group_of.get(index)
        dead = index in self._dead
        in_kernel = group is not None and self.groups[group].as_kernel
        return OpRecord(
            index=index,
            name=op.name,
            file=op.source.file if op.source else None,
            line=op.source.line if op.source else None,
            operands=tuple(map(self._tensor, op.reads)),
            results=tuple(None if view is None else self._tensor(view) for view in op.results),
            group=group,
            dead=dead,
            stored=not dead
            and (
                not in_kernel
                or any(self.trace.buffer_of(view) not in self._never for view in op.writes)
            ),
            text=op_text(self.trace, op, self._layouts, self._numbers),
        )

    @cached_property
    def _group_of(self) -> dict[int, int]:
        return {op: group.id for group in self.groups for op in group.ops}

    @cached_property
    def _dead(self) -> frozenset[int]:
        return frozenset(self.plan.dead if self.plan else ())

    @cached_property
    def _never(self) -> frozenset[int]:
        return frozenset(never_stored(self.plan, self.trace) if self.plan else ())

    @cached_property
    def groups(self) -> tuple[GroupRecord, ...]:
        """The steps of the plan, in order; empty if the trace was interpreted without one."""
        if self.plan is None:
            return ()
        seconds = self.step_seconds() if callable(self.step_seconds) else self.step_seconds
        refused = self.refused() if callable(self.refused) else self.refused

        def group(index: int, step: Step) -> GroupRecord:
            fused = step if isinstance(step, FusedGroup) else None
            kernel = _at(self.kernels, index) if fused else None
            given = fused.numbers if fused else ()
            launched = self.tier == "compiled" and kernel is not None and index not in refused
            return GroupRecord(
                id=index,
                kind="fused" if fused else "call",
                ops=ops_of(step),
                kernel=kernel,
                as_kernel=launched,
                seconds=_at(seconds, index),
                bytes_moved=self._bytes_moved(step),
                accesses=fused.accesses if fused else (),
                numbers=tuple(argument_text(Number(i, float), self._numbers) for i in given),
                statements=fused.statements if fused else (),
                why_apart=self.plan.why_apart.get(index) if self.plan else None,
                refused=refused.get(index),
            )

        return tuple(group(index, step) for index, step in enumerate(self.plan.steps))

    def _bytes_moved(self, step: Step) -> int | None:
        if isinstance(step, FusedGroup):
            views: tuple[int, ...] = step.accesses
        else:
            op = self.trace.ops[step.op]
            views = (*op.reads, *op.writes)
        moved = 0
        for view in dict.fromkeys(views):
            layout = self._layouts[view]
            if layout is None:
                return None
            moved += math.prod(layout.sizes) * self.trace.views[view].dtype.itemsize
        return moved

    @cached_property
    def listing(self) -> str:
        """The trace as text: headline, inputs and views where they first occur, ops with lines."""
        notes = {op.index: f"group {op.group}" for op in self.ops if op.group is not None}
        notes |= {op: f"called: {g.refused}" for g in self.groups if g.refused for op in g.ops}
        notes |= {op.index: "dead" for op in self.ops if op.dead}
        text = listing(self.trace, self._layouts, self._numbers, self.file_names, notes)
        return f"{self.headline}\n{textwrap.indent(text, '  ')}"

    @cached_property
    def plan_listing(self) -> str:
        """The plan as text: steps with their ops, kernel forms and memory; empty without a plan."""
        if self.plan is None:
            return ""
        return plan_listing(self.plan, self.trace, self._layouts, self._numbers)

    def reproducer(self) -> str:
        """Return a script that runs the trace without Torchy, on random inputs laid out as here.

        Raises
        ------
        ValueError
            If the layouts are not known.
        """
        layouts = [layout for layout in self._layouts if layout is not None]
        if len(layouts) < len(self.trace.views):
            raise ValueError(f"the layouts of trace {self.number} are not known")
        return reproducer(self.trace, layouts, self._numbers, self.file_names)

    @property
    def headline(self) -> str:
        """One line: how many ops and groups, why and where it was flushed, what it took."""
        where = (
            f" at {self.file_name(self.where.file)}, line {self.where.line}" if self.where else ""
        )
        saved = f", {format_bytes(self.bytes_saved)} saved" if self.bytes_saved else ""
        counts = f"{count_of(len(self.trace.ops), 'op')}, {count_of(len(self.groups), 'group')}"
        cost = f"{self.tier}, {format_seconds(self.seconds)}{saved}"
        return f"trace {self.number}: {counts}; flushed{where}: {self.reason} ({cost})"

    def file_name(self, file: str) -> str:
        """Return what the listing calls a file."""
        return self.file_names.get(file) or os.path.basename(file)

    def __repr__(self) -> str:
        """Return the listing."""
        return self.listing


class Levels(Mapping[str, str]):
    """Texts by name; each is rendered when it is first read."""

    def __init__(self, texts: Mapping[str, Callable[[], str]]) -> None:
        self._texts = texts
        self._rendered: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        """Return a text."""
        if name not in self._rendered:
            self._rendered[name] = self._texts[name]()
        return self._rendered[name]

    def __iter__(self) -> Iterator[str]:
        """Yield the names, from the most readable level down."""
        return iter(self._texts)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._texts)


@dataclass(frozen=True, eq=False)
class KernelRecord(Record):
    """A kernel, at each of its levels: of one on the CPU ``loop nest``, ``LLVM IR`` and ``assembly``.

    ``compile_seconds`` is None while it was not compiled (yet): its ops are interpreted, and it has its first level only.
    """

    shown = "id compile_seconds levels"
    id: str
    compile_seconds: float | None
    levels: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class EventRecord(Record):
    """Something worth telling that is no flush.

    ``time``: in seconds since the session began. ``where``: the line of the program, if it has to do with one.
    """

    shown = "time kind text where"
    time: float
    kind: str
    text: str
    where: Source | None = None


@dataclass(frozen=True, slots=True)
class OlderRecord(Record):
    """Flushes of one place whose own records have been dropped.

    Parameters
    ----------
    reason, where, tier
        As in :class:`TraceRecord`.
    began
        When the first of them did, as in :class:`TraceRecord`; None if that is not known.
    count, ops, seconds, bytes_saved
        Of all of them together.
    trace, plan
        What they had in common.
    """

    shown = "reason where tier began count ops seconds bytes_saved"
    reason: str
    where: Source | None
    tier: Tier
    began: float | None
    count: int
    ops: int
    seconds: float
    bytes_saved: int
    trace: Trace = field(repr=False)
    plan: Plan | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class RanNowRecord(Record):
    """Runs of one op on one line that were not recorded: torch ran it at once, as in eager.

    Parameters
    ----------
    name
        As the dispatcher spells it: ``aten::linalg_eigh``.
    file, line
        Where the program called it; None if that could not be told.
    began
        When the first of them began, in seconds since the session did.
    count, seconds
        How often, and what all of them took: of many, some were timed, which stand for the others.
    why
        Why it ran at once, in words.
    """

    shown = "name short file line began count seconds why"
    name: str
    file: str | None
    line: int | None
    began: float
    count: int
    seconds: float
    why: str

    @property
    def short(self) -> str:
        """The name without namespace and overload: ``linalg_eigh``."""
        return short_op(self.name)


@dataclass(slots=True)
class Totals(Record):
    """Counts and sums over all traces and events of the session, dropped records included."""

    shown = (
        "traces ops ran_now dead fused groups compiled seconds prepared watching bytes_saved events"
    )
    traces: int = 0
    ops: int = 0
    ran_now: int = 0  # ops that were not recorded
    dead: int = 0
    fused: int = 0
    groups: int = 0
    compiled: int = 0
    seconds: float = 0.0
    prepared: float = 0.0
    watching: float = 0.0
    bytes_saved: int = 0
    events: int = 0


def format_bytes(count: int) -> str:
    """Return a number of bytes for readers: ``2.5 KiB``."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def format_seconds(seconds: float) -> str:
    """Return a duration for readers: ``210 µs``, ``3.4 ms``, ``12 s``."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            value = seconds / scale
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{seconds / 1e-9:.0f} ns"


def count_of(number: int, noun: str) -> str:
    """Return a number of things for readers: ``1 op``, ``1,200 ops``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _at(items: Sequence[Item], index: int) -> Item | None:
    return items[index] if index < len(items) else None


def _plain(value: object) -> Any:
    match value:
        case Record():
            return value.to_dict()
        case Source():
            return {"file": value.file, "line": value.line}
        case Mapping():
            return {key: _plain(item) for key, item in value.items()}
        case tuple() | list():
            return [_plain(item) for item in value]
        case _:
            return value
