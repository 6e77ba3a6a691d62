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
        For an order that is neither a cascade, nor one of blocks, nor one of a single vector, nor that of deviations.

    Notes
    -----
    Of many rows: ``void symbol(ptr first, i64 n, i64 rows, i64 bytes from row to row, ptr results)``; the results have room
    for :data:`MANY` more. Of columns: ``void symbol(ptr first, i64 rows, i64 bytes from row to row, i64 columns, ptr
    results)``, for a block of columns or less; the results have room for a block.
    """
    operator, given, dtype, order = routine
    name, element = routine.symbol, TYPES[given]
    if operator == DEVIATIONS:
        if isinstance(order, ColumnOrder):
            of_columns = _ColumnDeviations(element, order.block, order.whole.contracted)
            return of_columns.columns(name) + of_columns.declared
        of_rows = _RowDeviations(element, 8, order.contracted)
        return of_rows.rows(name) + of_rows.declared
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
