"""Places, read back from the walker: paths of nodes become traces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

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
from torchy.record.codes import MODES, SAME_SIZES
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


class OperandPlace(NamedTuple):
    """Which view of which buffer an operand is; its dtype is the walker's number."""

    view: int
    buffer: int
    dtype: int
    rank: int


class Place(NamedTuple):
    """An op at a place, as the walker tells it.

    ``line`` is the program's, as the walker numbers them. Of the arguments, those that are tensors are
    the operands, in order; they tell no more than that.
    ``runtime`` and ``written`` have a bit for each argument: whether its
    value is not part of the place, and whether it is written to. What is known of the results of a
    node (``pattern``: a mode for each operand and the result, if the op is pointwise, then dtype
    and rank of each result) is empty for a step.
    """

    step: int
    name: str
    pointwise: bool
    runtime: int
    written: int
    line: int
    arguments: list[Any]
    operands: list[OperandPlace]
    pattern: list[int]
    result_views: list[int]
    result_buffers: list[int]

    @classmethod
    def of(cls, told: Any) -> Place:
        """Read what the walker tells."""
        place = cls(*told)
        return place._replace(
            arguments=[_unwrapped(argument) for argument in place.arguments],
            operands=[OperandPlace(*operand) for operand in place.operands],
        )


def _unwrapped(argument: Any) -> Any:
    """Return a number for a number that came as a tensor: those of operands are on no device."""
    wrapped = isinstance(argument, torch.Tensor) and not argument.is_meta
    return argument.item() if wrapped else argument


class Places:
    """What the walker's nodes mean: decoded once for each trace that ends there."""

    def __init__(self, walker: Walker) -> None:
        self._walker = walker
        self._traces: dict[int, Trace] = {}

    def __len__(self) -> int:
        """Return how many the walker knows."""
        return self._walker.places()

    def step(self, step: int) -> Place:
        """Return what the walker knows of a step."""
        return Place.of(self._walker.describe_step(step))

    def clear(self) -> None:
        """Forget all: the walker has."""
        self._traces.clear()

    def trace(self, path: Sequence[int]) -> Trace:
        """Return the trace that a path of nodes stands for; its last node tells all of them."""
        known = self._traces.get(path[-1])
        if known is None:
            known = self._traces[path[-1]] = self._build(path)
        return known

    def _build(self, path: Sequence[int]) -> Trace:
        builder = _Builder()
        for index in path:
            node = Place.of(self._walker.describe_node(index))
            builder.add(node, self._walker.source(node.line))
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

    def add(self, node: Place, source: Source | None) -> None:
        index = len(self.ops)
        pattern = node.pattern
        for operand in node.operands:
            self._see(operand.view, operand.buffer, operand.dtype, operand.rank, None)
        modes: list[int | None] = [None] * len(node.operands)
        result_mode: Mode | None = None
        if node.pointwise:
            modes[:] = pattern[: len(modes)]
            result_mode = MODES[pattern[len(modes)] & ~SAME_SIZES]
            pattern = pattern[len(modes) + 1 :]
        operands = iter(
            Operand(
                operand.view,
                None if mode is None else MODES[mode & ~SAME_SIZES],
                mode is not None and bool(mode & SAME_SIZES),
            )
            for operand, mode in zip(node.operands, modes, strict=True)
        )
        schema = torch._C._get_schema(*node.name.partition(".")[::2]).arguments
        arguments = tuple(
            self._argument(value, bool(node.runtime >> i & 1), operands, str(schema[i].real_type))
            for i, value in enumerate(node.arguments)
        )
        results: list[int | None] = []
        fresh: list[int] = []
        for position, (view, buffer) in enumerate(
            zip(node.result_views, node.result_buffers, strict=True)
        ):
            if view < 0:
                results.append(None)
                continue
            if buffer == len(self.buffers):
                fresh.append(view)
            self._see(view, buffer, pattern[2 * position], pattern[2 * position + 1], index)
            results.append(view)
        written = [
            item.view
            for position, argument in enumerate(arguments)
            if node.written >> position & 1
            for item in (argument if isinstance(argument, tuple) else (argument,))
            if isinstance(item, Operand)
        ]
        writes = tuple(dict.fromkeys([*written, *fresh]))
        self.ops.append(
            Op(index, node.name, arguments, tuple(results), result_mode, writes, source)
        )

    def _argument(
        self, value: Any, runtime: bool, operands: Iterator[Operand], type_: str
    ) -> Argument:
        if isinstance(value, torch.Tensor):
            return next(operands)
        if isinstance(value, list):
            if value and isinstance(value[0], torch.Tensor):
                return tuple(next(operands) for _ in value)
            return Constant(tuple(value))
        if runtime and isinstance(value, bool | int | float):
            self.number_kinds.append(type(value))
            return Number(len(self.number_kinds) - 1, type(value))
        if "ScalarType" in type_ and isinstance(value, int):
            value = DTYPES[value]
        return Constant(value)
