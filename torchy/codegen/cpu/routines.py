"""What reduces a row, or columns, in an order: routines, compiled once, that kernels call.

A routine takes the address of a row's elements, side by side, and how many there are.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

import torch

from torchy.codegen.cpu import orders
from torchy.codegen.cpu.primitives import TYPES
from torchy.codegen.errors import CompileError
from torchy.ir.dtypes import short_name
from torchy.ir.kernel import ColumnOrder, Order

_IDENTITY: Final = {"sum": 0.0, "max": -float("inf"), "min": float("inf")}
DEVIATIONS: Final = "deviations"
MOMENTS: Final = "moments"
PARTS: Final = ("mean", "squares")  # operators whose values one routine makes, that of moments
MANY: Final = 16  # rows that a routine of many does at a time
_LEAST_POWER: Final = 4  # of the cascade: see Order
_NAN: Final = "0x7FF8000000000000"


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
        each = self.order.whole if isinstance(self.order, ColumnOrder) else self.order
        name = f"torchy_{self.operator}{'_contracted' if each.contracted else ''}"
        if isinstance(self.order, ColumnOrder):
            return f"{name}_columns_{self.order.block}_{short_name(self.given)}"
        return f"{name}_{self.order.accumulators}x{self.order.lanes}_{short_name(self.given)}"

    @property
    def of_many(self) -> bool:
        """True if it takes many rows at once: one in a lane."""
        return self.operator == DEVIATIONS and not isinstance(self.order, ColumnOrder)


Routines = dict[str, Routine]  # by the name of their code


def code(routine: Routine) -> str:
    """Write a routine, ``element symbol(ptr row, i64 n)``.

    Raises
    ------
    CompileError
        For an order that no routine is written for.

    Notes
    -----
    Of moments: ``void symbol(ptr row, i64 n, ptr mean, ptr squares)``. Of many rows: ``void symbol(ptr first, i64 n, i64
    rows, i64 bytes from row to row, ptr results)``; the results have room for :data:`MANY` more. Of columns: ``void
    symbol(ptr first, i64 rows, i64 bytes from row to row, i64 columns, ptr results)``, for a block of columns or less; the
    results have room for a block.
    """
    operator, given, dtype, order = routine
    name, element = routine.symbol, TYPES[given]
    if operator == DEVIATIONS:
        if isinstance(order, ColumnOrder):
            of_columns = _ColumnDeviations(element, order.block, order.whole.contracted)
            return of_columns.columns(name) + of_columns.declared
        of_rows = _RowDeviations(element, 8, order.contracted)
        return of_rows.rows(name) + of_rows.declared
    if operator == MOMENTS and isinstance(order, Order):
        moments = _Moments(element, order)
        return moments.moments(name) + moments.declared
    if given is not dtype:
        raise CompileError(f"no routine makes the {operator} of {given} in {dtype}")
    if isinstance(order, ColumnOrder):
        writer = _Columns(operator, element, order.block)
        return writer.columns(name, order) + writer.declared
    single = _Routine(operator, element)
    if order == orders.cascade(order.lanes):
        return single.cascade(name, order) + single.declared
    if order == orders.blocks(order.lanes):
        return single.blocks(name, order) + single.declared
    if order in [orders.one_vector(order.lanes, d) for d in (torch.float32, torch.float64)]:
        return single.one_vector(name, order) + single.declared
    raise CompileError(f"no routine is written for the order {order}")


class _Routine:
    """Writes the code of one routine; an operator's vector and scalar form may differ."""

    def __init__(self, operator: str, element: str) -> None:
        self.operator = operator
        self.element = element
        self.lines: list[str] = []
        self.declarations: set[str] = set()
        self.counter = 0

    @property
    def declared(self) -> str:
        """What the code calls of LLVM's."""
        return "".join(sorted(self.declarations))

    def _emit(self, text: str) -> str:
        self.counter += 1
        self.lines.append(f"  %v{self.counter} = {text}")
        return f"%v{self.counter}"

    def _write(self, *lines: str) -> None:
        self.lines.extend(lines)

    def _combine(self, kind: str, a: str, b: str) -> str:
        """Join two values: ATen's vector form gives the second of two zeros, its scalar form the first."""
        if self.operator == "sum":
            return self._emit(f"fadd {kind} {a}, {b}")
        vector = kind != self.element
        truth = kind.replace(self.element, "i1")
        better, worse = ("ogt", "olt") if self.operator == "max" else ("olt", "ogt")
        first = self._emit(f"fcmp {better if vector else worse} {kind} {a}, {b}")
        chosen = (a, b) if vector else (b, a)
        best = self._emit(f"select {truth} {first}, {kind} {chosen[0]}, {kind} {chosen[1]}")
        missing = self._emit(f"fcmp uno {kind} {a}, {b}")
        nan = f"splat ({self.element} {_NAN})" if vector else _NAN
        return self._emit(f"select {truth} {missing}, {kind} {nan}, {kind} {best}")

    def _load(self, kind: str, base: str, at: str) -> str:
        pointer = self._emit(f"getelementptr {self.element}, ptr {base}, i64 {at}")
        return self._emit(f"load {kind}, ptr {pointer}, align 1")

    def _load_masked(self, lanes: int, pointer: str, mask: str) -> str:
        """Load the lanes of a mask, zeros for the others: what is not there is not read, a row may end a page."""
        kind, truth = f"<{lanes} x {self.element}>", f"<{lanes} x i1>"
        symbol = f"@llvm.masked.load.v{lanes}f{32 if self.element == 'float' else 64}.p0"
        self.declarations.add(f"declare {kind} {symbol}(ptr, {truth}, {kind})\n")
        return self._emit(
            f"call {kind} {symbol}(ptr align 1 {pointer}, {truth} {mask}, {kind} zeroinitializer)"
        )

    def _vectors(self, kind: str, lanes: int, first: str, count: int) -> list[str]:
        """Load vectors that follow each other, from one on."""
        at = self._emit(f"mul i64 {first}, {lanes}")
        base = self._emit(f"getelementptr {self.element}, ptr %x, i64 {at}")
        return [self._load(kind, base, str(k * lanes)) for k in range(count)]

    def _loop(
        self,
        name: str,
        begin: tuple[str, str],
        end: str,
        kind: str,
        values: list[str],
        body: Callable[[str, list[str]], list[str]],
    ) -> list[str]:
        """Write a loop that may be empty; return what the values are after it.

        Parameters
        ----------
        begin
            The first index, and the label that comes before the loop.
        values, body
            What is carried from turn to turn, all of this kind, and what it becomes in one.
        """
        first, before = begin
        carried = [f"%{name}.c{k}" for k in range(len(values))]
        self._write(f"  br label %{name}", f"{name}:")
        self._write(f"  %{name}.i = phi i64 [{first}, %{before}], [%{name}.next, %{name}.do]")
        mark = len(self.lines)
        self._write(f"  %{name}.more = icmp ult i64 %{name}.i, {end}")
        self._write(f"  br i1 %{name}.more, label %{name}.do, label %{name}.end", f"{name}.do:")
        after = body(f"%{name}.i", carried)
        self.lines[mark:mark] = [
            f"  {c} = phi {kind} [{given}, %{before}], [{new}, %{name}.do]"
            for c, given, new in zip(carried, values, after, strict=True)
        ]
        self._write(f"  %{name}.next = add i64 %{name}.i, 1", f"  br label %{name}", f"{name}.end:")
        return carried

    parameters = "ptr %x, i64 %n"

    def _function(self, kind: str, name: str, internal: bool = False) -> str:
        body = "\n".join(self.lines)
        self.lines = []
        linkage = "internal " if internal else ""
        return f"define {linkage}{kind} @{name}({self.parameters}) {{\nentry:\n{body}\n}}\n"

    # --- sums, in a cascade

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
        done = self._emit(f"mul i64 {vectors}, {order.lanes}")
        (total,) = self._loop(
            "tail", (done, "long"), "%n", self.element, ["0.0"],
            lambda i, c: [self._combine(self.element, c[0], self._load(self.element, "%x", i))],
        )  # fmt: skip
        for lane in range(order.lanes):
            one = self._emit(f"extractelement {kind} {sums}, i64 {lane}")
            total = self._combine(self.element, total, one)
        self._write(f"  ret {self.element} {total}")
        return text + self._function(self.element, name)

    def _accumulate(self, name: str, kind: str, lanes: int, order: Order) -> str:
        """Write the sum of n vectors: K accumulators in turn, whose sums move up a level from time to time."""
        count, levels = order.accumulators, order.levels
        for level in range(1, levels):
            for k in range(count):
                self._write(f"  %l{level}.{k} = alloca {kind}, align 64")
        zero = "zeroinitializer" if lanes > 1 else "0.0"
        blocks = self._emit(f"udiv i64 %n, {count}")

        def block(i: str, sums: list[str]) -> list[str]:
            first = self._emit(f"mul i64 {i}, {count}")
            loaded = self._vectors(kind, lanes, first, count)
            return [self._combine(kind, c, x) for c, x in zip(sums, loaded, strict=True)]

        # of so few blocks nothing moves up: all levels but the first stay zero, and adding them changes no sum
        self._write(f"  %flat = icmp ult i64 {blocks}, {1 << _LEAST_POWER}")
        self._write("  br i1 %flat, label %low, label %high", "low:")
        low = self._loop("short", ("0", "low"), blocks, kind, [zero] * count, block)
        self._write("  br label %joined", "high:")
        for level in range(1, levels):
            for k in range(count):
                self._write(f"  store {kind} {zero}, ptr %l{level}.{k}, align 64")
        # a sum moves up after every 2^power blocks
        less = self._emit(f"sub i64 {blocks}, 1")
        zeros = self._emit(f"call i64 @llvm.ctlz.i64(i64 {less}, i1 false)")
        log = self._emit(f"sub i64 64, {zeros}")
        share = self._emit(f"udiv i64 {log}, {levels}")
        small = self._emit(f"icmp ult i64 {share}, {_LEAST_POWER}")
        power = self._emit(f"select i1 {small}, i64 {_LEAST_POWER}, i64 {share}")
        step = self._emit(f"shl i64 1, {power}")
        mask = self._emit(f"sub i64 {step}, 1")
        self._write("  br label %climb", "climb:")
        self._write("  %at = phi i64 [0, %high], [%up.to, %up.end]")
        self._write(f"  %up.to = add i64 %at, {step}")
        self._write(f"  %whole = icmp ule i64 %up.to, {blocks}")
        self._write("  br i1 %whole, label %sum, label %rest", "sum:")
        sums = self._loop("turn", ("%at", "sum"), "%up.to", kind, [zero] * count, block)
        for level in range(1, levels):
            for k in range(count):
                below = sums[k]
                if level > 1:
                    below = self._emit(f"load {kind}, ptr %l{level - 1}.{k}, align 64")
                    self._write(f"  store {kind} {zero}, ptr %l{level - 1}.{k}, align 64")
                held = self._emit(f"load {kind}, ptr %l{level}.{k}, align 64")
                raised = self._combine(kind, held, below)
                self._write(f"  store {kind} {raised}, ptr %l{level}.{k}, align 64")
            shift = self._emit(f"mul i64 {power}, {level}")
            bits = self._emit(f"shl i64 {mask}, {shift}")
            set_ = self._emit(f"and i64 %up.to, {bits}")
            stays = self._emit(f"icmp ne i64 {set_}, 0")
            after = f"up{level}" if level < levels - 1 else "up.end"
            self._write(f"  br i1 {stays}, label %up.end, label %{after}", f"{after}:")
        self._write("  br label %climb", "rest:")
        sums = self._loop("left", ("%at", "rest"), blocks, kind, [zero] * count, block)
        for level in range(1, levels):
            sums = [
                self._combine(kind, c, self._emit(f"load {kind}, ptr %l{level}.{k}, align 64"))
                for k, c in enumerate(sums)
            ]
        self._write("  br label %joined", "joined:")
        sums = [
            self._emit(f"phi {kind} [{a}, %short.end], [{b}, %left.end]")
            for a, b in zip(low, sums, strict=True)
        ]
        done = self._emit(f"mul i64 {blocks}, {count}")

        def one(i: str, sums: list[str]) -> list[str]:
            return [self._combine(kind, sums[0], *self._vectors(kind, lanes, i, 1))]

        (total,) = self._loop("one", (done, "joined"), "%n", kind, [sums[0]], one)
        for k in range(1, count):
            total = self._combine(kind, total, sums[k])
        self._write(f"  ret {kind} {total}")
        self.declarations.add("declare i64 @llvm.ctlz.i64(i64, i1)\n")
        return self._function(kind, name, internal=True)

    # --- extremes, in blocks

    def blocks(self, name: str, order: Order) -> str:
        """Write ``vectorized_reduction`` of a row: whole blocks of K vectors, then what is left one by one."""
        lanes, count = order.lanes, order.accumulators
        kind = f"<{lanes} x {self.element}>"
        size = lanes * count
        double = struct.unpack(">Q", struct.pack(">d", _IDENTITY[self.operator]))[0]
        identity = f"0x{double:016X}"

        def vectors(at: str) -> list[str]:
            base = self._emit(f"getelementptr {self.element}, ptr %x, i64 {at}")
            return [self._load(kind, base, str(k * lanes)) for k in range(count)]

        def turn(i: str, sums: list[str]) -> list[str]:
            loaded = vectors(self._emit(f"mul i64 {i}, {size}"))
            return [self._combine(kind, c, x) for c, x in zip(sums, loaded, strict=True)]

        blocks = self._emit(f"udiv i64 %n, {size}")
        self._write(f"  %any = icmp ne i64 {blocks}, 0", "  br i1 %any, label %first, label %rest")
        self._write("first:")
        best = self._loop("turn", ("1", "first"), blocks, kind, vectors("0"), turn)
        while len(best) > 1:
            best = [self._combine(kind, a, b) for a, b in zip(best[::2], best[1::2], strict=True)]
        of_lanes = [
            self._emit(f"extractelement {kind} {best[0]}, i64 {lane}") for lane in range(lanes)
        ]
        whole = of_lanes[0]
        for lane in of_lanes[1:]:
            whole = self._combine(self.element, whole, lane)
        whole = self._combine(self.element, identity, whole)
        self._write("  br label %rest", "rest:")
        self._write(f"  %so.far = phi {self.element} [{identity}, %entry], [{whole}, %turn.end]")
        done = self._emit(f"mul i64 {blocks}, {size}")
        (total,) = self._loop(
            "tail", (done, "rest"), "%n", self.element, ["%so.far"],
            lambda i, c: [self._combine(self.element, c[0], self._load(self.element, "%x", i))],
        )  # fmt: skip
        self._write(f"  ret {self.element} {total}")
        return self._function(self.element, name)

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
        while lanes > 1:
            half = lanes // 2
            kind = f"<{lanes} x {self.element}>"
            parts = []
            for begin in (0, half):
                picked = ", ".join(f"i32 {lane}" for lane in range(begin, begin + half))
                parts.append(
                    self._emit(
                        f"shufflevector {kind} {total}, {kind} poison, <{half} x i32> <{picked}>"
                    )
                )
            total, lanes = together(parts[0], parts[1], half), half
        one = self._emit(f"extractelement <1 x {self.element}> {total}, i64 0")
        self._write(f"  ret {self.element} {one}")
        return self._function(self.element, name)

    def _lanes_below(self, count: str, lanes: int) -> str:
        """Return the mask of the first lanes of a vector."""
        kind = f"<{lanes} x i64>"
        one = self._emit(f"insertelement {kind} poison, i64 {count}, i64 0")
        same = self._emit(
            f"shufflevector {kind} {one}, {kind} poison, <{lanes} x i32> zeroinitializer"
        )
        numbers = ", ".join(f"i64 {lane}" for lane in range(lanes))
        return self._emit(f"icmp ult {kind} <{numbers}>, {same}")


class _Columns(_Routine):
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


class _Deviations(_Routine):
    """Writes ``WelfordOps`` in double: the sum of the squares of deviations from the mean, one row in each lane.

    Parameters
    ----------
    lanes
        How many rows or columns there are in one vector of the code: LLVM cuts it into those of the machine.
    contracted
        See :class:`torchy.ir.kernel.Order`.
    """

    def __init__(self, element: str, lanes: int, contracted: bool) -> None:
        super().__init__(DEVIATIONS, element)
        self.contracted = contracted
        self.wide = f"<{lanes} x double>"
        self.lanes = lanes
        self.declarations.add(
            f"declare {self.wide} @llvm.fma.v{lanes}f64({self.wide}, {self.wide}, {self.wide})\n"
        )

    def _widened(self, value: str) -> str:
        if self.element == "double":
            return value
        return self._emit(f"fpext <{self.lanes} x {self.element}> {value} to {self.wide}")

    def _splatted(self, number: str) -> str:
        one = self._emit(f"insertelement {self.wide} poison, double {number}, i64 0")
        return self._emit(
            f"shufflevector {self.wide} {one}, {self.wide} poison, <{self.lanes} x i32> zeroinitializer"
        )

    def _take(self, value: str, count: str, mean: str, squares: str) -> tuple[str, str]:
        """Take one more element of each row; ``count``: with it, how many these are, as a vector."""
        kind = self.wide
        wide = self._widened(value)
        off = self._emit(f"fsub {kind} {wide}, {mean}")
        part = self._emit(f"fdiv {kind} {off}, {count}")
        mean = self._emit(f"fadd {kind} {mean}, {part}")
        now = self._emit(f"fsub {kind} {wide}, {mean}")
        if not self.contracted:
            square = self._emit(f"fmul {kind} {off}, {now}")
            return mean, self._emit(f"fadd {kind} {squares}, {square}")
        more = f"{kind} {off}, {kind} {now}, {kind} {squares}"
        return mean, self._emit(f"call {kind} @llvm.fma.v{self.lanes}f64({more})")

    def _count(self, i: str) -> str:
        """Return how many elements there are up to one, as a vector."""
        number = self._emit(f"add i64 {i}, 1")
        return self._splatted(self._emit(f"uitofp i64 {number} to double"))


class _RowDeviations(_Deviations):
    """The same of rows: a square of elements of as many rows is loaded, and turned."""

    parameters = "ptr %x, i64 %n, i64 %rows, i64 %stride, ptr %out"

    def rows(self, name: str) -> str:
        """Write the routine."""
        lanes, groups = self.lanes, MANY // self.lanes
        kind = f"<{lanes} x {self.element}>"
        self._write(
            "  br label %many", "many:", "  %first = phi i64 [0, %entry], [%next, %some.end]"
        )
        last = self._emit("sub i64 %rows, 1")
        pointers = []
        for row in range(MANY):  # past the last one: that again
            number = self._emit(f"add i64 %first, {row}")
            below = self._emit(f"icmp ult i64 {number}, %rows")
            there = self._emit(f"select i1 {below}, i64 {number}, i64 {last}")
            by = self._emit(f"mul i64 {there}, %stride")
            pointers.append(self._emit(f"getelementptr i8, ptr %x, i64 {by}"))
        squares = self._emit(f"udiv i64 %n, {lanes}")

        def square(i: str, state: list[str]) -> list[str]:
            at = self._emit(f"mul i64 {i}, {lanes}")
            columns = [
                self._turned(
                    [self._load(kind, pointer, at) for pointer in pointers[g * lanes :][:lanes]]
                )
                for g in range(groups)
            ]
            state = list(state)
            for column in range(lanes):
                count = self._count(self._emit(f"add i64 {at}, {column}"))
                for g in range(groups):
                    state[2 * g : 2 * g + 2] = self._take(
                        columns[g][column], count, *state[2 * g : 2 * g + 2]
                    )
            return state

        def single(i: str, state: list[str]) -> list[str]:
            count, state = self._count(i), list(state)
            for g in range(groups):
                value = "poison"
                for lane in range(lanes):
                    one = self._load(self.element, pointers[g * lanes + lane], i)
                    value = self._emit(
                        f"insertelement {kind} {value}, {self.element} {one}, i64 {lane}"
                    )
                state[2 * g : 2 * g + 2] = self._take(value, count, *state[2 * g : 2 * g + 2])
            return state

        zeros = ["zeroinitializer"] * (2 * groups)
        state = self._loop("all", ("0", "many"), squares, self.wide, zeros, square)
        done = self._emit(f"mul i64 {squares}, {lanes}")
        state = self._loop("some", (done, "all.end"), "%n", self.wide, state, single)
        for g in range(groups):
            number = self._emit(f"add i64 %first, {g * lanes}")
            pointer = self._emit(f"getelementptr double, ptr %out, i64 {number}")
            self._write(f"  store {self.wide} {state[2 * g + 1]}, ptr {pointer}, align 1")
        self._write(
            f"  %next = add i64 %first, {MANY}",
            "  %more = icmp ult i64 %next, %rows",
            "  br i1 %more, label %many, label %exit",
            "exit:",
            "  ret void",
        )
        return self._function("void", name)

    def _turned(self, rows: list[str]) -> list[str]:
        """Return the columns of a square, by perfect shuffles."""
        lanes, half = self.lanes, self.lanes // 2
        kind = f"<{lanes} x {self.element}>"
        picks = [
            ", ".join(f"i32 {k // 2 + k % 2 * lanes}" for k in range(begin, begin + lanes))
            for begin in (0, lanes)
        ]
        for _ in range(lanes.bit_length() - 1):
            rows = [
                self._emit(f"shufflevector {kind} {a}, {kind} {b}, <{lanes} x i32> <{pick}>")
                for a, b in zip(rows[:half], rows[half:], strict=True)
                for pick in picks
            ]
        return rows


class _ColumnDeviations(_Deviations):
    """The same of columns."""

    parameters = "ptr %x, i64 %n, i64 %stride, i64 %w, ptr %out"

    def columns(self, name: str) -> str:
        """Write the routine."""
        kind = f"<{self.lanes} x {self.element}>"
        self._write(
            f"  %all = icmp eq i64 %w, {self.lanes}", "  br i1 %all, label %whole, label %rest"
        )
        for which in ("whole", "rest"):
            self._write(f"{which}:")
            mask = self._lanes_below("%w", self.lanes) if which == "rest" else ""

            def take(i: str, state: list[str], mask: str = mask) -> list[str]:
                by = self._emit(f"mul i64 {i}, %stride")
                pointer = self._emit(f"getelementptr i8, ptr %x, i64 {by}")
                if mask:
                    value = self._load_masked(self.lanes, pointer, mask)
                else:
                    value = self._emit(f"load {kind}, ptr {pointer}, align 1")
                return list(self._take(value, self._count(i), *state))

            zeros = ["zeroinitializer", "zeroinitializer"]
            _, squares = self._loop(f"{which}.each", ("0", which), "%n", self.wide, zeros, take)
            self._write(f"  store {self.wide} {squares}, ptr %out, align 1", "  ret void")
        return self._function("void", name)


class _Moments(_Routine):
    """Writes ``RowwiseMoments`` (``ATen/native/cpu/moments_utils.h``): the mean, and the squares of what is off it.

    In parts of 16 vectors, which are joined in a binary tree; its lanes and then what fills no vector are joined at last.
    Four parts lie side by side, as long as there are so many.
    """

    parameters = "ptr %x, i64 %n, ptr %mean, ptr %squares"
    part = 16  # vectors
    beside = 4  # parts
    depth = 64

    def __init__(self, element: str, order: Order) -> None:
        super().__init__(MOMENTS, element)
        self.lanes = order.lanes
        self.kind = f"<{order.lanes} x {element}>"

    def _fma(self, kind: str, a: str, b: str, c: str) -> str:
        lanes = kind.partition(" ")[0].lstrip("<")
        wide = f"v{lanes}" if kind != self.element else ""
        symbol = f"@llvm.fma.{wide}f{32 if self.element == 'float' else 64}"
        self.declarations.add(f"declare {kind} {symbol}({kind}, {kind}, {kind})\n")
        return self._emit(f"call {kind} {symbol}({kind} {a}, {kind} {b}, {kind} {c})")

    def _splatted(self, kind: str, number: str) -> str:
        lanes = kind.partition(" ")[0].lstrip("<")
        one = self._emit(f"insertelement {kind} poison, {self.element} {number}, i64 0")
        return self._emit(
            f"shufflevector {kind} {one}, {kind} poison, <{lanes} x i32> zeroinitializer"
        )

    def _number(self, count: str) -> str:
        return self._emit(f"uitofp i64 {count} to {self.element}")

    def _share(self, more: str, count: str) -> str:
        """Return which share of so many are those that come to them."""
        share = self._emit(f"fdiv {self.element} {self._number(more)}, {self._number(count)}")
        none = self._emit(f"icmp eq i64 {count}, 0")
        return self._emit(f"select i1 {none}, {self.element} 0.0, {self.element} {share}")

    def _gather(self, name: str, before: str, at: str, count: str, beside: int) -> list[str]:
        """Gather parts that lie side by side, from a vector on; return mean and squares, of each lane of each part."""
        kind = f"<{self.lanes * beside} x {self.element}>"

        def take(j: str, state: list[str]) -> list[str]:
            value = ""
            for k in range(beside):
                vector = self._emit(f"add i64 {at}, {j}")
                if k:
                    vector = self._emit(f"add i64 {vector}, {k * self.part}")
                (one,) = self._vectors(self.kind, self.lanes, vector, 1)
                value = self._beside(value, one, k)
            reciprocal = self._emit(
                f"fdiv {self.element} 1.0, {self._number(self._emit(f'add i64 {j}, 1'))}"
            )
            off = self._emit(f"fsub {kind} {value}, {state[0]}")
            mean = self._fma(kind, self._splatted(kind, reciprocal), off, state[0])
            now = self._emit(f"fsub {kind} {value}, {mean}")
            return [mean, self._fma(kind, off, now, state[1])]

        return self._loop(name, ("0", before), count, kind, ["zeroinitializer"] * 2, take)

    def _beside(self, value: str, one: str, k: int) -> str:
        """Put a vector behind others."""
        if not k:
            return one
        lanes, have = self.lanes, self.lanes * k
        both, kind = have + lanes, f"<{have} x {self.element}>"
        wide = ", ".join(f"i32 {lane}" if lane < lanes else "i32 poison" for lane in range(have))
        padded = one
        if have > lanes:
            padded = self._emit(
                f"shufflevector {self.kind} {one}, {self.kind} poison, <{have} x i32> <{wide}>"
            )
        numbers = ", ".join(f"i32 {lane}" for lane in range(both))
        return self._emit(
            f"shufflevector {kind} {value}, {kind} {padded}, <{both} x i32> <{numbers}>"
        )

    def _cut(self, value: str, k: int, beside: int) -> str:
        """Return one of the parts that lie side by side."""
        kind = f"<{self.lanes * beside} x {self.element}>"
        numbers = ", ".join(f"i32 {lane}" for lane in range(k * self.lanes, (k + 1) * self.lanes))
        return self._emit(
            f"shufflevector {kind} {value}, {kind} poison, <{self.lanes} x i32> <{numbers}>"
        )

    def _slot(self, array: str, kind: str, level: str) -> str:
        return self._emit(f"getelementptr {kind}, ptr {array}, i64 {level}")

    def _join(self, level: str, more: str, mean: str, squares: str) -> None:
        """Join moments of so many vectors to those of a level."""
        kind = self.kind
        counts = self._slot("%counts", "i64", level)
        means, sums = self._slot("%means", kind, level), self._slot("%sums", kind, level)
        had = self._emit(f"load i64, ptr {counts}")
        old, old_sum = (
            self._emit(f"load {kind}, ptr {pointer}, align 4") for pointer in (means, sums)
        )
        count = self._emit(f"add i64 {had}, {more}")
        share = self._splatted(kind, self._share(more, count))
        off = self._emit(f"fsub {kind} {mean}, {old}")
        part = self._emit(f"fmul {kind} {share}, {off}")
        both = self._emit(f"fadd {kind} {old_sum}, {squares}")
        new = self._emit(f"fadd {kind} {old}, {part}")
        weighed = self._emit(f"fmul {kind} {off}, {self._splatted(kind, self._number(had))}")
        total = self._fma(kind, weighed, part, both)
        self._write(
            f"  store i64 {count}, ptr {counts}",
            f"  store {kind} {new}, ptr {means}, align 4",
            f"  store {kind} {total}, ptr {sums}, align 4",
        )

    def _adder(self) -> str:
        """Write the function that adds a part, and moves up what is complete."""
        kind = self.kind
        self._join("0", "%more", "%m", "%s")
        self._write("  br label %turn", "turn:")
        self._write("  %j = phi i64 [1, %entry], [%j.next, %move]")
        self._write("  %bits = phi i64 [%number, %entry], [%bits.next, %move]")
        self._write("  %odd.bit = and i64 %bits, 1", "  %odd = icmp ne i64 %odd.bit, 0")
        self._write("  %deep = icmp uge i64 %j, %depth", "  %stop = or i1 %odd, %deep")
        self._write("  br i1 %stop, label %exit, label %move", "move:")
        self._raise("%j")
        self._write("  %j.next = add i64 %j, 1", "  %bits.next = lshr i64 %bits, 1")
        self._write("  br label %turn", "exit:", "  ret void")
        self.parameters = f"i64 %more, {kind} %m, {kind} %s, i64 %number, i64 %depth, ptr %counts, ptr %means, ptr %sums"
        return self._function("void", "torchy_add_moments_" + self.element, internal=True)

    def _raise(self, level: str) -> None:
        """Join the level below to one, and empty it."""
        kind = self.kind
        below = self._emit(f"sub i64 {level}, 1")
        counts = self._slot("%counts", "i64", below)
        means, sums = self._slot("%means", kind, below), self._slot("%sums", kind, below)
        count = self._emit(f"load i64, ptr {counts}")
        mean = self._emit(f"load {kind}, ptr {means}, align 4")
        total = self._emit(f"load {kind}, ptr {sums}, align 4")
        self._join(level, count, mean, total)
        self._write(
            f"  store i64 0, ptr {counts}",
            f"  store {kind} zeroinitializer, ptr {means}, align 4",
            f"  store {kind} zeroinitializer, ptr {sums}, align 4",
        )

    def moments(self, name: str) -> str:
        """Write the routine."""
        text, self.parameters = self._adder(), type(self).parameters
        kind, lanes, element = self.kind, self.lanes, self.element
        for array, of in (("counts", "i64"), ("means", kind), ("sums", kind)):
            self._write(f"  %{array} = alloca [{self.depth} x {of}], align 64")
        self._write("  br label %begin", "begin:")
        vectors = self._emit(f"udiv i64 %n, {lanes}")
        parts = self._emit(
            f"udiv i64 {self._emit(f'add i64 {vectors}, {self.part - 1}')}, {self.part}"
        )
        self.declarations.add("declare i64 @llvm.ctlz.i64(i64, i1)\n")
        # how many levels there are: log2 of the parts, rounded up, at least one
        less = self._emit(f"sub i64 {parts}, 1")
        leading = self._emit(f"call i64 @llvm.ctlz.i64(i64 {less}, i1 false)")
        log = self._emit(f"sub i64 64, {leading}")
        few = self._emit(f"icmp ule i64 {parts}, 2")
        depth = self._emit(f"select i1 {few}, i64 1, i64 {log}")
        self._write("  br label %clear", "clear:")
        self._write("  %level = phi i64 [0, %begin], [%level.next, %clear]")
        self._write(f"  store i64 0, ptr {self._slot('%counts', 'i64', '%level')}")
        for array in ("%means", "%sums"):
            self._write(
                f"  store {kind} zeroinitializer, ptr {self._slot(array, kind, '%level')}, align 4"
            )
        self._write("  %level.next = add i64 %level, 1")
        self._write(f"  %level.more = icmp ult i64 %level.next, {depth}")
        self._write("  br i1 %level.more, label %clear, label %next")

        def add(count: str, state: list[str], number: str) -> None:
            done = self._emit(f"add i64 {number}, 1")
            self._write(
                f"  call void @torchy_add_moments_{element}(i64 {count}, {kind} {state[0]}, {kind} {state[1]},"
                f" i64 {done}, i64 {depth}, ptr %counts, ptr %means, ptr %sums)"
            )

        together = self.part * self.beside
        self._write(
            "next:", "  %part = phi i64 [0, %clear], [%part.four, %four], [%part.one, %one]"
        )
        self._write(f"  %at = mul i64 %part, {self.part}", f"  %ahead = sub i64 {vectors}, %at")
        self._write(f"  %past = icmp ugt i64 %at, {vectors}")  # the last part may be smaller
        self._write("  %left = select i1 %past, i64 0, i64 %ahead")
        self._write(f"  %many = icmp uge i64 %left, {together}")
        self._write("  br i1 %many, label %together, label %single", "together:")
        wide = self._gather("wide", "together", "%at", str(self.part), self.beside)
        self._write("  br label %four", "four:")
        for k in range(self.beside):
            state = [self._cut(value, k, self.beside) for value in wide]
            add(str(self.part), state, self._emit(f"add i64 %part, {k}"))
        self._write(f"  %part.four = add i64 %part, {self.beside}", "  br label %next", "single:")
        self._write("  %there = icmp ne i64 %left, 0", "  br i1 %there, label %last, label %done")
        self._write("last:", f"  %whole = icmp ult i64 %left, {self.part}")
        self._write(f"  %count = select i1 %whole, i64 %left, i64 {self.part}")
        state = self._gather("narrow", "last", "%at", "%count", 1)
        self._write("  br label %one", "one:")
        add("%count", state, "%part")
        self._write("  %part.one = add i64 %part, 1", "  br label %next", "done:")
        # the levels above the first, from the lowest on
        self._write("  br label %up", "up:", "  %j = phi i64 [1, %done], [%j.next, %upper]")
        self._write(f"  %j.more = icmp ult i64 %j, {depth}")
        self._write("  br i1 %j.more, label %upper, label %lanes", "upper:")
        loaded = [self._emit(f"load i64, ptr {self._slot('%counts', 'i64', '%j')}")]
        for array in ("%means", "%sums"):
            loaded.append(self._emit(f"load {kind}, ptr {self._slot(array, kind, '%j')}, align 4"))
        self._join("0", *loaded)
        self._write("  %j.next = add i64 %j, 1", "  br label %up", "lanes:")
        mean, total = self._rest(vectors)
        self._write(f"  store {element} {mean}, ptr %mean, align 4")
        self._write(f"  store {element} {total}, ptr %squares, align 4", "  ret void")
        return text + self._function("void", name)

    def _rest(self, vectors: str) -> tuple[str, str]:
        """Gather what fills no vector, one by one, and join the lanes to it in order."""
        element = self.element
        begin = self._emit(f"mul i64 {vectors}, {self.lanes}")

        def take(i: str, state: list[str]) -> list[str]:
            value = self._load(element, "%x", i)
            count = self._number(self._emit(f"add i64 {self._emit(f'sub i64 {i}, {begin}')}, 1"))
            off = self._emit(f"fsub {element} {value}, {state[0]}")
            mean = self._emit(
                f"fadd {element} {state[0]}, {self._emit(f'fdiv {element} {off}, {count}')}"
            )
            now = self._emit(f"fsub {element} {value}, {mean}")
            square = self._emit(f"fmul {element} {off}, {now}")
            return [mean, self._emit(f"fadd {element} {state[1]}, {square}")]

        mean, total = self._loop("rest", (begin, "lanes"), "%n", element, ["0.0", "0.0"], take)
        count = self._emit(f"sub i64 %n, {begin}")
        means, sums = (
            self._emit(f"load {self.kind}, ptr {array}, align 4") for array in ("%means", "%sums")
        )
        for lane in range(self.lanes):
            lane_mean, lane_sum = (
                self._emit(f"extractelement {self.kind} {value}, i64 {lane}")
                for value in (means, sums)
            )
            more = self._emit(f"add i64 {count}, {vectors}")
            share = self._share(vectors, more)
            off = self._emit(f"fsub {element} {lane_mean}, {mean}")
            mean = self._fma(element, share, off, mean)
            square = self._emit(
                f"fmul {element} {self._emit(f'fmul {element} {off}, {off}')}, {share}"
            )
            joined = self._fma(element, square, self._number(count), lane_sum)
            total, count = self._emit(f"fadd {element} {total}, {joined}"), more
        return mean, total
