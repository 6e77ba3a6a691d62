"""What a fused group becomes when everything is left out that does not change its code: a kernel form.

No sizes, no addresses, no numbers: two groups with equal forms share one compiled kernel. A form is what the plan hands to
codegen, and, with the machine's features, the key under which a kernel is cached.

A form is a loop nest over axes, the innermost last. Without a reduced axis it says what is done to one element, and the
elements are done in any order. With one, the elements along it are a *row*: a :class:`Reduction` makes one value of each
row, and every value lives at a level, that of an element or that of a row (:attr:`KernelForm.levels`). Rows are done in any
order, each from its first statement to its last. The reduced axis is the innermost, or lies around the innermost: then rows
stand side by side in memory, as columns. With no other axis there is one row, of any length: no element waits for what is
made of all of them, so it is gone through once, in the parts that eager cuts it into.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Final
from typing import Literal as OneOf

import torch

from torchy.ir.trace import Mode


class Axis(enum.Enum):
    """What may be done along an axis of a loop nest."""

    PARALLEL = "parallel"  # in any order: all dimensions that are not reduced
    REDUCED = "reduced"  # in the orders of the reductions

    __hash__ = object.__hash__


# the loop nests that there are
Axes = tuple[Axis, ...]
ELEMENTS: Final[Axes] = (Axis.PARALLEL,)
ROWS: Final[Axes] = (Axis.PARALLEL, Axis.REDUCED)
COLUMNS: Final[Axes] = (Axis.PARALLEL, Axis.REDUCED, Axis.PARALLEL)
WHOLE: Final[Axes] = (Axis.REDUCED,)


class Level(enum.IntEnum):
    """Where a value lives."""

    ALL = 0  # it is the same everywhere
    ROW = 1  # one for each row
    ELEMENT = 2


@dataclass(frozen=True, slots=True)
class Access:
    """One memory operand: an address, and for modes UNIT, REPEAT, STRIDED and ROW a stride in each dimension."""

    dtype: torch.dtype
    mode: Mode


@dataclass(frozen=True, slots=True)
class Load:
    """The element of an access before the kernel has written anything to it."""

    access: int


@dataclass(frozen=True, slots=True)
class Result:
    """The value of an earlier statement."""

    statement: int


@dataclass(frozen=True, slots=True)
class RuntimeNumber:
    """The kernel's number argument at this position (of kind ``KernelForm.number_kinds[index]``)."""

    index: int


@dataclass(frozen=True, slots=True, eq=False)
class Literal:
    """A number, string or None that is part of the code. Equal if written alike: ``1``, ``1.0`` and ``True`` are three."""

    value: bool | int | float | str | None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Literal) and repr(self.value) == repr(other.value)

    def __hash__(self) -> int:
        return hash(repr(self.value))


@dataclass(frozen=True, slots=True)
class RowLength:
    """How many elements a row has."""


Value = Load | Result | RuntimeNumber | Literal | RowLength


class Functions(enum.Enum):
    """Of the functions that eager has for one name, ``exp`` and the like, the one that an op's kernel calls: bits differ."""

    ARRAYS = "arrays"  # it takes an array
    VECTORS = "vectors"  # it takes a vector
    POSITION = "position"  # a vector in the vector body of eager's loop, one element in the tail

    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class Statement:
    """One op on one element.

    Parameters
    ----------
    op
        The functional name in the op table (``add``, ``where``): in-place and ``out=`` forms are told apart by the
        stores.
    arguments
        In the order of the op table's parameters.
    compute
        The dtype in which eager's kernel computes: arguments are converted to it first.
    dtype
        The dtype of the result: rounded to it as eager does when it stores.
    functions
        Those that its formula calls. By position, what an element is depends on where it stands in eager's iteration: the
        form walks all elements as one run then.
    """

    op: str
    arguments: tuple[Value, ...]
    compute: torch.dtype
    dtype: torch.dtype
    functions: Functions = Functions.ARRAYS


@dataclass(frozen=True, slots=True)
class Order:
    """In which order the elements of a row are combined: where that shows, it is part of what an op computes.

    ``accumulators`` vectors of ``lanes`` elements each are a *block*.

    Parameters
    ----------
    lanes, accumulators
        Element i of a block is combined into lane ``i % lanes`` of accumulator ``i // lanes``. A row of fewer elements than
        ``lanes`` has one lane, if it starts from zeros.
    levels
        Of the cascade: after every 2^p blocks what has been gathered moves up a level, after every 2^2p two; p is the
        greater of 4 and ceil(log2(blocks)) // levels.
    start
        Accumulators begin as zeros, or hold the first block.
    rest
        Vectors that fill no block go to the first accumulator, or last, with the tail.
    join
        Accumulators are combined in sequence, or in pairs.
    tail
        Elements that fill no vector are combined first, from zero, and the lanes onto them; or last, onto the lanes; or
        into the first lanes, and if there is nothing else, one after the other.
    across
        Lanes are combined in sequence, or the second half of them with the first, and so on.
    alone
        So many elements a row may have for eager to combine it in this order if there is no other row; on one thread, any
        number, unless it is none: longer ones are cut into parts, for several threads.
    parts
        Each of these is combined in this order, and then so are their values, one for each thread that there is.
    """

    lanes: int
    accumulators: int
    levels: int = 1
    start: OneOf["zeros", "first"] = "zeros"
    rest: OneOf["accumulator", "last"] = "accumulator"
    join: OneOf["sequence", "pairs"] = "sequence"
    tail: OneOf["first", "last", "lanes"] = "first"
    across: OneOf["sequence", "halves"] = "sequence"
    alone: int = 0
    parts: bool = False

    @property
    def in_sequence(self) -> bool:
        """True if elements come one after the other, however they lie in memory."""
        return self.lanes == self.accumulators == self.levels == 1


@dataclass(frozen=True, slots=True)
class ColumnOrder:
    """In which order the elements of columns are combined, where neighbours in memory belong to different rows.

    Parameters
    ----------
    block
        So many columns at a time have the order ``whole``, what is left of them the order ``rest``; both have one lane.
    """

    block: int
    whole: Order
    rest: Order


@dataclass(frozen=True, slots=True)
class Reduction:
    """One value for each row, made of a value of each of its elements.

    Parameters
    ----------
    op
        The op of the table that does it.
    operator
        ``sum``, ``max`` or ``min``; ``all`` or ``any``, of truths; ``deviations``: the sum of the squares of what elements
        are off their mean, which is kept up to date from one to the next (Welford), in float64; ``mean``, and ``squares``,
        the same sum: gathered in parts of 16 vectors, and these joined in a binary tree; ``first_max`` and ``first_min``:
        the first NaN, or the first of the greatest, or least, elements; ``where_max`` and ``where_min``: how many come
        before that, in int64.
    argument
        A value of each element; what is the same for all of them is repeated.
    given, dtype
        What the argument is converted to, that of the op's operands; what is gathered, and the result's.
    order
        In which order.
    """

    op: str
    operator: str
    argument: Value
    given: torch.dtype
    dtype: torch.dtype
    order: Order | ColumnOrder


def arguments_of(statement: Statement | Reduction) -> tuple[Value, ...]:
    """Return the values that a statement takes."""
    return (statement.argument,) if isinstance(statement, Reduction) else statement.arguments


@dataclass(frozen=True, slots=True)
class Store:
    """Write a value to an access."""

    access: int
    value: Value


@dataclass(frozen=True)
class KernelForm:
    """The shape-free form of a fused group.

    All loads of an access happen, element by element (row by row, for what a row has one of), before its store. Accesses
    that overlap in memory are the same access: the plan sees to it.

    Parameters
    ----------
    axes
        The innermost last.
    """

    accesses: tuple[Access, ...]
    number_kinds: tuple[type, ...]
    statements: tuple[Statement | Reduction, ...]
    stores: tuple[Store, ...]
    axes: Axes = ELEMENTS

    def __getstate__(self) -> dict[str, object]:
        """Return what is pickled: nothing that is derived, which another thread may be adding in the midst of it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def has_rows(self) -> bool:
        """True if it has a reduced axis."""
        return Axis.REDUCED in self.axes

    @property
    def has_columns(self) -> bool:
        """True if its rows stand side by side in memory."""
        return self.has_rows and self.axes[-1] is Axis.PARALLEL

    @property
    def has_loose_rows(self) -> bool:
        """True if rows may lie in memory in any way: nothing shows how, neither an order nor another access."""
        orders = [s.order for s in self.statements if isinstance(s, Reduction)]
        sequence = all(isinstance(order, Order) and order.in_sequence for order in orders)
        linear = any(access.mode is Mode.LINEAR for access in self.accesses)
        return self.axes == ROWS and sequence and not linear

    @property
    def one_pass(self) -> bool:
        """True if all elements are one run, and none waits for a row's value: one row can be gone through once."""
        orders = [s.order for s in self.statements if isinstance(s, Reduction)]
        levels = [self.level(value) for s in self._of_elements() for value in arguments_of(s)]
        levels += [
            self.level(store.value)
            for store in self.stores
            if self.accesses[store.access].mode is not Mode.ROW
        ]
        return (
            self.axes in (ROWS, WHOLE)
            and all(isinstance(order, Order) and order.parts for order in orders)
            and all(access.mode in _ONE_RUN for access in self.accesses)
            and Level.ROW not in levels
        )

    def _of_elements(self) -> list[Statement | Reduction]:
        """Return what is computed of elements."""
        return [
            statement
            for statement, level in zip(self.statements, self.levels, strict=True)
            if level is Level.ELEMENT or isinstance(statement, Reduction)
        ]

    @property
    def by_position(self) -> bool:
        """True if it has to mind where an element stands: see :class:`Statement`."""
        return any(
            isinstance(statement, Statement) and statement.functions is Functions.POSITION
            for statement in self.statements
        )

    @property
    def flat(self) -> bool:
        """True if one index walks all of it: every access is LINEAR or SCALAR, and no axis is reduced."""
        return not self.has_rows and all(
            access.mode in (Mode.LINEAR, Mode.SCALAR) for access in self.accesses
        )

    @property
    def alone(self) -> int:
        """How many elements a row may have if there is no other: see :class:`Order`."""
        orders = [s.order for s in self.statements if isinstance(s, Reduction)]
        return min((o.alone if isinstance(o, Order) else 0 for o in orders), default=0)

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """The level of each statement's result."""
        found: list[Level] = []
        for statement in self.statements:
            if isinstance(statement, Reduction):
                found.append(Level.ROW)
            else:
                found.append(
                    max(
                        (self._level(value, found) for value in statement.arguments),
                        default=Level.ALL,
                    )
                )
        return tuple(found)

    def level(self, value: Value) -> Level:
        """Return the level at which a value lives."""
        return self._level(value, self.levels)

    def _level(self, value: Value, results: Sequence[Level]) -> Level:
        if isinstance(value, Load):
            return _LEVELS.get(self.accesses[value.access].mode, Level.ELEMENT)
        return results[value.statement] if isinstance(value, Result) else Level.ALL


_ONE_RUN: Final = frozenset((Mode.LINEAR, Mode.SCALAR, Mode.ROW))
_LEVELS: Final = {Mode.SCALAR: Level.ALL, Mode.ROW: Level.ROW}  # of what is loaded; else elements
