"""Loop nest with a reduced axis -> LLVM IR text: a function that does a block of rows, stage by stage.

Its signature is ``vectors(at, step, numbers, n, r, scratch, stride)``, for ``r`` rows of ``n`` elements, which lie
``stride`` bytes apart, by access. What is of elements is done row by row, the last elements of each under a mask; where
nothing in a stage tells rows apart, all are one run. What is of rows lies in arrays, and is done in vectors of rows. What
reduces rows is a routine of their order (:mod:`torchy.codegen.cpu.routines`), which takes them from memory: an access's
own, or scratch.

Scratch has first the values that cross stages, ``r * n`` elements each, then the arrays; all have room for a vector more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch

from torchy.codegen.cpu.driver import ROOM
from torchy.codegen.cpu.llvm import Writer
from torchy.codegen.cpu.masked import MaskedWriter
from torchy.codegen.cpu.primitives import TYPES
from torchy.codegen.cpu.routine import MANY
from torchy.codegen.cpu.routines import DEVIATIONS, PAIRS, Routine, Routines
from torchy.codegen.cpu.threads import GRAIN
from torchy.codegen.loops import Node, Stage
from torchy.ir.trace import Mode

# of one row: what a second-level cache holds beside what it is read from
_SCRATCH_BYTES: Final = 1 << 18
_MOST: Final = 1 << 30  # elements in a row without scratch: vector functions take 32-bit lengths


@dataclass(slots=True)
class RowWriter(MaskedWriter):
    """Writes ``vectors`` for rows.

    Attributes
    ----------
    element_bytes, arrays
        Bytes of scratch for each element, and how many arrays it needs.
    most_elements, least_rows
        How many a row can have, for its scratch memory; how many rows a block has, if there are so many.
    routines
        What it calls to reduce a row.
    """

    scratch_alignment: int = 1  # rows are of any length
    parameters: str = "ptr %at, ptr %step, ptr %numbers, i64 %n, i64 %r, ptr %scratch, ptr %stride"
    element_bytes: int = 0
    arrays: dict[int, str] = field(default_factory=dict)  # by node: of what is of rows
    most_elements: int = _MOST
    least_rows: int = 1
    # of which the rows of a block are one run
    run_on: frozenset[Mode] = frozenset((Mode.LINEAR, Mode.SCALAR))
    routines: Routines = field(default_factory=dict)
    rows: str = "%r"  # how many there are in a block
    values: str = "%r"  # and of what is of rows
    length: str = "%n"  # of a row
    _row: str = ""  # the number of the row, while something is done row by row
    _pointers: dict[int, str] = field(default_factory=dict)  # of that row, by access

    def vectors(self, name: str = "vectors") -> str:
        """Write the function; see the module's docstring."""
        self._open()
        previous = self._load_rows("entry")
        for position, stage in enumerate(self.nest.stages):
            previous = self._stage(position, stage, previous)
        self.lines.append("  br label %exit")
        return self._function(name)

    def _open(self) -> None:
        """Write what comes before the stages."""
        nest = self.nest
        self._write_directly()
        self._open_lengths()
        self._open_accesses()
        self._open_rows()
        self._scratch()
        for index, node in enumerate(nest.nodes):
            if self._is_scalar(index):
                self._one(index, self._load_one(node, f"%a{node.detail}"))
        for index in nest.uniform:
            if nest.nodes[index].op == "length":
                self._one(index, self.length)
            else:
                self._uniform(index)

    def _open_lengths(self) -> None:
        """Name how many elements the block has, and what of a row, and of all, makes vectors."""
        self.lines.append(f"  %total = mul i64 %n, {self.rows}")
        self.lines.append("  %len32 = trunc i64 %total to i32")
        for prefix, length in (("", "%n"), ("all.", "%total")):
            self._measure(prefix, length)

    def _open_rows(self) -> None:
        """Load by how many bytes rows are apart."""
        for i, access in enumerate(self.nest.form.accesses):
            if access.mode is not Mode.SCALAR:
                self.lines.append(f"  %r{i}.p = getelementptr i64, ptr %stride, i64 {i}")
                self.lines.append(f"  %r{i} = load i64, ptr %r{i}.p")

    def _stage(self, position: int, stage: Stage, previous: str) -> str:
        """Write a stage, after a label; return where it ends."""
        if stage.kind == "row":
            return self._row_stage(position, stage, previous)
        if stage.kind == "reduction":
            return self._reduce(position, stage.nodes[0], previous)
        if stage.kind == "call":
            return self._call_stage(position, stage, previous, "%total")
        if self._does_anything(position, stage):
            return self._element_stage(position, stage, previous)
        return previous

    def _is_scalar(self, index: int) -> bool:
        node = self.nest.nodes[index]
        return node.op == "load" and self._mode(node) is Mode.SCALAR

    def _one(self, index: int, scalar: str) -> None:
        self.scalars[index] = scalar
        self._splat(index, scalar)

    def _measure(self, prefix: str, length: str) -> None:
        """Name the whole vectors of a run, whether there are any, whether something is left, and the mask for that."""
        lanes, kind = self.lanes, f"<{self.lanes} x i32>"
        self.lines.append(f"  %{prefix}full = and i64 {length}, {-lanes}")
        self.lines.append(f"  %{prefix}some = icmp ne i64 %{prefix}full, 0")
        self.lines.append(f"  %{prefix}uneven = icmp ne i64 %{prefix}full, {length}")
        left = self.emit(f"sub i64 {length}, %{prefix}full")
        left32 = self.emit(f"trunc i64 {left} to i32")
        one = self.emit(f"insertelement {kind} poison, i32 {left32}, i64 0")
        same = self.emit(f"shufflevector {kind} {one}, {kind} poison, {kind} zeroinitializer")
        numbers = ", ".join(f"i32 {lane}" for lane in range(lanes))
        self.lines.append(f"  %{prefix}mask = icmp ult {kind} <{numbers}>, {same}")

    # --- scratch

    def _scratch(self) -> int:
        """Give scratch memory to values that cross stages, and arrays to what is of rows; return how long a row may be."""
        for name, count in (("elements", "%total"), ("rows", self.values)):
            more = self.emit(f"add i64 {count}, {2 * ROOM - 1}")
            self.lines.append(f"  %{name}.room = and i64 {more}, {-ROOM}")
        self._place_arrays(self._place_slots())
        if self.element_bytes:
            self.most_elements = _SCRATCH_BYTES // self.element_bytes - 2 * ROOM
        return self.most_elements

    def _place_slots(self) -> str:
        """Give scratch memory to values that cross stages; return where it ends."""
        begin = "0"
        for slot, size in self._assign_slots():
            self.lines.append(f"  {slot} = getelementptr i8, ptr %scratch, i64 {begin}")
            used = self.emit(f"mul i64 %elements.room, {size}")
            begin = self.emit(f"add i64 {begin}, {used}")
            self.element_bytes += size
        return begin

    def _place_arrays(self, begin: str) -> None:
        """Give arrays to what is of rows; vector functions read them, too."""
        nodes, rows = self.nest.nodes, self._of_rows()
        of_calls = [i for k in rows if nodes[k].op == "call" for i in nodes[k].inputs]
        of_rows = [i for i in rows if not self._is_scalar(i)]
        for index in dict.fromkeys((*of_rows, *of_calls)):
            self.arrays[index] = f"%array{index}"
            self.lines.append(f"  %array{index} = getelementptr i8, ptr %scratch, i64 {begin}")
            used = self.emit("mul i64 %rows.room, 8")
            begin = self.emit(f"add i64 {begin}, {used}")

    def _of_rows(self) -> Sequence[int]:
        """Return the nodes that rows have one of."""
        return self.nest.rows

    def _memory(self, index: int) -> int | None:
        node = self.nest.nodes[index]
        users = [user for user in self.nest.nodes if index in user.inputs and user.op == "call"]
        # rows that do not follow each other are no run, and what takes whole vectors would read beyond it
        if any(self._function_of(user).library != "vml" for user in users):
            return None
        if users and node.op == "load" and self._mode(node) is not Mode.LINEAR:
            return None
        return Writer._memory(self, index)

    def _may_write(self, index: int) -> bool:
        modes = {
            self.nest.form.accesses[access].mode
            for access, value in self.nest.stores
            if value == index
        }
        return self._function_of(self.nest.nodes[index]).library == "vml" and modes == {Mode.LINEAR}

    def _reads_block(self, stage: Stage) -> bool:
        return stage.kind in ("call", "reduction")

    def _operand(self, index: int) -> str:
        access = self.written.get(index)
        if access is None and index not in self.slots:
            access = self._memory(index)
        return self.slots[index] if access is None else f"%a{access}"

    def _pointer(self, access: int) -> str:
        if not self._row:
            return f"%a{access}"
        if access not in self._pointers:
            by = self.emit(f"mul i64 {self._row}, %r{access}")
            self._pointers[access] = self.emit(f"getelementptr i8, ptr %a{access}, i64 {by}")
        return self._pointers[access]

    # --- stages

    def _over_rows(
        self, label: str, previous: str, body: Callable[[str], str], count: str = ""
    ) -> str:
        """Write a loop over the rows of the block; ``body`` is given the label where it begins, returns where it ends."""
        begin = len(self.lines) + 2
        self.lines += [f"  br label %{label}", f"{label}:"]
        self._row, self._pointers = f"%{label}.j", {}
        last = body(label)
        self.lines.insert(
            begin, f"  %{label}.j = phi i64 [0, %{previous}], [%{label}.next, %{last}]"
        )
        self._row, self._pointers = "", {}
        self.lines.append(f"  %{label}.next = add i64 %{label}.j, 1")
        self.lines.append(f"  %{label}.more = icmp ult i64 %{label}.next, {count or self.rows}")
        self.lines.append(f"  br i1 %{label}.more, label %{label}, label %{label}.end")
        self.lines.append(f"{label}.end:")
        return f"{label}.end"

    def _over_values(self, label: str, previous: str, body: Callable[[str], str]) -> str:
        """Write a loop over what the block has of values of rows, as :meth:`_over_rows`."""
        return self._over_rows(label, previous, body)

    def _element_stage(self, position: int, stage: Stage, previous: str) -> str:
        """Write an arithmetic stage: row by row, or all rows as one run if nothing tells them apart."""
        used = self._used(position, stage)
        nodes = self.nest.nodes
        still = [i for i in used if i not in self.splats and self._is_still(i)]
        accesses = {int(nodes[i].detail) for i in used if nodes[i].op == "load"}  # type: ignore[arg-type]
        accesses |= {self.nest.stores[s][0] for s in stage.stores}
        modes = {self.nest.form.accesses[access].mode for access in accesses}
        if modes <= self.run_on and not still and self.arrays.keys().isdisjoint(used):
            return self._run(f"stage{position}", position, stage, previous, "all.", "")

        def body(label: str) -> str:
            for index in still:
                if index in self.arrays:
                    scalar = self._array_element(index)
                else:
                    access = int(nodes[index].detail)  # type: ignore[arg-type]
                    scalar = self._load_one(nodes[index], self._pointer(access))
                self._splat(index, scalar)
            for access in sorted(accesses):
                if self.nest.form.accesses[access].mode is not Mode.SCALAR:
                    self._pointer(access)  # before the loops over elements
            first = self.emit(f"mul i64 {self._row}, %n")
            end = self._run(f"stage{position}", position, stage, label, "", first)
            for index in still:
                del self.splats[index]
            return end

        return self._over_rows(f"rows{position}", previous, body)

    def _used(self, position: int, stage: Stage) -> list[int]:
        """Return the nodes whose values a stage takes, but for those that it makes."""
        used = [i for index in stage.nodes for i in self.nest.nodes[index].inputs]
        used += [self.nest.stores[s][1] for s in stage.stores]
        used += self._brought_rows(position)
        return [i for i in dict.fromkeys(used) if i not in stage.nodes]

    def _brought_rows(self, position: int) -> Iterable[int]:
        """What the stages right after want in scratch memory, whether it is in a register by then or not."""
        for stage in self.nest.stages[position + 1 :]:
            if not self._reads_block(stage):
                break
            yield from (i for i in self.nest.nodes[stage.nodes[0]].inputs if i in self.slots)

    def _brought(self, position: int) -> list[int]:
        made = {
            i for stage in self.nest.stages for i in stage.nodes if stage.kind in ("loop", "call")
        }
        return [i for i in dict.fromkeys(self._brought_rows(position)) if i not in made]

    def _is_still(self, index: int) -> bool:
        """Tell whether a value is the same for all elements of a run."""
        node = self.nest.nodes[index]
        return index in self.arrays or (node.op == "load" and self._mode(node) is Mode.REPEAT)

    def _run(
        self, name: str, position: int, stage: Stage, previous: str, prefix: str, first: str
    ) -> str:
        """Write an arithmetic stage for one run: its whole vectors, then the last elements under a mask.

        ``first`` is where the run begins in scratch.
        """
        loop, rest, tail, after = (f"{name}.{word}" for word in ("loop", "rest", "tail", "after"))
        i = f"%{name}.i"
        self.lines += [f"  br i1 %{prefix}some, label %{loop}, label %{rest}", f"{loop}:"]
        self.lines.append(f"  {i} = phi i64 [0, %{previous}], [{i}.next, %{loop}]")
        self._body(position, stage, self.emit(f"add i64 {first}, {i}") if first else i, i)
        self.lines.append(f"  {i}.next = add i64 {i}, {self.lanes}")
        self.lines.append(f"  {i}.more = icmp ult i64 {i}.next, %{prefix}full")
        self.lines.append(f"  br i1 {i}.more, label %{loop}, label %{rest}")
        self.lines.append(f"{rest}:")
        self.lines.append(f"  br i1 %{prefix}uneven, label %{tail}, label %{after}")
        self.lines.append(f"{tail}:")
        self._mask = f"%{prefix}mask"
        full = f"%{prefix}full"
        self._body(position, stage, self.emit(f"add i64 {first}, {full}") if first else full, full)
        self._mask = ""
        self.lines += [f"  br label %{after}", f"{after}:"]
        return after

    def _reduce(self, position: int, index: int, previous: str) -> str:
        """Call a routine for all rows of the block."""
        node = self.nest.nodes[index]
        routine, (operand,) = self._routine(node), node.inputs
        access = None if operand in self.slots else self._memory(operand)
        if node.detail in PAIRS:
            return self._reduce_to_two(position, index, routine, access, previous)
        if access is None:
            first = self.slots[operand]
            stride = self.emit(f"mul i64 %n, {routine.given.itemsize}")
        else:
            first, stride = f"%a{access}", f"%r{access}"
        self.declarations.add(f"declare void @{routine.symbol}(ptr, i64, i64, i64, ptr)\n")
        arguments = f"ptr {first}, i64 %n, i64 %r, i64 {stride}, ptr {self.arrays[index]}"
        self.lines.append(f"  call void @{routine.symbol}({arguments})")
        if node.detail == DEVIATIONS:
            self.least_rows = MANY
            # longer ones eager may cut into parts, for several threads
            self.most_elements = min(self.most_elements, GRAIN - 1)
        return previous

    def _reduce_to_two(
        self, position: int, index: int, routine: Routine, access: int | None, previous: str
    ) -> str:
        """Call a routine row by row, once for both of its values."""
        node, given = self.nest.nodes[index], TYPES[routine.given]
        pair = [self._sibling(index, operator) for operator in PAIRS[str(node.detail)][1]]
        if index != min(i for i in pair if i is not None):
            return previous  # made with the other
        arrays = [self.arrays[i] if i is not None else self.emit("alloca double") for i in pair]
        self.declarations.add(f"declare void @{routine.symbol}(ptr, i64, ptr, ptr)\n")

        def body(label: str) -> str:
            if access is None:
                first = self.emit(f"mul i64 {self._row}, %n")
                slot = self.slots[node.inputs[0]]
                row = self.emit(f"getelementptr {given}, ptr {slot}, i64 {first}")
            else:
                row = self._pointer(access)
            places = []
            for array, i in zip(arrays, pair, strict=True):
                kind = given if i is None else TYPES[self.nest.nodes[i].dtype]
                at = "0" if i is None else self._row
                places.append("ptr " + self.emit(f"getelementptr {kind}, ptr {array}, i64 {at}"))
            arguments = f"ptr {row}, i64 %n, {', '.join(places)}"
            self.lines.append(f"  call void @{routine.symbol}({arguments})")
            return label

        return self._over_rows(f"reduce{position}", previous, body)

    def _sibling(self, index: int, operator: str) -> int | None:
        """Return the node that reduces the same row by another operator, None if nothing wants it."""
        node = self.nest.nodes[index]
        wanted = ("reduce", operator, node.inputs, node.order)
        for other in self.nest.rows:
            of = self.nest.nodes[other]
            if (of.op, of.detail, of.inputs, of.order) == wanted:
                return other
        return None

    def _routine(self, node: Node) -> Routine:
        """Return what makes a reduction's value."""
        assert node.order is not None  # of a reduction
        operator = str(node.detail)
        if operator in PAIRS:
            operator = PAIRS[operator][0]
        given = self._given(node)
        dtype = given if node.detail in PAIRS else node.dtype  # one of the two is an index
        routine = Routine(operator, given, dtype, node.order)
        self.routines[routine.symbol] = routine
        return routine

    # --- what is of rows

    def _array_element(self, index: int) -> str:
        """Load what the row at hand has of a value."""
        kind = self.memory_type(self.nest.nodes[index].dtype)
        at = self.emit(f"getelementptr {kind}, ptr {self.arrays[index]}, i64 {self._row}")
        return self._load_one(self.nest.nodes[index], at)

    def _set_array(self, index: int, value: str) -> None:
        """Store what the row at hand has of a value, as it is in registers."""
        dtype = self.nest.nodes[index].dtype
        kind = self.memory_type(dtype)
        if dtype is torch.bool:
            value = self.emit(f"zext i1 {value} to i8")
        at = self.emit(f"getelementptr {kind}, ptr {self.arrays[index]}, i64 {self._row}")
        self.lines.append(f"  store {kind} {value}, ptr {at}")

    def _load_rows(self, previous: str) -> str:
        """Bring what rows have one of from memory into arrays."""
        nodes = self.nest.nodes
        loads = [
            i for i in self.nest.rows if nodes[i].op == "load" and self._mode(nodes[i]) is Mode.ROW
        ]
        if not loads:
            return previous

        def body(label: str) -> str:
            for index in loads:
                access = int(nodes[index].detail)  # type: ignore[arg-type]
                self._set_array(index, self._load_one(nodes[index], self._pointer(access)))
            return label

        return self._over_values("loads", previous, body)

    def _row_stage(self, position: int, stage: Stage, previous: str) -> str:
        """Write what is done once for a row, for all rows of the block: vectors of rows, and calls."""
        together: list[int] = []
        for index in stage.nodes:
            node = self.nest.nodes[index]
            if node.op != "call":
                together.append(index)
                continue
            filled = [i for i in node.inputs if i not in self.nest.rows or i in self.scalars]
            previous = self._row_vectors(f"ones{index}", together, filled, previous)
            previous = self._call_rows(index, node, previous)
            together = []
        previous = self._row_vectors(f"ones.{position}", together, (), previous)
        for s in stage.stores:
            previous = self._store_rows(f"stores{s}", *self.nest.stores[s], previous)
        return previous

    def _store_rows(self, label: str, access: int, index: int, previous: str) -> str:
        """Write what rows have one of to memory: at once where it follows each other there."""
        spec = self.nest.form.accesses[access]
        kind = self.memory_type(spec.dtype)

        def body(each: str) -> str:
            value = self.scalars.get(index) or self._array_element(index)
            if spec.dtype is torch.bool:
                value = self.emit(f"zext i1 {value} to i8")
            self.lines.append(f"  store {kind} {value}, ptr {self._pointer(access)}, align 1")
            return each

        if index in self.scalars:
            return self._over_values(label, previous, body)
        size = spec.dtype.itemsize
        close = self.emit(f"icmp eq i64 {self._from_row_to_row(access)}, {size}")
        self.lines += [f"  br i1 {close}, label %{label}.all, label %{label}.each"]
        self.lines.append(f"{label}.all:")
        bytes_ = self.emit(f"mul i64 {self.values}, {size}")
        self.declarations.add("declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)\n")
        arguments = f"ptr %a{access}, ptr {self.arrays[index]}, i64 {bytes_}, i1 false"
        self.lines.append(f"  call void @llvm.memcpy.p0.p0.i64({arguments})")
        self.lines += [f"  br label %{label}.done", f"{label}.each:"]
        self._over_values(f"{label}.one", f"{label}.each", body)
        self.lines += [f"  br label %{label}.done", f"{label}.done:"]
        return f"{label}.done"

    def _from_row_to_row(self, access: int) -> str:
        """Return by how many bytes what neighbours have one of is apart."""
        return f"%r{access}"

    def _row_vectors(
        self, label: str, nodes: Sequence[int], filled: Sequence[int], previous: str
    ) -> str:
        """Compute what is of rows, and fill arrays with what is the same for all."""
        if not nodes and not filled:
            return previous
        values: dict[int, str] = {}

        def value(index: int) -> str:
            if index in self.splats:
                return self.splats[index]
            if index not in values:
                values[index] = self._load_vector(index, self.arrays[index], f"%{label}.i")
            return values[index]

        self.lines += [f"  br label %{label}", f"{label}:"]
        self.lines.append(f"  %{label}.i = phi i64 [0, %{previous}], [%{label}.next, %{label}]")
        for index in nodes:
            node = self.nest.nodes[index]
            inputs = [value(i) for i in node.inputs]
            values[index] = self.primitive(node, self._given(node), inputs, vector=True)
            self._store_vector(index, values[index], self.arrays[index], f"%{label}.i")
        for index in filled:
            self._store_vector(index, value(index), self.arrays[index], f"%{label}.i")
        self.lines.append(f"  %{label}.next = add i64 %{label}.i, {self.lanes}")
        self.lines.append(f"  %{label}.more = icmp ult i64 %{label}.next, {self.values}")
        self.lines.append(f"  br i1 %{label}.more, label %{label}, label %{label}.end")
        self.lines.append(f"{label}.end:")
        return f"{label}.end"

    def _call_rows(self, index: int, node: Node, previous: str) -> str:
        """Call a vector function for what rows have one of."""
        function = self._function_of(node)
        pointers = [self.arrays[i] for i in node.inputs]
        if function.library == "vml":
            rows = self.emit(f"trunc i64 {self.values} to i32")
            self._call_vml(node, function, rows, [*pointers, self.arrays[index]])
            return previous
        return self._call_vectors(
            f"calls{index}", node, function, pointers, self.arrays[index], previous, self.values
        )
