"""Kept flushes run anew, in a session of their own: as they were, or changed, to see what a change of the program brings."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from time import perf_counter

import torch

import torchy.face
from torchy.explain.calls import prepared_call, results_of
from torchy.ir.trace import Layout
from torchy.watch.replay import last_uses
from torchy.watch.store import KeptFlush, Store

WARM_UP, ROUNDS, AGREEING = 3, 9, 8


class CannotPlay(RuntimeError):
    """What was recorded cannot be called from here; the message says why."""


class Played:
    """Flushes that follow each other, to be run as often as wanted.

    Raises
    ------
    NotKept
        If their inputs are not there any more.
    """

    def __init__(self, store: Store, flushes: Sequence[KeptFlush]) -> None:
        self._flushes = flushes
        # by flush and buffer: what no earlier one of them makes; which flush makes it, and its buffer
        self._inputs: list[dict[int, torch.Tensor]] = []
        self._made_by: list[dict[int, tuple[int, int]]] = []
        made: dict[bytes, tuple[int, int]] = {}
        for index, flush in enumerate(flushes):
            linked = {b: made[digest] for b, digest in flush.inputs.items() if digest in made}
            given = store.inputs_of(flush) if len(linked) < len(flush.inputs) else {}
            self._made_by.append(linked)
            self._inputs.append({b: memory for b, memory in given.items() if b not in linked})
            made |= {digest: (index, buffer) for buffer, digest in flush.outputs.items()}
        self._last_used: list[list[tuple[int, int]]] = [[] for _ in flushes]  # outputs, by flush
        seen: set[tuple[int, int]] = set()
        for index in reversed(range(len(flushes))):
            used = set(self._made_by[index].values()) - seen
            self._last_used[index] = sorted(used)
            seen |= used

    def seconds(self, merged: bool = False, narrow: bool = False) -> float:
        """Record and run all ops once; return what flushing took. Within a region.

        What a later flush takes is dropped with its last use; all else that the flushes leave stays to the end.

        Parameters
        ----------
        merged
            Whether all of them are one flush.
        narrow
            Whether float64 is float32, as an input and where it is asked for.
        """
        spent = 0.0

        def flush_now() -> None:
            nonlocal spent
            begin = perf_counter()
            torchy.face.flush()
            spent += perf_counter() - begin

        left = self._record(narrow, (lambda: None) if merged else flush_now)
        flush_now()
        left.clear()
        return spent

    def _record(self, narrow: bool, between: Callable[[], object]) -> list[dict[int, torch.Tensor]]:
        outputs: list[dict[int, torch.Tensor]] = []
        for index, flush in enumerate(self._flushes):
            bases = {}
            for buffer, memory in self._inputs[index].items():
                base = self._base(flush, buffer, memory)
                bases[buffer] = base.float() if narrow and base.dtype is torch.float64 else base
            for buffer, (by, other) in self._made_by[index].items():
                bases[buffer] = outputs[by][other]
            for by, other in self._last_used[index]:
                del outputs[by][other]
            self._ops(flush, bases, narrow)
            outputs.append({buffer: bases[buffer] for buffer in flush.outputs})
            del bases
            between()
        return outputs

    def _ops(self, flush: KeptFlush, bases: dict[int, torch.Tensor], narrow: bool) -> None:
        trace, recording = flush.trace, flush.required().recording
        layouts, numbers = recording.layouts(), recording.numbers()
        last = last_uses(trace)

        def operand(view: int) -> torch.Tensor:
            return _view(bases[trace.buffer_of(view)], layouts[view])

        for op in trace.ops:
            function, positional, named = prepared_call(
                op, operand, lambda number: numbers[number.index]
            )
            if narrow:
                positional = [torch.float32 if a is torch.float64 else a for a in positional]
                named = {k: torch.float32 if a is torch.float64 else a for k, a in named.items()}
            returned = results_of(function(*positional, **named))
            for view, result in zip(op.results, returned, strict=True):
                if view is None or not isinstance(result, torch.Tensor):
                    continue
                buffer = trace.buffer_of(view)
                if trace.buffers[buffer].creator == op.index:
                    bases[buffer] = result
            for view in (*op.reads, *op.writes):
                buffer = trace.buffer_of(view)
                if last[buffer] == op.index and buffer not in flush.outputs:
                    bases.pop(buffer, None)

    @staticmethod
    def _base(flush: KeptFlush, buffer: int, memory: torch.Tensor) -> torch.Tensor:
        """Return a tensor on a copy of an input's memory."""
        dtypes = {view.dtype for view in flush.trace.views if view.buffer == buffer}
        if len(dtypes) > 1:
            raise CannotPlay("memory that is looked at as several dtypes")
        (dtype,) = dtypes
        whole = memory.numel() // dtype.itemsize * dtype.itemsize
        return memory[:whole].clone().view(dtype)


def _view(base: torch.Tensor, layout: Layout) -> torch.Tensor:
    same = (
        tuple(base.shape) == tuple(layout.sizes)
        and base.stride() == tuple(layout.strides)
        and base.storage_offset() == layout.offset
    )
    return base if same else base.as_strided(layout.sizes, layout.strides, layout.offset)


def gain(one: Callable[[], float], other: Callable[[], float]) -> float:
    """Return how many seconds less the other program takes; both run by turns, and give their seconds.

    0 if the rounds do not agree that it takes less.
    """
    differences = []
    # one region for all: what memory it takes is there from the second turn on
    with torch.no_grad(), torchy.face.lazy(compile="always"):
        for turn in range(WARM_UP + ROUNDS):
            order = (one, other) if turn % 2 else (other, one)
            seconds = {each: min(each(), each()) for each in order}
            if turn >= WARM_UP:
                differences.append(seconds[one] - seconds[other])
    agree = sum(difference > 0 for difference in differences)
    return statistics.median(differences) if agree >= AGREEING else 0.0
