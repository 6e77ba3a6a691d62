from tests.plan.mini import WAYS, Program, role_of, run_plan, run_trace
from torchy.plan import Call, FusedGroup, build_plan


def plan_of(program, *live_views, dead_inputs=()):
    live = frozenset(program.buffer_of(view) for view in live_views)
    plan = build_plan(program.trace, live, role_of=role_of, dead_inputs=frozenset(dead_inputs))
    right = run_trace(program)
    written = {program.buffer_of(v) for op in program.ops for v in op.writes}
    inputs = {b.index for b in program.buffers if b.creator is None} - set(dead_inputs)
    for way in WAYS:
        memory = run_plan(program, plan, way)
        for buffer in live | (written & inputs):
            assert memory[buffer] == right[buffer], f"buffer {buffer}, {way}"
    return plan


def shape(plan):
    return [step.ops if isinstance(step, FusedGroup) else step.op for step in plan.steps]


def test_a_chain_becomes_one_group_and_its_intermediates_are_never_stored():
    p = Program()
    x = p.input(2, 3)
    y = p.op("step", p.op("step", p.op("step", x)))
    plan = plan_of(p, y)
    assert shape(plan) == [(0, 1, 2)]
    assert plan.steps[0].accesses == (x, y)
    assert plan.allocate == ((p.buffer_of(y),),)


def test_a_call_between_dependent_ops_keeps_them_apart():
    p = Program()
    x = p.input(4)
    y = p.op("step", p.op("call", p.op("step", x)))
    plan = plan_of(p, y)
    assert shape(plan) == [(0,), 1, (2,)]
    assert plan.release == ((), (1,), (2,))
    assert isinstance(plan.steps[1], Call)
