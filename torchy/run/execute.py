"""Running a program on the memory of a recording."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torchy.ir.trace import Layout, Trace
from torchy.plan.plan import FusedGroup, Plan
from torchy.record.native import Walker
from torchy.run.program import Program


class Execution:
    """One flush of one trace: can stop between two steps and go on later, from any call stack."""

    def __init__(self, walker: Walker, session: int, serial: int) -> None:
        self._walker = walker
        self._session = session
        self._serial = serial

    def run(self, program: Program) -> None:
        """Run the steps that are missing; none if the flush was finished by somebody else."""
        address, size = program.address, len(program.words)
        while self._walker.execute(self._session, self._serial, address, size):
            pass  # now and then it comes back, so that Python may look after its signals

    def op(self, program: Program) -> int | None:
        """Return the op that is being run, for whoever has to name it; None if none is."""
        running = self._walker.running(self._session)
        if running is None or running.serial != self._serial or running.at >= len(program.words):
            return None
        return program.op(running.at)


def bytes_moved(trace: Trace, plan: Plan, layouts: Sequence[Layout]) -> int:
    """Return the bytes that the fused ops of a plan read and write if they run one by one."""
    sizes = [
        math.prod(layout.sizes) * view.dtype.itemsize
        for view, layout in zip(trace.views, layouts, strict=True)
    ]
    return sum(sizes[view] for view in fused_views(trace, plan))


def fused_views(trace: Trace, plan: Plan) -> tuple[int, ...]:
    """Return the views that the fused ops of a plan read and write, as often as they do."""
    fused = [trace.ops[op] for s in plan.steps if isinstance(s, FusedGroup) for op in s.ops]
    return tuple(view for op in fused for view in (*op.reads, *op.writes))
