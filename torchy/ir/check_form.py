"""What a valid kernel form is, as a table of rules: checked by tests, and with plans where ``TORCHY_DEBUG=1``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torchy.ir.kernel import (
    COLUMNS,
    ELEMENTS,
    ROWS,
    WHOLE,
    ColumnOrder,
    KernelForm,
    Level,
    Load,
    Reduction,
    Result,
    RowLength,
    RuntimeNumber,
    Value,
    arguments_of,
)
from torchy.ir.trace import Mode

Rule = Callable[[KernelForm], Iterator[str]]


def check_form(form: KernelForm) -> list[str]:
    """Return what is wrong with a kernel form, a line each; empty if nothing is."""
    problems = [f"{text} ({name})" for name, rule in NAMING_RULES for text in rule(form)]
    if problems:
        return problems  # the rules below look things up by index
    return [f"{text} ({name})" for name, rule in RULES for text in rule(form)]


def _values(form: KernelForm) -> Iterator[tuple[int, Value]]:
    """Yield all values that are used, with how many statements come before."""
    for index, statement in enumerate(form.statements):
        for value in arguments_of(statement):
            yield index, value
    for store in form.stores:
        yield len(form.statements), store.value


def _defined_before(form: KernelForm) -> Iterator[str]:
    for before, value in _values(form):
        if isinstance(value, Result) and not 0 <= value.statement < before:
            yield f"t{value.statement} is used by what comes before it"
        if isinstance(value, RuntimeNumber) and not 0 <= value.index < len(form.number_kinds):
            yield f"n{value.index} is none of {len(form.number_kinds)} numbers"


def _accesses_exist(form: KernelForm) -> Iterator[str]:
    named = {value.access for _, value in _values(form) if isinstance(value, Load)}
    named |= {store.access for store in form.stores}
    if not named <= set(range(len(form.accesses))):
        yield f"accesses {sorted(named)} are used, there are {len(form.accesses)}"


def _rows_have_an_axis(form: KernelForm) -> Iterator[str]:
    if form.axes not in (ELEMENTS, ROWS, COLUMNS, WHOLE):
        yield f"no loop is over axes {', '.join(axis.value for axis in form.axes)}"
    reduces = any(isinstance(statement, Reduction) for statement in form.statements)
    if reduces != form.has_rows:
        yield "a reduced axis and reductions come together"
    for statement in form.statements:
        if not isinstance(statement, Reduction):
            continue
        if isinstance(statement.order, ColumnOrder) != form.has_columns:
            yield f"a {statement.operator} has an order of other axes"
    if form.axes == WHOLE and not form.one_pass:
        yield "an element waits for what is made of all of them, or they are no run"
    of_rows = any(access.mode is Mode.ROW for access in form.accesses)
    of_rows |= any(isinstance(value, RowLength) for _, value in _values(form))
    if of_rows and not form.has_rows:
        yield "something is of a row, and there is no reduced axis"


def _stores_at_their_level(form: KernelForm) -> Iterator[str]:
    for store in form.stores:
        mode, level = form.accesses[store.access].mode, form.level(store.value)
        if mode in (Mode.SCALAR, Mode.REPEAT):
            yield f"access {store.access} is {mode.value}, and stored"
        if mode is Mode.ROW and level is Level.ELEMENT:
            yield f"access {store.access} has one element for each row, what is stored has many"


def _one_run_by_position(form: KernelForm) -> Iterator[str]:
    if form.by_position and not form.flat:
        yield "something depends on where an element stands, and the elements are no run"


def _stored_once(form: KernelForm) -> Iterator[str]:
    stored = [store.access for store in form.stores]
    if len(stored) != len(set(stored)):
        yield f"accesses {stored} are stored"
    if not stored:
        yield "nothing is stored"


NAMING_RULES: tuple[tuple[str, Rule], ...] = (
    ("what is used is defined before", _defined_before),
    ("what is used is there", _accesses_exist),
)
RULES: tuple[tuple[str, Rule], ...] = (
    ("what is of rows has a reduced axis", _rows_have_an_axis),
    ("a value is stored where its level has elements", _stores_at_their_level),
    ("an access is stored once", _stored_once),
    ("positions are those in one run", _one_run_by_position),
)
