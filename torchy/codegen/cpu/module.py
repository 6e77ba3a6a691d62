"""Kernel form -> the whole LLVM module of a kernel: its own code, and its job for the driver."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torchy.codegen.cpu import driver
from torchy.codegen.cpu.beside import BesideWriter
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
    fewer_than
        Of how many a row must have fewer to be done side by side with others; 0: none is.
    """

    nest: LoopNest
    text: str
    math: tuple[MathFunction, ...]
    routines: Routines
    most_elements: int = 0
    fewer_than: int = 0


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
    if form.has_columns:
        columns = ColumnWriter(nest=nest, library=library)
        text = columns.vectors()
        sizes = len(form.accesses), len(form.number_kinds)
        text += driver.column_stub(*sizes, columns.element_bytes, len(columns.arrays))
        return _of_rows(text, columns)
    if form.has_rows:
        return _rows(nest, library)
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


def _rows(nest: LoopNest, library: MathLibrary) -> Module:
    """Write the module of what reduces rows: one after the other and, where that may pay, side by side."""
    writers = [RowWriter(nest=nest, library=library)]
    text = writers[0].vectors()
    beside = BesideWriter.of(nest, library)
    if beside is not None:
        writers.append(beside)
        text += beside.vectors("beside")
    stored = {access for access, _ in nest.stores}
    traits = [
        access.dtype.itemsize
        + (0 if access.mode in (Mode.SCALAR, Mode.ROW) else driver.VARIES)
        + (driver.STORED if i in stored else 0)
        for i, access in enumerate(nest.form.accesses)
    ]
    fewer_than = beside.fewer_than if beside else 0
    text += driver.row_stub(
        traits,
        len(nest.form.number_kinds),
        max(writer.element_bytes for writer in writers),
        max(len(writer.arrays) for writer in writers),
        writers[0].least_rows,
        fewer_than,
    )
    return replace(_of_rows(text, *writers), fewer_than=fewer_than)


def _of_rows(text: str, *writers: RowWriter) -> Module:
    declarations: set[str] = set()
    math: dict[str, MathFunction] = {}
    routines: Routines = {}
    for writer in writers:
        declarations |= writer.declarations
        math |= writer.math
        routines |= writer.routines
    text += "".join(sorted(declarations))
    first = writers[0]
    return Module(first.nest, text, tuple(math.values()), routines, first.most_elements)


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
