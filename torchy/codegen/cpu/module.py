"""Kernel form -> the whole LLVM module of a kernel: its own code, and its job for the driver."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torchy.codegen.cpu import driver
from torchy.codegen.cpu.columns import ColumnWriter
from torchy.codegen.cpu.llvm import Writer
from torchy.codegen.cpu.math import MathFunction, MathLibrary
from torchy.codegen.cpu.part_folds import MOST
from torchy.codegen.cpu.routines import Routines
from torchy.codegen.cpu.rows import RowWriter
from torchy.codegen.cpu.whole import JOIN, JoinWriter, PartWriter
from torchy.codegen.loops import LoopNest, lower
from torchy.ir.kernel import WHOLE, KernelForm
from torchy.ir.trace import Mode


@dataclass(frozen=True, slots=True)
class Module:
    """LLVM IR text, and what outside it that it calls.

    Parameters
    ----------
    nest
        What it is the text of.
    math, routines
        Vector-math functions, and what reduces a row.
    most_elements
        How many a row, or a block of columns, can have; 0: there are none.
    """

    nest: LoopNest
    text: str
    math: tuple[MathFunction, ...]
    routines: Routines
    most_elements: int = 0


def write_module(form: KernelForm, library: MathLibrary) -> Module:
    """Write the LLVM module of a kernel form.

    Raises
    ------
    CompileError
        If an op has no formula, or a vector-math function, or a routine for the order of a reduction, is missing.
    """
    nest = lower(form, library.inline)
    if form.axes == WHOLE:
        return _whole(nest, library)
    if form.has_rows:
        columns = form.has_columns
        rows = (ColumnWriter if columns else RowWriter)(nest=nest, library=library)
        text = rows.vectors()
        sizes = len(form.accesses), len(form.number_kinds)
        text += driver.row_stub(
            *sizes, rows.element_bytes, len(rows.arrays), rows.least_rows, columns
        )
        text += "".join(sorted(rows.declarations))
        return Module(nest, text, tuple(rows.math.values()), rows.routines, rows.most_elements)
    writer = Writer(nest=nest, library=library)
    vectors = writer.vectors()
    stored = {access for access, _ in nest.stores}
    loaded = {node.detail for node in nest.nodes if node.op == "load"}
    traits = [
        access.dtype.itemsize
        + (0 if access.mode in (Mode.SCALAR, Mode.REPEAT) else driver.MOVES)
        + (0 if access.mode is Mode.SCALAR else driver.VARIES)
        + (driver.DENSE if access.mode is Mode.LINEAR else 0)
        + (driver.LOADED if i in loaded else 0)
        + (driver.STORED if i in stored else 0)
        for i, access in enumerate(form.accesses)
    ]
    if form.by_position:
        singly = Writer(nest=lower(form), library=library, tail=True)
        vectors += singly.vectors("singly")
        # ATen's vectorized loop does two vectors a turn; what is left over is its scalar tail
        text = vectors + driver.chunk_stub(traits, len(form.number_kinds), 2 * library.lanes)
        text += "".join(sorted(writer.declarations | singly.declarations))
        return Module(nest, text, (*writer.math.values(), *singly.math.values()), {})
    gathers = not form.flat
    if gathers:
        again = Writer(nest=_all_linear(nest), library=library)
        vectors += again.vectors("gathered")
        writer.declarations |= again.declarations
        writer.math.update(again.math)
    stub = driver.stub(traits, len(form.number_kinds), writer.lanes, gathers)
    text = vectors + stub + "".join(sorted(writer.declarations))
    return Module(nest, text, tuple(writer.math.values()), {})


def _whole(nest: LoopNest, library: MathLibrary) -> Module:
    """Write the module of what reduces all elements."""
    part, join = PartWriter(nest=nest, library=library), JoinWriter(nest=nest, library=library)
    text = part.vectors() + join.vectors(JOIN)
    reductions = sum(node.op == "reduce" for node in nest.nodes)
    sizes = len(nest.form.accesses), len(nest.form.number_kinds)
    text += driver.whole_stub(
        *sizes, part.element_bytes, len(join.arrays), reductions, len(part.arrays)
    )
    text += "".join(sorted(part.declarations | join.declarations))
    math = tuple({**part.math, **join.math}.values())
    return Module(nest, text, math, {**part.routines, **join.routines}, MOST)


def _all_linear(nest: LoopNest) -> LoopNest:
    """Return the nest for accesses that were gathered: one index serves all."""
    accesses = tuple(
        access if access.mode is Mode.SCALAR else replace(access, mode=Mode.LINEAR)
        for access in nest.form.accesses
    )
    return replace(nest, form=replace(nest.form, accesses=accesses))
