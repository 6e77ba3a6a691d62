"""Loop nest that reduces all of its elements -> LLVM IR text: one function does a block of a part, another joins the parts.

Eager cuts what it reduces to one value into parts, one a thread, each of which is combined in the order of a row; so are
their values then. What is of elements is gone through block by block, so that it is never all there, and each reduction
goes on from block to block (:mod:`torchy.codegen.cpu.part_folds`). What is made of the reductions comes at the end, once.
See :mod:`torchy.codegen.cpu.teams` for who calls both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from torchy.codegen.cpu.part_folds import PART, STATE
from torchy.codegen.cpu.primitives import constant
from torchy.codegen.cpu.rows import RowWriter
from torchy.codegen.loops import Node, Stage

JOIN: Final = "join"  # the function that joins parts


@dataclass(slots=True)
class _OnceWriter(RowWriter):
    """Writes what is done to one row."""

    rows: str = "1"
    values: str = "1"

    def _open_rows(self) -> None:
        return

    def _pointer(self, access: int) -> str:
        return f"%a{access}"

    def _from_row_to_row(self, access: int) -> str:
        return "0"  # there is no other

    def _number(self, index: int) -> int:
        """Return how many reductions come before one."""
        return [i for i in self.nest.rows if self.nest.nodes[i].op == "reduce"].index(index)

    def _results(self, index: int) -> str:
        """Return where the values of a reduction's parts are, one for each thread that there is."""
        words = self.emit(f"mul i64 %parts, {self._number(index)}")
        return self.emit(f"getelementptr i64, ptr %values, i64 {words}")


@dataclass(slots=True)
class PartWriter(_OnceWriter):
    """Writes ``vectors``, which does a block: ``n`` elements of part ``which``, after ``first`` of its ``of`` elements."""

    parameters: str = (
        "ptr %at, ptr %step, ptr %numbers, i64 %n, ptr %scratch, i64 %first, i64 %of, ptr %state, ptr %values,"
        " i64 %parts, i64 %which"
    )

    def _of_rows(self) -> list[int]:
        """Return those that no reduction comes before: what is the same for all elements. The others come at the end."""
        nodes = self.nest.nodes
        found: list[int] = []
        known = set(self.nest.uniform)
        for index in self.nest.rows:
            scalar = nodes[index].op == "load" and self._is_scalar(index)
            computed = nodes[index].op not in ("load", "reduce")
            if scalar or (computed and known.issuperset(nodes[index].inputs)):
                known.add(index)
                found.append(index)
        return found

    def _load_rows(self, previous: str) -> str:
        return previous

    def _stage(self, position: int, stage: Stage, previous: str) -> str:
        if stage.kind == "row":
            early = set(self._of_rows())
            stage = Stage("row", tuple(index for index in stage.nodes if index in early))
        return RowWriter._stage(self, position, stage, previous)

    def _reduce(self, position: int, index: int, previous: str) -> str:
        node = self.nest.nodes[index]
        routine, (operand,) = self._routine(node), node.inputs
        del self.routines[routine.symbol]
        symbol = f"{routine.symbol}{PART}"
        self.routines[symbol] = routine
        access = None if operand in self.slots else self._memory(operand)
        block = self.slots[operand] if access is None else f"%a{access}"
        state = self.emit(f"getelementptr i8, ptr %state, i64 {STATE * self._number(index)}")
        kind = self.memory_type(node.dtype)
        out = self.emit(f"getelementptr {kind}, ptr {self._results(index)}, i64 %which")
        self.declarations.add(f"declare void @{symbol}(ptr, ptr, i64, i64, i64, ptr)\n")
        arguments = f"ptr {state}, ptr {block}, i64 %first, i64 %n, i64 %of, ptr {out}"
        self.lines.append(f"  call void @{symbol}({arguments})")
        return previous


@dataclass(slots=True)
class JoinWriter(_OnceWriter):
    """Writes ``join``: of ``parts`` values of each reduction, ``team`` have been made; ``n``: of how many elements."""

    parameters: str = (
        "ptr %at, ptr %step, ptr %numbers, i64 %n, ptr %scratch, ptr %values, i64 %parts, i64 %team"
    )

    def _place_slots(self) -> str:
        return "0"  # nothing is of elements here

    def _stage(self, position: int, stage: Stage, previous: str) -> str:
        if stage.kind in ("loop", "call"):
            return previous
        return RowWriter._stage(self, position, stage, previous)

    def _reduce(self, position: int, index: int, previous: str) -> str:
        """Combine the parts; a thread that had none has what changes nothing."""
        node = self.nest.nodes[index]
        routine, results = self._routine(node), self._results(index)
        kind, label = self.memory_type(node.dtype), f"idle{position}"
        nothing = constant(Node("const", (), node.dtype, routine.identity))
        if node.dtype is torch.bool:
            nothing = str(routine.identity)  # as it is in memory
        self.lines.append(f"  br label %{label}")
        self.lines.append(f"{label}:")
        self.lines.append(
            f"  %{label}.i = phi i64 [%team, %{previous}], [%{label}.next, %{label}.do]"
        )
        self.lines.append(f"  %{label}.more = icmp ult i64 %{label}.i, %parts")
        self.lines.append(f"  br i1 %{label}.more, label %{label}.do, label %{label}.end")
        self.lines.append(f"{label}.do:")
        slot = self.emit(f"getelementptr {kind}, ptr {results}, i64 %{label}.i")
        self.lines.append(f"  store {kind} {nothing}, ptr {slot}")
        self.lines.append(f"  %{label}.next = add i64 %{label}.i, 1")
        self.lines.append(f"  br label %{label}")
        self.lines.append(f"{label}.end:")
        self.declarations.add(f"declare void @{routine.symbol}(ptr, i64, i64, i64, ptr)\n")
        arguments = f"ptr {results}, i64 %parts, i64 1, i64 0, ptr {self.arrays[index]}"
        self.lines.append(f"  call void @{routine.symbol}({arguments})")
        return f"{label}.end"
