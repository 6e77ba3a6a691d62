import pytest
import torch

from torchy.codegen.cpu import Compiler
from torchy.ir.check import InvalidTraceError
from torchy.ir.trace import Buffer, Layout, Mode, Op, Operand, Trace, View
from torchy.plan.plan import Call
from torchy.record.slots import CREATED, LIVE
from torchy.run import planner
from torchy.run.cache import LeastRecentlyUsed
from torchy.run.planner import Planner
from torchy.run.tiers import Kernels

OPERAND = Operand(0, Mode.LINEAR, True)
TRACE = Trace(
    (Buffer(0, None), Buffer(1, 0)),
    (View(0, 0, torch.float32, 1), View(1, 1, torch.float32, 1)),
    (Op(0, "aten::neg", (OPERAND,), (1,), Mode.LINEAR, (1,)),),
    (),
)
KEPT = bytes([LIVE, CREATED | LIVE])
DROPPED = bytes([LIVE, CREATED])


class Plans:
    """A planner, and what it tells."""

    def __init__(self, checks=False):
        self.plans = LeastRecentlyUsed(8)
        self.planner = Planner(self.plans, Kernels(Compiler()), checks)
        self.told = []

    def tell(self, kind, text):
        self.told.append((kind, text))

    def plan(self, flags=KEPT, numerics="exact", skip_dead=True):
        return self.planner.plan(TRACE, 3, flags, numerics, skip_dead, self.tell)

    def program(self, entry, compile="always", heavy=False, layout=None):
        layouts = [layout or Layout((4,), (1,), 0)] * 2
        return self.planner.program(entry, lambda: layouts, "exact", compile, heavy, self.tell)


def test_a_plan_is_remembered_for_what_is_live_and_the_settings():
    plans = Plans()
    first = plans.plan()
    assert plans.plan() is first
    others = [plans.plan(DROPPED), plans.plan(numerics="fast"), plans.plan(skip_dead=False)]
    assert len({first, *others}) == 4 == len(plans.plans)


def test_what_nobody_can_reach_is_not_computed():
    plans = Plans()
    assert plans.plan().plan.dead == ()
    assert plans.plan(DROPPED).plan.dead == (0,)


def test_where_planning_fails_the_ops_run_one_by_one(monkeypatch):
    monkeypatch.setattr(planner, "build_plan", iter)  # raises TypeError, from no line of ours
    plans = Plans()
    assert plans.plan().plan.steps == (Call(0),)
    [(kind, text)] = plans.told
    assert kind == "planning failed" and text.startswith("TypeError")


@pytest.mark.parametrize(
    ("compile", "heavy", "compiled"),
    [("always", False, True), ("always", True, False), ("never", False, False)],
)
def test_kernels_run_a_plan_unless_memory_is_short_or_they_are_not_wanted(compile, heavy, compiled):
    plans = Plans()
    program, has_kernels = plans.program(plans.plan(), compile, heavy)
    assert has_kernels == compiled == bool(program.kernels)


def test_a_kernel_that_does_not_pay_at_once_is_not_waited_for():
    plans = Plans()
    assert plans.program(plans.plan(), "auto")[1] is False


def test_traces_are_checked_where_that_is_asked_for():
    wrong = Layout((4, 4), (4, 1), 0)
    plans = Plans()
    plans.program(plans.plan(), "never", layout=wrong)
    plans = Plans(checks=True)
    plans.program(plans.plan())
    with pytest.raises(InvalidTraceError):
        plans.program(plans.plan(), "never", layout=wrong)
