"""Routines that combine elements by an operator, in the orders of eager's kernels."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from torchy.codegen.cpu.routine import MANY, OF_ROWS, RoutineWriter
from torchy.ir.kernel import ColumnOrder, Order

IDENTITY: Final = {"sum": 0.0, "max": -float("inf"), "min": float("inf")}
# elements of a row: where gathering them costs as much as a call for each row
_FEW: Final = 16
_LEAST_POWER: Final = 4  # of the cascade: see Order
_NAN: Final = "0x7FF8000000000000"


def fewer_than(order: Order) -> int:
    """Return of how many elements on a row makes a block: one of fewer is done one by one, in order."""
    return order.lanes * (1 if order.tail == "lanes" else order.accumulators)


class Folds(RoutineWriter):
    """Writes the code of one routine; an operator's vector and scalar form may differ."""

    def __init__(self, operator: str, element: str) -> None:
        super().__init__(element)
        self.operator = operator

    def many(self, name: str, order: Order) -> str:
        """Write the routine of one row, and of many: rows of a few elements side by side, one in each lane."""
        text, few = self._one(f"{name}.one", order)
        self.parameters = OF_ROWS
        kind, lanes = f"<{MANY} x {self.element}>", f"<{MANY} x i64>"
        self._write(f"  %few = icmp ult i64 %n, {few}", "  br i1 %few, label %beside, label %each")
        # one after the other
        self._write("each:")
        self._each_row(name, "entry")
        # side by side; past the last one: that again
        self._write("beside:")
        last, step = self._splat("i64", "%last", MANY), self._splat("i64", "%stride", MANY)
        numbers = ", ".join(f"i64 {lane}" for lane in range(MANY))
        self._write("  br label %some", "some:", "  %first = phi i64 [0, %beside], [%next, %done]")
        begin = self._splat("i64", "%first", MANY)
        wanted = self._emit(f"add {lanes} {begin}, <{numbers}>")
        below = self._emit(f"icmp ult {lanes} {wanted}, {last}")
        row = self._emit(f"select <{MANY} x i1> {below}, {lanes} {wanted}, {lanes} {last}")
        offsets = self._emit(f"mul {lanes} {row}, {step}")
        pointers = self._emit(f"getelementptr i8, ptr %x, {lanes} {offsets}")
        total = self._beside(order, kind, self._gathered(kind, pointers))
        place = self._emit(f"getelementptr {self.element}, ptr %out, i64 %first")
        self._write(f"  store {kind} {total}, ptr {place}, align 1", "  br label %done", "done:")
        self._write(f"  %next = add i64 %first, {MANY}", "  %more = icmp ult i64 %next, %rows")
        self._write("  br i1 %more, label %some, label %exit", "exit:", "  ret void")
        self.lines.insert(0, "  %last = sub i64 %rows, 1")
        return text + self._function("void", name)

    @property
    def _identity(self) -> str:
        double = struct.unpack(">Q", struct.pack(">d", IDENTITY[self.operator]))[0]
        return f"0x{double:016X}"

    def _one(self, name: str, order: Order) -> tuple[str, int]:
        """Write the routine of one row; return also from how many elements on one by one is faster."""
        if order.tail == "lanes":
            return self.one_vector(name, order), fewer_than(order)
        if order.start == "zeros":
            return self.cascade(name, order), _FEW
        return self.blocks(name, order), fewer_than(order)

    def beside(self, name: str, order: Order, lanes: int) -> str:
        """Write the routine of rows that are there side by side: an element of each, the next one of each, and so on.

        ``void name(ptr first, i64 n, i64 rows, ptr results)``, for rows of fewer elements than :func:`fewer_than`.
        """
        self.parameters = "ptr %x, i64 %n, i64 %rows, ptr %out"
        kind = f"<{lanes} x {self.element}>"
        self._write("  br label %some", "some:", "  %first = phi i64 [0, %entry], [%next, %done]")
        begin = self._emit("mul i64 %first, %n")
        rows = self._emit(f"getelementptr {self.element}, ptr %x, i64 {begin}")
        total = self._beside(order, kind, lambda i: self._load(kind, rows, self._times(i, lanes)))
        place = self._emit(f"getelementptr {self.element}, ptr %out, i64 %first")
        self._write(f"  store {kind} {total}, ptr {place}, align 1", "  br label %done", "done:")
        self._write(f"  %next = add i64 %first, {lanes}", "  %more = icmp ult i64 %next, %rows")
        self._write("  br i1 %more, label %some, label %exit", "exit:", "  ret void")
        return self._function("void", name)

    def _times(self, i: str, lanes: int) -> str:
        return self._emit(f"mul i64 {i}, {lanes}")

    def _gathered(self, kind: str, pointers: str) -> Callable[[str], str]:
        """Return what loads an element of each of some rows."""
        symbol = f"@llvm.masked.gather.v{MANY}f{self._bits}.v{MANY}p0"
        taken = f"<{MANY} x ptr>", f"<{MANY} x i1>"
        self.declarations.add(f"declare {kind} {symbol}({', '.join((*taken, kind))})\n")

        def element(i: str) -> str:
            at = self._emit(f"getelementptr {self.element}, {taken[0]} {pointers}, i64 {i}")
            mask = f"{taken[1]} splat (i1 true)"
            return self._emit(
                f"call {kind} {symbol}({taken[0]} align 1 {at}, {mask}, {kind} poison)"
            )

        return element

    def _beside(self, order: Order, kind: str, element: Callable[[str], str]) -> str:
        """Reduce rows that make no block, one in each lane; ``element`` loads one of each."""
        if order.start == "first":
            singly = order.tail != "lanes"
            start = element("0") if not singly else f"splat ({self.element} {self._identity})"
            (total,) = self._loop(
                "element", ("0" if singly else "1", "some"), "%n", kind, [start],
                lambda i, c: [self._combine(kind, c[0], element(i), singly)],
            )  # fmt: skip
            return total
        return self._beside_in_cascade(order, kind, element)

    def _beside_in_cascade(self, order: Order, kind: str, element: Callable[[str], str]) -> str:
        """Sum rows of so few elements that nothing moves up: with one lane if they make no vector."""
        lanes, count = order.lanes, order.accumulators
        self._write(f"  %vectors.any = icmp uge i64 %n, {lanes}")
        self._write("  br i1 %vectors.any, label %long, label %short", "short:")
        # a block is an element for each accumulator, what is left goes to the first
        self._write(f"  %block = icmp uge i64 %n, {count}")
        self._write("  br i1 %block, label %whole, label %rest", "whole:")
        sums = [self._emit(f"fadd {kind} zeroinitializer, {element(str(k))}") for k in range(count)]
        self._write("  br label %rest", "rest:")
        sums = [self._emit(f"phi {kind} [zeroinitializer, %short], [{s}, %whole]") for s in sums]
        self._write(f"  %from = phi i64 [0, %short], [{count}, %whole]")
        (single,) = self._loop(
            "element", ("%from", "rest"), "%n", kind, [sums[0]],
            lambda i, c: [self._combine(kind, c[0], element(i))],
        )  # fmt: skip
        for more in sums[1:]:
            single = self._combine(kind, single, more)
        single = self._combine(kind, "zeroinitializer", single)
        self._write("  br label %single.end", "single.end:", "  br label %summed", "long:")
        vectors = self._emit(f"udiv i64 %n, {lanes}")

        def vector(i: str, sums: list[str]) -> list[str]:
            begin = self._emit(f"mul i64 {i}, {lanes}")
            return [
                self._combine(kind, total, element(self._emit(f"add i64 {begin}, {lane}")))
                for lane, total in enumerate(sums)
            ]

        of_lanes = self._loop(
            "vector", ("0", "long"), vectors, kind, ["zeroinitializer"] * lanes, vector
        )
        done = self._emit(f"mul i64 {vectors}, {lanes}")
        (total,) = self._loop(
            "tail", (done, "vector.end"), "%n", kind, ["zeroinitializer"],
            lambda i, c: [self._combine(kind, c[0], element(i))],
        )  # fmt: skip
        for each in of_lanes:
            total = self._combine(kind, total, each)
        self._write("  br label %tail.done", "tail.done:", "  br label %summed", "summed:")
        return self._emit(f"phi {kind} [{single}, %single.end], [{total}, %tail.done]")

    def _combine(self, kind: str, a: str, b: str, singly: bool = False) -> str:
        """Join two values: ATen's vector form gives the second of two zeros, its scalar form the first."""
        if self.operator == "sum":
            return self._emit(f"fadd {kind} {a}, {b}")
        vector = kind != self.element and not singly
        truth = kind.replace(self.element, "i1")
        better, worse = ("ogt", "olt") if self.operator == "max" else ("olt", "ogt")
        first = self._emit(f"fcmp {better if vector else worse} {kind} {a}, {b}")
        chosen = (a, b) if vector else (b, a)
        best = self._emit(f"select {truth} {first}, {kind} {chosen[0]}, {kind} {chosen[1]}")
        missing = self._emit(f"fcmp uno {kind} {a}, {b}")
        nan = _NAN if kind == self.element else f"splat ({self.element} {_NAN})"
        return self._emit(f"select {truth} {missing}, {kind} {nan}, {kind} {best}")

    def cascade(self, name: str, order: Order) -> str:
        """Write ``cascade_sum`` of a row: fewer elements than lanes are summed in the same order, with one lane."""
        kind = f"<{order.lanes} x {self.element}>"
        text = self._accumulate(f"{name}.vectors", kind, order.lanes, order)
        text += self._accumulate(f"{name}.single", self.element, 1, order)
        self._write(
            f"  %few = icmp ult i64 %n, {order.lanes}", "  br i1 %few, label %short, label %long"
        )
        self._write("short:")
        short = self._emit(f"call {self.element} @{name}.single(ptr %x, i64 %n)")
        self._write(f"  ret {self.element} {short}", "long:")
        vectors = self._emit(f"udiv i64 %n, {order.lanes}")
        sums = self._emit(f"call {kind} @{name}.vectors(ptr %x, i64 {vectors})")
        total = self._with_tail(kind, order.lanes, sums, vectors, "long", "%n")
        self._write(f"  ret {self.element} {total}")
        return text + self._function(self.element, name)

    def _with_tail(
        self, kind: str, lanes: int, sums: str, vectors: str, before: str, length: str
    ) -> str:
        """Add up what fills no vector, after a label, and the lanes of what has been gathered onto that."""
        done = self._emit(f"mul i64 {vectors}, {lanes}")
        (total,) = self._loop(
            "tail", (done, before), length, self.element, ["0.0"],
            lambda i, c: [self._combine(self.element, c[0], self._load(self.element, self.row, i))],
        )  # fmt: skip
        for lane in range(lanes):
            one = self._emit(f"extractelement {kind} {sums}, i64 {lane}")
            total = self._combine(self.element, total, one)
        return total

    def _accumulate(self, name: str, kind: str, lanes: int, order: Order) -> str:
        """Write the sum of n vectors: K accumulators in turn, whose sums move up a level from time to time."""
        count, levels = order.accumulators, order.levels
        for level in range(1, levels):
            for k in range(count):
                self._write(f"  %l{level}.{k} = alloca {kind}, align 64")
        zero = "zeroinitializer" if lanes > 1 else "0.0"
        blocks = self._emit(f"udiv i64 %n, {count}")
        # of so few blocks nothing moves up: all levels but the first stay zero, and adding them changes no sum
        self._write(f"  %flat = icmp ult i64 {blocks}, {1 << _LEAST_POWER}")
        self._write("  br i1 %flat, label %low, label %high", "low:")
        block = self._block(kind, lanes, count)
        low = self._loop("short", ("0", "low"), blocks, kind, [zero] * count, block)
        self._write("  br label %joined", "high:")
        self._empty_levels(kind, order)
        self._climb(kind, order, ("0", "high"), blocks, blocks)
        sums = self._left(kind, order, "climbed", blocks)
        self._write("  br label %joined", "joined:")
        sums = [
            self._emit(f"phi {kind} [{a}, %short.end], [{b}, %left.end]")
            for a, b in zip(low, sums, strict=True)
        ]
        done = self._emit(f"mul i64 {blocks}, {count}")
        total = self._joined(kind, order, (done, "joined"), "%n", sums)
        self._write(f"  ret {kind} {total}")
        return self._function(kind, name, internal=True)

    def _block(self, kind: str, lanes: int, count: int) -> Callable[[str, list[str]], list[str]]:
        """Return the body of a loop that adds a block to the accumulators."""

        def block(i: str, sums: list[str]) -> list[str]:
            first = self._emit(f"mul i64 {i}, {count}")
            loaded = self._vectors(kind, lanes, first, count)
            return [self._combine(kind, c, x) for c, x in zip(sums, loaded, strict=True)]

        return block

    def _lanes_of(self, kind: str) -> int:
        return 1 if kind == self.element else int(kind[1:].split(" ", 1)[0])

    def _zero(self, kind: str) -> str:
        return "0.0" if kind == self.element else "zeroinitializer"

    def _empty_levels(self, kind: str, order: Order) -> None:
        for level in range(1, order.levels):
            for k in range(order.accumulators):
                self._write(f"  store {kind} {self._zero(kind)}, ptr %l{level}.{k}, align 8")

    def _climb(
        self, kind: str, order: Order, begin: tuple[str, str], blocks: str, end: str
    ) -> None:
        """Sum as many blocks as move up together, and move up, as long as they end by ``end``; then ``%at`` is the next.

        A sum moves up after every 2^power of ``blocks``, which are all that there are. It ends at the label ``climbed``.
        """
        count, levels, zero = order.accumulators, order.levels, self._zero(kind)
        first, before = begin
        less = self._emit(f"sub i64 {blocks}, 1")
        zeros = self._emit(f"call i64 @llvm.ctlz.i64(i64 {less}, i1 false)")
        log = self._emit(f"sub i64 64, {zeros}")
        share = self._emit(f"udiv i64 {log}, {levels}")
        small = self._emit(f"icmp ult i64 {share}, {_LEAST_POWER}")
        power = self._emit(f"select i1 {small}, i64 {_LEAST_POWER}, i64 {share}")
        step = self._emit(f"shl i64 1, {power}")
        mask = self._emit(f"sub i64 {step}, 1")
        self._write("  br label %climb", "climb:")
        self._write(f"  %at = phi i64 [{first}, %{before}], [%up.to, %up.end]")
        self._write(f"  %up.to = add i64 %at, {step}")
        self._write(f"  %whole = icmp ule i64 %up.to, {end}")
        self._write("  br i1 %whole, label %sum, label %climbed", "sum:")
        block = self._block(kind, self._lanes_of(kind), count)
        sums = self._loop("turn", ("%at", "sum"), "%up.to", kind, [zero] * count, block)
        for level in range(1, levels):
            for k in range(count):
                below = sums[k]
                if level > 1:
                    below = self._emit(f"load {kind}, ptr %l{level - 1}.{k}, align 8")
                    self._write(f"  store {kind} {zero}, ptr %l{level - 1}.{k}, align 8")
                held = self._emit(f"load {kind}, ptr %l{level}.{k}, align 8")
                raised = self._combine(kind, held, below)
                self._write(f"  store {kind} {raised}, ptr %l{level}.{k}, align 8")
            shift = self._emit(f"mul i64 {power}, {level}")
            bits = self._emit(f"shl i64 {mask}, {shift}")
            set_ = self._emit(f"and i64 %up.to, {bits}")
            stays = self._emit(f"icmp ne i64 {set_}, 0")
            after = f"up{level}" if level < levels - 1 else "up.end"
            self._write(f"  br i1 {stays}, label %up.end, label %{after}", f"{after}:")
        self._write("  br label %climb", "climbed:")
        self.declarations.add("declare i64 @llvm.ctlz.i64(i64, i1)\n")

    def _left(self, kind: str, order: Order, before: str, blocks: str) -> list[str]:
        """Sum the blocks from ``%at`` on, and onto that what has moved up; it ends at the label ``left.end``."""
        count = order.accumulators
        block = self._block(kind, self._lanes_of(kind), count)
        zeros = [self._zero(kind)] * count
        sums = self._loop("left", ("%at", before), blocks, kind, zeros, block)
        for level in range(1, order.levels):
            sums = [
                self._combine(kind, c, self._emit(f"load {kind}, ptr %l{level}.{k}, align 8"))
                for k, c in enumerate(sums)
            ]
        return sums

    def _joined(
        self, kind: str, order: Order, begin: tuple[str, str], vectors: str, sums: list[str]
    ) -> str:
        """Add the vectors that fill no block to the first accumulator, and the others to that; ends at ``one.end``."""
        lanes = self._lanes_of(kind)
        (total,) = self._loop(
            "one", begin, vectors, kind, [sums[0]],
            lambda i, c: [self._combine(kind, c[0], self._vectors(kind, lanes, i, 1)[0])],
        )  # fmt: skip
        for more in sums[1:]:
            total = self._combine(kind, total, more)
        return total

    # --- extremes, in blocks

    def blocks(self, name: str, order: Order) -> str:
        """Write ``vectorized_reduction`` of a row: whole blocks of K vectors, then what is left one by one."""
        kind = f"<{order.lanes} x {self.element}>"
        size = order.lanes * order.accumulators
        blocks = self._emit(f"udiv i64 %n, {size}")
        self._write(f"  %any = icmp ne i64 {blocks}, 0", "  br i1 %any, label %first, label %rest")
        self._write("first:")
        first = self._vectors(kind, order.lanes, "0", order.accumulators)
        turn = self._turn(kind, order)
        best = self._loop("turn", ("1", "first"), blocks, kind, first, turn)
        whole = self._of_blocks(kind, order, best)
        self._write("  br label %rest", "rest:")
        self._write(
            f"  %so.far = phi {self.element} [{self._identity}, %entry], [{whole}, %turn.end]"
        )
        done = self._emit(f"mul i64 {blocks}, {size}")
        total = self._with_rest("%so.far", (done, "rest"), "%n")
        self._write(f"  ret {self.element} {total}")
        return self._function(self.element, name)

    def _turn(self, kind: str, order: Order) -> Callable[[str, list[str]], list[str]]:
        """Return the body of a loop that combines a block with the accumulators."""
        lanes, count = order.lanes, order.accumulators

        def turn(i: str, best: list[str]) -> list[str]:
            loaded = self._vectors(kind, lanes, self._emit(f"mul i64 {i}, {count}"), count)
            return [self._combine(kind, c, x) for c, x in zip(best, loaded, strict=True)]

        return turn

    def _of_blocks(self, kind: str, order: Order, best: list[str]) -> str:
        """Combine the accumulators in pairs, and their lanes in sequence, from the second to the last."""
        while len(best) > 1:
            best = [self._combine(kind, a, b) for a, b in zip(best[::2], best[1::2], strict=True)]
        of_lanes = [
            self._emit(f"extractelement {kind} {best[0]}, i64 {lane}")
            for lane in range(order.lanes)
        ]
        whole = of_lanes[0]
        for lane in of_lanes[1:]:
            whole = self._combine(self.element, whole, lane)
        return self._combine(self.element, self._identity, whole)

    def _with_rest(self, whole: str, begin: tuple[str, str], length: str) -> str:
        """Combine what fills no block with it, one by one."""
        (total,) = self._loop(
            "tail", begin, length, self.element, [whole],
            lambda i, c: [self._combine(self.element, c[0], self._load(self.element, self.row, i))],
        )  # fmt: skip
        return total

    # --- one vector

    def one_vector(self, name: str, order: Order) -> str:
        """Write ``vec::reduce_all`` of a row (``ATen/cpu/vec/functional_base.h``): one vector, whose lanes are folded.

        The operator is that of vectors throughout.
        """
        lanes = order.lanes
        kind = f"<{lanes} x {self.element}>"

        def together(a: str, b: str, lanes: int) -> str:
            """Combine vectors; two numbers as vectors of one."""
            return self._combine(f"<{lanes} x {self.element}>", a, b)

        def element(i: str) -> str:
            return self._load(f"<1 x {self.element}>", "%x", i)

        self._write(
            f"  %few = icmp ult i64 %n, {lanes}",
            "  br i1 %few, label %short, label %long",
            "short:",
        )
        (total,) = self._loop(
            "each", ("1", "short"), "%n", f"<1 x {self.element}>", [element("0")],
            lambda i, c: [together(c[0], element(i), 1)],
        )  # fmt: skip
        one = self._emit(f"extractelement <1 x {self.element}> {total}, i64 0")
        self._write(f"  ret {self.element} {one}", "long:")
        vectors = self._emit(f"udiv i64 %n, {lanes}")
        (total,) = self._loop(
            "turn", ("1", "long"), vectors, kind, self._vectors(kind, lanes, "0", 1),
            lambda i, c: [together(c[0], self._vectors(kind, lanes, i, 1)[0], lanes)],
        )  # fmt: skip
        done = self._emit(f"mul i64 {vectors}, {lanes}")
        left = self._emit(f"sub i64 %n, {done}")
        mask = self._lanes_below(left, lanes)
        pointer = self._emit(f"getelementptr {self.element}, ptr %x, i64 {done}")
        rest = self._load_masked(lanes, pointer, mask)
        both = together(total, rest, lanes)
        total = self._emit(f"select <{lanes} x i1> {mask}, {kind} {both}, {kind} {total}")
        if order.across == "sequence":
            parts = [
                self._emit(f"shufflevector {kind} {total}, {kind} poison, <1 x i32> <i32 {lane}>")
                for lane in range(lanes)
            ]
            total = parts[0]
            for part in parts[1:]:
                total = together(total, part, 1)
            lanes = 1
        one = self._halved(total, lanes, self._combine)
        self._write(f"  ret {self.element} {one}")
        return self._function(self.element, name)


class ColumnFolds(Folds):
    """Writes the routine of columns: a vector has one element of each, and vectors lie a row apart."""

    parameters = "ptr %x, i64 %n, i64 %stride, i64 %w"

    def __init__(self, operator: str, element: str, block: int) -> None:
        super().__init__(operator, element)
        self.block = block
        self.kind = f"<{block} x {element}>"
        self.masked = False

    def columns(self, name: str, order: ColumnOrder) -> str:
        """Write the sums of a block of columns, or of what is left of them."""
        text = self._accumulate(f"{name}.whole", self.kind, self.block, order.whole)
        self.masked = True
        text += self._accumulate(f"{name}.rest", self.kind, self.block, order.rest)
        arguments = "ptr %x, i64 %n, i64 %stride, i64 %w"
        self._write(
            f"  %all = icmp eq i64 %w, {self.block}", "  br i1 %all, label %whole, label %rest"
        )
        for which in ("whole", "rest"):
            self._write(f"{which}:")
            sums = self._emit(f"call {self.kind} @{name}.{which}({arguments})")
            self._write(f"  store {self.kind} {sums}, ptr %out, align 1", "  ret void")
        self.parameters = f"{arguments}, ptr %out"
        return text + self._function("void", name)

    def _vectors(self, kind: str, lanes: int, first: str, count: int) -> list[str]:
        at = self._emit(f"mul i64 {first}, %stride")
        pointer = self._emit(f"getelementptr i8, ptr %x, i64 {at}")
        found = []
        for _ in range(count):
            found.append(self._row(pointer))
            pointer = self._emit(f"getelementptr i8, ptr {pointer}, i64 %stride")
        return found

    def _row(self, pointer: str) -> str:
        if not self.masked:
            return self._emit(f"load {self.kind}, ptr {pointer}, align 1")
        return self._load_masked(self.block, pointer, self._lanes_below("%w", self.block))
