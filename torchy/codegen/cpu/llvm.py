"""Loop nest -> LLVM IR text, where no axis is reduced (for rows, see :mod:`torchy.codegen.cpu.rows`).

A kernel's own function is ``vectors``: the stages, on a number of elements that is a multiple of the lanes. What is around
it (threads, outer dimensions, tails) is shared, see :mod:`torchy.codegen.cpu.driver`. Nothing here may change a bit: no
fast-math flag, no contraction but the formula's own ``fma``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import torch

from torchy.codegen.cpu.math import VML_MODE, MathFunction, MathLibrary
from torchy.codegen.cpu.primitives import TYPES, Emitter, constant
from torchy.codegen.errors import CompileError
from torchy.codegen.loops import LoopNest, Node, Stage
from torchy.ir.trace import Mode

_BLOCK_BYTES: Final = 16384  # all scratch of a block together: half of a first-level cache
_UNBOUNDED: Final = (
    1 << 20
)  # elements in a block without scratch: vector functions take 32-bit lengths


@dataclass(slots=True)
class Writer(Emitter):
    """Writes ``vectors``; one value name for each node and place where it is made."""

    nest: LoopNest = field(kw_only=True)
    library: MathLibrary = field(kw_only=True)
    tail: bool = field(kw_only=True, default=False)  # of eager's loop: see MathLibrary.find
    math: dict[str, MathFunction] = field(default_factory=dict)
    scalars: dict[int, str] = field(default_factory=dict)  # what is no vector
    splats: dict[int, str] = field(
        default_factory=dict
    )  # what is the same for all elements, as vectors
    slots: dict[int, str] = field(default_factory=dict)  # nodes that pass through scratch
    written: dict[int, int] = field(default_factory=dict)  # calls that write straight to an access
    scratch_alignment: int = 8  # of each vector; bytes
    parameters: str = "ptr %at, ptr %step, ptr %numbers, i64 %n"

    def __post_init__(self) -> None:
        widest = max((node.dtype.itemsize for node in self.nest.nodes), default=4)
        narrow = widest == 8 and not self._only_numbers_are_wide()
        self.lanes = 8 if narrow and self.library.lanes <= 8 else 16  # no less than SLEEF's vectors

    def _only_numbers_are_wide(self) -> bool:
        uniform = set(self.nest.uniform)
        return all(
            node.dtype.itemsize < 8 for i, node in enumerate(self.nest.nodes) if i not in uniform
        )

    # --- the function

    def vectors(self, name: str = "vectors") -> str:
        """Write the function; see the module's docstring."""
        nest = self.nest
        calls = any(stage.kind == "call" for stage in nest.stages)
        self._write_directly()
        block = self._scratch() if calls else 0
        self._open_accesses()
        for index in nest.uniform:
            self._uniform(index)
        self._load_still()
        if calls:
            self.lines += ["  br label %block", "block:"]
            self.lines.append("  %b = phi i64 [0, %entry], [%b.next, %latch]")
            self.lines.append("  %b.left = sub i64 %n, %b")
            self.lines.append(f"  %b.small = icmp ult i64 %b.left, {block}")
            self.lines.append(f"  %len = select i1 %b.small, i64 %b.left, i64 {block}")
            self.lines.append("  %len32 = trunc i64 %len to i32")
        previous = "block" if calls else "entry"
        for position, stage in enumerate(nest.stages):
            if stage.kind == "call":
                previous = self._call_stage(position, stage, previous, "%len")
            elif self._does_anything(position, stage):
                previous = self._loop(
                    position, stage, previous, "%len" if calls else "%n", "%b" if calls else ""
                )
        if calls:
            self.lines += ["  br label %latch", "latch:"]
            self.lines.append("  %b.next = add i64 %b, %len")
            self.lines.append("  %b.more = icmp ult i64 %b.next, %n")
            self.lines.append("  br i1 %b.more, label %block, label %exit")
        else:
            self.lines.append("  br label %exit")
        return self._function(name)

    def _function(self, name: str) -> str:
        body = "\n".join(self.lines)
        return f"define internal void @{name}({self.parameters}) {{\nentry:\n{body}\nexit:\n  ret void\n}}\n"

    def _open_accesses(self) -> None:
        for i, access in enumerate(self.nest.form.accesses):
            self.lines.append(f"  %a{i}.p = getelementptr i64, ptr %at, i64 {i}")
            self.lines.append(f"  %a{i} = load ptr, ptr %a{i}.p")
            if access.mode is Mode.STRIDED:
                self.lines.append(f"  %s{i}.p = getelementptr i64, ptr %step, i64 {i}")
                self.lines.append(f"  %s{i} = load i64, ptr %s{i}.p")

    def _load_still(self) -> None:
        """Load what does not move along the inner dimension."""
        for index, node in enumerate(self.nest.nodes):
            if node.op == "load" and not self._moves(int(node.detail)):  # type: ignore[arg-type]
                self._splat(index, self._load_one(node, f"%a{node.detail}"))

    def _does_anything(self, position: int, stage: Stage) -> bool:
        stores = [self.nest.stores[s][1] for s in stage.stores]
        return bool(
            stage.nodes
            or any(node not in self.written for node in stores)
            or self._brought(position)
        )

    def _moves(self, access: int) -> bool:
        return self.nest.form.accesses[access].mode not in (Mode.SCALAR, Mode.REPEAT)

    def _scratch(self) -> int:
        """Give scratch memory to values that cross stages; return the elements in a block."""
        created = self._assign_slots()
        total = sum(size for _, size in created)
        block = _UNBOUNDED if not total else max(256, min(4096, _BLOCK_BYTES // total // 64 * 64))
        for slot, size in created:
            self.lines.append(f"  {slot} = alloca [{block * size} x i8], align 64")
        return block

    def _assign_slots(self) -> list[tuple[str, int]]:
        """Name the scratch memory of each value that crosses stages; return names, and bytes of an element."""
        nodes = self.nest.nodes
        made: dict[int, int] = {}
        last: dict[int, int] = {}
        same = {*self.nest.uniform, *self.nest.rows}  # for all elements of a block
        loop = 0  # the last one before a stage
        for position, stage in enumerate(self.nest.stages):
            loop = position if stage.kind == "loop" else loop
            if stage.kind == "row":
                continue
            used = [i for index in stage.nodes for i in nodes[index].inputs]
            used += [self.nest.stores[s][1] for s in stage.stores]
            for index in stage.nodes:
                if index not in same:
                    made[index] = position
            for i in used:
                last[i] = max(last.get(i, 0), position)
                if self._reads_block(stage) and (i in same or nodes[i].op == "load"):
                    made.setdefault(i, loop)  # brought to scratch by it
        crossing = [
            i
            for i in sorted(made, key=lambda i: made[i])
            if (last.get(i, -1) > made[i] or self._is_call(i))
            and i not in self.written
            and self._memory(i) is None
        ]
        free: dict[int, list[str]] = {}
        busy: list[tuple[int, int, str]] = []
        created: list[tuple[str, int]] = []
        for index in crossing:
            size = nodes[index].dtype.itemsize
            in_place = self._is_call(index)  # vector functions may read and write one block
            for item in [item for item in busy if item[0] < made[index] + in_place]:
                busy.remove(item)
                free.setdefault(item[1], []).append(item[2])
            if free.get(size):
                slot = free[size].pop()
            else:
                slot = f"%scratch{len(created)}"
                created.append((slot, size))
            self.slots[index] = slot
            busy.append((last.get(index, made[index]), size, slot))
        return created

    def _reads_block(self, stage: Stage) -> bool:
        """Tell whether a stage takes its operands from memory, a block at a time."""
        return stage.kind == "call"

    def _memory(self, index: int) -> int | None:
        """Return the access whose memory a vector function can read, for a load from neighbouring elements."""
        node = self.nest.nodes[index]
        if node.op != "load" or node.dtype is torch.bool:
            return None
        access = int(node.detail)  # type: ignore[arg-type]
        neighbours = self.nest.form.accesses[access].mode in (Mode.LINEAR, Mode.UNIT)
        return access if neighbours else None

    def _write_directly(self) -> None:
        """Find calls whose result only goes to memory that nothing else in the kernel touches."""
        nodes, stores = self.nest.nodes, self.nest.stores
        for access, index in stores:
            mode, dtype = (
                self.nest.form.accesses[access].mode,
                self.nest.form.accesses[access].dtype,
            )
            users = [i for i, node in enumerate(nodes) if index in node.inputs]
            stored = sum(value == index for _, value in stores)
            readers = [
                i
                for i, node in enumerate(nodes)
                if any(nodes[k].op == "load" and nodes[k].detail == access for k in node.inputs)
            ]
            copied = any(nodes[k].op == "load" and nodes[k].detail == access for _, k in stores)
            if (
                self._is_call(index)
                and self._may_write(index)
                and nodes[index].dtype is dtype
                and mode in (Mode.LINEAR, Mode.UNIT)
                and not users
                and stored == 1
                and set(readers) <= {index}
                and not copied
            ):
                self.written[index] = access

    def _may_write(self, index: int) -> bool:
        """Tell whether a call may write to an access's own memory."""
        return True

    def _operand(self, index: int) -> str:
        """Return the memory that a vector function reads or writes for a node: scratch, or an access's own."""
        access = self.written.get(index)
        if access is None:
            access = None if index in self.slots else self._memory(index)
        if access is None:
            return self.slots[index]
        dtype = self.nest.form.accesses[access].dtype
        return self.emit(f"getelementptr {TYPES[dtype]}, ptr %a{access}, i64 %b")

    def _pointer(self, access: int) -> str:
        """Return where an access begins, for the loop that is being written."""
        return f"%a{access}"

    def _is_call(self, index: int) -> bool:
        return self.nest.nodes[index].op == "call" and index not in self.nest.rows

    def _uniform(self, index: int) -> None:
        node = self.nest.nodes[index]
        if node.op == "const":
            text = constant(node)
            self.scalars[index] = text
            self.splats[index] = f"splat ({TYPES[node.dtype]} {text})"
            return
        if node.op == "number":
            pointer = self.emit(f"getelementptr i64, ptr %numbers, i64 {node.detail}")
            if node.dtype is torch.bool:
                word = self.emit(f"load i64, ptr {pointer}")
                self.scalars[index] = self.emit(f"icmp ne i64 {word}, 0")
            else:
                self.scalars[index] = self.emit(f"load {TYPES[node.dtype]}, ptr {pointer}")
        else:
            inputs = [self.scalars[i] for i in node.inputs]
            self.scalars[index] = self.primitive(node, self._given(node), inputs, vector=False)
        self._splat(index, self.scalars[index])

    def _given(self, node: Node) -> torch.dtype:
        return self.nest.nodes[node.inputs[0]].dtype

    def _splat(self, index: int, scalar: str) -> None:
        kind = TYPES[self.nest.nodes[index].dtype]
        vector = f"<{self.lanes} x {kind}>"
        one = self.emit(f"insertelement {vector} poison, {kind} {scalar}, i64 0")
        self.splats[index] = self.emit(
            f"shufflevector {vector} {one}, {vector} poison, <{self.lanes} x i32> zeroinitializer"
        )

    def _load_one(self, node: Node, pointer: str) -> str:
        value = self.emit(f"load {self.memory_type(node.dtype)}, ptr {pointer}, align 1")
        return self.emit(f"icmp ne i8 {value}, 0") if node.dtype is torch.bool else value

    # --- stages

    def _loop(self, position: int, stage: Stage, previous: str, length: str, block: str) -> str:
        """Write an arithmetic stage as one loop over vectors; return the label that follows it."""
        label, after = f"loop{position}", f"after{position}"
        self.lines += [f"  br label %{label}", f"{label}:"]
        self.lines.append(
            f"  %i{position} = phi i64 [0, %{previous}], [%i{position}.next, %{label}]"
        )
        local = f"%i{position}"
        at = self.emit(f"add i64 {block}, {local}") if block else local
        self._body(position, stage, local, at)
        self.lines.append(f"  %i{position}.next = add i64 {local}, {self.lanes}")
        self.lines.append(f"  %i{position}.more = icmp ult i64 %i{position}.next, {length}")
        self.lines.append(f"  br i1 %i{position}.more, label %{label}, label %{after}")
        self.lines.append(f"{after}:")
        return after

    def _body(self, position: int, stage: Stage, local: str, at: str) -> None:
        """Write what an arithmetic stage does to one vector, ``local`` elements into its block, ``at`` into its row."""
        values: dict[int, str] = {}

        def value(index: int) -> str:
            if index in self.splats:
                return self.splats[index]
            if index not in values:
                node = self.nest.nodes[index]
                found = self._value_at(index, at)
                if found is None and node.op == "load":
                    found = self._load(node, at)
                values[index] = found or self._load_scratch(index, local)
            return values[index]

        for index in stage.nodes:
            node = self.nest.nodes[index]
            inputs = [value(i) for i in node.inputs]
            values[index] = self.primitive(node, self._given(node), inputs, vector=True)
            if index in self.slots:
                self._store_scratch(index, values[index], local)
        for index in self._brought(position):
            self._store_scratch(index, value(index), local)
        stores = [self.nest.stores[s] for s in stage.stores]
        stored = [(access, value(node)) for access, node in stores if node not in self.written]
        for access, text in stored:
            self._store(access, text, at)

    def _value_at(self, index: int, at: str) -> str | None:
        """Load a vector of a value that is neither an access's nor in scratch; None if it is one of these."""
        return None

    def _brought(self, position: int) -> list[int]:
        """What is in no register of a loop, but wanted in scratch memory by the stages right after this one."""
        found: list[int] = []
        for stage in self.nest.stages[position + 1 :]:
            if not self._reads_block(stage):
                break
            for i in self.nest.nodes[stage.nodes[0]].inputs:
                brought = self.nest.nodes[i].op == "load" or i in self.splats
                if i in self.slots and brought and i not in found:
                    found.append(i)
        return found

    def _function_of(self, node: Node) -> MathFunction:
        function = self.library.find(str(node.detail), node.dtype, node.functions, self.tail)
        if function is None:
            raise CompileError(
                f"torch exports no vector function for {node.detail} on {node.dtype}"
            )
        self.math[function.symbol] = function
        return function

    def _call_vml(
        self, node: Node, function: MathFunction, length: str, slots: Sequence[str]
    ) -> None:
        self.declarations.add(
            f"declare void @{function.symbol}(i32, {', '.join(['ptr'] * (function.arity + 1))}, i64)\n"
        )
        pointers = ", ".join(f"ptr {slot}" for slot in slots)
        self.lines.append(
            f"  call void @{function.symbol}(i32 {length}, {pointers}, i64 {VML_MODE})"
        )

    def _declare(self, node: Node, function: MathFunction) -> None:
        vector = self._vector_of(node, function)
        self.declarations.add(
            f"declare {vector} @{function.symbol}({', '.join([vector] * function.arity)})\n"
        )

    def _vector_of(self, node: Node, function: MathFunction) -> str:
        kind = TYPES[node.dtype]
        return kind if function.library == "libm" else f"<{function.lanes} x {kind}>"

    def _call_stage(self, position: int, stage: Stage, previous: str, length: str) -> str:
        index = stage.nodes[0]
        node = self.nest.nodes[index]
        function = self._function_of(node)
        inputs = [self._operand(i) for i in node.inputs]
        out = self._operand(index)
        if function.library == "vml":
            self._call_vml(node, function, "%len32", (*inputs, out))
            return previous
        return self._call_vectors(f"call{position}", node, function, inputs, out, previous, length)

    def _call_vectors(
        self,
        label: str,
        node: Node,
        function: MathFunction,
        inputs: Sequence[str],
        out: str,
        previous: str,
        length: str,
    ) -> str:
        """Write a loop that calls a function of vectors; what it reads and writes has room for whole ones."""
        self._declare(node, function)
        kind, vector, i = TYPES[node.dtype], self._vector_of(node, function), f"%{label}.i"
        self.lines += [f"  br label %{label}", f"{label}:"]
        self.lines.append(f"  {i} = phi i64 [0, %{previous}], [{i}.next, %{label}]")
        arguments = []
        for slot in inputs:
            pointer = self.emit(f"getelementptr {kind}, ptr {slot}, i64 {i}")
            arguments.append(f"{vector} " + self.emit(f"load {vector}, ptr {pointer}, align 1"))
        result = self.emit(f"call {vector} @{function.symbol}({', '.join(arguments)})")
        pointer = self.emit(f"getelementptr {kind}, ptr {out}, i64 {i}")
        self.lines.append(f"  store {vector} {result}, ptr {pointer}, align 1")
        self.lines.append(f"  {i}.next = add i64 {i}, {function.lanes}")
        self.lines.append(f"  {i}.more = icmp ult i64 {i}.next, {length}")
        self.lines.append(f"  br i1 {i}.more, label %{label}, label %{label}.end")
        self.lines.append(f"{label}.end:")
        return f"{label}.end"

    # --- memory

    def _load(self, node: Node, at: str) -> str:
        access = int(node.detail)  # type: ignore[arg-type]
        kind = self.memory_type(node.dtype)
        if self._apart(access):
            vector = f"<{self.lanes} x {kind}>"
            value = "poison"
            for lane, pointer in enumerate(self._lane_pointers(access, at)):
                one = self.emit(f"load {kind}, ptr {pointer}, align 1")
                value = self.emit(f"insertelement {vector} {value}, {kind} {one}, i64 {lane}")
        else:
            pointer = self.emit(f"getelementptr {kind}, ptr {self._pointer(access)}, i64 {at}")
            value = self.emit(f"load <{self.lanes} x {kind}>, ptr {pointer}, align 1")
        return self._truth(value) if node.dtype is torch.bool else value

    def _store(self, access: int, value: str, at: str) -> None:
        spec = self.nest.form.accesses[access]
        kind = self.memory_type(spec.dtype)
        vector = f"<{self.lanes} x {kind}>"
        if spec.dtype is torch.bool:
            value = self.emit(f"zext <{self.lanes} x i1> {value} to {vector}")
        if self._apart(access):
            for lane, pointer in enumerate(self._lane_pointers(access, at)):
                one = self.emit(f"extractelement {vector} {value}, i64 {lane}")
                self.lines.append(f"  store {kind} {one}, ptr {pointer}, align 1")
            return
        pointer = self.emit(f"getelementptr {kind}, ptr {self._pointer(access)}, i64 {at}")
        self.lines.append(f"  store {vector} {value}, ptr {pointer}, align 1")

    def _apart(self, access: int) -> bool:
        """Tell whether the elements of a vector may lie apart in memory."""
        return self.nest.form.accesses[access].mode is Mode.STRIDED

    def _lane_pointers(self, access: int, at: str) -> list[str]:
        offset = self.emit(f"mul i64 {at}, %s{access}")
        pointers = [self.emit(f"getelementptr i8, ptr {self._pointer(access)}, i64 {offset}")]
        for _ in range(self.lanes - 1):
            pointers.append(self.emit(f"getelementptr i8, ptr {pointers[-1]}, i64 %s{access}"))
        return pointers

    def _truth(self, value: str) -> str:
        return self.emit(f"icmp ne <{self.lanes} x i8> {value}, zeroinitializer")

    def _load_scratch(self, index: int, local: str) -> str:
        return self._load_vector(index, self.slots[index], local)

    def _store_scratch(self, index: int, value: str, local: str) -> None:
        self._store_vector(index, value, self.slots[index], local)

    def _load_vector(self, index: int, base: str, at: str) -> str:
        dtype = self.nest.nodes[index].dtype
        kind = self.memory_type(dtype)
        pointer = self.emit(f"getelementptr {kind}, ptr {base}, i64 {at}")
        value = self.emit(
            f"load <{self.lanes} x {kind}>, ptr {pointer}, align {self.scratch_alignment}"
        )
        return self._truth(value) if dtype is torch.bool else value

    def _store_vector(self, index: int, value: str, base: str, at: str) -> None:
        dtype = self.nest.nodes[index].dtype
        kind = self.memory_type(dtype)
        vector = f"<{self.lanes} x {kind}>"
        if dtype is torch.bool:
            value = self.emit(f"zext <{self.lanes} x i1> {value} to {vector}")
        pointer = self.emit(f"getelementptr {kind}, ptr {base}, i64 {at}")
        self.lines.append(
            f"  store {vector} {value}, ptr {pointer}, align {self.scratch_alignment}"
        )
