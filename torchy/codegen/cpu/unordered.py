"""Routines that combine the elements of a row where the order does not show: truths, and integers."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch

from torchy.codegen.cpu.part_folds import OF_PARTS, PART
from torchy.codegen.cpu.routine import OF_ROWS, RoutineWriter

_BYTES: Final = 64  # of a vector


class _Combined(NamedTuple):
    """By which instruction, and what changes nothing; ``element`` as it is in memory."""

    instruction: str
    element: str
    bits: int
    identity: int


UNORDERED: Final = {
    ("all", torch.bool): _Combined("and", "i8", 8, 1),
    ("any", torch.bool): _Combined("or", "i8", 8, 0),
    ("sum", torch.int64): _Combined("add", "i64", 64, 0),
}


class Unordered(RoutineWriter):
    """Writes the code of one routine."""

    def __init__(self, operator: str, dtype: torch.dtype) -> None:
        self.combined = UNORDERED[operator, dtype]
        super().__init__(self.combined.element)

    def rows(self, name: str) -> str:
        """Write the routine of many rows, and that of a row that comes block by block."""
        element, lanes = self.element, 8 * _BYTES // self.combined.bits
        kind = f"<{lanes} x {element}>"
        vectors = self._emit(f"udiv i64 %n, {lanes}")
        (total,) = self._loop(
            "turn", ("0", "entry"), vectors, kind, [f"splat ({element} {self.combined.identity})"],
            lambda i, c: [self._both(kind, c[0], self._vectors(kind, lanes, i, 1)[0])],
        )  # fmt: skip
        symbol = f"@llvm.vector.reduce.{self.combined.instruction}.v{lanes}{element}"
        self.declarations.add(f"declare {element} {symbol}({kind})\n")
        of_lanes = self._emit(f"call {element} {symbol}({kind} {total})")
        done = self._emit(f"mul i64 {vectors}, {lanes}")
        (value,) = self._loop(
            "tail", (done, "turn.end"), "%n", element, [of_lanes],
            lambda i, c: [self._both(element, c[0], self._load(element, "%x", i))],
        )  # fmt: skip
        self._write(f"  ret {element} {value}")
        text = self._function(element, f"{name}.one", internal=True)
        self.parameters = OF_ROWS
        self._write("  br label %each", "each:")
        self._each_row(name, "entry")
        self._write("exit:", "  ret void")
        text += self._function("void", name)
        self.parameters = OF_PARTS
        here = self._emit(f"call {element} @{name}.one(ptr %x, i64 %n)")
        self._write("  %fresh = icmp eq i64 %first, 0", "  br i1 %fresh, label %end, label %again")
        self._write("again:")
        both = self._both(element, self._emit(f"load {element}, ptr %out"), here)
        self._write("  br label %end", "end:")
        value = self._emit(f"phi {element} [{here}, %entry], [{both}, %again]")
        self._write(f"  store {element} {value}, ptr %out", "  ret void")
        return text + self._function("void", f"{name}{PART}")

    def _both(self, kind: str, a: str, b: str) -> str:
        return self._emit(f"{self.combined.instruction} {kind} {a}, {b}")
