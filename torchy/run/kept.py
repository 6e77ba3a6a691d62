"""Plans of earlier processes: a plan takes some milliseconds to make, and a fraction of one to read."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from torchy.disk import Shelf
from torchy.ir.trace import Layout, Trace
from torchy.plan.plan import Plan
from torchy.record.source import raised_by_program

_MODULES = ("torchy.plan.plan", "torchy.ir.kernel", "torchy.ir.trace")  # whose classes a plan has


class KeptPlans:
    """Plans by all that they were made of.

    Parameters
    ----------
    shelf
        None: nothing is kept.
    facts
        What else plans depend on.
    """

    def __init__(self, shelf: Shelf | None, facts: str) -> None:
        self._shelf = shelf
        self._given = hashlib.sha256(facts.encode()).hexdigest()

    def key(
        self,
        trace: Trace,
        live: Iterable[int],
        dead_inputs: Iterable[int],
        layouts: Sequence[Layout],
        *how: object,
    ) -> str:
        """Return a text that is the same if the plan is; lines of the program are no part of it."""
        ops = [(o.name, o.arguments, o.results, o.result_mode, o.writes) for o in trace.ops]
        lie = [(layout.sizes, layout.strides) for layout in layouts]
        views = [(view.buffer, view.dtype, view.rank) for view in trace.views]
        created = [buffer.creator for buffer in trace.buffers]
        of_trace = (ops, views, created, trace.number_kinds)
        return f"plan {self._given} {(of_trace, sorted(live), sorted(dead_inputs), lie, how)!r}"

    def get(self, key: str) -> Plan | None:
        """Return what is kept, None if that is nothing."""
        content = self._shelf.read(key) if self._shelf is not None else None
        if content is None:
            return None
        try:
            plan = _Reader(io.BytesIO(content)).load()
        except Exception as error:  # it is no plan, then
            if raised_by_program(error):  # a signal handler, in the midst of it
                raise
            return None
        return plan if isinstance(plan, Plan) else None

    def put(self, key: str, plan: Plan) -> None:
        """Keep a plan."""
        if self._shelf is not None:
            self._shelf.write(key, pickle.dumps(plan, pickle.HIGHEST_PROTOCOL))


class _Reader(pickle.Unpickler):
    """Reads plans; what is not made of what plans are made of is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if module in _MODULES or (module == "builtins" and name in ("bool", "int", "float")):
            return super().find_class(module, name)
        if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
            return dtype
        raise pickle.UnpicklingError(f"a plan has no {module}.{name}")
