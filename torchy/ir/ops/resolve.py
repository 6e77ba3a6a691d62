"""From the dispatcher's names to the table's, and from an op's arguments to a formula's parameters."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import torch

from torchy.ir.dtypes import IN_KERNELS, kind_of
from torchy.ir.ops.activations import ACTIVATIONS
from torchy.ir.ops.arithmetic import ARITHMETIC
from torchy.ir.ops.calls import CALLS
from torchy.ir.ops.rows import ROWS, STEPS, RowSpec
from torchy.ir.ops.spec import OpSpec
from torchy.ir.trace import Argument, Constant, Number, Op, Operand, Trace

SPECS: Final[Mapping[str, OpSpec]] = {
    spec.name: spec for spec in (*ARITHMETIC, *ACTIVATIONS, *CALLS)
}

# What ATen hands on with the number as the first factor, where it is rounded to 16 bits: not what the line of mul says.
ROUND_NUMBERS: Final = frozenset(("aten::mul_.Scalar",))

ABSENT: Final = Constant(None)  # an argument that an op was recorded without

_WRAPPED: Final = {bool: torch.bool, int: torch.int64, float: None}


def spec_of(name: str) -> OpSpec | None:
    """Return the spec with this name in the table (``add``, or a step of an op on rows), None if there is none."""
    return SPECS.get(name) or STEPS.get(name)


@functools.cache
def lookup(name: str) -> OpSpec | None:
    """Return the spec of an op, as the dispatcher spells it, or None if the table does not have it.

    In-place (``aten::add_.Tensor``), ``out=`` (``aten::add.out``) and scalar forms (``aten::add.Scalar``) have the spec of
    the functional form. An overload with an argument that the spec does not know is not in the table.
    """
    schema = _schema(name)
    if schema is None:
        return None
    base, overload = schema.base, name.partition(".")[2]
    spec = SPECS.get(_table_name(base, overload))
    if spec is None and base.endswith("_") and not base.startswith("__"):
        spec = SPECS.get(_table_name(base[:-1], overload))
    if spec is None or not schema.returns_tensors:
        return None
    if spec.kind == "call":
        return spec if _functional_overload(overload) & spec.overloads else None
    known = {*spec.parameters, *spec.ignored}
    if not known.issuperset(schema.inputs) or schema.lists:
        return None
    return spec


def _table_name(base: str, overload: str) -> str:
    """Tell apart overloads that compute differently: bounds that are tensors, divisions that round."""
    if (
        base in ("clamp", "clamp_min", "clamp_max", "clamp_", "clamp_min_", "clamp_max_")
        and "Tensor" in overload
    ):
        return base.rstrip("_") + "_tensor"
    if base in ("lerp", "lerp_") and "Tensor" in overload:
        return "lerp_tensor"
    if base in ("div", "div_") and "mode" in overload:
        return "div_mode"
    return base


def _functional_overload(overload: str) -> frozenset[str]:
    """Return the overloads whose ``out=`` form this may be, itself included."""
    if overload == "out":
        return frozenset(("", "out"))
    return frozenset((overload, overload.removesuffix("_out")))


class _Schema(NamedTuple):
    base: str
    names: tuple[str, ...]  # of all arguments
    inputs: tuple[str, ...]  # without those that are only written (out=)
    lists: bool  # takes a list of tensors
    returns_tensors: bool


@functools.cache
def _schema(name: str) -> _Schema | None:
    qualified, _, overload = name.partition(".")
    namespace, _, base = qualified.partition("::")
    if namespace != "aten":
        return None
    try:
        schema: Any = torch._C._get_schema(qualified, overload)
    except RuntimeError:
        return None
    names = tuple(argument.name for argument in schema.arguments)
    inputs = tuple(argument.name for argument in schema.arguments if not argument.is_out)
    lists = any(str(argument.type).startswith("List[Tensor") for argument in schema.arguments)
    tensors = bool(schema.returns) and all(str(r.type) == "Tensor" for r in schema.returns)
    return _Schema(base, names, inputs, lists, tensors)


def named_arguments(op: Op) -> dict[str, Argument]:
    """Return an op's arguments by their names in the schema."""
    schema = _schema(op.name)
    if schema is None:
        raise KeyError(f"{op.name} is not an aten op")
    return dict(zip(schema.names, op.arguments, strict=False))


def statement_arguments(spec: OpSpec, op: Op) -> tuple[Operand | Number | Constant, ...] | None:
    """Return an op's arguments in the order of its spec's parameters: the arguments of a ``Statement``.

    One for each of ``spec.parameters``, found by name in the op's schema; ``Constant(None)`` where the overload has no
    such argument or the op was recorded without it. Arguments that are not parameters (``out=``, ``non_blocking``, the
    ``self`` of ``copy_``) are left out: the formula does not read them.

    Returns
    -------
    tuple or None
        None if the spec has no formula or an argument is a list.
    """
    if spec.kind != "pointwise":
        return None
    given, result = op.arguments, []
    for position in _positions(op.name, spec.parameters):
        argument = given[position] if position < len(given) else ABSENT
        if isinstance(argument, tuple):
            return None
        result.append(argument)
    return tuple(result)


@functools.cache
def _positions(name: str, parameters: tuple[str, ...]) -> tuple[int, ...]:
    """Return where parameters stand among the arguments of an op's schema; past their end if they do not."""
    schema = _schema(name)
    if schema is None:
        raise KeyError(f"{name} is not an aten op")
    at = {parameter: position for position, parameter in enumerate(schema.names)}
    return tuple(at.get(parameter, len(at)) for parameter in parameters)


def literal_arguments(spec: OpSpec, op: Op) -> dict[str, object]:
    """Return the values of an op's constant arguments by parameter, as :meth:`OpSpec.rule` takes them."""
    arguments = statement_arguments(spec, op) or ()
    return {
        name: argument.value
        for name, argument in zip(spec.parameters, arguments, strict=False)
        if isinstance(argument, Constant)
    }


_WHOLE_NUMBERS: Final = frozenset(dtype for dtype in IN_KERNELS if kind_of(dtype) in "bi")


class RowOp(NamedTuple):
    """One op of a trace that works on rows.

    Parameters
    ----------
    spec
        Its line of the table.
    operands, numbers
        By parameter.
    dimensions
        Those of what has the rows that make up a row, counted from the first.
    dtype
        What its operands are converted to, and that of its results but for indices.
    """

    spec: RowSpec
    operands: Mapping[str, Operand]
    numbers: Mapping[str, Constant]
    dimensions: tuple[int, ...]
    dtype: torch.dtype

    @property
    def rows(self) -> int:
        """The view that has them."""
        return self.operands[self.spec.parameters[0]].view


def row_op(op: Op, trace: Trace) -> RowOp | None:
    """Return an op as one on rows; None if it is none, names no dimensions, or converts what it takes."""
    known = lookup(op.name)
    spec = ROWS.get(known.name) if known is not None else None
    if spec is None or op.result_mode is not None or op.writes != op.results:
        return None
    if len(op.results) != len(spec.results):
        return None  # another overload
    named = named_arguments(op)
    given = named.get(spec.over, ABSENT)
    operands: dict[str, Operand] = {}
    numbers: dict[str, Constant] = {}
    for name in spec.parameters:
        found = named.get(name, ABSENT)
        if isinstance(found, Operand) and (name not in spec.numbers or name in spec.along):
            operands[name] = found
        elif isinstance(found, Constant) and name in spec.numbers:
            numbers[name] = Constant(spec.numbers[name]) if found.value is None else found
        else:
            return None
    for name, wanted in spec.only.items():
        argument = named.get(name)
        if not isinstance(argument, Constant) or argument.value != wanted:
            return None
    if not isinstance(given, Constant):
        return None
    rank = trace.views[operands[spec.parameters[0]].view].rank
    dimensions = (given.value,) if isinstance(given.value, int) else given.value
    if dimensions in (None, ()):
        dimensions = tuple(range(rank))
    if not isinstance(dimensions, tuple) or not rank:
        return None
    if spec.over == "normalized_shape":
        dimensions = tuple(range(rank - len(dimensions), rank))
    dtypes = {trace.views[operand.view].dtype for operand in operands.values()}
    for name, result in zip(spec.results, op.results, strict=True):
        if result is None or trace.buffers[trace.views[result].buffer].creator != op.index:
            return None
        if name not in spec.indices:
            dtypes.add(trace.views[result].dtype)
    if spec.integers and torch.int64 in dtypes and dtypes <= _WHOLE_NUMBERS:
        dtypes = {torch.int64}
    if len(dtypes) > 1:
        return None
    along = tuple(sorted(d % rank for d in dimensions))
    if spec.last and along != (rank - 1,):
        return None
    if spec.indices and len(along) > 1:
        return None  # counted in the order of dimensions, not in that of memory
    return RowOp(spec, operands, numbers, along, *dtypes)


def compute_dtype(spec: OpSpec, op: Op, trace: Trace) -> torch.dtype:
    """Return the dtype in which eager's kernel computes: ATen's type promotion.

    Tensors with dimensions come before zero-dimensional ones, and those before Python numbers, within a category (bool,
    integer, floating); see ``ATen/native/TypeProperties.cpp``.

    Parameters
    ----------
    spec
        A pointwise op's.
    op, trace
        The op, with the views that it reads.
    """
    if spec.promotion == "result":
        result = op.results[0]
        if result is None:
            raise ValueError(f"{op.name} has no first result")
        return trace.views[result].dtype
    arguments = statement_arguments(spec, op) or ()
    named = dict(zip(spec.parameters, arguments, strict=False))
    if spec.promotion == "self":
        for argument in arguments:
            if isinstance(argument, Operand):
                return trace.views[argument.view].dtype
    common = _result_type([named[name] for name in spec.parameters if name in spec.promoted], trace)
    mode = named.get("rounding_mode")
    floating = spec.promotion == "float" or (
        spec.promotion == "mode" and isinstance(mode, Constant) and mode.value is None
    )
    if floating and not (common.is_floating_point or common.is_complex):
        return torch.get_default_dtype()
    return common


def _result_type(arguments: list[Operand | Number | Constant], trace: Trace) -> torch.dtype:
    dimensioned: torch.dtype | None = None
    zero: torch.dtype | None = None
    wrapped: torch.dtype | None = None
    for argument in arguments:
        if isinstance(argument, Operand):
            view = trace.views[argument.view]
            if view.rank:
                dimensioned = _promote(dimensioned, view.dtype)
            else:
                zero = _promote(zero, view.dtype)
        elif isinstance(argument, Number) and not argument.wrapped:
            zero = _promote(zero, _WRAPPED[argument.kind] or torch.float64)
        else:
            kind = argument.kind if isinstance(argument, Number) else type(argument.value)
            if kind in _WRAPPED:
                wrapped = _promote(wrapped, _WRAPPED[kind] or torch.get_default_dtype())
    common = _by_category(dimensioned, _by_category(zero, wrapped))
    if common is None:
        raise ValueError("an op without operands has no common dtype")
    return common


def _promote(a: torch.dtype | None, b: torch.dtype) -> torch.dtype:
    return b if a is None else torch.promote_types(a, b)


def _by_category(higher: torch.dtype | None, lower: torch.dtype | None) -> torch.dtype | None:
    """Combine two priorities: the lower counts only if its category is higher. As ATen's ``combine_categories``."""
    if higher is None or lower is None:
        return higher or lower
    if higher.is_complex:
        return higher
    if higher.is_floating_point:
        return higher.to_complex() if lower.is_complex else higher
    if higher is torch.bool or lower.is_floating_point or lower.is_complex:
        return torch.promote_types(higher, lower)
    return higher
