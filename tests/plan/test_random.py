"""Random traces: a plan must leave in every live buffer what running the ops one by one leaves."""

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.plan.mini import PRIME, WAYS, Program, role_of, run_op, run_plan, run_trace, start
from torchy.ir.check import check_trace
from torchy.ir.trace import Constant
from torchy.plan import build_plan, fuse, liveness
from torchy.plan.check import check_plan
from torchy.plan.fuse import Fuser
from torchy.plan.hazards import LastUses, StepGraph

EXAMPLES = 500
SHAPES = ((2, 3), (3,), (2, 3), (3, 2), (), (2, 1))


def windows(program, view):
    """Other windows on the buffer of a view: transposed, shifted, every second, one element, a row."""
    size = program.sizes[program.buffer_of(view)]
    yield (size,), (1,), 0
    if size >= 6:
        yield (2, 3), (3, 1), 0
        yield (3, 2), (1, 3), 0
        yield (2, 2), (3, 1), 1
        yield (3,), (2,), 1
        yield (3,), (1,), 3
    if size >= 2:
        yield (size - 1,), (1,), 1
        yield (size - 1,), (1,), 0
        yield (), (), size - 1


@st.composite
def programs(draw):
    program = Program()
    for shape in draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3)):
        view = program.input(*shape)
        size = program.sizes[program.buffer_of(view)]
        if size > 1 and draw(st.booleans()):  # two views of equal layout that overlap
            program.view(view, (size - 1,), (1,), 0)
            program.view(view, (size - 1,), (1,), 1)
    for _ in range(draw(st.integers(4, 16))):
        action = draw(st.integers(0, 9))
        any_view = st.integers(0, len(program.views) - 1)
        if action <= 1:
            of = draw(any_view)
            sizes, strides, offset = draw(st.sampled_from(list(windows(program, of))))
            program.view(of, sizes, strides, offset)
            continue
        target = draw(any_view)
        sizes = program.layouts[target].sizes
        others = [v.index for v in program.views if fits(program.layouts[v.index].sizes, sizes)]
        alike = [v for v in others if program.layouts[v].sizes == sizes]
        other = draw(st.sampled_from(draw(st.sampled_from([alike, alike, others]))))
        argument = draw(
            st.sampled_from([other, other, other, Constant(5), None])
        ) or program.number(draw(st.integers(0, PRIME - 1)))
        call = "call" if draw(st.integers(0, 4)) == 0 else None
        if action <= 4:
            program.op(call or "mix", target, argument)
        elif action == 5:
            program.op(call or "step", target)
        elif action == 6:
            program.op(call + "_" if call else "mix_", target, argument)
        elif action == 7:
            program.op("copy_", target, other)
        elif action == 8:
            program.op("step_", target)
        else:
            program.op("mix", other, argument, out=target)
    created = [b.index for b in program.buffers if b.creator is not None]
    inputs = [b.index for b in program.buffers if b.creator is None]
    dropped = {buffer for buffer in created if draw(st.booleans())}
    dead_inputs = {buffer for buffer in inputs if draw(st.integers(0, 4)) == 4}
    return program, frozenset(created) - dropped, frozenset(dead_inputs)


def fits(sizes, into):
    try:
        return tuple(torch.broadcast_shapes(sizes, into)) == tuple(into)
    except RuntimeError:
        return False


def check(case, skip_dead=True):
    program, live, dead_inputs = case
    trace = program.trace
    plan = build_plan(trace, live, role_of=role_of, dead_inputs=dead_inputs, skip_dead=skip_dead)
    assert check_trace(trace, program.layouts) == []
    assert check_plan(plan, trace, role_of) == []
    right = run_trace(program)
    written = {trace.buffer_of(view) for op in trace.ops for view in op.writes}
    inputs = {buffer.index for buffer in trace.buffers if buffer.creator is None}
    for way in WAYS:
        memory = run_plan(program, plan, way)
        for buffer in live | ((written & inputs) - dead_inputs):
            assert memory[buffer] == right[buffer], f"buffer {buffer}, {way}"
    run_needed_ops(program, plan)


def run_needed_ops(program, plan):
    """Op by op, without the dead ones: every buffer is created before it is written."""
    memory = start(program)
    for op in program.ops:
        if op.index not in plan.dead:
            run_op(program, memory, op)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs())
def test_a_plan_leaves_the_values_that_op_by_op_leaves(case):
    check(case)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs())
def test_a_plan_that_skips_nothing_dead_leaves_the_same_values(case):
    check(case, skip_dead=False)


def without_write_after_read(monkeypatch):
    needs = LastUses.needs

    def faulty(self, touch):
        readers, self._readers = self._readers, {}
        try:
            return needs(self, touch)
        finally:
            self._readers = readers

    monkeypatch.setattr(LastUses, "needs", faulty)


def without_hazards_of_writes(monkeypatch):
    monkeypatch.setattr(
        LastUses,
        "needs",
        lambda self, touch: {
            self._writer[buffer] for _, buffer in touch.reads if buffer in self._writer
        },
    )


def without_read_after_write(monkeypatch):
    needs = LastUses.needs
    monkeypatch.setattr(
        LastUses,
        "needs",
        lambda self, touch: needs(self, touch._replace(reads=[])),
    )


def with_overlapping_views_joined(monkeypatch):
    why_not = Fuser._why_not

    def faulty(self, *arguments):
        reason = why_not(self, *arguments)
        return "" if reason == fuse.OVERLAPPING else reason

    monkeypatch.setattr(Fuser, "_why_not", faulty)


def with_circles_allowed(monkeypatch):
    monkeypatch.setattr(StepGraph, "can_join", lambda self, wait, step: True)


def with_nothing_stored_but_live(monkeypatch):
    monkeypatch.setattr(
        Fuser, "_is_stored", lambda self, group, buffer, joining=0: buffer in self._live
    )


def with_reads_forgotten_by_liveness(monkeypatch):
    find_dead = liveness.find_dead

    def faulty(trace, touches, live):
        blind = [touch if touch.walks else touch._replace(reads=[]) for touch in touches]
        return find_dead(trace, blind, live)

    monkeypatch.setattr("torchy.plan.build.find_dead", faulty)


def with_every_write_an_overwrite(monkeypatch):
    find_dead = liveness.find_dead

    def faulty(trace, touches, live):
        filling = [
            touch._replace(reads=[], overwrites=[view for view, _ in touch.writes])
            for touch in touches
        ]
        return find_dead(trace, filling, live)

    monkeypatch.setattr("torchy.plan.build.find_dead", faulty)


FAULTS = [
    without_write_after_read,
    without_hazards_of_writes,
    without_read_after_write,
    with_overlapping_views_joined,
    with_circles_allowed,
    with_nothing_stored_but_live,
    with_reads_forgotten_by_liveness,
    with_every_write_an_overwrite,
]


@pytest.mark.parametrize("plant", FAULTS)
@pytest.mark.parametrize("rules", ["values", "plan rules"])
def test_the_test_above_finds_a_planted_fault(plant, rules, monkeypatch):
    """By the values alone too, without the plan's rule table."""
    if rules == "values":
        monkeypatch.setattr(f"{__name__}.check_plan", lambda *_: [])
    plant(monkeypatch)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(programs())
    def run(case):
        check(case)

    with pytest.raises((AssertionError, KeyError)):
        run()
