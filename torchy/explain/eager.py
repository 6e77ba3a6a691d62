"""What eager would have taken for an op that was fused: estimated from what the op takes on a few elements."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import Any, NamedTuple

import torch

from torchy.ir.trace import Argument, Constant, Number, Op, Operand, Trace
from torchy.record.source import raised_by_program
from torchy.report import TensorRecord
from torchy.run.tiers import EAGER_BANDWIDTH

MOST_ELEMENTS = (
    1 << 14
)  # of an operand on which an op is tried: in the caches, and too few for two threads
GRAIN = 1 << 15  # elements of which torch makes one thread's share (at::internal::GRAIN_SIZE)
CACHE_BYTES = 1 << 20  # what moves more goes through memory
REPEATS = 3
TINY_OP = 1e-6  # seconds, where an op cannot be tried

Sizes = tuple[int, ...]


class Estimate(NamedTuple):
    """Seconds that eager would take for an op, and those of them in which it computes rather than waits for memory."""

    seconds: float
    work: float


class _Cost(NamedTuple):
    """Seconds that an op takes on nothing, and for each element more."""

    overhead: float
    per_element: float


class EagerCosts:
    """Estimates ops on the CPU; tries each kind of op once, on operands of its own, outside of any region."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], _Cost | None] = {}
        self._way: float | None = (
            None  # seconds that calling an op from here takes longer than from a program
        )

    def of(
        self, trace: Trace, index: int, tensors: Sequence[TensorRecord], until: float
    ) -> Estimate:
        """Estimate one op of a trace.

        Parameters
        ----------
        tensors
            By view, with sizes.
        until
            By ``perf_counter()``: ops that have not been tried by then are taken for the cheapest.
        """
        op = trace.ops[index]
        views = (*op.reads, *op.writes)
        sizes = {view: tensors[view].sizes or () for view in views}
        elements = max((math.prod(sizes[view]) for view in views), default=1)
        moved = sum(math.prod(sizes[view]) * trace.views[view].dtype.itemsize for view in views)
        cost = self._cost(trace, op, sizes, until)
        shares = min(torch.get_num_threads(), max(1, elements // GRAIN))
        work = cost.per_element * elements / shares
        through_memory = moved / EAGER_BANDWIDTH if moved > CACHE_BYTES else 0.0
        return Estimate(cost.overhead + max(work, through_memory), work)

    def _cost(self, trace: Trace, op: Op, sizes: dict[int, Sizes], until: float) -> _Cost:
        key = (
            op.name,
            tuple(trace.views[view].dtype for view in (*op.reads, *op.writes)),
            tuple(len(sizes[view]) for view in op.reads),
            repr([a for a in op.arguments if isinstance(a, Constant)]),
        )
        if key not in self._known:
            if perf_counter() > until or torch.is_inference_mode_enabled():
                return _Cost(TINY_OP, 0.0)
            if self._way is None:
                self._way = _best(torch.ops.aten.neg.default, torch.ones(16)) - TINY_OP
            self._known[key] = _tried(trace, op, sizes, self._way)
        return self._known[key] or _Cost(TINY_OP, 0.0)


def _tried(trace: Trace, op: Op, sizes: dict[int, Sizes], way: float) -> _Cost | None:
    """Time an op on few and on more elements; None if it cannot be called so.

    ``way``: seconds of which are not the op's own.
    """
    try:
        little, few = _timed(trace, op, _shrunk(sizes, 64))
        much, many = _timed(trace, op, _shrunk(sizes, MOST_ELEMENTS))
    except Exception as error:  # sizes that must not shrink, an argument that is told otherwise
        if raised_by_program(error):
            raise
        return None
    return _Cost(max(TINY_OP, little - way), max(0.0, much - little) / max(1, many - few))


def _timed(trace: Trace, op: Op, sizes: dict[int, Sizes]) -> tuple[float, int]:
    """Return the seconds that an op takes with operands of these sizes, and the elements of the largest."""
    base, _, overload = op.name.removeprefix("aten::").partition(".")
    function: Any = getattr(getattr(torch.ops.aten, base), overload or "default")
    operands = {
        view: torch.full(sizes[view], True, dtype=trace.views[view].dtype) for view in op.reads
    }
    positional, named = [], {}
    for argument, given in zip(function._schema.arguments, op.arguments, strict=True):
        value = _value(given, operands)
        if argument.kwarg_only:
            named[argument.name] = value
        else:
            positional.append(value)
    best = _best(function, *positional, **named)
    return best, max((math.prod(sizes[view]) for view in (*op.reads, *op.writes)), default=1)


def _best(function: Any, *positional: Any, **named: Any) -> float:
    """Return the least seconds that a call took."""
    best = math.inf
    with torch.inference_mode():
        function(*positional, **named)  # the first time is another
        for _ in range(REPEATS):
            begin = perf_counter()
            function(*positional, **named)
            best = min(best, perf_counter() - begin)
    return best


def _value(argument: Argument, operands: dict[int, torch.Tensor]) -> Any:
    match argument:
        case Operand(view):
            return operands[view]
        case Number(_, kind):
            return kind(1)
        case Constant(value):
            return value
        case _:
            return [_value(item, operands) for item in argument]


def _shrunk(sizes: dict[int, Sizes], most: int) -> dict[int, Sizes]:
    """Return smaller sizes of as many elements at most; dimensions that are equal stay so."""
    lengths = sorted({length for shape in sizes.values() for length in shape}, reverse=True)
    shorter = dict(zip(lengths, lengths, strict=True))
    for length in _largest_first(shorter):
        if all(math.prod(shorter[n] for n in shape) <= most for shape in sizes.values()):
            break
        shorter[length] = max(1, shorter[length] // 2)
    return {view: tuple(shorter[n] for n in shape) for view, shape in sizes.items()}


def _largest_first(shorter: dict[int, int]) -> Iterator[int]:
    while any(short > 1 for short in shorter.values()):
        yield max(shorter, key=lambda length: shorter[length])
