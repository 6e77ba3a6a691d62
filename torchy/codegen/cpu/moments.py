"""The routine that gathers the mean of a row, and the squares of deviations from it, as layer norm does."""

from __future__ import annotations

from torchy.codegen.cpu.routine import RoutineWriter
from torchy.ir.kernel import Order


class Moments(RoutineWriter):
    """Writes ``RowwiseMoments`` (``ATen/native/cpu/moments_utils.h``): the mean, and the squares of what is off it.

    In parts of 16 vectors, which are joined in a binary tree; its lanes and then what fills no vector are joined at last.
    Four parts lie side by side, as long as there are so many.
    """

    parameters = "ptr %x, i64 %n, ptr %mean, ptr %squares"
    part = 16  # vectors
    beside = 4  # parts
    depth = 64

    def __init__(self, element: str, order: Order) -> None:
        super().__init__(element)
        self.lanes = order.lanes
        self.kind = f"<{order.lanes} x {element}>"

    def _fma(self, kind: str, a: str, b: str, c: str) -> str:
        lanes = kind.partition(" ")[0].lstrip("<")
        wide = f"v{lanes}" if kind != self.element else ""
        symbol = f"@llvm.fma.{wide}f{self._bits}"
        self.declarations.add(f"declare {kind} {symbol}({kind}, {kind}, {kind})\n")
        return self._emit(f"call {kind} {symbol}({kind} {a}, {kind} {b}, {kind} {c})")

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
            mean = self._fma(
                kind, self._splat(self.element, reciprocal, self.lanes * beside), off, state[0]
            )
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
        share = self._splat(self.element, self._share(more, count), self.lanes)
        off = self._emit(f"fsub {kind} {mean}, {old}")
        part = self._emit(f"fmul {kind} {share}, {off}")
        both = self._emit(f"fadd {kind} {old_sum}, {squares}")
        new = self._emit(f"fadd {kind} {old}, {part}")
        weighed = self._emit(
            f"fmul {kind} {off}, {self._splat(self.element, self._number(had), self.lanes)}"
        )
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

    def _fetch(self) -> None:
        """Have the row that mostly comes next brought nearer, line by line: parts side by side are not foreseen.

        Where there is none, nothing happens. (8192 x 512 on AVX2: from 0.76 of eager's speed to 1.)
        """
        self.declarations.add("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)\n")
        self._write(f"  %after = getelementptr {self.element}, ptr %x, i64 %n", "  br label %fetch")
        self._write("fetch:", "  %line = phi i64 [0, %entry], [%line.next, %fetch]")
        ahead = self._emit(f"getelementptr {self.element}, ptr %after, i64 %line")
        self._write(f"  call void @llvm.prefetch.p0(ptr {ahead}, i32 0, i32 3, i32 1)")
        self._write(f"  %line.next = add i64 %line, {64 * 8 // self._bits}")
        self._write("  %line.more = icmp ult i64 %line.next, %n")
        self._write("  br i1 %line.more, label %fetch, label %begin", "begin:")

    def moments(self, name: str) -> str:
        """Write the routine."""
        text, self.parameters = self._adder(), type(self).parameters
        kind, lanes, element = self.kind, self.lanes, self.element
        for array, of in (("counts", "i64"), ("means", kind), ("sums", kind)):
            self._write(f"  %{array} = alloca [{self.depth} x {of}], align 64")
        self._fetch()
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
