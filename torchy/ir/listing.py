"""A trace and a kernel form as text that one can read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch

from torchy.ir.dtypes import short_name
from torchy.ir.kernel import (
    KernelForm,
    Literal,
    Load,
    Reduction,
    Result,
    RowLength,
    RuntimeNumber,
    Value,
)
from torchy.ir.trace import Argument, Constant, Layout, Number, Op, Operand, Source, Trace, View

Layouts = Sequence[Layout | None]
Numbers = Sequence[bool | int | float]


def listing(
    trace: Trace,
    layouts: Layouts | None = None,
    numbers: Numbers | None = None,
    file_names: Mapping[str, str] = MappingProxyType({}),
    notes: Mapping[int, str] = MappingProxyType({}),
) -> str:
    """Return a trace as text: a line for each op, input, and view where it first occurs.

    ``%3: f32[64, 10] = add(%1, %2)   # cell 4, line 7``. ``%3`` is view 3; without layouts, the sizes
    are left open (``f32[·, ·]``).

    Parameters
    ----------
    layouts
        By view, those of one recording.
    numbers
        The numbers of that recording.
    file_names
        How to call files: ``{"/tmp/ipykernel_1/2.py": "cell 4"}``.
    notes
        What else to say of an op, by its index.
    """
    lines: list[tuple[str, str]] = []
    seen: set[int] = set()
    base: dict[int, int] = {}  # by buffer: its first view

    def introduce(view: int, *, is_result: bool) -> None:
        if view in seen:
            return
        seen.add(view)
        first = base.setdefault(trace.buffer_of(view), view)
        if first != view:
            lines.append((f"{_typed(trace, view, layouts)} = view of %{first}{_offset(view)}", ""))
        elif not is_result:
            lines.append((f"{_typed(trace, view, layouts)} = input", ""))

    def _offset(view: int) -> str:
        layout = layouts[view] if layouts is not None else None
        return f", offset {layout.offset}" if layout is not None and layout.offset else ""

    for op in trace.ops:
        for operand in op.operands():
            introduce(operand.view, is_result=False)
        for view in op.writes:
            introduce(view, is_result=True)
        said = [source_text(op.source, file_names), notes.get(op.index, "")]
        lines.append((op_text(trace, op, layouts, numbers), "; ".join(filter(None, said))))
    width = min(max((len(text) for text, note in lines if note), default=0), 72)
    return "\n".join(f"{text:<{width}}   # {note}" if note else text for text, note in lines)


def op_text(
    trace: Trace, op: Op, layouts: Layouts | None = None, numbers: Numbers | None = None
) -> str:
    """Return one op as text: ``%3: f32[64, 10] = add(%1, %2)``."""
    results = ", ".join(
        "none" if view is None else _typed(trace, view, layouts) for view in op.results
    )
    arguments = [argument_text(argument, numbers) for argument in op.arguments]
    while arguments and arguments[-1] == "None":  # as if it had not been given
        arguments.pop()
    call = f"{short_op(op.name)}({', '.join(arguments)})"
    return f"{results} = {call}" if results else call


def short_op(name: str) -> str:
    """Return an op's name as a reader knows it: ``add`` for ``aten::add.Tensor``."""
    namespace, _, rest = name.rpartition("::")
    base = rest.partition(".")[0]
    return base if namespace in ("aten", "") else f"{namespace}::{base}"


def source_text(source: Source | None, file_names: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return a line of the program as text: ``cell 4, line 7``; empty if it is not known."""
    if source is None:
        return ""
    return f"{file_names.get(source.file) or os.path.basename(source.file)}, line {source.line}"


def argument_text(argument: Argument, numbers: Numbers | None = None) -> str:
    """Return an argument as text; a number whose value is not given is ``n0``."""
    if isinstance(argument, tuple):
        return f"[{', '.join(argument_text(item, numbers) for item in argument)}]"
    if isinstance(argument, Operand):
        return f"%{argument.view}"
    if isinstance(argument, Number):
        if numbers is None or argument.index >= len(numbers):
            return f"n{argument.index}"
        return repr(numbers[argument.index])
    return _constant_text(argument)


def form_text(form: KernelForm, accesses: Sequence[int] | None = None) -> str:
    """Return a kernel form as text, a line for each access, statement and store.

    Parameters
    ----------
    accesses
        The views that it reaches in one trace; without them, accesses are ``a0``, ``a1``.
    """

    def access_name(access: int) -> str:
        return f"a{access}" if accesses is None else f"%{accesses[access]}"

    def value_text(value: Value) -> str:
        match value:
            case Load(access):
                return access_name(access)
            case Result(statement):
                return f"t{statement}"
            case RuntimeNumber(index):
                return f"n{index}"
            case Literal(literal):
                return repr(literal)
            case RowLength():
                return "length"

    lines = [
        f"{access_name(index)}: {short_name(access.dtype)} {access.mode.value}"
        for index, access in enumerate(form.accesses)
    ]
    for index, statement in enumerate(form.statements):
        if isinstance(statement, Reduction):
            reduced = f"{statement.operator} of row({value_text(statement.argument)})"
            lines.append(f"t{index}: {short_name(statement.dtype)} = {reduced}")
            continue
        arguments = ", ".join(map(value_text, statement.arguments))
        computed = (
            f" in {short_name(statement.compute)}" if statement.compute != statement.dtype else ""
        )
        dtype = short_name(statement.dtype)
        lines.append(f"t{index}: {dtype} = {statement.op}({arguments}){computed}")
    for store in form.stores:
        lines.append(f"{access_name(store.access)} ← {value_text(store.value)}")
    return "\n".join(lines)


def _constant_text(constant: Constant) -> str:
    value = constant.value
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(_constant_text(Constant(item)) for item in value)}]"
    return short_name(value) if isinstance(value, torch.dtype) else repr(value)


def _typed(trace: Trace, view: int, layouts: Layouts | None) -> str:
    """Return a view with its type."""
    layout = layouts[view] if layouts is not None else None
    return f"%{view}: {type_text(trace.views[view], layout)}"


def type_text(view: View, layout: Layout | None) -> str:
    """Return a view's dtype and sizes, and its strides where they say more: ``f32[64, 10]``."""
    dtype = short_name(view.dtype)
    if layout is None:
        return f"{dtype}[{', '.join('·' * view.rank)}]"
    strides = "" if is_contiguous(layout) else f" strides {_tuple(layout.strides)}"
    return f"{dtype}[{', '.join(map(str, layout.sizes))}]{strides}"


def is_contiguous(layout: Layout) -> bool:
    """Tell if the elements lie row after row, without gaps."""
    step = 1
    for size, stride in zip(reversed(layout.sizes), reversed(layout.strides), strict=True):
        if size != 1 and stride != step:
            return 0 in layout.sizes
        step *= size
    return True


def _tuple(items: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, items))})"
