"""Routines that combine the elements of a row block by block: what is too long to be kept is gone through once."""

from __future__ import annotations

from typing import Final

from torchy.codegen.cpu.folds import Folds
from torchy.ir.kernel import Order

_VECTOR: Final = 32  # bytes, at most, of an accumulator of what has parts
# elements: of more, so many blocks of an order would move up together that a block of the driver's had not all of them
MOST: Final = 1 << 32
STATE: Final = 512  # bytes that are kept from one block of a row to the next
PART: Final = "_part"  # what the name of a routine of blocks ends with
OF_PARTS: Final = "ptr %state, ptr %x, i64 %first, i64 %n, i64 %of, ptr %out"


class PartFolds(Folds):
    """Writes the code of one routine, beside that of rows that are there."""

    def parts(self, name: str, order: Order) -> str:
        """Write the routine of a row that comes block by block, from the first element to the last.

        Each but the last has :data:`.driver.BLOCK` elements. What has been gathered is kept in ``state``, from one to the
        next; the last one writes the value.
        """
        self.parameters = OF_PARTS
        size, element = order.lanes * order.accumulators, self.element
        self._write("  %once = icmp eq i64 %n, %of", "  br i1 %once, label %all, label %some")
        self._write("all:")
        value = self._emit(f"call {element} @{name}.one(ptr %x, i64 %n)")
        self._write(f"  store {element} {value}, ptr %out", "  ret void", "some:")
        blocks, begin = self._emit(f"udiv i64 %of, {size}"), self._emit(f"udiv i64 %first, {size}")
        upto = self._emit("add i64 %first, %n")
        last = self._emit(f"icmp eq i64 {upto}, %of")
        whole = self._emit(f"udiv i64 {upto}, {size}")
        end = self._emit(f"select i1 {last}, i64 {blocks}, i64 {whole}")
        back = self._emit("sub i64 0, %first")
        self.row = self._emit(f"getelementptr {element}, ptr %x, i64 {back}")
        self._write("  %fresh = icmp eq i64 %first, 0")
        if order.start == "zeros":
            value = self._cascade_on(order, begin, end, blocks, last)
        else:
            value = self._blocks_on(order, begin, end, blocks, last)
        self._write(f"  store {element} {value}, ptr %out", "  ret void")
        self.row = "%x"
        return self._function("void", f"{name}{PART}")

    def _cascade_on(self, order: Order, begin: str, end: str, blocks: str, last: str) -> str:
        """Go on with a cascade, from a block to another; if it is the last time, return the sum."""
        lanes, count = order.lanes, order.accumulators
        kind = f"<{lanes} x {self.element}>"
        for level in range(1, order.levels):
            for k in range(count):
                at = _VECTOR * ((level - 1) * count + k)
                self._write(f"  %l{level}.{k} = getelementptr i8, ptr %state, i64 {at}")
        self._write("  br i1 %fresh, label %high, label %on", "high:")
        self._empty_levels(kind, order)
        self._write("  br label %on", "on:")
        self._climb(kind, order, (begin, "on"), blocks, end)
        self._write(f"  br i1 {last}, label %finish, label %exit", "exit:", "  ret void", "finish:")
        sums = self._left(kind, order, "finish", blocks)
        done = self._emit(f"mul i64 {blocks}, {count}")
        vectors = self._emit(f"udiv i64 %of, {lanes}")
        total = self._joined(kind, order, (done, "left.end"), vectors, sums)
        return self._with_tail(kind, lanes, total, vectors, "one.end", "%of")

    def _blocks_on(self, order: Order, begin: str, end: str, blocks: str, last: str) -> str:
        """Go on with whole blocks; if it is the last time, return the extreme."""
        lanes, count = order.lanes, order.accumulators
        kind = f"<{lanes} x {self.element}>"
        kept = [
            self._emit(f"getelementptr i8, ptr %state, i64 {_VECTOR * k}") for k in range(count)
        ]
        self._write("  br i1 %fresh, label %begin, label %again", "begin:")
        first = self._vectors(kind, lanes, "0", count)
        self._write("  br label %on", "again:")
        held = [self._emit(f"load {kind}, ptr {at}, align 8") for at in kept]
        self._write("  br label %on", "on:")
        best = [
            self._emit(f"phi {kind} [{a}, %begin], [{b}, %again]")
            for a, b in zip(first, held, strict=True)
        ]
        start = self._emit(f"phi i64 [1, %begin], [{begin}, %again]")
        best = self._loop("turn", (start, "on"), end, kind, best, self._turn(kind, order))
        for value, at in zip(best, kept, strict=True):
            self._write(f"  store {kind} {value}, ptr {at}, align 8")
        self._write(f"  br i1 {last}, label %finish, label %exit", "exit:", "  ret void", "finish:")
        whole = self._of_blocks(kind, order, best)
        done = self._emit(f"mul i64 {blocks}, {lanes * count}")
        return self._with_rest(whole, (done, "finish"), "%of")
