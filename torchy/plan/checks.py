"""Has kernels tell whether a NaN or an infinity is born in them, also of what they never store.

A group's form gets statements that look at its values, and stores what they find as truths: one for each element, or for
each row, in buffers that the trace does not have, its *checks*. A value counts that is not finite where all that was loaded
for it is; or that is a NaN where no NaN was loaded, whatever else is not finite. What goes on into another value that is
sure to be not finite then, too, and that nothing else is loaded for, is not looked at by itself. What a row is reduced to is
looked at without regard to the row's elements: it may have been passed on. So a check that is raised is a suspicion; running
the ops again tells.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import torch

from torchy.ir.dtypes import kind_of
from torchy.ir.kernel import (
    WHOLE,
    Access,
    KernelForm,
    Level,
    Literal,
    Load,
    Reduction,
    Result,
    RuntimeNumber,
    Statement,
    Store,
    Value,
    arguments_of,
)
from torchy.ir.trace import Buffer, Layout, Mode, Trace, View
from torchy.plan.plan import FusedGroup, Plan, Step

# By op: the arguments that make its result not finite if they are not, whatever the others are.
_PASS_ON: Final = {
    "add": (0, 1), "sub": (0, 1), "rsub": (0, 1), "mul": (0, 1), "div": (0,), "neg": (0,), "abs": (0,), "addcmul": (0, 1, 2),
    "addcdiv": (0, 1), "sqrt": (0,), "log": (0,), "log1p": (0,), "sin": (0,), "cos": (0,), "clone": (0,),
}  # fmt: skip

# Those that put a number where a mask, or a bound, says.
_PUT: Final = frozenset(("masked_fill", "where", "fill", "full_like", "nan_to_num", "clamp"))


class Check(NamedTuple):
    """A buffer for truths, and the view whose sizes, and order of dimensions in memory, it has."""

    view: int
    buffer: int
    like: int

    def layout(self, like: Layout) -> Layout:
        """Return its layout in a recording: without gaps, the dimensions in the order of those of the other view."""
        dimensions = range(len(like.sizes))
        strides, step = [0] * len(like.sizes), 1
        for d in sorted(dimensions, key=lambda d: (like.strides[d], -d)):
            strides[d] = step
            step *= like.sizes[d]
        return Layout(tuple(like.sizes), tuple(strides), 0)


class CheckedPlan(NamedTuple):
    """A plan whose kernels check, with the trace that has the checks' buffers and views, at the end."""

    plan: Plan
    trace: Trace
    checks: tuple[Check, ...]


def checked_plan(plan: Plan, trace: Trace) -> CheckedPlan:
    """Have the kernels of a plan check what they compute."""
    views, buffers = list(trace.views), list(trace.buffers)
    steps: list[Step] = []
    allocate = [list(each) for each in plan.allocate]
    checks: list[Check] = []
    for index, step in enumerate(plan.steps):
        if isinstance(step, FusedGroup):
            writer = _Writer(step)
            for like, level in writer.run(trace):
                check = Check(len(views), len(buffers), like)
                views.append(View(check.view, check.buffer, torch.bool, trace.views[like].rank))
                buffers.append(Buffer(check.buffer, step.ops[-1]))
                allocate[index].append(check.buffer)
                checks.append(check)
                writer.store(level, check.view, like)
            step = writer.group()
        steps.append(step)
    of = replace(plan, steps=tuple(steps), allocate=tuple(map(tuple, allocate)))
    return CheckedPlan(
        of, replace(trace, views=tuple(views), buffers=tuple(buffers)), tuple(checks)
    )


@dataclass(slots=True)
class _Writer:
    """Writes the checks of one group."""

    of: FusedGroup
    statements: list[Statement | Reduction] = field(init=False)
    ops: list[int] = field(init=False)  # of each statement
    accesses: list[Access] = field(init=False)
    views: list[int] = field(init=False)  # of each access
    stores: list[Store] = field(init=False)
    raised: dict[Level, Value] = field(default_factory=dict)
    op: int = -1  # that is looked at
    leaves: dict[int, frozenset[Value]] = field(default_factory=dict)  # see _leaves

    def __post_init__(self) -> None:
        form = self.of.form
        self.statements, self.ops = list(form.statements), list(self.of.statements)
        self.accesses, self.views = list(form.accesses), list(self.of.accesses)
        self.stores = list(form.stores)

    def run(self, trace: Trace) -> Iterator[tuple[int, Level]]:
        """Look at values; yield for each level with a check the view that is like it."""
        form = self.of.form
        for index in self._looked_at():
            level = max(form.levels[index], Level.ROW)
            if form.levels[index] is Level.ALL:  # stored as if elements differed
                level = Level.ELEMENT
            if self._like(level, trace) is None:
                continue  # nowhere to write it to
            found = self._born(index)
            known = self.raised.get(level)
            self.raised[level] = found if known is None else self._add("bitwise_or", known, found)
        for level in self.raised:
            like = self._like(level, trace)
            if like is not None:
                yield like, level

    def store(self, level: Level, view: int, like: int) -> None:
        """Store what a level's check has found."""
        mode = Mode.ROW
        if level is Level.ELEMENT:
            linear = any(
                known == like and access.mode is Mode.LINEAR
                for known, access in zip(self.of.accesses, self.of.form.accesses, strict=True)
            )
            mode = Mode.LINEAR if linear else Mode.UNIT
        self.accesses.append(Access(torch.bool, mode))
        self.views.append(view)
        self.stores.append(Store(len(self.accesses) - 1, self.raised[level]))

    def group(self) -> FusedGroup:
        """Return the group with its checks."""
        form = KernelForm(
            tuple(self.accesses),
            self.of.form.number_kinds,
            tuple(self.statements),
            tuple(self.stores),
            self.of.form.axes,
        )
        return replace(self.of, form=form, accesses=tuple(self.views), statements=tuple(self.ops))

    def _looked_at(self) -> list[int]:
        """Return the statements whose values are looked at: ops' results that no other one tells of."""
        form, ops = self.of.form, self.of.statements
        stored = {store.value.statement for store in form.stores if isinstance(store.value, Result)}
        users: dict[int, list[int]] = {}
        for user, statement in enumerate(form.statements):
            for value in arguments_of(statement):
                if isinstance(value, Result):
                    users.setdefault(value.statement, []).append(user)
        last = {op: index for index, op in enumerate(ops)}
        told: set[int] = set()  # also by what tells of them
        found = []
        for index in reversed(range(len(form.statements))):
            statement = form.statements[index]
            of_op = ops[index]
            is_result = (
                index in stored
                or last[of_op] == index
                or any(ops[user] != of_op for user in users.get(index, ()))
            )
            if kind_of(statement.dtype) != "f":
                continue
            if any(user in told and self._tells_of(user, index) for user in users.get(index, ())):
                told.add(index)
            elif is_result:
                told.add(index)
                found.append(index)
        return found[::-1]

    def _tells_of(self, user: int, index: int) -> bool:
        """Tell whether one value's check serves another: it is not finite if that is not, and of nothing else."""
        statement = self.of.form.statements[user]
        if kind_of(statement.dtype) != "f":
            return False
        if isinstance(statement, Reduction):
            return statement.operator == "sum"
        passing = _PASS_ON.get(statement.op, ())
        passes = any(statement.arguments[at] == Result(index) for at in passing)
        # what is loaded for it alone may be not finite, and excuse it
        leaves = self._leaves(user)
        meant = any(isinstance(leaf, Literal) and not _is_finite(leaf) for leaf in leaves)
        return passes and not meant and leaves <= self._leaves(index)

    def _born(self, index: int) -> Value:
        """Write what tells whether a value is born not finite."""
        dtype = self.of.form.statements[index].dtype
        value = Result(index)
        self.op = self.of.statements[index]
        if isinstance(self.of.form.statements[index], Reduction):
            return self._odd(value, dtype)
        nan_given: Value | None = None
        odd_given: Value | None = None
        meant_nan = meant_odd = False
        leaves: Iterable[Value] = self._leaves(index)
        if any(isinstance(leaf, Literal) and not _is_finite(leaf) for leaf in leaves):
            leaves = self._direct(index)  # what is meant so excuses only what it goes into
        for leaf in sorted(leaves, key=repr):  # the same in all processes
            if isinstance(leaf, Literal):
                number = float(leaf.value)  # type: ignore[arg-type]
                meant_nan |= math.isnan(number)
                meant_odd |= not math.isfinite(number)
                continue
            kind = self._dtype(leaf)
            nan, odd = self._nan(leaf, kind), self._odd(leaf, kind)
            nan_given = nan if nan_given is None else self._add("bitwise_or", nan_given, nan)
            odd_given = odd if odd_given is None else self._add("bitwise_or", odd_given, odd)
        found: Value | None = None
        if not meant_nan:
            found = self._unless(nan_given, self._nan(value, dtype))
        if not meant_odd:
            odd = self._unless(odd_given, self._odd(value, dtype))
            found = odd if found is None else self._add("bitwise_or", found, odd)
        return Literal(False) if found is None else found

    def _dtype(self, value: Value) -> torch.dtype:
        match value:
            case Load(access):
                return self.of.form.accesses[access].dtype
            case Result(statement):
                return self.of.form.statements[statement].dtype
        return torch.float64

    def _direct(self, index: int) -> list[Value]:
        """Return the floating-point numbers that a statement is given."""
        form = self.of.form
        return [
            value
            for value in dict.fromkeys(arguments_of(form.statements[index]))
            if (isinstance(value, (Load, Result)) and kind_of(self._dtype(value)) == "f")
            or (isinstance(value, RuntimeNumber) and form.number_kinds[value.index] is float)
            or (isinstance(value, Literal) and isinstance(value.value, float))
        ]

    def _leaves(self, index: int) -> frozenset[Value]:
        """Return the floating-point numbers that a value is made of, element by element.

        A number that an op puts where a mask says may be meant to be infinite: it counts as if it were.
        """
        if index not in self.leaves:
            form, found = self.of.form, set[Value]()
            statement = form.statements[index]
            if isinstance(statement, Statement):
                for value in statement.arguments:
                    if isinstance(value, Result):
                        found |= self._leaves(value.statement)
                    elif isinstance(value, Load):
                        if kind_of(form.accesses[value.access].dtype) == "f":
                            found.add(value)
                    elif isinstance(value, RuntimeNumber):
                        if form.number_kinds[value.index] is float:
                            found.add(Literal(math.inf) if statement.op in _PUT else value)
                    elif isinstance(value, Literal) and isinstance(value.value, float):
                        found.add(value)
            self.leaves[index] = frozenset(found)
        return self.leaves[index]

    def _nan(self, value: Value, dtype: torch.dtype) -> Value:
        return self._statement("isnan", (value,), dtype, torch.bool)

    def _odd(self, value: Value, dtype: torch.dtype) -> Value:
        """Of what is not finite, the difference with itself is a NaN."""
        difference = self._statement("sub", (value, value, Literal(1)), dtype, dtype)
        return self._nan(difference, dtype)

    def _unless(self, given: Value | None, value: Value) -> Value:
        if given is None:
            return value
        none = self._statement("logical_not", (given,), torch.bool, torch.bool)
        return self._add("logical_and", value, none)

    def _add(self, op: str, one: Value, other: Value) -> Value:
        return self._statement(op, (one, other), torch.bool, torch.bool)

    def _statement(
        self, op: str, arguments: tuple[Value, ...], compute: torch.dtype, dtype: torch.dtype
    ) -> Value:
        self.statements.append(Statement(op, arguments, compute, dtype))
        self.ops.append(self.op)
        return Result(len(self.statements) - 1)

    def _like(self, level: Level, trace: Trace) -> int | None:
        """Return a view that lies as a level's check should; None if there is none."""
        form = self.of.form
        if level is Level.ELEMENT:
            for view, access in zip(self.of.accesses, form.accesses, strict=True):
                if access.mode is Mode.LINEAR:
                    return view
            lies_as_space = not (form.by_position or form.has_loose_rows or form.axes == WHOLE)
            return self.of.space if lies_as_space else None
        for view, access in zip(self.of.accesses, form.accesses, strict=True):
            if access.mode is Mode.ROW:
                return view
        return None


def _is_finite(literal: Literal) -> bool:
    return math.isfinite(literal.value) if isinstance(literal.value, float) else True
