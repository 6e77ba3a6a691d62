"""What a trace becomes: a plan, made or remembered, and the program that runs it this time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from torchy.disk import Shelf
from torchy.ir.check import require_valid
from torchy.ir.kernel import KernelForm
from torchy.ir.ops import Numerics
from torchy.ir.trace import Layout, Trace
from torchy.plan.build import build_plan, plan_of_calls
from torchy.plan.check import require_valid_plan
from torchy.plan.checks import CheckedPlan, checked_plan
from torchy.plan.plan import FusedGroup, Plan
from torchy.record import slots
from torchy.record.source import raised_by_program
from torchy.run.cache import LeastRecentlyUsed
from torchy.run.kept import KeptPlans
from torchy.run.program import Program
from torchy.run.tiers import Compiled, Kernels, Tell, prepare
from torchy.settings import Compile

MOST_REFUSALS = 3  # then rows are not planned for any more

# by the last node of the trace, flags, numerics, whether dead ops are left out, how many kernels have failed, and whether
# the others check what they compute
Plans = LeastRecentlyUsed[tuple[int, bytes, Numerics, bool, int, bool], Compiled]


class Planner:
    """Plans traces, and chooses between kernels and the interpreter.

    Parameters
    ----------
    plans
        Where plans are remembered.
    kernels
        Those of the process.
    checks
        Whether each trace and each plan is checked before it is run.
    shelf
        Where plans are kept for other processes; None: they are not.
    """

    def __init__(
        self, plans: Plans, kernels: Kernels, checks: bool = False, shelf: Shelf | None = None
    ) -> None:
        self.kernels = kernels
        self._plans = plans
        self._checks = checks
        self._kept = KeptPlans(shelf, kernels.backend.facts())

    def plan(
        self,
        trace: Trace,
        node: int,
        flags: bytes,
        numerics: Numerics,
        skip_dead: bool,
        tell: Tell,
        layouts: Callable[[], Sequence[Layout]] = tuple,
        refusals: int = 0,
        checked: bool = False,
    ) -> Compiled:
        """Return the plan of a trace for what is live at its end.

        Parameters
        ----------
        node
            Where the trace ends, for the walker; stands for all of it.
        flags
            A byte for each buffer: see :mod:`torchy.record.slots`.
        numerics, skip_dead
            See :class:`torchy.Settings`.
        tell
            Told that planning has failed: the ops run one by one then.
        layouts
            Gives the layout of each view of the trace, in one recording: how rows lie decides whether kernels reduce them.
        refusals
            How often kernels were given up where the trace ends, since they refused: each time it is planned anew, for how
            rows lie then.
        checked
            Whether kernels check what they compute: see :mod:`torchy.plan.checks`.
        """
        # what turned out not to compile changes what is fused
        key = (node, flags, numerics, skip_dead, self.kernels.failed, checked)
        entry = self._plans.get(key)
        if entry is None or entry.refusals < refusals:
            live, dead_inputs = slots.live(flags), slots.dead_inputs(flags)
            try:
                lie = layouts() if refusals < MOST_REFUSALS else ()
                plan = self._made(trace, live, dead_inputs, lie, numerics, skip_dead, refusals > 0)
            except Exception as error:  # nothing must be lost
                if raised_by_program(error):
                    raise
                plan = plan_of_calls(trace)
                what = f"{type(error).__name__}: {error}"
                tell("planning failed", f"{what}: the ops run one by one")
            of = checked_plan(plan, trace) if checked else CheckedPlan(plan, trace, ())
            ids = self._kernel_ids(of.plan, numerics)
            entry = Compiled(of, live, ids, self.kernels.backend, refusals)
            self._plans.put(key, entry)
        return entry

    def _made(
        self,
        trace: Trace,
        live: frozenset[int],
        dead_inputs: frozenset[int],
        layouts: Sequence[Layout],
        numerics: Numerics,
        skip_dead: bool,
        doubt: bool,
    ) -> Plan:
        """Return the plan of an earlier process, or a new one, which is kept."""
        key = self._kept.key(trace, live, dead_inputs, layouts, numerics, skip_dead, doubt)
        by_itself = bool(self.kernels.failed)  # what has been seen to fail is this process's own
        plan = None if by_itself else self._kept.get(key)
        if plan is not None:
            return plan
        plan = build_plan(
            trace,
            live,
            numerics,
            dead_inputs=dead_inputs,
            skip_dead=skip_dead,
            exactness=self.kernels.backend,
            layouts=layouts,
            doubt=doubt,
        )
        if not by_itself:
            # many are looked through, to remove the oldest: not on the program's account
            self.kernels.later(functools.partial(self._kept.put, key, plan))
        return plan

    def _kernel_ids(self, plan: Plan, numerics: Numerics) -> tuple[str | None, ...]:
        """Return for each step the id of its kernel, None for a call; many steps may be of one form."""
        known: dict[KernelForm, str] = {}
        found: list[str | None] = []
        for step in plan.steps:
            kernel_id = None
            if isinstance(step, FusedGroup):
                kernel_id = known.get(step.form)
                if kernel_id is None:
                    kernel_id = self.kernels.backend.identity(step.form, numerics)
                    known[step.form] = kernel_id
            found.append(kernel_id)
        return tuple(found)

    def program(
        self,
        entry: Compiled,
        layouts: Callable[[], Sequence[Layout]],
        numerics: Numerics,
        compile: Compile,
        heavy: bool,
        tell: Tell,
    ) -> tuple[Program, bool]:
        """Return what runs a plan, and whether it has kernels; those that are missing are seen to.

        Parameters
        ----------
        layouts
            Gives the layout of each view of the trace, this time.
        numerics, compile
            See :class:`torchy.Settings`.
        heavy
            Whether memory is short: a kernel needs all of its operands at once; op by op, each goes after its last use.
        tell
            Told of kernels that cannot be compiled.
        """
        if self._checks:
            if not entry.checks:  # their buffers are no op's
                require_valid(entry.trace, layouts())
            require_valid_plan(entry.plan, entry.trace)
        if compile == "never" or heavy:
            return entry.interpretation(), False
        prepare(self.kernels, entry, layouts, compile == "always", numerics, tell)
        if entry.compiled:
            return entry.take(), True
        return entry.interpretation(), False
