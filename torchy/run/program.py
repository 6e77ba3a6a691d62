"""Plan -> the words that the walker's `execute.cpp` runs: each step a kernel or a call of one op.

A step's words::

    words in all, op, kernel's address (0: a call)
    n, buffers to allocate[n]
    n, buffers to release[n]

and what the kernel needs to be launched, which is its backend's to say (`codegen/cpu/launch.py`). Programs are not shared by
flushes that run at the same time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from torchy.codegen.backend import Kernel
from torchy.ir.trace import Trace
from torchy.ir.words import view_words
from torchy.plan.plan import Call, Plan
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
            program._add(op, (), release)
        return program._seal()

    @classmethod
    def of(cls, plan: Plan, trace: Trace, kernels: Sequence[Kernel | None]) -> Program:
        """Write a plan's program; a group without a kernel (yet) is run op by op."""
        program, views = cls(), view_words(trace.views)
        memory = zip(plan.steps, kernels, plan.allocate, plan.release, strict=True)
        for step, kernel, allocate, release in memory:
            if isinstance(step, Call):
                program._add(step.op, allocate, release)
            elif kernel is not None:
                accesses = [views[view] for view in step.accesses]
                launch = kernel.launch_words(views[step.space], accesses, step.numbers)
                program._add(step.ops[0], allocate, release, kernel, launch)
            else:
                releases = group_releases(trace, step, allocate, release)
                for op, dies in zip(step.ops, releases, strict=True):
                    program._add(op, allocate, dies)
                    allocate = ()
        return program._seal()

    def _add(
        self,
        op: int,
        allocate: Sequence[int],
        release: Sequence[int],
        kernel: Kernel | None = None,
        launch: Sequence[int] = (),
    ) -> None:
        words = [op, kernel.address if kernel else 0]
        words += [len(allocate), *allocate, len(release), *release, *launch]
        self._steps += [1 + len(words), *words]
        self.kernels += kernel is not None

    def _seal(self) -> Program:
        self.words = (ctypes.c_int64 * len(self._steps))(*self._steps)
        self.address = ctypes.addressof(self.words)
        return self

    def ops(self) -> list[int]:
        """Return the (first) op of each step."""
        found, at = [], 0
        while at < len(self.words):
            found.append(self.words[at + 1])
            at += self.words[at]
        return found

    def op(self, step: int) -> int:
        """Return the (first) op of the step that begins at a word."""
        return self.words[step + 1]
