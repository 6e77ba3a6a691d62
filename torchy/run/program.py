"""Plan -> the words that the walker's `execute.cpp` runs: each step a kernel or a call of one op.

A step's words::

    words in all, op, kernel's address (0: a call)
    n, buffers to allocate[n]
    n, buffers to release[n]

and for a kernel how many words the steps have that follow for the case that it refuses (its ops, as calls; they are passed
over if it runs), and what it needs to be launched, which is its backend's to say (`codegen/cpu/launch.py`). Programs are not
shared by flushes that run at the same time.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterable, Iterator, Sequence

from torchy.codegen.backend import Kernel
from torchy.ir.trace import Trace
from torchy.ir.words import view_words
from torchy.plan.plan import Call, FusedGroup, Plan
from torchy.run.interpret import group_releases

Words = ctypes.Array[ctypes.c_int64]


class Program:
    """A plan's steps, ready to be run for any recording of its trace."""

    def __init__(self) -> None:
        self._steps: list[int] = []
        self.kernels = 0  # how many steps are kernels
        self.words: Words = (ctypes.c_int64 * 0)()
        self.address = 0

    @classmethod
    def at(cls, address: int, size: int) -> Program:
        """Return a program that is the walker's own; its words are copied, for whoever asks after it is gone."""
        program = cls()
        program.words = (ctypes.c_int64 * size).from_buffer_copy(
            (ctypes.c_int64 * size).from_address(address)
        )
        program.address = address
        return program

    @classmethod
    def interpreting(cls, schedule: Sequence[tuple[int, Sequence[int]]]) -> Program:
        """Write a program that runs ops one by one: see :func:`torchy.run.interpret.interpretation`."""
        program = cls()
        for op, release in schedule:
            program._steps += _step(op, (), release)
        return program._seal()

    @classmethod
    def of(cls, plan: Plan, trace: Trace, kernels: Sequence[Kernel | None]) -> Program:
        """Write a plan's program; a group without a kernel (yet) is run op by op."""
        program, views = cls(), view_words(trace.views)
        memory = zip(plan.steps, kernels, plan.allocate, plan.release, strict=True)
        for step, kernel, allocate, release in memory:
            if isinstance(step, Call):
                program._steps += _step(step.op, allocate, release)
                continue
            calls: list[int] = []
            if kernel is None or kernel.may_refuse:
                calls = _calls(trace, step, allocate, release)
            if kernel is not None:
                accesses = [views[view] for view in step.accesses]
                launch = kernel.launch_words(
                    views[step.space], accesses, step.numbers, step.reduced
                )
                code = kernel.address, len(calls), *launch
                program._steps += _step(step.ops[0], allocate, release, code)
                program.kernels += 1
            program._steps += calls
        return program._seal()

    def _seal(self) -> Program:
        self.words = (ctypes.c_int64 * len(self._steps))(*self._steps)
        self.address = ctypes.addressof(self.words)
        return self

    @property
    def calls(self) -> int:
        """How many steps are calls, where no kernel refuses."""
        return sum(1 for _ in self.taken(itertools.repeat(0))) - self.kernels

    def taken(self, times: Iterable[int]) -> Iterator[tuple[int, int]]:
        """Yield the (first) op of each step that was launched or called, and its time.

        Parameters
        ----------
        times
            Of the steps, in nanoseconds; less than 0 where a kernel refused: see :class:`torchy.record.codes.Refusal`.
        """
        at, words = 0, self.words
        for time in times:
            if at >= len(words):
                return
            size, op, kernel, allocated = words[at : at + 4]
            yield op, time
            if kernel and time >= 0:
                released = words[at + 4 + allocated]
                otherwise = words[at + 5 + allocated + released]  # for the case that it refuses
                size += otherwise
            at += size

    def op(self, step: int) -> int:
        """Return the (first) op of the step that begins at a word."""
        return self.words[step + 1]


def _step(
    op: int, allocate: Sequence[int], release: Sequence[int], code: Sequence[int] = (0,)
) -> list[int]:
    """Write one step; ``code``: the kernel's address, and what follows the memory."""
    kernel, *rest = code
    words = [op, kernel, len(allocate), *allocate, len(release), *release, *rest]
    return [1 + len(words), *words]


def _calls(
    trace: Trace, group: FusedGroup, allocate: Sequence[int], release: Sequence[int]
) -> list[int]:
    """Write the steps that run a group op by op."""
    steps: list[int] = []
    releases = group_releases(trace, group, allocate, release)
    touched = {
        trace.buffer_of(v)
        for op in group.ops
        for v in (*trace.ops[op].reads, *trace.ops[op].writes)
    }
    allocate = [
        buffer for buffer in allocate if buffer in touched
    ]  # else its kernel's own: a check
    for op, dies in zip(group.ops, releases, strict=True):
        steps += _step(op, allocate, dies)
        allocate = ()
    return steps
