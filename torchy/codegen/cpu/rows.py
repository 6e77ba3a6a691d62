"""Loop nest with a reduced axis -> LLVM IR text: a function that does one row, from its first stage to its last.

Its signature is that of ``vectors`` (see :mod:`torchy.codegen.cpu.llvm`), for any number of elements: the last of
them, fewer than a vector, are loaded and stored under a mask. What reduces a row is a routine of its order
(:mod:`torchy.codegen.cpu.orders`), which takes the row from memory: an access's own, or scratch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import torch

from torchy.codegen.cpu import orders
from torchy.codegen.cpu.llvm import Writer
from torchy.codegen.cpu.primitives import TYPES
from torchy.codegen.errors import CompileError
from torchy.codegen.loops import Node, Stage
from torchy.ir.kernel import Order
from torchy.ir.trace import Mode

_SCRATCH_BYTES: Final = 1 << 17  # of one row: it lies on the stack, and in the second-level cache
_MOST: Final = 1 << 30  # elements in a row without scratch: vector functions take 32-bit lengths

Routines = dict[tuple[str, torch.dtype], Order]


@dataclass(slots=True)
class RowWriter(Writer):
    """Writes ``vectors`` for rows.

    Attributes
    ----------
    longest
        Elements of the longest row that its scratch memory allows.
    routines
        What it calls to reduce a row.
    """

    longest: int = _MOST
    routines: Routines = field(default_factory=dict)
    _mask: str = ""  # while the last elements of a row are written down

    def vectors(self, name: str = "vectors") -> str:
        """Write the function; see the module's docstring."""
        nest = self.nest
        self._write_directly()
        self.lines.append(f"  %full = and i64 %n, {-self.lanes}")
        self.lines.append("  %some = icmp ne i64 %full, 0")
        self.lines.append("  %uneven = icmp ne i64 %full, %n")
        self.lines.append("  %len32 = trunc i64 %n to i32")
        self._tail_mask()
        self._open_accesses()
        self._scratch()
        for index in nest.uniform:
            if nest.nodes[index].op == "length":
                self.scalars[index] = "%n"
                self._splat(index, "%n")
            else:
                self._uniform(index)
        self._load_still()
        previous = "entry"
        for position, stage in enumerate(nest.stages):
            if stage.kind == "row":
                self._row_stage(stage)
            elif stage.kind == "reduction":
                self._reduce(stage.nodes[0])
            elif stage.kind == "call":
                previous = self._call_stage(position, stage, previous, "%n")
            elif self._does_anything(position, stage):
                previous = self._row_loop(position, stage, previous)
        self.lines.append("  br label %exit")
        return self._function(name)

    def _tail_mask(self) -> None:
        lanes, kind = self.lanes, f"<{self.lanes} x i32>"
        left = self.emit("sub i64 %n, %full")
        left32 = self.emit(f"trunc i64 {left} to i32")
        one = self.emit(f"insertelement {kind} poison, i32 {left32}, i64 0")
        same = self.emit(f"shufflevector {kind} {one}, {kind} poison, {kind} zeroinitializer")
        numbers = ", ".join(f"i32 {lane}" for lane in range(lanes))
        self.lines.append(f"  %mask = icmp ult {kind} <{numbers}>, {same}")

    def _scratch(self) -> int:
        """Give scratch memory, as long as the row, to values that cross stages."""
        created = self._assign_slots()
        lanes = self.lanes
        more = self.emit(f"add i64 %full, {lanes}")
        for slot, size in created:
            bytes_ = self.emit(f"mul i64 {more}, {size}")
            self.lines.append(f"  {slot} = alloca i8, i64 {bytes_}, align 64")
        total = sum(size for _, size in created)
        self.longest = _SCRATCH_BYTES // total - lanes if total else _MOST
        return self.longest

    def _memory(self, index: int) -> int | None:
        # a function that takes whole vectors would read beyond the row
        users = [node for node in self.nest.nodes if index in node.inputs and node.op == "call"]
        if any(self._function_of(node).library != "vml" for node in users):
            return None
        return Writer._memory(self, index)

    def _may_write(self, index: int) -> bool:
        return self._function_of(self.nest.nodes[index]).library == "vml"

    def _reads_block(self, stage: Stage) -> bool:
        return stage.kind in ("call", "reduction")

    # --- stages

    def _row_loop(self, position: int, stage: Stage, previous: str) -> str:
        """Write an arithmetic stage: its whole vectors, then the last elements under a mask."""
        loop, rest, tail, after = (
            f"{word}{position}" for word in ("loop", "rest", "tail", "after")
        )
        i = f"%i{position}"
        self.lines += [f"  br i1 %some, label %{loop}, label %{rest}", f"{loop}:"]
        self.lines.append(f"  {i} = phi i64 [0, %{previous}], [{i}.next, %{loop}]")
        self._body(position, stage, i, i)
        self.lines.append(f"  {i}.next = add i64 {i}, {self.lanes}")
        self.lines.append(f"  {i}.more = icmp ult i64 {i}.next, %full")
        self.lines.append(f"  br i1 {i}.more, label %{loop}, label %{rest}")
        self.lines += [f"{rest}:", f"  br i1 %uneven, label %{tail}, label %{after}", f"{tail}:"]
        self._mask = "%mask"
        self._body(position, stage, "%full", "%full")
        self._mask = ""
        self.lines += [f"  br label %{after}", f"{after}:"]
        return after

    def _reduce(self, index: int) -> None:
        node = self.nest.nodes[index]
        operator = str(node.detail)
        if node.order is None or orders.ORDERS.get((operator, node.dtype)) != node.order:
            raise CompileError(f"no routine for {operator} on {node.dtype} in {node.order}")
        self.routines[operator, node.dtype] = node.order
        symbol, kind = orders.symbol(operator, node.dtype), TYPES[node.dtype]
        self.declarations.add(f"declare {kind} @{symbol}(ptr, i64)\n")
        operand = self._operand(node.inputs[0])
        value = self.emit(f"call {kind} @{symbol}(ptr {operand}, i64 %n)")
        self.scalars[index] = value
        self._splat(index, value)

    def _row_stage(self, stage: Stage) -> None:
        for index in stage.nodes:
            node = self.nest.nodes[index]
            inputs = [self.scalars[i] for i in node.inputs]
            if node.op == "call":
                value = self._call_once(node, inputs)
            else:
                value = self.primitive(node, self._given(node), inputs, vector=False)
            self.scalars[index] = value
            self._splat(index, value)
        for s in stage.stores:
            access, index = self.nest.stores[s]
            kind, value = self.memory_type(self.nest.nodes[index].dtype), self.scalars[index]
            if kind == "i8":
                value = self.emit(f"zext i1 {value} to i8")
            self.lines.append(f"  store {kind} {value}, ptr %a{access}, align 1")

    def _call_once(self, node: Node, inputs: list[str]) -> str:
        """Call a vector function for what a row has one of."""
        function = self._function_of(node)
        kind = TYPES[node.dtype]
        if function.library == "sleef":
            vector = f"<{function.lanes} x {kind}>"
            given = []
            for value in inputs:
                one = self.emit(f"insertelement {vector} poison, {kind} {value}, i64 0")
                zeros = f"<{function.lanes} x i32> zeroinitializer"
                given.append(
                    f"{vector} "
                    + self.emit(f"shufflevector {vector} {one}, {vector} poison, {zeros}")
                )
            self._declare(node, function)
            result = self.emit(f"call {vector} @{function.symbol}({', '.join(given)})")
            return self.emit(f"extractelement {vector} {result}, i64 0")
        slots = [self.emit(f"alloca {kind}, align 64") for _ in (*inputs, "its result")]
        for value, slot in zip(inputs, slots, strict=False):
            self.lines.append(f"  store {kind} {value}, ptr {slot}, align 64")
        self._call_vml(node, function, "1", slots)
        return self.emit(f"load {kind}, ptr {slots[-1]}, align 64")

    # --- memory

    def _masked(self, intrinsic: str, kind: str, pointers: str) -> str:
        """Declare a masked intrinsic on vectors of a type; return its name."""
        lanes = self.lanes
        vector, suffix = f"<{lanes} x {kind}>", f"v{lanes}{_SUFFIX[kind]}"
        of = "ptr" if pointers == "p0" else f"<{lanes} x ptr>"
        name = f"@llvm.masked.{intrinsic}.{suffix}.{pointers}"
        if intrinsic in ("load", "gather"):
            self.declarations.add(f"declare {vector} {name}({of}, <{lanes} x i1>, {vector})\n")
        else:
            self.declarations.add(f"declare void {name}({vector}, {of}, <{lanes} x i1>)\n")
        return name

    def _load(self, node: Node, at: str) -> str:
        if not self._mask:
            return Writer._load(self, node, at)
        access = int(node.detail)  # type: ignore[arg-type]
        kind, lanes = self.memory_type(node.dtype), self.lanes
        vector, mask = f"<{lanes} x {kind}>", f"<{lanes} x i1> {self._mask}"
        none = f"{vector} zeroinitializer"
        if self.nest.form.accesses[access].mode is Mode.STRIDED:
            name = self._masked("gather", kind, f"v{lanes}p0")
            pointers = self._pointer_vector(access, at)
            value = self.emit(f"call {vector} {name}({pointers}, {mask}, {none})")
        else:
            name = self._masked("load", kind, "p0")
            pointer = self.emit(f"getelementptr {kind}, ptr %a{access}, i64 {at}")
            value = self.emit(f"call {vector} {name}(ptr align 1 {pointer}, {mask}, {none})")
        return self._truth(value) if node.dtype is torch.bool else value

    def _store(self, access: int, value: str, at: str) -> None:
        if not self._mask:
            return Writer._store(self, access, value, at)
        spec, lanes = self.nest.form.accesses[access], self.lanes
        kind = self.memory_type(spec.dtype)
        vector, mask = f"<{lanes} x {kind}>", f"<{lanes} x i1> {self._mask}"
        if spec.dtype is torch.bool:
            value = self.emit(f"zext <{lanes} x i1> {value} to {vector}")
        if spec.mode is Mode.STRIDED:
            name = self._masked("scatter", kind, f"v{lanes}p0")
            pointers = self._pointer_vector(access, at)
            self.lines.append(f"  call void {name}({vector} {value}, {pointers}, {mask})")
        else:
            name = self._masked("store", kind, "p0")
            pointer = self.emit(f"getelementptr {kind}, ptr %a{access}, i64 {at}")
            self.lines.append(
                f"  call void {name}({vector} {value}, ptr align 1 {pointer}, {mask})"
            )
        return None

    def _pointer_vector(self, access: int, at: str) -> str:
        vector, value = f"<{self.lanes} x ptr>", "poison"
        for lane, pointer in enumerate(self._lane_pointers(access, at)):
            value = self.emit(f"insertelement {vector} {value}, ptr {pointer}, i64 {lane}")
        return f"{vector} align 1 {value}"


_SUFFIX: Final = {
    "float": "f32",
    "double": "f64",
    "i8": "i8",
    "i16": "i16",
    "i32": "i32",
    "i64": "i64",
}
