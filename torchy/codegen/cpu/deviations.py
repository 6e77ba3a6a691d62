"""Routines that gather the squares of deviations from the mean, one row or column in each lane."""

from __future__ import annotations

from torchy.codegen.cpu.routine import MANY, OF_ROWS, RoutineWriter


class _Deviations(RoutineWriter):
    """Writes ``WelfordOps`` in double: the sum of the squares of deviations from the mean, one row in each lane.

    Parameters
    ----------
    lanes
        How many rows or columns there are in one vector of the code: LLVM cuts it into those of the machine.
    """

    def __init__(self, element: str, lanes: int) -> None:
        super().__init__(element)
        self.wide = f"<{lanes} x double>"
        self.lanes = lanes

    def _widened(self, value: str) -> str:
        if self.element == "double":
            return value
        return self._emit(f"fpext <{self.lanes} x {self.element}> {value} to {self.wide}")

    def _take(self, value: str, count: str, mean: str, squares: str) -> tuple[str, str]:
        """Take one more element of each row; ``count``: with it, how many these are, as a vector."""
        kind = self.wide
        wide = self._widened(value)
        off = self._emit(f"fsub {kind} {wide}, {mean}")
        part = self._emit(f"fdiv {kind} {off}, {count}")
        mean = self._emit(f"fadd {kind} {mean}, {part}")
        now = self._emit(f"fsub {kind} {wide}, {mean}")
        square = self._emit(f"fmul {kind} {off}, {now}")
        return mean, self._emit(f"fadd {kind} {squares}, {square}")

    def _count(self, i: str) -> str:
        """Return how many elements there are up to one, as a vector."""
        number = self._emit(f"add i64 {i}, 1")
        return self._splat("double", self._emit(f"uitofp i64 {number} to double"), self.lanes)


class RowDeviations(_Deviations):
    """The same of rows: a square of elements of as many rows is loaded, and turned."""

    parameters = OF_ROWS

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


class ColumnDeviations(_Deviations):
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
