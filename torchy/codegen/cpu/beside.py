"""Loop nest with a reduced axis -> LLVM IR text: a function that does a block of rows side by side, one in each lane.

Its signature is that of rows (:mod:`torchy.codegen.cpu.rows`). It serves rows of a few elements that lie *close*, an element
apart from row to row, or are the same, in some accesses at least: so differences of all pairs of points come (see
:mod:`torchy.codegen.cpu.panels`). What is of elements is done for a vector of rows at a time, the last rows under a mask;
in scratch, too, the rows of a vector lie side by side: their first elements, their second ones, and so on. What lies apart
is copied so, and back, a vector of rows at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
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
    moves: set[tuple[str, int]] = field(default_factory=set)  # the functions that it calls
    _group: str = ""  # the first row of the vector at hand
    _element: str = ""  # and which of their elements

    @classmethod
    def of(cls, nest: LoopNest, library: MathLibrary) -> Self | None:
        """Return what writes a nest's code, None if there can be none or no layout would ever fit it."""
        writer = cls(nest=nest, library=library)
        modes = {access.mode for access in nest.form.accesses}
        if modes <= {Mode.LINEAR, *_OF_ROWS} and not writer._mixes():
            return None  # all rows are one run, and done so
        reductions = [nest.nodes[index] for index in nest.rows if nest.nodes[index].op == "reduce"]
        limits = [writer._routine(node).fewer_than for node in reductions]
        writer.fewer_than = min(limits, default=0)
        writer.routines.clear()
        return writer if writer.fewer_than and writer.lanes in LANES else None

    def _mixes(self) -> bool:
        """Tell whether something is made of what elements have and of what rows have."""
        nodes, of_rows = self.nest.nodes, {*self.nest.rows} - {*self.nest.uniform}
        made = [node for i, node in enumerate(nodes) if i not in self.nest.rows]
        mixed = any(not of_rows.isdisjoint(node.inputs) for node in made)
        modes = self.nest.form.accesses
        spread = [i for access, i in self.nest.stores if modes[access].mode not in _OF_ROWS]
        return mixed or not of_rows.isdisjoint(spread)

    def vectors(self, name: str = "beside") -> str:
        """Write the function, and those that it calls to move what lies apart."""
        text = RowWriter.vectors(self, name)
        return text + "".join(_moving(*which, self.lanes) for which in sorted(self.moves))

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
        """Bring what rows have one of into arrays, and name where the elements of each access are."""
        previous = RowWriter._load_rows(self, previous)
        for access in range(len(self.nest.form.accesses)):
            if self.nest.form.accesses[access].mode not in _OF_ROWS:
                previous = self._place(access, previous)
        return previous

    def _place(self, access: int, previous: str) -> str:
        """Name where the elements of an access are: its memory if rows lie close, else memory of its own for one vector.

        What is the same for all rows is brought there now.
        """
        size = self.nest.form.accesses[access].dtype.itemsize
        bytes_ = self.emit(f"mul i64 %n, {self.lanes * size}")
        own = f"%own{access}"
        self.lines.append(f"  {own} = alloca i8, i64 {bytes_}, align 64")
        self.lines.append(f"  %close{access} = icmp eq i64 %r{access}, {size}")
        for name, kind, near, far in (
            ("from", "ptr", f"%a{access}", own),
            ("by", "i64", f"%apart{access}", f"{self.lanes * size}"),
            ("go", "i64", f"%r{access}", "0"),
        ):
            self.lines.append(
                f"  %{name}{access} = select i1 %close{access}, {kind} {near}, {kind} {far}"
            )
        self.lines.append(f"  %far{access} = xor i1 %close{access}, true")
        if access in self._stored:
            return previous
        same = self.emit(f"icmp eq i64 %r{access}, 0")
        end = self._move("spread", access, "0", str(self.lanes), same, f"same{access}")
        self.lines.append(f"  %differs{access} = xor i1 {same}, true")
        self.lines.append(f"  %each{access} = and i1 %far{access}, %differs{access}")
        return end

    @property
    def _stored(self) -> set[int]:
        return {access for access, _ in self.nest.stores}

    def _move(self, way: str, access: int, group: str, rows: str, when: str, label: str) -> str:
        """Copy the elements of a vector of rows to an access's own memory, or from it; return the label after that."""
        bits = 8 * self.nest.form.accesses[access].dtype.itemsize
        self.moves.add((way, bits))
        self.lines += [f"  br i1 {when}, label %{label}.move, label %{label}", f"{label}.move:"]
        by = self.emit(f"mul i64 {group}, %r{access}")
        first = self.emit(f"getelementptr i8, ptr %a{access}, i64 {by}")
        steps = f"i64 %r{access}, i64 %apart{access}"
        arguments = f"ptr %own{access}, ptr {first}, {steps}, i64 %n, i64 {rows}"
        self.lines.append(f"  call void @{way}{bits}({arguments})")
        self.lines += [f"  br label %{label}", f"{label}:"]
        return label

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
            rows = self.emit(f"mul i64 {self._group}, %go{access}")
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
        count = self.emit("sub i64 %r, %full") if self._mask else str(self.lanes)
        nodes, begin = self.nest.nodes, label
        for access in sorted({int(nodes[k].detail) for k in used if self._is_of_elements(k)}):  # type: ignore[arg-type]
            far = "far" if access in self._stored else "each"
            begin = self._move(
                "bring", access, group, count, f"%{far}{access}", f"{label}.in{access}"
            )
        rows = [index for index in used if index in self.arrays and index not in self.splats]
        for index in rows:
            self.splats[index] = self._load_vector(index, self.arrays[index], group)
        first = self.emit(f"mul i64 {group}, %n")
        i = f"%{label}.i"
        self.lines += [f"  br label %{label}.each", f"{label}.each:"]
        self.lines.append(f"  {i} = phi i64 [0, %{begin}], [{i}.next, %{label}.each]")
        self._group, self._element, self._pointers = group, i, {}
        by = self.emit(f"mul i64 {i}, {self.lanes}")
        self._body(position, stage, self.emit(f"add i64 {first}, {by}"), "0")
        self._group, self._element, self._pointers = "", "", {}
        self.lines.append(f"  {i}.next = add i64 {i}, 1")
        self.lines.append(f"  {i}.more = icmp ult i64 {i}.next, %n")
        self.lines.append(f"  br i1 {i}.more, label %{label}.each, label %{label}.out")
        self.lines.append(f"{label}.out:")
        for access in sorted({self.nest.stores[s][0] for s in stage.stores}):
            self._move("put", access, group, count, f"%far{access}", f"{label}.out{access}")
        self.lines += [f"  br label %{label}.end", f"{label}.end:"]
        for index in rows:
            del self.splats[index]

    def _is_still(self, index: int) -> bool:
        return index in self.arrays

    def _is_of_elements(self, index: int) -> bool:
        node = self.nest.nodes[index]
        return node.op == "load" and self._mode(node) not in _OF_ROWS

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


def _moving(way: str, bits: int, lanes: int) -> str:
    """Write a function that brings what lies apart, element by element, or puts it there, or spreads what is the same."""
    vector = f"<{lanes} x i{bits}>"
    if way == "spread":
        each = f"""
  %value = load i{bits}, ptr %begin, align 1
  %one = insertelement {vector} poison, i{bits} %value, i64 0
  %all = shufflevector {vector} %one, {vector} poison, <{lanes} x i32> zeroinitializer
  store {vector} %all, ptr %line, align 8
  br label %done"""
    else:
        source, target = ("%at", "%to") if way == "bring" else ("%to", "%at")
        each = f"""
  br label %each
each:
  %j = phi i64 [0, %elements], [%j.next, %each]
  %at = phi ptr [%begin, %elements], [%at.next, %each]
  %to = getelementptr i{bits}, ptr %line, i64 %j
  %value = load i{bits}, ptr {source}, align 1
  store i{bits} %value, ptr {target}, align 1
  %at.next = getelementptr i8, ptr %at, i64 %row
  %j.next = add i64 %j, 1
  %j.more = icmp ult i64 %j.next, %rows
  br i1 %j.more, label %each, label %done"""
    return f"""
define internal void @{way}{bits}(ptr %own, ptr %first, i64 %row, i64 %element, i64 %n, i64 %rows) {{
entry:
  br label %elements
elements:
  %i = phi i64 [0, %entry], [%i.next, %done]
  %i.by = mul i64 %i, %element
  %begin = getelementptr i8, ptr %first, i64 %i.by
  %line = getelementptr {vector}, ptr %own, i64 %i{each}
done:
  %i.next = add i64 %i, 1
  %i.more = icmp ult i64 %i.next, %n
  br i1 %i.more, label %elements, label %exit
exit:
  ret void
}}
"""
