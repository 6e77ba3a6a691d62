"""The notebook in which a session writes down what it does."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from torchy.ir.listing import Layouts, Numbers
from torchy.ir.trace import Source, Trace
from torchy.plan.plan import FusedGroup, Plan
from torchy.report.records import (
    EventRecord,
    KernelRecord,
    Levels,
    OlderRecord,
    RanNowRecord,
    Refused,
    Seconds,
    Tier,
    Totals,
    TraceRecord,
)
from torchy.report.report import Report

MOST_HELD_BYTES = 4 << 20  # by records, beside what their places hold anyway


class ReportBuilder:
    """Collects what a session tells; any thread may call it, also in the midst of its own calls.

    The session calls :meth:`trace` at each flush, :meth:`kernel` when a kernel is first used and
    again when it has been compiled, :meth:`event` for the rest, and returns :meth:`report` as
    ``Session.report``::

        builder = ReportBuilder()
        builder.kernel("k1f3a", source=lambda: loops.show(form))
        builder.trace(
            reason="item()",
            where=Source("train.py", 7),
            tier="interpreted",
            seconds=2e-4,
            bytes_saved=2560,
            trace=trace,
            plan=plan,
            kernels=("k1f3a",),
            layouts=layouts,
        )
        builder.event("kernel failed to compile", "k1f3a: interpreted")
        builder.report().summary()

    Parameters
    ----------
    keep
        How many traces and events are kept; older ones are dropped, but counted.
    clock
        Gives seconds.
    began
        From when on events are dated; default: the builder's birth.
    """

    def __init__(
        self,
        keep: int = 1000,
        clock: Callable[[], float] = time.perf_counter,
        began: float | None = None,
    ) -> None:
        self._clock = clock
        self._began = clock() if began is None else began
        self.lock = threading.RLock()  # a fork takes it first
        self._keep = keep
        self._traces: deque[TraceRecord] = deque()
        self._held: deque[int] = deque()  # bytes, by trace
        self._held_bytes = 0
        self._events: deque[EventRecord] = deque(maxlen=keep)
        self._kernels: dict[str, KernelRecord] = {}
        self._uses: Counter[str] = Counter()  # of a kernel, by the traces that are kept
        self.told: set[str | None] = {None}  # kernels whose code it has
        # by what a place's flushes have in common
        self._older: dict[tuple[int, int, str, Source | None, Tier], OlderRecord] = {}
        self._ran_now: dict[tuple[str, Source | None, str], RanNowRecord] = {}
        self._totals = Totals()

    def trace(
        self,
        *,
        reason: str,
        where: Source | None,
        tier: Tier,
        began: float | None = None,
        seconds: float,
        prepared: float = 0.0,
        watching: float = 0.0,
        bytes_saved: int,
        trace: Trace,
        plan: Plan | None = None,
        kernels: Sequence[str | None] = (),
        layouts: Layouts | Callable[[], Layouts] = (),
        numbers: Numbers | Callable[[], Numbers] = (),
        step_seconds: Seconds | Callable[[], Seconds] = (),
        refused: Refused | Callable[[], Refused] = MappingProxyType({}),
        held_bytes: int = 0,
    ) -> None:
        """Note a flush.

        Parameters
        ----------
        reason, where, tier, seconds, prepared, watching, bytes_saved
            See :class:`TraceRecord`.
        began
            By the builder's clock; default: so long ago that it has just ended.
        trace, plan
            Shared with the place that they belong to, not copied. Without a plan no op has a group.
        kernels
            For each step of the plan its kernel's id (None for a call). Give it also when the step
            was interpreted, if the kernel has been told of, so that its loop nest can be shown.
        layouts
            For each view of the trace its layout, or a function that gives them when somebody reads
            the record. It must hold no tensor.
        numbers
            The recording's numbers, or a function that gives them.
        step_seconds
            For each step what it took, where that was measured, or a function that gives them.
        refused
            For steps whose kernel was not launched: why, or a function that gives that.
        held_bytes
            What the record's own data take: the oldest records go once all take too much.
        """
        with self.lock:
            record = TraceRecord(
                self._totals.traces,
                reason,
                where,
                tier,
                (self._clock() - seconds if began is None else began) - self._began,
                seconds,
                prepared,
                watching,
                bytes_saved,
                trace,
                plan,
                kernels,
                layouts,
                numbers,
                step_seconds,
                refused,
            )
            self._count(1, len(trace.ops), seconds, bytes_saved, tier, plan)
            self._totals.prepared += prepared
            self._totals.watching += watching
            self._uses.update(id for id in kernels if id is not None)
            self._traces.append(record)
            self._held.append(held_bytes)
            self._held_bytes += held_bytes
            while len(self._traces) > self._keep or self._held_bytes > MOST_HELD_BYTES:
                self._held_bytes -= self._held.popleft()
                oldest = self._traces.popleft()
                self._forget_kernels(oldest.kernels)
                self._add_older(
                    OlderRecord(
                        oldest.reason,
                        oldest.where,
                        oldest.tier,
                        oldest.began,
                        1,
                        len(oldest.trace.ops),
                        oldest.seconds,
                        oldest.bytes_saved,
                        oldest.trace,
                        oldest.plan,
                    )
                )

    def skip(
        self,
        *,
        count: int,
        ops: int,
        seconds: float,
        bytes_saved: int,
        tier: Tier,
        plan: Plan | None = None,
        trace: Trace | None = None,
        reason: str = "",
        where: Source | None = None,
    ) -> None:
        """Note so many flushes of one plan of which there is no record any more: they count in the totals.

        Ops, seconds and bytes are those of all of them. Without a trace nothing else is known of them.
        """
        with self.lock:
            self._count(count, ops, seconds, bytes_saved, tier, plan)
            if trace is not None:
                self._add_older(
                    OlderRecord(
                        reason, where, tier, None, count, ops, seconds, bytes_saved, trace, plan
                    )
                )

    def _add_older(self, more: OlderRecord) -> None:
        key = (id(more.trace), id(more.plan), more.reason, more.where, more.tier)
        known = self._older.get(key)
        if known is not None:
            more = replace(
                known,
                count=known.count + more.count,
                ops=known.ops + more.ops,
                seconds=known.seconds + more.seconds,
                bytes_saved=known.bytes_saved + more.bytes_saved,
            )
        elif len(self._older) >= self._keep:
            return
        self._older[key] = more

    def _count(
        self,
        count: int,
        ops: int,
        seconds: float,
        bytes_saved: int,
        tier: Tier,
        plan: Plan | None,
    ) -> None:
        steps, totals = plan.steps if plan else (), self._totals
        totals.traces += count
        totals.ops += ops
        totals.dead += count * (len(plan.dead) if plan else 0)
        totals.groups += count * len(steps)
        totals.fused += count * sum(len(step.ops) for step in steps if isinstance(step, FusedGroup))
        totals.compiled += count * (tier == "compiled")
        totals.seconds += seconds
        totals.bytes_saved += bytes_saved

    def _forget_kernels(self, ids: Sequence[str | None]) -> None:
        """Let go of a dropped trace's kernels, with their code, that no other one has."""
        for id in ids:
            if id is None:
                continue
            self._uses[id] -= 1
            if self._uses[id] <= 0:
                del self._uses[id]
                self._kernels.pop(id, None)
                self.told.discard(id)

    def kernel(
        self,
        id: str,
        levels: Mapping[str, Callable[[], str]],
        compile_seconds: float | None = None,
    ) -> None:
        """Note a kernel, or replace what is known of it.

        Parameters
        ----------
        levels
            By name, from the most readable one down, what gives its text: called on reading.
        compile_seconds
            None: it has not been compiled (yet).
        """
        record = KernelRecord(id, compile_seconds, Levels(levels))
        with self.lock:
            self._kernels[id] = record

    def has_kernel(self, id: str) -> bool:
        """Return True if the kernel has been told of."""
        return id in self._kernels

    def event(self, kind: str, text: str, where: Source | None = None) -> None:
        """Note anything else: ``event("policy raised", "aten::foo: KeyError: ...")``."""
        record = EventRecord(self._clock() - self._began, kind, text, where)
        with self.lock:
            self._totals.events += 1
            self._events.append(record)

    def ran_now(
        self,
        *,
        name: str,
        where: Source | None,
        why: str,
        began: float,
        count: int,
        seconds: float,
    ) -> None:
        """Note that an op has run at once so often: see :class:`RanNowRecord`. ``began``: by the builder's clock."""
        file, line = (where.file, where.line) if where else (None, None)
        with self.lock:
            known = self._ran_now.get((name, where, why))
            if known is None:
                known = RanNowRecord(name, file, line, began - self._began, 0, 0.0, why)
            self._ran_now[name, where, why] = replace(
                known, count=known.count + count, seconds=known.seconds + seconds
            )

    def report(self, ran_now: int = 0) -> Report:
        """Return a snapshot: what is told later does not change it.

        Parameters
        ----------
        ran_now
            How many ops were not recorded.
        """
        with self.lock:
            totals = replace(self._totals, ran_now=ran_now)
            ran = tuple(self._ran_now.values())
            traces, older = tuple(self._traces), tuple(self._older.values())
            return Report(traces, dict(self._kernels), tuple(self._events), totals, ran, older)
