"""What reduces rows, or columns, in an order: routines, compiled once, that kernels call."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch

from torchy.codegen.cpu import orders
from torchy.codegen.cpu.deviations import ColumnDeviations, RowDeviations
from torchy.codegen.cpu.folds import IDENTITY, ColumnFolds, fewer_than
from torchy.codegen.cpu.moments import Moments
from torchy.codegen.cpu.part_folds import PartFolds
from torchy.codegen.cpu.places import Places
from torchy.codegen.cpu.primitives import TYPES
from torchy.codegen.cpu.unordered import UNORDERED, Unordered
from torchy.codegen.errors import CompileError
from torchy.ir.dtypes import short_name
from torchy.ir.kernel import ColumnOrder, Order

DEVIATIONS: Final = "deviations"
MOMENTS: Final = "moments"
GREATEST: Final = "greatest"
LEAST: Final = "least"
# By operator: the routine that makes its value and another one's, and both operators.
PAIRS: Final = {
    operator: (routine, pair)
    for routine, pair in (
        (MOMENTS, ("mean", "squares")),
        (GREATEST, ("first_max", "where_max")),
        (LEAST, ("first_min", "where_min")),
    )
    for operator in pair
}


class Routine(NamedTuple):
    """What reduces rows, or columns, by an operator in an order.

    Parameters
    ----------
    given, dtype
        Of the elements, and of the result.
    """

    operator: str
    given: torch.dtype
    dtype: torch.dtype
    order: Order | ColumnOrder

    @property
    def symbol(self) -> str:
        """The name of its code."""
        name = f"torchy_{self.operator}"
        if isinstance(self.order, ColumnOrder):
            return f"{name}_columns_{self.order.block}_{short_name(self.given)}"
        return f"{name}_{self.order.accumulators}x{self.order.lanes}_{short_name(self.given)}"

    def beside(self, lanes: int) -> str:
        """The name of its code for rows side by side."""
        return f"{self.symbol}_beside_{lanes}"

    @property
    def fewer_than(self) -> int:
        """How many elements a row must not have to be done side by side with others; 0: it has no code for that."""
        foldable = self.operator in IDENTITY and (self.operator, self.given) not in UNORDERED
        return fewer_than(self.order) if foldable and isinstance(self.order, Order) else 0

    @property
    def identity(self) -> float:
        """What changes nothing that it is combined with."""
        known = UNORDERED.get((self.operator, self.given))
        return IDENTITY[self.operator] if known is None else known.identity


LANES: Final = (8, 16)  # of a kernel's vectors, that a routine for rows side by side is written for

Routines = dict[str, Routine]  # by the name of their code


def code(routine: Routine) -> str:
    """Write a routine, ``void symbol(ptr first, i64 n, i64 rows, i64 bytes from row to row, ptr results)``.

    The results have room for :data:`.routine.MANY` more.

    Raises
    ------
    CompileError
        For an order that no routine is written for.

    Notes
    -----
    Of two values: ``void symbol(ptr row, i64 n, ptr one, ptr other)``. Of columns: ``void symbol(ptr first, i64 rows, i64
    bytes from row to row, i64 columns, ptr results)``, for a block of columns or less; the results have room for a block.
    For rows side by side also ``void symbol_beside_lanes(ptr first, i64 n, i64 rows, ptr results)``: see
    :meth:`.Folds.beside`. Where the order has parts also ``void symbol_part(ptr state, ptr block, i64 elements before it,
    i64 n, i64 elements of all blocks, ptr result)``: see :meth:`.PartFolds.parts`.
    """
    operator, given, dtype, order = routine
    name, element = routine.symbol, TYPES[given]
    if operator == DEVIATIONS:
        if isinstance(order, ColumnOrder):
            of_columns = ColumnDeviations(element, order.block)
            return of_columns.columns(name) + of_columns.declared
        of_rows = RowDeviations(element, 8)
        return of_rows.rows(name) + of_rows.declared
    if operator == MOMENTS and isinstance(order, Order):
        moments = Moments(element, order)
        return moments.moments(name) + moments.declared
    if operator in (GREATEST, LEAST):
        places = Places(element, least=operator == LEAST)
        return places.places(name) + places.declared
    if (operator, given) in UNORDERED:
        unordered = Unordered(operator, given)
        return unordered.rows(name) + unordered.declared
    if given is not dtype:
        raise CompileError(f"no routine makes the {operator} of {given} in {dtype}")
    if isinstance(order, ColumnOrder):
        writer = ColumnFolds(operator, element, order.block)
        return writer.columns(name, order) + writer.declared
    known = [orders.cascade(order.lanes), orders.blocks(order.lanes)]
    known += [orders.one_vector(order.lanes, each) for each in (torch.float32, torch.float64)]
    if order not in known:
        raise CompileError(f"no routine is written for the order {order}")
    rows = PartFolds(operator, element)
    text = rows.many(name, order)
    for lanes in LANES:
        text += rows.beside(routine.beside(lanes), order, lanes)
    if order.parts:
        text += rows.parts(name, order)
    return text + rows.declared
