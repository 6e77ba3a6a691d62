"""What a flush runs, and what the report is told of it."""

from __future__ import annotations

import functools
import operator
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torchy.ir.trace import Layout, Source, Trace
from torchy.ir.words import layouts
from torchy.plan.checks import Check
from torchy.plan.memory import bytes_saved, never_stored
from torchy.plan.plan import FusedGroup, ops_of
from torchy.record.codes import Refusal
from torchy.record.native import Repeat, Unplanned
from torchy.record.reasons import REFUSALS
from torchy.report import ReportBuilder
from torchy.report.records import Tier
from torchy.run.execute import bytes_moved, fused_views
from torchy.run.program import Program
from torchy.run.tiers import Compiled, Sizes


@dataclass(frozen=True, slots=True)
class Recording:
    """The sizes, strides and numbers with which a trace was recorded this time; holds no tensor.

    ``times`` are the nanoseconds that each step of its program took; less than 0: why a kernel refused.
    """

    trace: Trace
    words: bytes
    number_words: bytes = b""
    times: bytes = b""

    @property
    def held_bytes(self) -> int:
        """What it holds itself."""
        return len(self.words) + len(self.number_words) + len(self.times)

    @property
    def refused(self) -> bool:
        """Whether a kernel was not launched."""
        return min(memoryview(self.times).cast("q"), default=0) < 0

    def with_checks(self, trace: Trace, checks: Sequence[Check]) -> Recording:
        """Return the recording of the same trace with views for checks, at the end; as it is, if there are none."""
        if not checks:
            return self
        known = self.layouts()
        words = bytearray(self.words)
        for check in checks:
            layout = check.layout(known[check.like])
            words += struct.pack(
                f"={1 + 2 * len(layout.sizes)}q", 0, *layout.sizes, *layout.strides
            )
        return replace(self, trace=trace, words=bytes(words))

    def layouts(self) -> tuple[Layout, ...]:
        """Return the layout of each view of the trace."""
        return layouts(self.trace, memoryview(self.words).cast("q"))

    def numbers(self) -> tuple[bool | int | float, ...]:
        """Return the numbers in the order of the trace's kinds."""
        integers = memoryview(self.number_words).cast("q")
        floats = memoryview(self.number_words).cast("d")
        return tuple(
            floats[i] if kind is float else kind(integers[i])
            for i, kind in enumerate(self.trace.number_kinds)
        )

    def buffer_bytes(self) -> list[int]:
        """Return the size of each buffer in bytes."""
        sizes = [0] * len(self.trace.buffers)
        for view, layout in zip(self.trace.views, self.layouts(), strict=True):
            if 0 not in layout.sizes:
                beyond = sum(map(operator.mul, layout.sizes, layout.strides)) - sum(layout.strides)
                count = layout.offset + beyond + 1
                sizes[view.buffer] = max(sizes[view.buffer], count * view.dtype.itemsize)
        return sizes


@dataclass(frozen=True, slots=True)
class Script:
    """What a flush runs, and why: enough for the walker to do the same again without Python.

    ``line`` is the number by which the walker knows ``where``.
    """

    entry: Compiled
    program: Program
    compiled: bool
    reason: str
    where: Source | None
    line: int

    @property
    def tier(self) -> Tier:
        """What runs it."""
        return "compiled" if self.compiled else "interpreted"

    def unstored(self) -> tuple[int, ...]:
        """Return the buffers that never get memory."""
        return tuple(never_stored(self.entry.plan, self.entry.trace)) if self.compiled else ()

    def fused_views(self) -> tuple[int, ...]:
        """Return the views that fused ops read or write, one by one."""
        return tuple(fused_views(self.entry.trace, self.entry.plan))

    def tell(
        self,
        builder: ReportBuilder,
        recording: Recording,
        began: float,
        seconds: float,
        prepared: float = 0.0,
        watching: float = 0.0,
    ) -> None:
        """Write the report's record of a flush."""
        last = self.entry.sizes.words
        sizes = self._sizes(recording)
        recording = replace(recording, words=sizes.words)
        held = (
            len(recording.number_words)
            + len(recording.times)
            + (0 if sizes.words is last else len(sizes.words))
        )
        saved = 0 if recording.refused or not self.compiled else self._bytes_saved(recording)
        spent = prepared, watching
        self._tell(builder, recording, began, seconds, saved, held, spent=spent)

    def tell_repeat(self, builder: ReportBuilder, repeat: Repeat) -> None:
        """Write the report's record of a flush that the walker has run by itself."""
        recording = Recording(self.entry.trace, repeat.words, repeat.numbers, repeat.times)
        seconds = repeat.nanoseconds * 1e-9
        by_op = isinstance(repeat.origin, Unplanned)
        began, saved = repeat.began * 1e-9, repeat.bytes_saved
        self._tell(builder, recording, began, seconds, saved, repeat.held_bytes, by_op)

    def _tell(
        self,
        builder: ReportBuilder,
        recording: Recording,
        began: float,
        seconds: float,
        saved: int,
        held: int,
        by_op: bool = False,
        spent: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        entry = self.entry
        if not builder.told.issuperset(entry.kernel_ids):
            self._tell_kernels(builder)
        builder.trace(
            reason=self.reason,
            where=self.where,
            tier=self.tier,
            began=began,
            seconds=seconds,
            prepared=spent[0],
            watching=spent[1],
            bytes_saved=saved,
            trace=recording.trace,
            plan=entry.plan,
            kernels=entry.kernel_ids,
            layouts=recording.layouts,
            numbers=recording.numbers,
            step_seconds=functools.partial(self.step_seconds, recording.times, by_op),
            refused=functools.partial(self._refused, recording.times) if recording.refused else {},
            held_bytes=held,
        )

    def _tell_kernels(self, builder: ReportBuilder) -> None:
        entry = self.entry
        for step, kernel_id, kernel in zip(
            entry.plan.steps, entry.kernel_ids, entry.kernels, strict=True
        ):
            if kernel_id is None or kernel_id in builder.told or not isinstance(step, FusedGroup):
                continue
            if kernel is not None:
                builder.told.add(kernel_id)
                builder.kernel(kernel_id, kernel.levels, kernel.compile_seconds)
            elif not builder.has_kernel(kernel_id):
                builder.kernel(kernel_id, entry.backend.levels(step.form))

    def step_seconds(self, times: bytes, by_op: bool = False) -> tuple[float, ...]:
        """Return what each step of the plan took, interpreted or as a kernel."""
        steps = self.entry.plan.steps
        step_of = {op: index for index, step in enumerate(steps) for op in ops_of(step)}
        seconds = [0.0] * len(steps)
        words = memoryview(times).cast("q")
        for op, nanoseconds in enumerate(words) if by_op else self.program.taken(words):
            # else it was not known yet that nobody needs it, or a kernel refused
            if op in step_of and nanoseconds > 0:
                seconds[step_of[op]] += nanoseconds * 1e-9
        return tuple(seconds)

    def _refused(self, times: bytes) -> dict[int, str]:
        """Return why the kernels of some steps of the plan were not launched."""
        step_of = {ops_of(step)[0]: index for index, step in enumerate(self.entry.plan.steps)}
        return {
            step_of[op]: REFUSALS[Refusal(-time)]
            for op, time in self.program.taken(memoryview(times).cast("q"))
            if time < 0
        }

    def bytes_moved(self, recording: Recording) -> int:
        """Return the bytes that eager would have moved for the ops that are fused."""
        sizes, entry = self._sizes(recording), self.entry
        if sizes.bytes_moved is None:
            sizes.bytes_moved = bytes_moved(entry.trace, entry.plan, recording.layouts())
        return sizes.bytes_moved

    def _bytes_saved(self, recording: Recording) -> int:
        """Return the bytes that eager would have allocated for what is never stored."""
        sizes, entry = self._sizes(recording), self.entry
        if sizes.bytes_saved is None:
            sizes.bytes_saved = bytes_saved(entry.plan, entry.trace, recording.buffer_bytes())
        return sizes.bytes_saved

    def _sizes(self, recording: Recording) -> Sizes:
        """Return what is reckoned from a recording's sizes: what is known, if they are as last time."""
        sizes = self.entry.sizes
        if sizes.words != recording.words:
            sizes = self.entry.sizes = Sizes(recording.words)
        return sizes
