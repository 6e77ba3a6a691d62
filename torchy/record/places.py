"""Places, read back from the walker: paths of nodes become traces."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from torchy.ir.dtypes import BY_CODE
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


class Place(NamedTuple):
    """An op at a place, as the walker tells it.

    ``line`` is the program's, as the walker numbers them. Of the arguments, those that are tensors are
    the operands, in order; they tell no more than that. Of each operand it has the view, the buffer, the
    walker's number for the dtype, and the rank.
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
    operands: list[tuple[int, int, int, int]]
    pattern: list[int]
    result_views: list[int]
    result_buffers: list[int]

    @classmethod
    def of(cls, told: Any) -> Place:
        """Read what the walker tells."""
        place = cls._make(told)
        for position, argument in enumerate(place.arguments):
            if isinstance(argument, torch.Tensor) and not argument.is_meta:
                # a number that came as a tensor: those of operands are on no device
                place.arguments[position] = argument.item()
        return place

    @property
    def dtypes(self) -> list[torch.dtype]:
        """The dtypes of the operands."""
        return [BY_CODE[dtype] for _, _, dtype, _ in self.operands]


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
        builder, describe = _Builder(), self._walker.describe_node
        sources: dict[int, Source | None] = {}  # many ops come from one line
        for index in path:
            node = Place.of(describe(index))
            if node.line not in sources:
                sources[node.line] = self._walker.source(node.line)
            builder.add(node, sources[node.line])
        return builder.trace()


@functools.cache
def _dtype_arguments(name: str) -> frozenset[int]:
    """Return which arguments of an op, by its qualified name, are dtypes; the walker gives them as numbers."""
    arguments = torch._C._get_schema(*name.partition(".")[::2]).arguments
    return frozenset(i for i, a in enumerate(arguments) if "ScalarType" in str(a.real_type))


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

    def _add_view(self, view: int, buffer: int, dtype: int, rank: int, creator: int | None) -> None:
        """Note a new view, which may be of a new buffer."""
        if buffer == len(self.buffers):
            self.buffers.append(Buffer(buffer, creator))
        self.views.append(View(view, buffer, BY_CODE[dtype], rank))

    def add(self, node: Place, source: Source | None) -> None:
        index = len(self.ops)
        for view, buffer, dtype, rank in node.operands:
            if view == len(self.views):
                self._add_view(view, buffer, dtype, rank, None)
        result_mode, operands, pattern = _modes(node)
        arguments = self._arguments(node, iter(operands))
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
            if view == len(self.views):
                self._add_view(
                    view, buffer, pattern[2 * position], pattern[2 * position + 1], index
                )
            results.append(view)
        writes = tuple(fresh)
        if node.written:
            writes = tuple(dict.fromkeys([*_written(node, arguments), *fresh]))
        self.ops.append(
            Op(index, node.name, arguments, tuple(results), result_mode, writes, source)
        )

    def _arguments(self, node: Place, operands: Iterator[Operand]) -> tuple[Argument, ...]:
        arguments: list[Argument] = []
        for position, value in enumerate(node.arguments):
            if isinstance(value, torch.Tensor):
                arguments.append(next(operands))
            elif isinstance(value, list):
                tensors = value and isinstance(value[0], torch.Tensor)
                arguments.append(
                    tuple(next(operands) for _ in value) if tensors else Constant(tuple(value))
                )
            elif node.runtime >> position & 1 and isinstance(value, (bool, int, float)):
                arguments.append(Number(len(self.number_kinds), type(value)))
                self.number_kinds.append(type(value))
            elif isinstance(value, int) and position in _dtype_arguments(node.name):
                arguments.append(Constant(BY_CODE[value]))
            else:
                arguments.append(Constant(value))
        return tuple(arguments)


def _modes(node: Place) -> tuple[Mode | None, list[Operand], list[int]]:
    """Read a node's pattern: the mode of its result, its operands, and what is left of the pattern."""
    if not node.pointwise:
        return None, [Operand(view) for view, *_ in node.operands], node.pattern
    *modes, result = node.pattern[: len(node.operands) + 1]
    operands = [
        Operand(operand[0], MODES[mode & ~SAME_SIZES], bool(mode & SAME_SIZES))
        for operand, mode in zip(node.operands, modes, strict=True)
    ]
    return MODES[result & ~SAME_SIZES], operands, node.pattern[len(modes) + 1 :]


def _written(node: Place, arguments: Sequence[Argument]) -> Iterator[int]:
    """Yield the views of the arguments that an op writes to."""
    for position, argument in enumerate(arguments):
        if node.written >> position & 1:
            for item in argument if isinstance(argument, tuple) else (argument,):
                if isinstance(item, Operand):
                    yield item.view
