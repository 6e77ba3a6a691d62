"""Loop nest with a reduced axis -> LLVM IR text: a function that does a block of rows side by side, one in each lane.

Its signature is that of rows (:mod:`torchy.codegen.cpu.rows`). It serves rows of a few elements that follow each other in
memory element by element, or are the same, in each access: so differences of all pairs of points come (see
:mod:`torchy.codegen.cpu.panels`). What is of elements is done for a vector of rows at a time, the last rows under a mask;
in scratch, too, the rows of a vector lie side by side: their first elements, their second ones, and so on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from torchy.codegen.cpu.math import MathLibrary
from torchy.codegen.cpu.routines import LANES
from torchy.codegen.cpu.rows import RowWriter
from torchy.codegen.loops import LoopNest, Stage
from torchy.ir.trace import Mode

_OF_ROWS = (Mode.SCALAR, Mode.ROW)  # one for each row, or for all


@dataclass(slots=True)
class BesideWriter(RowWriter):
    """Writes ``beside``.

    Attributes
    ----------
    fewer_than
        How many elements a row must not have.
    """

    fewer_than: int = 0
    _group: str = ""  # the first row of the vector at hand
    _element: str = ""  # and which of their elements

    @classmethod
    def of(cls, nest: LoopNest, library: MathLibrary) -> Self | None:
        """Return what writes a nest's code, None if there can be none or no layout would ever fit it."""
        accesses = nest.form.accesses
        if any(access.mode is Mode.LINEAR for access in accesses):
            return None  # a row lies in one run: the next one does not follow it element by element
        writer = cls(nest=nest, library=library)
        reductions = [nest.nodes[index] for index in nest.rows if nest.nodes[index].op == "reduce"]
        limits = [writer._routine(node).fewer_than for node in reductions]
        writer.fewer_than = min(limits, default=0)
        writer.routines.clear()
        return writer if writer.fewer_than and writer.lanes in LANES else None

    def _open_lengths(self) -> None:
        more = self.emit(f"add i64 %r, {self.lanes - 1}")
        of_vectors = self.emit(f"and i64 {more}, {-self.lanes}")
        self.lines.append(f"  %total = mul i64 %n, {of_vectors}")
        self.lines.append("  %len32 = trunc i64 %total to i32")
        self._measure("", "%r")

    def _open_rows(self) -> None:
        """Load by how many bytes rows, and their elements, are apart."""
        RowWriter._open_rows(self)
        for i, access in enumerate(self.nest.form.accesses):
            if access.mode not in _OF_ROWS:
                self.lines.append(f"  %apart{i}.p = getelementptr i64, ptr %step, i64 {i}")
                self.lines.append(f"  %apart{i} = load i64, ptr %apart{i}.p")

    def _load_rows(self, previous: str) -> str:
        """Bring what rows have one of into arrays, and the elements that are the same for all rows into vectors."""
        previous = RowWriter._load_rows(self, previous)
        stored = {access for access, _ in self.nest.stores}
        for i, access in enumerate(self.nest.form.accesses):
            if access.mode not in _OF_ROWS:
                if i in stored:
                    self.lines.append(f"  %from{i} = getelementptr i8, ptr %a{i}, i64 0")
                    self.lines.append(f"  %by{i} = add i64 %apart{i}, 0")
                else:
                    previous = self._spread(i, previous)
        return previous

    def _spread(self, access: int, previous: str) -> str:
        """Name where the elements of an access are, and how far apart: if all rows have the same, in vectors of each."""
        kind = self.memory_type(self.nest.form.accesses[access].dtype)
        vector = f"<{self.lanes} x {kind}>"
        size = self.lanes * self.nest.form.accesses[access].dtype.itemsize
        label = f"spread{access}"
        bytes_ = self.emit(f"mul i64 %n, {size}")
        own = self.emit(f"alloca i8, i64 {bytes_}, align 64")
        same = self.emit(f"icmp eq i64 %r{access}, 0")
        self.lines += [f"  br i1 {same}, label %{label}, label %{label}.end", f"{label}:"]
        i = f"%{label}.i"
        self.lines.append(f"  {i} = phi i64 [0, %{previous}], [{i}.next, %{label}]")
        by = self.emit(f"mul i64 {i}, %apart{access}")
        at = self.emit(f"getelementptr i8, ptr %a{access}, i64 {by}")
        value = self.emit(f"load {kind}, ptr {at}, align 1")
        one = self.emit(f"insertelement {vector} poison, {kind} {value}, i64 0")
        all_ = self.emit(
            f"shufflevector {vector} {one}, {vector} poison, <{self.lanes} x i32> zeroinitializer"
        )
        to = self.emit(f"getelementptr {vector}, ptr {own}, i64 {i}")
        self.lines.append(f"  store {vector} {all_}, ptr {to}, align 8")
        self.lines.append(f"  {i}.next = add i64 {i}, 1")
        self.lines.append(f"  {i}.more = icmp ult i64 {i}.next, %n")
        self.lines.append(f"  br i1 {i}.more, label %{label}, label %{label}.end")
        self.lines.append(f"{label}.end:")
        places = f"[%a{access}, %{previous}], [{own}, %{label}]"
        steps = f"[%apart{access}, %{previous}], [{size}, %{label}]"
        self.lines.append(f"  %from{access} = phi ptr {places}")
        self.lines.append(f"  %by{access} = phi i64 {steps}")
        return f"{label}.end"

    # --- where things are

    def _memory(self, index: int) -> int | None:
        return None

    def _may_write(self, index: int) -> bool:
        return False

    def _apart(self, access: int) -> bool:
        return False

    def _pointer(self, access: int) -> str:
        if not self._group:
            return RowWriter._pointer(self, access)
        if access not in self._pointers:
            rows = self.emit(f"mul i64 {self._group}, %r{access}")
            element = self.emit(f"mul i64 {self._element}, %by{access}")
            by = self.emit(f"add i64 {rows}, {element}")
            self._pointers[access] = self.emit(f"getelementptr i8, ptr %from{access}, i64 {by}")
        return self._pointers[access]

    # --- stages

    def _element_stage(self, position: int, stage: Stage, previous: str) -> str:
        """Write an arithmetic stage: a vector of rows at a time, the last ones under a mask."""
        name = f"stage{position}"
        loop, rest, tail, after = (f"{name}.{word}" for word in ("loop", "rest", "tail", "after"))
        group = f"%{name}.g"
        self.lines += [f"  br i1 %some, label %{loop}, label %{rest}", f"{loop}:"]
        self.lines.append(f"  {group} = phi i64 [0, %{previous}], [{group}.next, %{loop}.end]")
        self._vector_of_rows(loop, position, stage, group)
        self.lines.append(f"  {group}.next = add i64 {group}, {self.lanes}")
        self.lines.append(f"  {group}.more = icmp ult i64 {group}.next, %full")
        self.lines.append(f"  br i1 {group}.more, label %{loop}, label %{rest}")
        self.lines.append(f"{rest}:")
        self.lines.append(f"  br i1 %uneven, label %{tail}, label %{after}")
        self.lines.append(f"{tail}:")
        self._mask = "%mask"
        self._vector_of_rows(tail, position, stage, "%full")
        self._mask = ""
        self.lines += [f"  br label %{after}", f"{after}:"]
        return after

    def _vector_of_rows(self, label: str, position: int, stage: Stage, group: str) -> None:
        """Write what a stage does to a vector of rows, element by element, after a label; it ends at ``label.end``."""
        used = self._used(position, stage)
        rows = [index for index in used if index in self.arrays and index not in self.splats]
        for index in rows:
            self.splats[index] = self._load_vector(index, self.arrays[index], group)
        first = self.emit(f"mul i64 {group}, %n")
        i = f"%{label}.i"
        self.lines += [f"  br label %{label}.each", f"{label}.each:"]
        self.lines.append(f"  {i} = phi i64 [0, %{label}], [{i}.next, %{label}.each]")
        self._group, self._element, self._pointers = group, i, {}
        by = self.emit(f"mul i64 {i}, {self.lanes}")
        self._body(position, stage, self.emit(f"add i64 {first}, {by}"), "0")
        self._group, self._element, self._pointers = "", "", {}
        self.lines.append(f"  {i}.next = add i64 {i}, 1")
        self.lines.append(f"  {i}.more = icmp ult i64 {i}.next, %n")
        self.lines.append(f"  br i1 {i}.more, label %{label}.each, label %{label}.end")
        self.lines.append(f"{label}.end:")
        for index in rows:
            del self.splats[index]

    def _is_still(self, index: int) -> bool:
        return index in self.arrays

    def _reduce(self, position: int, index: int, previous: str) -> str:
        """Call a routine for all rows of the block."""
        node = self.nest.nodes[index]
        routine = self._routine(node)
        del self.routines[routine.symbol]
        name = routine.beside(self.lanes)
        self.routines[name] = routine
        (operand,) = node.inputs
        self.declarations.add(f"declare void @{name}(ptr, i64, i64, ptr)\n")
        arguments = f"ptr {self.slots[operand]}, i64 %n, i64 %r, ptr {self.arrays[index]}"
        self.lines.append(f"  call void @{name}({arguments})")
        return previous
