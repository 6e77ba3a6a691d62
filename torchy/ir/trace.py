"""What a trace is: a straight list of ops that read and write views of buffers.

A trace knows no sizes. It says which buffers and views there are and how they relate to each other; the sizes, strides,
offsets, addresses and numbers of one recording of it are an :class:`Extent`. So one trace, and everything made from
it, serves every batch size.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch


class Mode(enum.Enum):
    """How an operand of a pointwise op is reached while its result is walked in memory order.

    The *space* of a pointwise op is the sizes of its first result, its *inner* dimension the one in which that result's
    memory is closest together.
    """

    LINEAR = "linear"  # sizes and strides are the result's, and the result is dense: one index serves both
    SCALAR = "scalar"  # one element for the whole space
    UNIT = "unit"  # neighbours in the inner dimension are neighbours in memory
    REPEAT = "repeat"  # does not move in the inner dimension (broadcast along it)
    STRIDED = "strided"  # any other step in the inner dimension
    ROW = "row"  # in kernels only: one element for each row, see ir/kernel.py

    __hash__ = object.__hash__  # a member equals itself only; Enum's own would hash its name, in Python


class Source(NamedTuple):
    """A line of the program: where an op was recorded."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Buffer:
    """A storage that the trace reads or writes.

    ``creator`` is the index of the op that creates it, None if it existed before the trace (an *input*).
    """

    index: int
    creator: int | None


@dataclass(frozen=True, slots=True)
class View:
    """A strided window on a buffer. Two different views of one buffer may overlap; the trace does not know."""

    index: int
    buffer: int
    dtype: torch.dtype
    rank: int


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor argument of an op. For ops that are not pointwise, ``mode`` is None and ``same_sizes`` False."""

    view: int
    mode: Mode | None = None
    same_sizes: bool = False  # its sizes are those of the op's first result


@dataclass(frozen=True, slots=True)
class Number:
    """A scalar argument whose value is known at run time only: ``Extent.numbers[index]``.

    ``kind`` is bool, int or float. ``wrapped`` tells how it takes part in type promotion: as a Python number (True), which
    is how both ``x * 3.7`` and a ``Scalar`` parameter come.
    """

    index: int
    kind: type
    wrapped: bool = True


@dataclass(frozen=True, slots=True)
class Constant:
    """An argument that is part of the place: a Python value (None, bool, int, float, str, dtype, tuple of these...)."""

    value: object


Argument = Operand | Number | Constant | tuple["Operand | Number | Constant", ...]


@dataclass(frozen=True, slots=True)
class Op:
    """One recorded call.

    Parameters
    ----------
    index
        Position in the trace.
    name
        Qualified name with overload, as the dispatcher spells it: ``aten::add.Tensor``.
    arguments
        In the order of the schema; a list of tensors is a tuple.
    results
        The views that it returns or writes, in the order of the schema's returns: fresh buffers, or, for in-place and
        ``out=`` forms, the views of the arguments written to. ``None`` for an undefined tensor.
    writes
        Views written to, those of fresh buffers included.
    source
        The line of the program; None if it could not be told.
    """

    index: int
    name: str
    arguments: tuple[Argument, ...]
    results: tuple[int | None, ...]
    result_mode: Mode | None  # how the first result lies in its own space: LINEAR if dense; None if not pointwise
    writes: tuple[int, ...]
    source: Source | None = None

    def operands(self) -> list[Operand]:
        """Return the tensor arguments, those in lists included."""
        found: list[Operand] = []
        for argument in self.arguments:
            if isinstance(argument, Operand):
                found.append(argument)
            elif isinstance(argument, tuple):
                found += [item for item in argument if isinstance(item, Operand)]
        return found

    def numbers(self) -> Iterator[Number]:
        """Yield the runtime numbers, in order."""
        for argument in self.arguments:
            for item in argument if isinstance(argument, tuple) else (argument,):
                if isinstance(item, Number):
                    yield item

    @property
    def reads(self) -> tuple[int, ...]:
        """Views read: all operands (in-place targets are operands, so they count as read)."""
        return tuple([operand.view for operand in self.operands()])


@dataclass(frozen=True, slots=True)
class Trace:
    """The ops of one trace, with the buffers and views that they name by index."""

    buffers: tuple[Buffer, ...]
    views: tuple[View, ...]
    ops: tuple[Op, ...]
    number_kinds: tuple[type, ...] = ()

    def buffer_of(self, view: int) -> int:
        """Return the index of the buffer that a view looks at."""
        return self.views[view].buffer


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes, strides and offset of a view in one recording, counted in elements."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
