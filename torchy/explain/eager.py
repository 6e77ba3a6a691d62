"""What eager would have taken for an op that was fused: estimated from what the op takes on a few elements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from time import perf_counter
from typing import Any, NamedTuple

import torch

from torchy.explain.calls import prepared_call
from torchy.face import current_session
from torchy.ir.trace import Constant, Op, Trace
from torchy.record.source import raised_by_program
from torchy.report import TensorRecord
from torchy.run.pace import tiny_op_seconds
from torchy.run.tiers import EAGER_BANDWIDTH

# elements of the largest operand on which an op is tried: in the caches, and too few for two threads
MOST_ELEMENTS = 1 << 14
GRAIN = 1 << 15  # elements of which torch makes one thread's share (at::internal::GRAIN_SIZE)
CACHE_BYTES = 1 << 20  # what moves more goes through memory
FEW_ELEMENTS = 64
REPEATS = 2
TINY_OP = 1e-6  # seconds: no op takes less

Sizes = tuple[int, ...]


class Estimate(NamedTuple):
    """Seconds that eager would take for an op; not ``known`` if the op has not been tried: the least that it can be."""

    seconds: float
    known: bool


class _Cost(NamedTuple):
    """Seconds that an op takes on nothing, and for each element more."""

    overhead: float
    per_element: float


class EagerCosts:
    """Estimates ops on the CPU; tries each kind of op once, on operands of its own, outside of any region."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], _Cost | None] = {}
        # seconds that calling an op from here takes longer than from a program
        self._way: float | None = None

    def of(
        self, trace: Trace, index: int, tensors: Sequence[TensorRecord], until: float
    ) -> Estimate:
        """Estimate one op of a trace.

        Parameters
        ----------
        tensors
            By view, with sizes.
        until
            By ``perf_counter()``: what has not been tried by then is not known.
        """
        op = trace.ops[index]
        views = (*op.reads, *op.writes)
        sizes = {view: tensors[view].sizes or () for view in views}
        elements = max((math.prod(sizes[view]) for view in views), default=1)
        moved = sum(math.prod(sizes[view]) * trace.views[view].dtype.itemsize for view in views)
        found = self._cost(trace, op, sizes, until)
        cost = found or _Cost(TINY_OP, 0.0)
        shares = min(torch.get_num_threads(), max(1, elements // GRAIN))
        work = cost.per_element * elements / shares
        through_memory = moved / EAGER_BANDWIDTH if moved > CACHE_BYTES else 0.0
        return Estimate(cost.overhead + max(work, through_memory), found is not None)

    def _cost(self, trace: Trace, op: Op, sizes: dict[int, Sizes], until: float) -> _Cost | None:
        key = (
            op.name,
            tuple(trace.views[view].dtype for view in (*op.reads, *op.writes)),
            tuple(len(sizes[view]) for view in op.reads),
            repr([a for a in op.arguments if isinstance(a, Constant)]),
        )
        if key not in self._known:
            if perf_counter() > until or _would_be_seen():
                return None
            if self._way is None:
                self._way = _best(torch.ops.aten.neg.default, torch.ones(16)) - tiny_op_seconds()
            self._known[key] = _tried(trace, op, sizes, self._way)
        return self._known[key]


def _tried(trace: Trace, op: Op, sizes: dict[int, Sizes], way: float) -> _Cost | None:
    """Time an op on few and on more elements; None if it cannot be called so.

    ``way``: seconds of which are not the op's own.
    """
    try:
        little, few = _timed(trace, op, _of_elements(sizes, FEW_ELEMENTS))
        much, many = _timed(trace, op, _of_elements(sizes, MOST_ELEMENTS))
    except Exception as error:  # sizes that must not shrink, an argument that is told otherwise
        if raised_by_program(error):
            raise
        return None
    return _Cost(max(TINY_OP, little - way), max(0.0, much - little) / max(1, many - few))


def _timed(trace: Trace, op: Op, sizes: dict[int, Sizes]) -> tuple[float, int]:
    """Return the seconds that an op takes with operands of these sizes, and the elements of the largest."""
    operands = {
        view: torch.full(sizes[view], True, dtype=trace.views[view].dtype) for view in op.reads
    }
    function, positional, named = prepared_call(
        op, operands.__getitem__, lambda number: number.kind(1)
    )
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


def _of_elements(sizes: dict[int, Sizes], most: int) -> dict[int, Sizes]:
    """Return sizes of about as many elements, no more; equal dimensions stay equal, those of 1 stay 1."""
    lengths = sorted({length for shape in sizes.values() for length in shape if length > 1})
    chosen = dict.fromkeys(lengths, 2)

    def elements(lengths: dict[int, int]) -> int:
        shapes = sizes.values()
        return max((math.prod(lengths.get(n, n) for n in shape) for shape in shapes), default=1)

    grows = True
    while grows:
        grows = False
        for length in lengths:
            if elements({**chosen, length: 2 * chosen[length]}) <= most:
                chosen[length] *= 2
                grows = True
    return {view: tuple(chosen.get(n, n) for n in shape) for view, shape in sizes.items()}


def _would_be_seen() -> bool:
    """Tell if the program would notice that an op is tried: a session, a mode or a profiler would."""
    stacks: Any = torch._C
    return bool(
        current_session() is not None
        or torch.is_inference_mode_enabled()
        or stacks._len_torch_dispatch_stack()
        or stacks._len_torch_function_stack()
        or torch.autograd._profiler_enabled()  # type: ignore[attr-defined]
    )
