"""One flush: what it runs, and what the report is told of it."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from time import perf_counter

from torchy.codegen.loops import lower
from torchy.ir.kernel import KernelForm
from torchy.ir.ops import Numerics
from torchy.ir.trace import Layout, Source, Trace
from torchy.plan.memory import bytes_saved
from torchy.plan.plan import FusedGroup, ops_of
from torchy.record.native import Walker
from torchy.report import ReportBuilder
from torchy.run.execute import Execution, bytes_moved, layouts
from torchy.run.pace import Pace
from torchy.run.program import Program
from torchy.run.tiers import Compiled, Sizes


@dataclass(frozen=True, slots=True)
class Recording:
    """The sizes, strides and numbers with which a trace was recorded this time; holds no tensor.

    ``times`` are the nanoseconds that each step of its program took.
    """

    trace: Trace
    words: bytes
    number_words: bytes
    times: bytes = b""

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
            last = sum((n - 1) * s for n, s in zip(layout.sizes, layout.strides, strict=True))
            count = 0 if 0 in layout.sizes else layout.offset + last + 1
            sizes[view.buffer] = max(sizes[view.buffer], count * view.dtype.itemsize)
        return sizes


@dataclass(frozen=True, slots=True)
class Script:
    """What a flush runs, and why: enough for the walker to do the same again without Python."""

    entry: Compiled
    program: Program
    compiled: bool
    numerics: Numerics
    reason: str
    where: Source | None

    def tell(self, builder: ReportBuilder, recording: Recording, seconds: float) -> None:
        """Write the report's record of a flush."""
        entry, last = self.entry, self.entry.sizes.words
        sizes = self._sizes(recording)
        recording = replace(recording, words=sizes.words)
        held = (
            len(recording.number_words)
            + len(recording.times)
            + (0 if sizes.words is last else len(sizes.words))
        )
        if not builder.told.issuperset(entry.kernel_ids):
            self._tell_kernels(builder)
        builder.trace(
            reason=self.reason,
            where=self.where,
            tier="compiled" if self.compiled else "interpreted",
            seconds=seconds,
            bytes_saved=sizes.bytes_saved if self.compiled else 0,
            trace=recording.trace,
            plan=entry.plan,
            kernels=entry.kernel_ids,
            layouts=recording.layouts,
            numbers=recording.numbers,
            step_seconds=functools.partial(self._step_seconds, recording.times),
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
                builder.kernel(
                    kernel_id,
                    compile_seconds=kernel.compile_seconds,
                    source=functools.partial(getattr, kernel, "source"),
                    llvm_ir=functools.partial(getattr, kernel, "llvm_ir"),
                    assembly=functools.partial(getattr, kernel, "assembly"),
                )
            elif not builder.has_kernel(kernel_id):
                source = functools.partial(_loop_nest, step.form, self.numerics)
                builder.kernel(kernel_id, source=source)

    def _step_seconds(self, times: bytes) -> tuple[float, ...]:
        """Return what each step of the plan took, interpreted or as a kernel."""
        steps = self.entry.plan.steps
        step_of = {op: index for index, step in enumerate(steps) for op in ops_of(step)}
        seconds = [0.0] * len(steps)
        for op, nanoseconds in zip(self.program.ops(), memoryview(times).cast("q"), strict=False):
            seconds[step_of[op]] += nanoseconds * 1e-9
        return tuple(seconds)

    def weigh(self, pace: Pace, recording: Recording, seconds: float) -> None:
        """Add to a session's pace what this took but for calls, and what eager would have taken."""
        pace.add(len(recording.trace.ops), self._sizes(recording).bytes_moved, seconds)

    def _sizes(self, recording: Recording) -> Sizes:
        """Return what is reckoned from a recording's sizes: what is known, if they are as last time."""
        entry = self.entry
        if entry.sizes.words != recording.words:
            layouts = recording.layouts()
            entry.sizes = Sizes(
                recording.words,
                bytes_saved(entry.plan, recording.trace, recording.buffer_bytes()),
                bytes_moved(recording.trace, entry.plan, layouts),
            )
        return entry.sizes


class Flush:
    """A flush under way, of a serial number in its session; ``kept`` if the walker keeps the script."""

    def __init__(
        self,
        walker: Walker,
        session: int,
        serial: int,
        script: Script,
        recording: Recording,
        kept: bool = False,
    ) -> None:
        self.serial = serial
        self.kept = kept
        self.script = script
        self.recording = recording
        self.execution = Execution(walker, session, memoryview(recording.words).cast("q"))
        self.seconds = 0.0

    def advance(self) -> None:
        """Run what has not been run; may raise, and may be called again."""
        begin = perf_counter()
        try:
            self.execution.run(self.script.program)
        except Exception as error:
            index = self.execution.op(self.script.program)
            if index is not None:
                op = self.recording.trace.ops[index]
                error.add_note(f"Torchy was running {op.name}, recorded at {op.source}")
            raise
        finally:
            self.seconds += perf_counter() - begin


def _loop_nest(form: KernelForm, numerics: Numerics) -> str:
    return str(lower(form, numerics))
