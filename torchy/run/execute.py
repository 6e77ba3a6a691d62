"""Running a plan: memory for each step, then its kernel or its call."""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from torchy.codegen.cpu.kernel import Kernel
from torchy.ir.trace import Layout, Mode, Trace
from torchy.plan.plan import FusedGroup, Plan
from torchy.record.native import Running, Walker
from torchy.run.interpret import group_releases

SMALL = 32768  # elements: below, one thread is faster (ATen's own grain size)


class OutOfMemory(RuntimeError):
    """Memory for a recorded op could not be had; torch's own exception type is RuntimeError too."""


@dataclass(frozen=True, slots=True)
class ViewWords:
    """Where a view's layout lies in the words of a recording: offset, sizes, strides."""

    at: int
    rank: int
    buffer: int
    itemsize: int


def view_words(trace: Trace) -> tuple[ViewWords, ...]:
    """Return for each view where its layout lies."""
    words, at = [], 0
    for view in trace.views:
        words.append(ViewWords(at, view.rank, view.buffer, view.dtype.itemsize))
        at += 1 + 2 * view.rank
    return tuple(words)


def layouts(trace: Trace, words: Sequence[int]) -> tuple[Layout, ...]:
    """Return the layout of each view in a recording."""
    found = []
    for view in view_words(trace):
        sizes = view.at + 1
        strides = sizes + view.rank
        found.append(
            Layout(
                tuple(words[sizes:strides]),
                tuple(words[strides : strides + view.rank]),
                words[view.at],
            )
        )
    return tuple(found)


def bytes_moved(trace: Trace, layouts: Sequence[Layout]) -> int:
    """Return the bytes that a trace's ops read and write if they run one by one."""
    sizes = [
        math.prod(layout.sizes) * view.dtype.itemsize
        for view, layout in zip(trace.views, layouts, strict=True)
    ]
    return sum(sizes[view] for op in trace.ops for view in (*op.reads, *op.writes))


class Binding:
    """How one fused group gets its arguments from a recording; knows no sizes."""

    __slots__ = (
        "accesses", "flat", "kernel", "kernel_id", "modes", "numbers", "op_count", "ops", "settled", "space",
    )  # fmt: skip

    def __init__(
        self, trace: Trace, group: FusedGroup, words: Sequence[ViewWords], kernel_id: str
    ) -> None:
        self.kernel_id = kernel_id
        self.kernel: Kernel | None = None  # once it is compiled
        self.settled = False  # compiled, or known not to compile
        self.flat = group.form.flat
        self.space = words[group.space]
        self.accesses = [words[view] for view in group.accesses]
        self.modes = [access.mode for access in group.form.accesses]
        self.numbers = tuple(zip(group.numbers, group.form.number_kinds, strict=True))
        self.ops = (ctypes.c_int64 * len(group.ops))(*group.ops)
        self.op_count = len(group.ops)

    def arguments(
        self,
        kernel: Kernel,
        words: ctypes.Array[ctypes.c_int64],
        slots: ctypes.Array[ctypes.c_int64],
        numbers: ctypes.Array[ctypes.c_int64],
    ) -> tuple[ctypes.Array[ctypes.c_int64], int]:
        """Return the kernel's packed arguments and the number of elements of its space."""
        space = self.space
        sizes = words[space.at + 1 : space.at + 1 + space.rank]
        elements = 1
        for size in sizes:
            elements *= size
        values = [_number(numbers[index], kind) for index, kind in self.numbers]
        addresses = [slots[3 * v.buffer] + words[v.at] * v.itemsize for v in self.accesses]
        if self.flat:
            return kernel.pack(sizes, [(address, None) for address in addresses], values), elements
        strides = words[space.at + 1 + space.rank : space.at + 1 + 2 * space.rank]
        # outermost first; dimensions of one element anywhere; of equal strides, as they come
        order = sorted(range(space.rank), key=lambda d: -strides[d] if sizes[d] != 1 else 0)
        order = [d for d in order if sizes[d] != 1] or order[:1]
        packed = [
            (address, self._strides(view, mode, words, sizes, order))
            for address, view, mode in zip(addresses, self.accesses, self.modes, strict=True)
        ]
        return kernel.pack([sizes[d] for d in order], packed, values), elements

    @staticmethod
    def _strides(
        view: ViewWords,
        mode: Mode,
        words: ctypes.Array[ctypes.c_int64],
        space: Sequence[int],
        order: Sequence[int],
    ) -> list[int] | None:
        if mode is Mode.LINEAR or mode is Mode.SCALAR:
            return None
        missing = len(space) - view.rank
        sizes = words[view.at + 1 : view.at + 1 + view.rank]
        strides = words[view.at + 1 + view.rank : view.at + 1 + 2 * view.rank]
        return [
            0
            if d < missing or (sizes[d - missing] == 1 and space[d] != 1)
            else strides[d - missing]
            for d in order
        ]


def _number(bits: int, kind: type) -> bool | int | float:
    if kind is float:
        return float(struct.unpack("=d", struct.pack("=q", bits))[0])
    return bits


class Execution:
    """One flush of one trace: can stop between two steps and go on later, from any call stack."""

    def __init__(self, walker: Walker, session: int, running: Running) -> None:
        self.walker = walker
        self.session = session
        self.words = (ctypes.c_int64 * running.word_count).from_address(running.words or 8)
        self.numbers = (ctypes.c_int64 * running.number_count).from_address(running.numbers or 8)
        self.slots = (ctypes.c_int64 * (3 * running.slot_count)).from_address(running.slots or 8)
        self.at = 0
        self.finished = False
        self.op = 0  # the op that is being run, for whoever has to name it

    def interpret(self, schedule: Sequence[tuple[int, Sequence[int]]]) -> None:
        """Run ops one by one."""
        library, run, session = self.walker.library, self.walker.run, self.session
        while not self.finished and self.at < len(schedule):
            self.op, release = schedule[self.at]
            run(session, self.op)
            for buffer in release:
                library.torchy_release(session, buffer)
            self.at += 1

    def execute(
        self,
        plan: Plan,
        trace: Trace,
        bindings: Sequence[Binding | None],
    ) -> None:
        """Run the steps of a plan; a group whose kernel is not there (yet) is interpreted."""
        library, run, session = self.walker.library, self.walker.run, self.session
        while not self.finished and self.at < len(plan.steps):
            step, binding = plan.steps[self.at], bindings[self.at]
            kernel = binding.kernel if binding is not None else None
            self.op = step.ops[0] if isinstance(step, FusedGroup) else step.op
            for buffer in plan.allocate[self.at]:
                if not library.torchy_allocate(session, buffer):
                    raise OutOfMemory(library.torchy_last_text().decode())
            if kernel is not None and binding is not None:
                packed, elements = binding.arguments(kernel, self.words, self.slots, self.numbers)
                threads = torch.get_num_threads() if elements >= SMALL else 1
                library.torchy_launch(
                    session, kernel.address, packed, threads, binding.ops, binding.op_count
                )
            else:
                for op in step.ops if isinstance(step, FusedGroup) else (step.op,):
                    self.op = op
                    run(session, op)
                kept = frozenset(plan.allocate[self.at])
                for buffer in group_releases(trace, step, kept):
                    library.torchy_release(session, buffer)
            for buffer in plan.release[self.at]:
                library.torchy_release(session, buffer)
            self.at += 1
