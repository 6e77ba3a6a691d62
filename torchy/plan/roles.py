"""What the plan needs to know of each op: what it reads and writes, and whether it can be fused.

The only file of the plan that asks the op table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch

from torchy.ir import ops as op_table
from torchy.ir.dtypes import IN_KERNELS, computed_in
from torchy.ir.kernel import ColumnOrder, Order
from torchy.ir.ops.spec import Numerics
from torchy.ir.trace import Constant, Layout, Mode, Number, Op, Operand, Trace

Arguments = tuple[Operand | Number | Constant, ...]

VECTOR = 32  # bytes
FEW_ELEMENTS = (
    1 << 16
)  # of a sum of columns: what torch takes for a call is more than what it takes to read them
# All elements of one tensor torch reduces as fast, vector by vector; not so where it goes through them one by one.
AS_FAST = frozenset(("sum", "mean", "amax", "amin"))

LITERALS = (bool, int, float, str, type(None))


class Formula(NamedTuple):
    """A fusable op on one element, before it has a place in a kernel: see ``ir.kernel.Statement``."""

    op: str
    arguments: Arguments
    compute: torch.dtype
    dtype: torch.dtype
    by_position: bool = False


class RowFormula(NamedTuple):
    """A fusable op on rows.

    Parameters
    ----------
    op
        What it computes, of which views, and which of their dimensions make up a row.
    dtype
        Of all of these, and of the result.
    orders
        Of its reductions, by operator.
    mode
        How what has the rows is walked.
    alone
        By itself, it is faster in a kernel than torch's own: rows are; columns where there is little of them, or more to
        compute than to read; all elements, where torch has no vectors for it. Sizes are those of one recording, and
        only a hint.
    whole
        All elements are one row, longer than eager combines in one part: it is gone through once.
    """

    op: op_table.RowOp
    dtype: torch.dtype
    orders: Mapping[str, Order | ColumnOrder]
    mode: Mode = Mode.LINEAR
    alone: bool = True
    whole: bool = False

    @property
    def columns(self) -> bool:
        """True if rows stand side by side in memory."""
        return any(isinstance(order, ColumnOrder) for order in self.orders.values())

    def walks(self, results: Sequence[int]) -> list[tuple[int, Mode]]:
        """Return how the views that it makes, and those that it takes, are walked."""
        made = zip(results, self.op.spec.of_elements, strict=True)
        walks = [(view, Mode.LINEAR if each else Mode.ROW) for view, each in made]
        for name, operand in self.op.operands.items():
            walks.append((operand.view, Mode.UNIT if name in self.op.spec.along else self.mode))
        return walks


class Role(NamedTuple):
    """How one op uses memory.

    Parameters
    ----------
    reads
        Views that must hold their values when the op runs.
    writes
        Views that hold other values afterwards, those of fresh buffers and unannounced writes
        included.
    overwrites
        Those of ``writes`` that it fills to the last element and does not read.
    formula
        What it does to one element, or to one row; None if it cannot be fused.
    why_not
        Why it cannot be fused, in words; empty if it can.
    """

    reads: tuple[int, ...]
    writes: tuple[int, ...]
    overwrites: tuple[int, ...]
    formula: Formula | RowFormula | None
    why_not: str = ""

    @property
    def space(self) -> int:
        """The view whose elements a fusable op walks."""
        return self.formula.op.rows if isinstance(self.formula, RowFormula) else self.writes[0]


Classify = Callable[[Op, Trace], Role]


class Exactness(Protocol):
    """What knows whether a kernel has eager's bits: a backend, of which a plan asks no more."""

    def why_inexact(
        self,
        spec: op_table.OpSpec,
        rule: op_table.Rule | None,
        compute: torch.dtype,
        literals: Mapping[str, object],
        still: frozenset[str],
        by_position: bool,
    ) -> str:
        """Return what is known against a formula's having eager's bits, empty if nothing; it must cost nothing.

        Parameters
        ----------
        rule
            The formula; None: why does the op have none?
        compute, literals
            The dtype computed in, and the values of parameters that are part of the code.
        still
            The parameters whose elements do not differ along the inner dimension.
        by_position
            The kernel would mind where an element stands: :meth:`by_position`.
        """

    def by_position(self, spec: op_table.OpSpec, compute: torch.dtype) -> bool:
        """Return whether an op's result depends on where an element stands: see :class:`torchy.ir.kernel.Statement`."""

    def order(
        self, op: str, operator: str, dtype: torch.dtype, columns: bool
    ) -> Order | ColumnOrder | None:
        """Return the order in which eager reduces the rows of a dtype, None if none is known; it must cost nothing.

        Parameters
        ----------
        op, operator
            Of the op table, and of one of its steps.
        columns
            Rows stand side by side in memory.
        """


IS_CALL = "is a call"
NO_ORDER = "is a call: the order in which eager reduces this dtype is not known"
NO_ROWS = "is a call: what it reduces does not lie together in memory"
FEW_COLUMNS = (
    "is a call: there are fewer columns than make a vector, which eager reduces in another order"
)
ONE_ROW = "is a call: a single row of so many elements eager reduces in parts"
SAME_MEMORY = "reads the memory that it writes, through another view"
NO_KERNEL_DTYPE = "has a dtype that no kernel takes"
NO_FORMULA = "has no formula for these dtypes and arguments"
NOT_IDENTICAL = "is not bit-identical when fused"
MIXED = "mixes 16 bits with another dtype"
NO_KERNEL_ARGUMENT = "has an argument that no kernel takes"


class Classifier:
    """Gives the roles of ops as the op table has them; of ops that are alike, it asks the table once.

    Parameters
    ----------
    numerics
        "exact" or "fast".
    exactness
        Asked in exact mode, and for the orders of reductions; without it, every formula is believed, and reductions are
        calls.
    layouts
        By view, those of one recording: where rows lie otherwise in a later one, the kernel refuses. Without them,
        reductions are calls.
    doubt
        Kernels have refused: the sizes of this recording tell, too.
    """

    def __init__(
        self,
        numerics: Numerics = "exact",
        exactness: Exactness | None = None,
        layouts: Sequence[Layout] = (),
        doubt: bool = False,
    ) -> None:
        self._numerics = numerics
        self._exactness = exactness
        self._layouts = layouts
        self._doubt = doubt
        self._known: dict[tuple[object, ...], _Known] = {}

    def role(self, op: Op, trace: Trace) -> Role:
        """Return the role of an op."""
        spec = op_table.lookup(op.name)
        if spec is None:
            return call_role(op)
        if spec.kind != "pointwise":
            of_rows = op_table.row_op(op, trace)
            if of_rows is not None and self._layouts and self._exactness is not None:
                return self._row_role(op, trace, of_rows, self._exactness)
            return call_role(op, _hidden_writes(op, spec))
        arguments = op_table.statement_arguments(spec, op)
        if arguments is None:
            return call_role(op)
        signature = _signature(op, trace, arguments)
        known = self._known.get(signature)
        if known is None:
            known = self._known[signature] = self._ask(op, trace, spec, arguments)
        return pointwise_role(
            op, trace, spec.name, arguments, known.compute, known.why_not, known.by_position
        )

    def _row_role(
        self, op: Op, trace: Trace, of_rows: op_table.RowOp, exactness: Exactness
    ) -> Role:
        spec, dimensions = of_rows.spec, of_rows.dimensions
        dtype = of_rows.dtype
        layout = self._layouts[of_rows.rows]
        reads = tuple(dict.fromkeys(operand.view for operand in of_rows.operands.values()))
        columns = _are_columns(layout, dimensions)
        orders = _orders(exactness, spec, dtype, columns)
        most = _alone(orders)
        parts = all(isinstance(order, Order) and order.parts for order in orders.values())
        one_row = len(dimensions) == len(layout.sizes)
        whole = one_row and parts and spec.one_pass and math.prod(layout.sizes) > most
        why_not = _why_no_rows(layout, dimensions, columns, self._doubt, most, whole)
        if columns and not why_not and _columns(layout, dimensions) * dtype.itemsize < VECTOR:
            why_not = FEW_COLUMNS
        if why_not == NO_ROWS and len(dimensions) == 1 and not any(spec.of_elements):
            orders = _orders(exactness, spec, dtype, columns=False)
            if orders and all(isinstance(o, Order) and o.in_sequence for o in orders.values()):
                mode = Mode.UNIT if layout.strides[dimensions[0]] == 1 else Mode.STRIDED
                formula = RowFormula(of_rows, dtype, orders, mode)
                return Role(reads, op.writes, op.writes, formula)
        if not orders or why_not:
            return call_role(op)._replace(why_not=why_not or NO_ORDER)
        alone = not columns or spec.double or math.prod(layout.sizes) < FEW_ELEMENTS
        if whole:
            converts = trace.views[of_rows.rows].dtype is not dtype
            alone = converts or spec.name not in AS_FAST
        formula = RowFormula(of_rows, dtype, orders, alone=alone, whole=whole)
        walks = formula.walks(op.writes)
        linear = [view for view, mode in walks if mode is Mode.LINEAR]
        if not all(_lies_alike(self._layouts[view], layout) for view in linear):
            return call_role(op)._replace(why_not=NO_ROWS)
        return Role(reads, op.writes, op.writes, formula)

    def _ask(self, op: Op, trace: Trace, spec: op_table.OpSpec, arguments: Arguments) -> _Known:
        """Find out in which dtype an op computes, and whether it can be fused."""
        exactness = self._exactness
        compute = op_table.compute_dtype(spec, op, trace)
        results = tuple(trace.views[view].dtype for view in op.results if view is not None)
        operands = tuple(
            trace.views[item.view].dtype for item in arguments if isinstance(item, Operand)
        )
        literals = op_table.literal_arguments(spec, op)
        rule = spec.rule(compute, literals)
        if not spec.rules:
            still: frozenset[str] = frozenset()
            why = exactness and exactness.why_inexact(spec, None, compute, literals, still, False)
            return _Known(compute, f"{IS_CALL}: {why}" if why else IS_CALL)
        if not IN_KERNELS.issuperset({compute, *results, *operands}):
            return _Known(compute, NO_KERNEL_DTYPE)
        if rule is None:
            return _Known(compute, NO_FORMULA)
        # elements of another dtype come unrounded if there is one, rounded if there are many
        if computed_in(compute) is not compute and spec.promotion != "result":
            if not {compute, torch.bool}.issuperset(operands):
                return _Known(compute, MIXED)
            if op.name in op_table.ROUND_NUMBERS:
                return _Known(compute, NO_FORMULA)
        if self._numerics == "fast" or exactness is None:
            return _Known(compute)
        given = zip(spec.parameters, arguments, strict=True)
        still = frozenset(name for name, argument in given if not _moves(argument))
        modes = {item.mode for item in arguments if isinstance(item, Operand)} | {op.result_mode}
        by_position = modes == {Mode.LINEAR} and exactness.by_position(spec, compute)
        why = exactness.why_inexact(spec, rule, compute, literals, still, by_position)
        return _Known(compute, f"{NOT_IDENTICAL}: {why}" if why else "", by_position)


class _Known(NamedTuple):
    """What is known of ops that are alike: the dtype computed in, and why they cannot be fused; empty if they can."""

    compute: torch.dtype
    why_not: str = ""
    by_position: bool = False


def classify(
    op: Op, trace: Trace, numerics: Numerics = "exact", exactness: Exactness | None = None
) -> Role:
    """Return the role of one op: see :class:`Classifier`."""
    return Classifier(numerics, exactness).role(op, trace)


def _signature(op: Op, trace: Trace, arguments: Arguments) -> tuple[object, ...]:
    """Return all of an op that its dtype and its formula can depend on: equal for ops that are alike."""
    parts: list[object] = [op.name, op.result_mode]
    for view in op.results:
        parts.append(None if view is None else trace.views[view].dtype)
    for item in arguments:
        if isinstance(item, Operand):
            view_ = trace.views[item.view]
            parts += (view_.dtype, view_.rank > 0, item.mode)
        elif isinstance(item, Number):
            parts += (Number, item.kind, item.wrapped)
        else:  # as it is written: 1, 1.0 and True are equal
            parts += (Constant, type(item.value), repr(item.value))
    return tuple(parts)


def _lies_alike(one: Layout, other: Layout) -> bool:
    """Tell whether two layouts have the same sizes, and the same strides where these count."""
    return one.sizes == other.sizes and all(
        a == b or size == 1
        for a, b, size in zip(one.strides, other.strides, one.sizes, strict=True)
    )


def _orders(
    exactness: Exactness, spec: op_table.RowSpec, dtype: torch.dtype, columns: bool
) -> dict[str, Order | ColumnOrder]:
    """Return the orders of an op's reductions by operator, nothing if one is not known."""
    found = {}
    for operator in spec.operators:
        order = exactness.order(spec.name, operator, dtype, columns)
        if order is None:
            return {}
        found[operator] = order
    return found


def _alone(orders: Mapping[str, Order | ColumnOrder]) -> int:
    """Return how many elements a row may have if there is no other: see :class:`torchy.ir.kernel.Order`."""
    rows = [order.alone if isinstance(order, Order) else 0 for order in orders.values()]
    return min(rows, default=0)


def _are_columns(layout: Layout, dimensions: tuple[int, ...]) -> bool:
    """Tell whether the innermost dimension is none of those that are reduced."""
    found = [(stride, d) for d, stride in enumerate(layout.strides) if layout.sizes[d] != 1]
    return bool(found) and min(found)[1] not in dimensions


def _columns(layout: Layout, dimensions: tuple[int, ...]) -> int:
    """Return how many columns stand side by side: elements within what is reduced."""
    reduced = [layout.strides[d] for d in dimensions if layout.sizes[d] != 1]
    return min(reduced, default=0)


def _why_no_rows(
    layout: Layout,
    dimensions: tuple[int, ...],
    columns: bool,
    doubt: bool,
    alone: int,
    whole: bool,
) -> str:
    """Tell why the rows of a layout cannot be reduced by a kernel, empty if they can.

    A kernel looks for itself, each time (``pack_rows`` in record/walker/pack.cpp): this only has to agree with it for what
    is common. Sizes change more often than the order of dimensions: without doubt, only this tells.
    """
    if len(dimensions) == len(layout.sizes) and math.prod(layout.sizes) > alone and not whole:
        return ONE_ROW
    if 0 in layout.sizes and not doubt:
        return ""  # strides of nothing tell nothing
    steps = sorted(zip(layout.strides, range(len(layout.sizes)), strict=True))
    dense, length, inner = 1, 1, len(layout.sizes)
    # 0: columns, 1: what is reduced, 2: what lies around; outwards it only grows
    part = 0 if columns else 1
    for stride, d in steps:
        size = layout.sizes[d]
        if size == 1:
            continue
        if (d in dimensions) != (part == 1):
            part += 1
        misplaced = (d in dimensions) != (part == 1) or (part == 0 and d > inner)
        if stride != dense or misplaced:
            return NO_ROWS
        dense, inner = dense * size, d
        length *= size if d in dimensions else 1
    if not doubt:
        return ""
    if whole:
        return ""
    return ONE_ROW if length == dense > alone else NO_ROWS if length < 2 else ""


def _moves(argument: Operand | Number | Constant) -> bool:
    """Tell whether an argument's elements differ along the inner dimension."""
    return isinstance(argument, Operand) and argument.mode not in (Mode.SCALAR, Mode.REPEAT)


def call_role(op: Op, hidden_writes: tuple[int, ...] = ()) -> Role:
    """Return the role of an op that torch runs; it may read all its operands."""
    return Role(_unique(op.reads), _unique(op.writes + hidden_writes), (), None, IS_CALL)


def pointwise_role(
    op: Op,
    trace: Trace,
    name: str,
    arguments: Arguments,
    compute: torch.dtype,
    why_not: str = "",
    by_position: bool = False,
) -> Role:
    """Return the role of an op that works element by element.

    Parameters
    ----------
    name, arguments, compute, by_position
        As in ``ir.kernel.Statement``. An operand of the op that is not among the arguments gives its
        metadata only (``zeros_like``), or is written without being read (``copy_``, ``out=``).
    why_not
        Why it cannot be fused, if the caller knows a reason.
    """
    writes = _unique(op.writes)
    if len(writes) != 1 or writes != op.results or op.result_mode is None:
        return call_role(op)
    (result,) = writes
    read = _unique(tuple([item.view for item in arguments if isinstance(item, Operand)]))
    overwrites = () if result in read else (result,)
    if not why_not and _through_another_view(trace, read, result):
        why_not = SAME_MEMORY
    if not why_not and not all(map(_in_kernel, arguments)):
        why_not = NO_KERNEL_ARGUMENT
    if why_not:
        contents = tuple(view for view in _unique(op.reads) if view not in overwrites)
        return Role(contents, writes, overwrites, None, why_not)
    formula = Formula(name, arguments, compute, trace.views[result].dtype, by_position)
    return Role(read, writes, overwrites, formula)


def _through_another_view(trace: Trace, read: Sequence[int], result: int) -> bool:
    """Tell whether an op reads the buffer that it writes, but not, or not only, as it writes it."""
    buffer = trace.buffer_of(result)
    return buffer in [trace.buffer_of(view) for view in read if view != result]


def _in_kernel(argument: Operand | Number | Constant) -> bool:
    """Tell whether a kernel can take an argument."""
    if isinstance(argument, Operand):
        return argument.mode is not None
    return isinstance(argument, Number) or is_literal(argument.value)


def is_literal(value: object) -> bool:
    """Tell whether a value can be part of a kernel's code."""
    return isinstance(value, LITERALS)


def _hidden_writes(op: Op, spec: op_table.OpSpec) -> tuple[int, ...]:
    """Return the views that an op writes without its schema saying so."""
    if not spec.hidden_writes:
        return ()
    named = op_table.named_arguments(op)
    arguments = (named.get(name) for name in spec.hidden_writes)
    return tuple(argument.view for argument in arguments if isinstance(argument, Operand))


def _unique(views: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(views)) if len(views) > 1 else views
