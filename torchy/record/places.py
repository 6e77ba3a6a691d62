"""Places, read back from the walker: paths of nodes become traces."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

import torch

from torchy.ir.trace import (
    Argument,
    Buffer,
    Constant,
    Mode,
    Number,
    Op,
    Operand,
    Source,
    Trace,
    View,
)
from torchy.record.native import Walker

# in the order of c10::ScalarType
DTYPES: tuple[torch.dtype, ...] = (
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float32,
    torch.float64, torch.complex32, torch.complex64, torch.complex128, torch.bool, torch.qint8,
    torch.quint8, torch.qint32, torch.bfloat16, torch.quint4x2, torch.quint2x4, torch.bits1x8,
    torch.bits2x4, torch.bits4x2, torch.bits8, torch.bits16, torch.float8_e5m2,
    torch.float8_e4m3fn, torch.float8_e5m2fnuz, torch.float8_e4m3fnuz, torch.uint16, torch.uint32,
    torch.uint64,
    *(getattr(torch, f"uint{bits}") for bits in range(1, 8)),
    *(getattr(torch, f"int{bits}") for bits in range(1, 8)),
    torch.float8_e8m0fnu, torch.float4_e2m1fn_x2,
)  # fmt: skip
MODES = tuple(Mode)  # in the order of the walker's Mode
KINDS: dict[str, type] = {"f": float, "i": int, "b": bool}
SAME_SIZES = 8


class Places:
    """What the walker's nodes mean, decoded once each."""

    def __init__(self, walker: Walker) -> None:
        self._walker = walker
        self._nodes: dict[int, dict[str, Any]] = {}
        self._traces: dict[int, Trace] = {}
        self.sources: dict[int, Source | None] = {}  # by step

    def describe_step(self, step: int) -> str:
        """Return a step as the walker describes it: JSON."""
        return self._walker.library.torchy_describe_step(step).decode()  # type: ignore[no-any-return]

    def clear(self) -> None:
        """Forget all: the walker has."""
        self._nodes.clear()
        self._traces.clear()
        self.sources.clear()

    def trace(self, path: Sequence[int]) -> Trace:
        """Return the trace that a path of nodes stands for; its last node tells all of them."""
        known = self._traces.get(path[-1])
        if known is None:
            known = self._traces[path[-1]] = self._build(path)
        return known

    def _node(self, index: int) -> dict[str, Any]:
        node = self._nodes.get(index)
        if node is None:
            text = self._walker.library.torchy_describe_node(index)
            node = self._nodes[index] = json.loads(text)
        return node

    def _build(self, path: Sequence[int]) -> Trace:
        builder = _Builder()
        for index in path:
            node = self._node(index)
            builder.add(node, self.sources.get(node["step"]))
        return builder.trace()


class _Builder:
    def __init__(self) -> None:
        self.buffers: list[Buffer] = []
        self.views: list[View] = []
        self.ops: list[Op] = []
        self.number_kinds: list[type] = []

    def trace(self) -> Trace:
        return Trace(
            tuple(self.buffers), tuple(self.views), tuple(self.ops), tuple(self.number_kinds)
        )

    def _see(self, view: int, buffer: int, dtype: int, rank: int, creator: int | None) -> None:
        if buffer == len(self.buffers):
            self.buffers.append(Buffer(buffer, creator))
        if view == len(self.views):
            self.views.append(View(view, buffer, DTYPES[dtype], rank))

    def add(self, node: dict[str, Any], source: Source | None) -> None:
        index = len(self.ops)
        pattern = node["pattern"]
        for view, slot, dtype, rank in zip(
            node["views"], node["slots"], node["dtypes"], node["ranks"], strict=True
        ):
            self._see(view, slot, dtype, rank, None)
        modes: list[int | None] = [None] * len(node["views"])
        result_mode: Mode | None = None
        if node["pointwise"]:
            modes = pattern[: len(modes)]
            result_mode = MODES[pattern[len(modes)] & ~SAME_SIZES]
            pattern = pattern[len(modes) + 1 :]
        schema_names = torch._C._get_schema(*_name_and_overload(node["name"])).arguments
        arguments = tuple(
            self._argument(argument, node, modes, str(schema.real_type))
            for argument, schema in zip(node["arguments"], schema_names, strict=True)
        )
        results: list[int | None] = []
        fresh: list[int] = []
        for position, (view, slot) in enumerate(
            zip(node["result_views"], node["result_slots"], strict=True)
        ):
            if view < 0:
                results.append(None)
                continue
            if slot == len(self.buffers):
                fresh.append(view)
            self._see(view, slot, pattern[2 * position], pattern[2 * position + 1], index)
            results.append(view)
        written = [
            item.view
            for position in node["written"]
            for item in _flat(arguments[position])
            if isinstance(item, Operand)
        ]
        writes = tuple(dict.fromkeys([*written, *fresh]))
        self.ops.append(
            Op(index, node["name"], arguments, tuple(results), result_mode, writes, source)
        )

    def _argument(
        self, argument: dict[str, Any], node: dict[str, Any], modes: list[int | None], type_: str
    ) -> Argument:
        if "operand" in argument:
            operand = argument["operand"]
            mode = modes[operand]
            return Operand(
                node["views"][operand],
                None if mode is None else MODES[mode & ~SAME_SIZES],
                mode is not None and bool(mode & SAME_SIZES),
            )
        if "items" in argument:
            return tuple(
                self._argument(item, node, modes, type_)  # type: ignore[misc]
                for item in argument["items"]
            )
        if "number" in argument:
            kind = KINDS[argument["kind"]]
            self.number_kinds.append(kind)
            return Number(argument["number"], kind)
        value = _constant(argument["constant"])
        if "ScalarType" in type_ and isinstance(value, int):
            value = DTYPES[value]
        return Constant(value)


def _flat(argument: Argument) -> tuple[Operand | Number | Constant, ...]:
    return argument if isinstance(argument, tuple) else (argument,)


def _constant(value: Any) -> object:
    if isinstance(value, dict):
        if "bits" in value:
            return struct.unpack("=d", struct.pack("=q", value["bits"]))[0]
        if "list" in value:
            return tuple(_constant(item) for item in value["list"])
        return value.get("text")
    return value


def _name_and_overload(name: str) -> tuple[str, str]:
    base, _, overload = name.partition(".")
    return base, overload
