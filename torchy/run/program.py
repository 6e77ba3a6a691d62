"""Plan -> the words that the walker's `execute.cpp` runs: each step a kernel or a call of one op.

A step's words::

    words in all, op, kernel's address (0: a call)
    n, buffers to allocate[n]
    n, buffers to release[n]

and where there is a kernel::

    1 if the kernel is for linear accesses only
    n, (offset in the recording's words, rank, buffer, item size, mode)[n]     the space, then each access
    n, numbers[n]
    1 if the rest is filled in, n, sizes and strides of these views as they were last[n], arguments

where the walker lays out the kernel's arguments (see `codegen/cpu/driver.py`): while sizes and strides stay, a launch
only fills in addresses and numbers. Programs are not shared by flushes that run at the same time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

from torchy.codegen.cpu.driver import HEADER
from torchy.codegen.cpu.kernel import Kernel
from torchy.ir.trace import Trace, View
from torchy.plan.plan import Call, FusedGroup, Plan
from torchy.record.codes import MODES
from torchy.run.interpret import group_releases

Words = ctypes.Array[ctypes.c_int64]


class ViewWords(NamedTuple):
    """Where a view's layout lies in the words of a recording: offset, sizes, strides."""

    at: int
    rank: int
    buffer: int
    itemsize: int

    def sizes(self, words: tuple[int, ...]) -> tuple[int, ...]:
        """Return the view's sizes in a recording."""
        return words[self.at + 1 : self.at + 1 + self.rank]

    def strides(self, words: tuple[int, ...]) -> tuple[int, ...]:
        """Return the view's strides in a recording, in elements."""
        return words[self.at + 1 + self.rank : self.at + 1 + 2 * self.rank]


def view_words(views: Sequence[View]) -> tuple[ViewWords, ...]:
    """Return for each view of a trace where its layout lies."""
    words, at = [], 0
    for view in views:
        words.append(ViewWords(at, view.rank, view.buffer, view.dtype.itemsize))
        at += 1 + 2 * view.rank
    return tuple(words)


def launch_words(group: FusedGroup, views: Sequence[ViewWords], kernel: Kernel) -> list[int]:
    """Return the kernel's part of a step; nothing is laid out yet."""
    space = views[group.space]
    accesses = [views[view] for view in group.accesses]
    modes = [MODES.index(access.mode) for access in group.form.accesses]
    places = [
        word
        for view, mode in zip((space, *accesses), (0, *modes), strict=True)
        for word in (view.at, view.rank, view.buffer, view.itemsize, mode)
    ]
    known = 2 * sum(view.rank for view in (space, *accesses))
    rows = 1 + max(space.rank, 1)  # one may be put before those of the space
    packed = HEADER + 2 * len(accesses) + len(group.numbers) + rows * (1 + len(accesses))
    numbers = (len(group.numbers), *group.numbers)
    room = (0, known, *[0] * (known + packed))
    return [kernel.form.flat, 1 + len(accesses), *places, *numbers, *room]


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
                launch = launch_words(step, views, kernel)
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
