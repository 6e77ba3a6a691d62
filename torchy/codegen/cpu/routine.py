"""Writes the code of a routine that reduces rows, or columns: what all of them have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

MANY: Final = 16  # rows that are done side by side
OF_ROWS: Final = (
    "ptr %x, i64 %n, i64 %rows, i64 %stride, ptr %out"  # what a routine of many rows is given
)


class RoutineWriter:
    """Writes the code of one routine, instruction by instruction; each value gets a name of its own."""

    def __init__(self, element: str) -> None:
        self.element = element
        self.row = "%x"  # where its vectors are
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

    def _load(self, kind: str, base: str, at: str) -> str:
        pointer = self._emit(f"getelementptr {self.element}, ptr {base}, i64 {at}")
        return self._emit(f"load {kind}, ptr {pointer}, align 1")

    def _load_masked(self, lanes: int, pointer: str, mask: str) -> str:
        """Load the lanes of a mask, zeros for the others: what is not there is not read, a row may end a page."""
        kind, truth = f"<{lanes} x {self.element}>", f"<{lanes} x i1>"
        symbol = f"@llvm.masked.load.v{lanes}f{self._bits}.p0"
        self.declarations.add(f"declare {kind} {symbol}(ptr, {truth}, {kind})\n")
        return self._emit(
            f"call {kind} {symbol}(ptr align 1 {pointer}, {truth} {mask}, {kind} zeroinitializer)"
        )

    def _vectors(self, kind: str, lanes: int, first: str, count: int) -> list[str]:
        """Load vectors that follow each other, from one on."""
        at = self._emit(f"mul i64 {first}, {lanes}")
        base = self._emit(f"getelementptr {self.element}, ptr {self.row}, i64 {at}")
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

    def _each_row(self, name: str, before: str) -> None:
        """Write the end of a routine of many rows, after a label: the routine of one row, for one after the other."""
        self._write(f"  %row = phi i64 [0, %{before}], [%row.next, %each]")
        by = self._emit("mul i64 %row, %stride")
        pointer = self._emit(f"getelementptr i8, ptr %x, i64 {by}")
        value = self._emit(f"call {self.element} @{name}.one(ptr {pointer}, i64 %n)")
        place = self._emit(f"getelementptr {self.element}, ptr %out, i64 %row")
        self._write(f"  store {self.element} {value}, ptr {place}, align 1")
        self._write("  %row.next = add i64 %row, 1", "  %row.more = icmp ult i64 %row.next, %rows")
        self._write("  br i1 %row.more, label %each, label %exit")

    parameters = "ptr %x, i64 %n"

    def _function(self, kind: str, name: str, internal: bool = False) -> str:
        body = "\n".join(self.lines)
        self.lines = []
        linkage = "internal " if internal else ""
        return f"define {linkage}{kind} @{name}({self.parameters}) {{\nentry:\n{body}\n}}\n"

    @property
    def _bits(self) -> int:
        return 32 if self.element == "float" else 64

    def _splat(self, kind: str, value: str, lanes: int) -> str:
        """Return a vector that has a value in all lanes."""
        vector = f"<{lanes} x {kind}>"
        one = self._emit(f"insertelement {vector} poison, {kind} {value}, i64 0")
        return self._emit(
            f"shufflevector {vector} {one}, {vector} poison, <{lanes} x i32> zeroinitializer"
        )

    def _halved(self, vector: str, lanes: int, join: Callable[[str, str, str], str]) -> str:
        """Join the second half of a vector's lanes with the first, and so on; return what is left, a number.

        ``join`` is given the type of the halves, and both.
        """
        while lanes > 1:
            half, kind = lanes // 2, f"<{lanes} x {self.element}>"
            parts = []
            for begin in (0, half):
                picked = ", ".join(f"i32 {lane}" for lane in range(begin, begin + half))
                parts.append(
                    self._emit(
                        f"shufflevector {kind} {vector}, {kind} poison, <{half} x i32> <{picked}>"
                    )
                )
            vector, lanes = join(f"<{half} x {self.element}>", *parts), half
        return self._emit(f"extractelement <1 x {self.element}> {vector}, i64 0")

    def _lanes_below(self, count: str, lanes: int) -> str:
        """Return the mask of the first lanes of a vector."""
        kind, same = f"<{lanes} x i64>", self._splat("i64", count, lanes)
        numbers = ", ".join(f"i64 {lane}" for lane in range(lanes))
        return self._emit(f"icmp ult {kind} <{numbers}>, {same}")
