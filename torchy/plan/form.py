"""Writes a group down as a kernel form: what is left when trace, sizes and numbers are left out.

Everything is numbered by first use, so equal groups have equal forms, wherever they were recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from torchy.ir.kernel import (
    COLUMNS,
    ELEMENTS,
    ROWS,
    WHOLE,
    Access,
    Functions,
    KernelForm,
    Literal,
    Load,
    Reduction,
    Result,
    RuntimeNumber,
    Statement,
    Store,
    Value,
)
from torchy.ir.trace import Constant, Mode, Number, Operand, Trace
from torchy.plan.plan import FusedGroup
from torchy.plan.roles import Role, RowFormula, is_literal


def fused_group(
    trace: Trace,
    roles: Sequence[Role],
    ops: Sequence[int],
    modes: dict[int, Mode],
    stored: Iterable[int],
) -> FusedGroup:
    """Return the fused group of some ops.

    Parameters
    ----------
    ops
        Indices of the ops, in order.
    modes
        By view: how its memory is walked.
    stored
        Views written by the group that must be left in memory.
    """
    writer = _Writer(trace, modes)
    statements: list[int] = []  # the op of each
    for index in ops:
        writer.write(roles[index])
        statements += [index] * (len(writer.statements) - len(statements))
    for view in stored:
        writer.store(view)
    reductions = [formula for op in ops if isinstance(formula := roles[op].formula, RowFormula)]
    space = reductions[0].op.rows if reductions else roles[ops[0]].space
    reduced = reductions[0].op.dimensions if reductions else ()
    axes = ELEMENTS
    if reductions:
        axes = COLUMNS if reductions[0].columns else ROWS
    form = KernelForm(
        tuple(Access(trace.views[view].dtype, modes[view]) for view in writer.accesses),
        tuple(trace.number_kinds[number] for number in writer.numbers),
        tuple(writer.statements),
        tuple(writer.stores),
        axes,
    )
    if axes == ROWS and len(reduced) == trace.views[space].rank and form.one_pass:
        form = replace(form, axes=WHOLE)
    accesses, numbers = tuple(writer.accesses), tuple(writer.numbers)
    return FusedGroup(tuple(ops), form, accesses, numbers, space, reduced, tuple(statements))


class _Writer:
    def __init__(self, trace: Trace, modes: dict[int, Mode]) -> None:
        self._modes = modes
        self._values: dict[int, Value] = {}  # by view: its value so far
        self.accesses: dict[int, int] = {}  # by view, numbered by first use
        self.numbers: dict[int, int] = {}
        self.statements: list[Statement | Reduction] = []
        self.stores: list[Store] = []

    def write(self, role: Role) -> None:
        formula = role.formula
        assert formula is not None  # only fusable ops join a group
        if isinstance(formula, RowFormula):
            of_rows = formula.op
            values = {name: self._value(given) for name, given in of_rows.operands.items()}
            values |= {name: self._value(given) for name, given in of_rows.numbers.items()}
            statements, results = of_rows.spec.statements(
                values, formula.dtype, formula.orders, first=len(self.statements)
            )
            self.statements += statements
            self._values.update(zip(role.writes, results, strict=True))
        else:
            arguments = tuple(map(self._value, formula.arguments))
            functions = Functions.POSITION if formula.by_position else Functions.ARRAYS
            self.statements.append(
                Statement(formula.op, arguments, formula.compute, formula.dtype, functions)
            )
            self._values[role.writes[0]] = Result(len(self.statements) - 1)

    def store(self, view: int) -> None:
        self.stores.append(Store(self._access(view), self._values[view]))

    def _value(self, argument: Operand | Number | Constant) -> Value:
        if isinstance(argument, Operand):
            known = self._values.get(argument.view)
            return Load(self._access(argument.view)) if known is None else known
        if isinstance(argument, Number):
            return RuntimeNumber(self.numbers.setdefault(argument.index, len(self.numbers)))
        if not is_literal(argument.value):
            raise TypeError(f"{argument.value!r} cannot be part of a kernel's code")
        return Literal(argument.value)  # type: ignore[arg-type]

    def _access(self, view: int) -> int:
        return self.accesses.setdefault(view, len(self.accesses))
