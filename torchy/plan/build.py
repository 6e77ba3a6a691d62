"""Trace to plan, pass by pass."""

from __future__ import annotations

from collections.abc import Sequence

from torchy.ir.ops.spec import Numerics
from torchy.ir.trace import Layout, Trace
from torchy.plan.form import fused_group
from torchy.plan.fuse import Fuser, Group
from torchy.plan.liveness import find_dead, live_in_effect, never_read
from torchy.plan.memory import schedule_memory
from torchy.plan.plan import Call, Plan, Step
from torchy.plan.roles import Classifier, Classify, Exactness, Role, RowFormula
from torchy.plan.touch import touch_of


def build_plan(
    trace: Trace,
    live: frozenset[int],
    numerics: Numerics = "exact",
    *,
    dead_inputs: frozenset[int] = frozenset(),
    skip_dead: bool = True,
    exactness: Exactness | None = None,
    layouts: Sequence[Layout] = (),
    doubt: bool = False,
    role_of: Classify | None = None,
) -> Plan:
    """Return the plan of a trace for what is live at its end.

    Parameters
    ----------
    live
        Indices of the buffers that the program can still reach. A written input counts as live
        whether named or not.
    numerics
        "exact" or "fast": whether a fused op must have eager's bits.
    dead_inputs
        Inputs that nothing outside the trace reaches any more: writes to them are not seen, and they
        are released after their last use.
    skip_dead
        False: what nothing in the trace reads is computed, though the program has dropped it.
    exactness, layouts, doubt
        See :class:`torchy.plan.roles.Classifier`.
    role_of
        Gives the role of each op, instead of the op table.
    """
    role_of = role_of or Classifier(numerics, exactness, layouts, doubt).role
    roles = [role_of(op, trace) for op in trace.ops]
    touches = [touch_of(trace, op, role) for op, role in zip(trace.ops, roles, strict=True)]
    live = live_in_effect(trace, touches, live, dead_inputs)
    stored = live if skip_dead else live | never_read(touches)
    dead = find_dead(trace, touches, stored)
    fuser = Fuser(trace, roles, touches, dead, stored)
    fusion = fuser.run()
    steps: tuple[Step, ...] = tuple(
        Call(group.ops[0])
        if group.layout is None or _is_lone(group, roles)
        else fused_group(trace, roles, group.ops, group.modes, fuser.stored(group))
        for group in fusion.groups
    )
    allocate, release = schedule_memory(trace, steps, live, dead_inputs)
    return Plan(steps, tuple(sorted(dead)), allocate, release, fusion.why_apart)


def _is_lone(group: Group, roles: Sequence[Role]) -> bool:
    """Tell whether a group is one op by itself of which torch's own is as fast."""
    formula = roles[group.ops[0]].formula
    if len(group.ops) > 1 or formula is None:
        return False
    return not formula.alone if isinstance(formula, RowFormula) else formula.by_position


def plan_of_calls(trace: Trace) -> Plan:
    """Return the plan that runs all ops one by one and keeps all they make: it needs no analysis."""
    steps = tuple(Call(op.index) for op in trace.ops)
    return Plan(steps, (), ((),) * len(steps), ((),) * len(steps), {})
