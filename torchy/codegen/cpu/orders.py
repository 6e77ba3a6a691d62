"""In which order eager's kernels reduce a row on the CPU.

The orders are read from ``ATen/native/cpu/SumKernel.cpp`` (``cascade_sum``), ``Reduce.h`` (``binary_kernel_reduce``),
``ATen/native/SharedReduceOps.h`` (``WelfordOps``) and ``ATen/cpu/vec/functional_base.h`` (``reduce_all``); whether they hold
is tried on the machine, see :mod:`torchy.codegen.cpu.verify_rows`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

import torch

from torchy.codegen.cpu.threads import GRAIN
from torchy.ir.kernel import ColumnOrder, Order

_ANY: Final = 1 << 62  # these ops never cut a row


def cascade(lanes: int) -> Order:
    """Return the order of ``cascade_sum``."""
    return Order(lanes, 4, levels=4, alone=GRAIN - 1, parts=True)


def blocks(lanes: int) -> Order:
    """Return the order of ``vectorized_reduction``."""
    once = GRAIN - 1
    return Order(
        lanes, 4, start="first", rest="last", join="pairs", tail="last", alone=once, parts=True
    )


def one_vector(lanes: int, dtype: torch.dtype) -> Order:
    """Return the order of ``vec::reduce_all``; its ``vec_reduce_all`` is written out for floats only."""
    across: Literal["halves", "sequence"] = "halves" if dtype is torch.float32 else "sequence"
    return Order(lanes, 1, start="first", tail="lanes", across=across, alone=_ANY)


def columns(elements: int) -> ColumnOrder:
    """Return the order of ``cascade_sum`` where neighbours belong to different rows."""
    return ColumnOrder(elements, Order(1, 1, levels=4), Order(1, 4, levels=4))


# By op. These kernels are not made for AVX-512: a vector has 32 bytes on every machine.
_OF_ROWS: Final[Mapping[str, Callable[[int], Order]]] = {
    "sum": cascade,
    "mean": cascade,
    "mse_loss": cascade,
    "amax": blocks,
    "amin": blocks,
}
_OF_COLUMNS: Final = frozenset(("sum", "mean"))  # of which the orders of columns are known
# Those that are made of others: by operator.
_MADE_OF: Final = {"logsumexp": {"max": "amax", "sum": "sum"}}
# Those whose kernels have the vectors that ATen chose.
_OF_WIDE_ROWS: Final = frozenset(("_softmax", "_log_softmax", "_log_softmax_backward_data"))
# Those that go through a row, or a column, one by one.
_IN_SEQUENCE: Final = frozenset(("var", "std"))
# Those that find the first of several: in any order, so in sequence.
_FIRST: Final = frozenset(("max", "min", "argmax", "argmin"))
# And where any order will do, by dtype.
_UNORDERED: Final = {"all": (torch.bool,), "any": (torch.bool,), "sum": (torch.int64,)}


def order(
    op: str, operator: str, dtype: torch.dtype, of_columns: bool, lanes: int
) -> Order | ColumnOrder | None:
    """Return the order in which an op of the table reduces rows, or columns, of a dtype; None if it is not known.

    Parameters
    ----------
    operator
        Of one of its steps.
    lanes
        float32 elements in a vector of eager's; 0: there are none.
    """
    size, block = dtype.itemsize, 128 // dtype.itemsize
    if dtype in _UNORDERED.get(op, ()):
        return None if of_columns else Order(1, 1, alone=GRAIN - 1, parts=True)
    op = _MADE_OF.get(op, {}).get(operator, op)
    if dtype not in (torch.float32, torch.float64):
        return None
    if op in _IN_SEQUENCE:
        # a row alone is gone through twice
        found = Order(1, 1)
        return ColumnOrder(block, found, found) if of_columns else found
    if op in _FIRST:
        return None if of_columns else Order(1, 1, alone=GRAIN - 1)
    if op == "native_layer_norm":  # whose products compilers contract, where there are vectors
        return None if of_columns or not lanes else Order(32 // size, 1, alone=_ANY)
    if of_columns:
        return columns(block) if op in _OF_COLUMNS else None
    if (made := _OF_ROWS.get(op)) is not None:
        return made(32 // size)
    return one_vector(4 * lanes // size, dtype) if lanes and op in _OF_WIDE_ROWS else None
