"""The op table: what Torchy knows of each op, as data, and how an op of a trace is looked up in it."""

from torchy.ir.ops.resolve import (
    ROUND_NUMBERS,
    SPECS,
    RowOp,
    compute_dtype,
    literal_arguments,
    lookup,
    named_arguments,
    row_op,
    spec_of,
    statement_arguments,
)
from torchy.ir.ops.rows import ROWS, STEPS, RowSpec
from torchy.ir.ops.spec import Indices, Numerics, OpSpec, Rule

__all__ = [
    "ROUND_NUMBERS",
    "ROWS",
    "SPECS",
    "STEPS",
    "Indices",
    "Numerics",
    "OpSpec",
    "RowOp",
    "RowSpec",
    "Rule",
    "compute_dtype",
    "literal_arguments",
    "lookup",
    "named_arguments",
    "row_op",
    "spec_of",
    "statement_arguments",
]
