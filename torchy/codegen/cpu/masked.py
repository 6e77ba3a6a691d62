"""Loads and stores of vectors of which only some elements are there: the last ones of a row, under a mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from torchy.codegen.cpu.llvm import Writer
from torchy.codegen.loops import Node
from torchy.ir.trace import Mode

_SUFFIX: Final = {
    "float": "f32",
    "double": "f64",
    "i8": "i8",
    "i16": "i16",
    "i32": "i32",
    "i64": "i64",
}


@dataclass(slots=True)
class MaskedWriter(Writer):
    """Writes them, where there is a mask."""

    _mask: str = ""  # while the last elements of a row are written down

    def _mode(self, node: Node) -> Mode:
        return self.nest.form.accesses[int(node.detail)].mode  # type: ignore[arg-type]

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
        if self._apart(access):
            name = self._masked("gather", kind, f"v{lanes}p0")
            pointers = self._pointer_vector(access, at)
            value = self.emit(f"call {vector} {name}({pointers}, {mask}, {none})")
        else:
            name = self._masked("load", kind, "p0")
            pointer = self.emit(f"getelementptr {kind}, ptr {self._pointer(access)}, i64 {at}")
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
        if self._apart(access):
            name = self._masked("scatter", kind, f"v{lanes}p0")
            pointers = self._pointer_vector(access, at)
            self.lines.append(f"  call void {name}({vector} {value}, {pointers}, {mask})")
        else:
            name = self._masked("store", kind, "p0")
            pointer = self.emit(f"getelementptr {kind}, ptr {self._pointer(access)}, i64 {at}")
            self.lines.append(
                f"  call void {name}({vector} {value}, ptr align 1 {pointer}, {mask})"
            )
        return None

    def _pointer_vector(self, access: int, at: str) -> str:
        vector, value = f"<{self.lanes} x ptr>", "poison"
        for lane, pointer in enumerate(self._lane_pointers(access, at)):
            value = self.emit(f"insertelement {vector} {value}, ptr {pointer}, i64 {lane}")
        return f"{vector} align 1 {value}"
