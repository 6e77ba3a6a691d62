"""Loop nest whose rows stand side by side -> LLVM IR text: a function that does a block of columns, stage by stage.

Its signature is that of rows (:mod:`torchy.codegen.cpu.rows`), for ``r`` rows of a block of ``n`` columns; ``stride`` is
that of the reduced axis. So what is of elements is done row by row as there; what is of rows there is of columns here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from torchy.codegen.cpu.driver import COLUMNS_BLOCK, ROOM
from torchy.codegen.cpu.llvm import Writer
from torchy.codegen.cpu.primitives import TYPES
from torchy.codegen.cpu.rows import RowWriter
from torchy.codegen.errors import CompileError
from torchy.ir.kernel import ColumnOrder
from torchy.ir.trace import Mode

# of a block of columns: beyond caches too it costs less than op by op (measured: batch norm of 8192 x 512)
_SCRATCH_BYTES: Final = 1 << 22


@dataclass(slots=True)
class ColumnWriter(RowWriter):
    """Writes ``vectors`` for columns; ``most_elements`` are those of a block."""

    values: str = "%n"
    length: str = "%r"
    run_on: frozenset[Mode] = frozenset()  # a block's rows do not follow each other in memory
    _along: bool = False  # a loop is over columns

    def _scratch(self) -> int:
        RowWriter._scratch(self)
        if self.element_bytes:
            self.most_elements = _SCRATCH_BYTES // self.element_bytes - 2 * ROOM
        return self.most_elements

    def _memory(self, index: int) -> int | None:
        users = [user for user in self.nest.nodes if index in user.inputs and user.op == "call"]
        return None if users else Writer._memory(self, index)

    def _may_write(self, index: int) -> bool:
        return False

    def _is_still(self, index: int) -> bool:
        return index not in self.arrays and RowWriter._is_still(self, index)

    def _value_at(self, index: int, at: str) -> str | None:
        return self._load_vector(index, self.arrays[index], at) if index in self.arrays else None

    def _over_values(self, label: str, previous: str, body: Callable[[str], str]) -> str:
        self._along = True
        end = self._over_rows(label, previous, body, "%n")
        self._along = False
        return end

    def _pointer(self, access: int) -> str:
        if not self._along:
            return RowWriter._pointer(self, access)
        if access not in self._pointers:
            kind = self.memory_type(self.nest.form.accesses[access].dtype)
            self._pointers[access] = self.emit(
                f"getelementptr {kind}, ptr %a{access}, i64 {self._row}"
            )
        return self._pointers[access]

    def _from_row_to_row(self, access: int) -> str:
        return str(self.nest.form.accesses[access].dtype.itemsize)

    def _reduce(self, position: int, index: int, previous: str) -> str:
        node = self.nest.nodes[index]
        # however long: eager gives its threads columns, never parts of one
        (operand,), order = node.inputs, node.order
        if not isinstance(order, ColumnOrder):
            raise CompileError(f"a reduction of columns in the order {order}")
        symbol, given = self._routine(node).symbol, self._given(node)
        self.declarations.add(f"declare void @{symbol}(ptr, i64, i64, i64, ptr)\n")
        access = None if operand in self.slots else self._memory(operand)
        if access is None:
            first = self.slots[operand]
            stride = self.emit(f"mul i64 %n, {given.itemsize}")
        else:
            first, stride = f"%a{access}", f"%r{access}"
        kind = TYPES[node.dtype]
        for begin in range(0, COLUMNS_BLOCK, order.block):
            more = self.emit(f"sub i64 %n, {begin}")
            some = self.emit(f"call i64 @llvm.smax.i64(i64 {more}, i64 0)")
            width = self.emit(f"call i64 @llvm.smin.i64(i64 {some}, i64 {order.block})")
            column = self.emit(f"getelementptr {TYPES[given]}, ptr {first}, i64 {begin}")
            out = self.emit(f"getelementptr {kind}, ptr {self.arrays[index]}, i64 {begin}")
            arguments = f"ptr {column}, i64 %r, i64 {stride}, i64 {width}, ptr {out}"
            self.lines.append(f"  call void @{symbol}({arguments})")
        for least in ("smax", "smin"):
            self.declarations.add(f"declare i64 @llvm.{least}.i64(i64, i64)\n")
        return previous
