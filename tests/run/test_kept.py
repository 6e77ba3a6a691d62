"""Plans are kept for other processes, by all that they were made of."""

import os
import pickle
import threading
from dataclasses import replace

import pytest
import torch

from torchy.codegen.cpu.kernel import Compiler
from torchy.disk import Shelf
from torchy.ir.trace import Buffer, Constant, Layout, Mode, Number, Op, Operand, Source, Trace, View
from torchy.plan.plan import Call, FusedGroup
from torchy.record.slots import CREATED, LIVE
from torchy.run import planner
from torchy.run.cache import LeastRecentlyUsed
from torchy.run.kept import KeptPlans
from torchy.run.planner import Planner
from torchy.run.tiers import Kernels

LINEAR = Operand(0, Mode.LINEAR, True)
TRACE = Trace(
    (Buffer(0, None), Buffer(1, 0), Buffer(2, 1)),
    (View(0, 0, torch.float32, 2), View(1, 1, torch.float32, 2), View(2, 2, torch.float32, 2)),
    (
        Op(0, "aten::mul.Tensor", (LINEAR, Number(0, float)), (1,), Mode.LINEAR, (1,), Source("a.py", 3)),
        Op(1, "aten::sum.dim_IntList", (Operand(1), Constant((1,)), Constant(True), Constant(None)), (2,), None, (2,)),
    ),
    (float,),
)  # fmt: skip
LAYOUTS = [Layout((64, 40), (40, 1), 0)] * 2 + [Layout((64, 1), (1, 1), 0)]
FLAGS = bytes([LIVE, CREATED, CREATED | LIVE])


def planning(folder, trace=TRACE, flags=FLAGS, numerics="exact", skip_dead=True, layouts=LAYOUTS):
    """Plan as a process does that has not planned yet."""
    kernels = Kernels(Compiler())
    made = Planner(LeastRecentlyUsed(8), kernels, shelf=Shelf(folder))
    plan = made.plan(trace, 3, flags, numerics, skip_dead, pytest.fail, lambda: layouts).plan
    wait_for(kernels)
    return plan


def wait_for(kernels):
    """Wait until what is done in the background is done."""
    done = threading.Event()
    kernels.later(done.set)
    assert done.wait(30)


def test_another_process_takes_the_plan_that_is_kept(tmp_path, monkeypatch):
    first = planning(tmp_path)
    [group] = first.steps
    assert isinstance(group, FusedGroup) and group.form.has_rows
    monkeypatch.setattr(planner, "build_plan", None)
    assert planning(tmp_path) == first


def test_what_a_form_finds_out_when_asked_is_not_kept(tmp_path):
    """It is found while the plan is being written: a dictionary that grows then is an error."""
    [group] = planning(tmp_path).steps
    asked, unasked = replace(group.form), replace(group.form)
    assert asked.levels
    assert asked.__getstate__() == unasked.__getstate__()
    assert pickle.loads(pickle.dumps(asked)) == group.form


MULTIPLIED, SUMMED = TRACE.ops
OTHERS = {
    "what is live": {"flags": bytes([LIVE, CREATED | LIVE, CREATED | LIVE])},
    "an input that nothing else reaches": {"flags": bytes([0, CREATED, CREATED | LIVE])},
    "numerics": {"numerics": "fast"},
    "what is dead is computed": {"skip_dead": False},
    "how rows lie": {"layouts": [Layout((64, 40), (1, 64), 0)] * 2 + LAYOUTS[2:]},
    "an op": {"trace": replace(TRACE, ops=(replace(MULTIPLIED, name="aten::add.Tensor"), SUMMED))},
    "a constant": {
        "trace": replace(
            TRACE,
            ops=(
                MULTIPLIED,
                replace(SUMMED, arguments=(*SUMMED.arguments[:3], Constant(torch.float32))),
            ),
        )
    },
    "a dtype": {
        "trace": replace(
            TRACE, views=(TRACE.views[0], TRACE.views[1], View(2, 2, torch.float64, 2))
        )
    },
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_plan_is_made_anew_for_anything_else(tmp_path, monkeypatch, other):
    made = []
    build = planner.build_plan
    monkeypatch.setattr(planner, "build_plan", lambda *a, **k: made.append(1) or build(*a, **k))
    planning(tmp_path)
    planning(tmp_path, **OTHERS[other])
    planning(tmp_path, **OTHERS[other])
    assert len(made) == 2


def test_another_line_is_the_same_plan(tmp_path, monkeypatch):
    first = planning(tmp_path)
    monkeypatch.setattr(planner, "build_plan", None)
    moved = replace(MULTIPLIED, source=Source("b.py", 9))
    assert planning(tmp_path, replace(TRACE, ops=(moved, SUMMED))) == first


def test_another_machine_has_plans_of_its_own(tmp_path):
    shelf = Shelf(tmp_path)
    one, other = KeptPlans(shelf, "avx2"), KeptPlans(shelf, "avx512")
    one.put(one.key(TRACE, (), (), ()), planning(tmp_path))
    assert one.get(one.key(TRACE, (), (), ())) is not None
    assert other.get(other.key(TRACE, (), (), ())) is None


class Harm:
    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("content", [pickle.dumps(Harm()), pickle.dumps(3), b"", b"\x80\x05."])
def test_what_is_no_plan_is_not_taken(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    shelf = Shelf(tmp_path / "plans")
    kept = KeptPlans(shelf, "")
    shelf.write("key", content)
    assert kept.get("key") is None
    assert not os.path.exists("harm")


def test_what_has_failed_in_this_process_is_its_own(tmp_path):
    kernels = Kernels(Compiler())
    kernels.failed = 1
    made = Planner(LeastRecentlyUsed(8), kernels, shelf=Shelf(tmp_path))
    made.plan(TRACE, 3, FLAGS, "exact", True, pytest.fail, lambda: LAYOUTS)
    wait_for(kernels)
    assert list(Shelf(tmp_path).files()) == []


def test_where_planning_fails_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(planner, "build_plan", iter)
    told = []
    made = Planner(LeastRecentlyUsed(8), Kernels(Compiler()), shelf=Shelf(tmp_path))
    plan = made.plan(
        TRACE, 3, FLAGS, "exact", True, lambda *event: told.append(event), lambda: LAYOUTS
    ).plan
    assert plan.steps == (Call(0), Call(1)) and len(told) == 1
    assert list(Shelf(tmp_path).files()) == []
