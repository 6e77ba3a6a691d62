"""Plan -> the words that the walker's `execute.h` runs: each step a kernel or a call of one op.

A step's words::

    words in all, op, kernel's address (0: a call)
    n, buffers to allocate[n]
    n, buffers to release[n]

and where there is a kernel::

    address of known, packed words
    n, (offset in the recording's words, rank, buffer, item size)[n]     the space, then each access
    n, numbers[n]

*Known* are the sizes and strides of these views as they were last, and the arguments packed for them (see
`codegen/cpu/driver.py`): while they stay, a launch only fills in addresses and numbers. When they change,
:meth:`Program.pack` is called. Programs are not shared by flushes that run at the same time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

from torchy.codegen.cpu.kernel import Kernel
from torchy.ir.trace import Mode, Trace, View
from torchy.plan.plan import Call, FusedGroup, Plan
from torchy.run.interpret import group_releases

Words = ctypes.Array[ctypes.c_int64]


@dataclass(frozen=True, slots=True)
class ViewWords:
    """Where a view's layout lies in the words of a recording: offset, sizes, strides."""

    at: int
    rank: int
    buffer: int
    itemsize: int

    def sizes(self, words: Sequence[int]) -> Sequence[int]:
        """Return the view's sizes in a recording."""
        return words[self.at + 1 : self.at + 1 + self.rank]

    def strides(self, words: Sequence[int]) -> Sequence[int]:
        """Return the view's strides in a recording, in elements."""
        return words[self.at + 1 + self.rank : self.at + 1 + 2 * self.rank]


def view_words(views: Sequence[View]) -> tuple[ViewWords, ...]:
    """Return for each view of a trace where its layout lies."""
    words, at = [], 0
    for view in views:
        words.append(ViewWords(at, view.rank, view.buffer, view.dtype.itemsize))
        at += 1 + 2 * view.rank
    return tuple(words)


class Launch:
    """How one fused group's kernel gets its arguments from a recording."""

    def __init__(self, group: FusedGroup, views: Sequence[ViewWords], kernel: Kernel) -> None:
        self.kernel = kernel
        self.space = views[group.space]
        self.accesses = [views[view] for view in group.accesses]
        self.modes = [access.mode for access in group.form.accesses]
        self.numbers = group.numbers
        self.known: Words = (ctypes.c_int64 * 0)()

    def words(self) -> list[int]:
        """Return the kernel's part of a step; nothing is known yet."""
        views = [self.space, *self.accesses]
        places = [word for v in views for word in (v.at, v.rank, v.buffer, v.itemsize)]
        return [0, 0, len(views), *places, len(self.numbers), *self.numbers]

    def pack(self, words: Sequence[int]) -> tuple[int, int]:
        """Lay out the arguments for the layouts of a recording; addresses and numbers are zero.

        Returns
        -------
        address, packed words
            Of what is known from now on.
        """
        sizes, strides = self.space.sizes(words), self.space.strides(words)
        rank = self.space.rank
        # outermost first; dimensions of one element anywhere; of equal strides, as they come
        order = sorted(range(rank), key=lambda d: -strides[d] if sizes[d] != 1 else 0)
        order = [d for d in order if sizes[d] != 1] or order[:1]
        accesses = [
            (0, self._strides(view, mode, words, sizes, order))
            for view, mode in zip(self.accesses, self.modes, strict=True)
        ]
        packed = self.kernel.pack([sizes[d] for d in order], accesses, [0] * len(self.numbers))
        known = [
            word
            for view in (self.space, *self.accesses)
            for word in (*view.sizes(words), *view.strides(words))
        ]
        self.known = (ctypes.c_int64 * (len(known) + len(packed)))(*known, *packed)
        return ctypes.addressof(self.known), len(packed)

    @staticmethod
    def _strides(
        view: ViewWords,
        mode: Mode,
        words: Sequence[int],
        space: Sequence[int],
        order: Sequence[int],
    ) -> list[int] | None:
        if mode is Mode.LINEAR or mode is Mode.SCALAR:
            return None
        missing = len(space) - view.rank
        sizes, strides = view.sizes(words), view.strides(words)
        return [
            0
            if d < missing or (sizes[d - missing] == 1 and space[d] != 1)
            else strides[d - missing]
            for d in order
        ]


class Program:
    """A plan's steps, ready to be run for any recording of its trace."""

    def __init__(self) -> None:
        self._steps: list[int] = []
        self._launches: dict[int, tuple[int, Launch]] = {}  # by where the step begins
        self.words: Words = (ctypes.c_int64 * 0)()
        self.address = 0

    @property
    def kernels(self) -> int:
        """How many steps are kernels."""
        return len(self._launches)

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
                launch = Launch(step, views, kernel)
                program._add(step.ops[0], allocate, release, launch)
            else:
                own = group_releases(trace, step, frozenset(allocate))
                for op in step.ops[:-1]:
                    program._add(op, allocate, ())
                    allocate = ()
                program._add(step.ops[-1], allocate, (*own, *release))
        return program._seal()

    def _add(
        self,
        op: int,
        allocate: Sequence[int],
        release: Sequence[int],
        launch: Launch | None = None,
    ) -> None:
        words = [op, launch.kernel.address if launch else 0]
        words += [len(allocate), *allocate, len(release), *release]
        if launch:
            start = len(self._steps)
            self._launches[start] = (start + 1 + len(words), launch)
            words += launch.words()
        self._steps += [1 + len(words), *words]

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

    def pack(self, step: int, recording: Sequence[int]) -> None:
        """Pack the arguments of the kernel of the step that begins at a word anew."""
        at, launch = self._launches[step]
        self.words[at], self.words[at + 1] = launch.pack(recording)
