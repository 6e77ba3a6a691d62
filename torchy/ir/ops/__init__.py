"""The op table: what Torchy knows of each op, as data, and how an op of a trace is looked up in it."""

from torchy.ir.ops.reductions import RowReduction, row_reduction
from torchy.ir.ops.resolve import (
    ROUND_NUMBERS,
    SPECS,
    compute_dtype,
    literal_arguments,
    lookup,
    named_arguments,
    spec_of,
    statement_arguments,
)
from torchy.ir.ops.spec import Indices, Numerics, OpSpec, Rule

__all__ = [
    "ROUND_NUMBERS",
    "SPECS",
    "Indices",
    "Numerics",
    "OpSpec",
    "RowReduction",
    "Rule",
    "compute_dtype",
    "literal_arguments",
    "lookup",
    "named_arguments",
    "row_reduction",
    "spec_of",
    "statement_arguments",
]
