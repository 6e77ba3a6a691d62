import sys

import torch

from tests.plan.mini import WAYS, Program, role_of, run_plan, run_trace
from torchy.ir.check import check_trace
from torchy.ir.kernel import Literal, Result, RuntimeNumber, Store
from torchy.ir.trace import Constant, Mode, Op, Operand, Trace
from torchy.plan import Call, FusedGroup, build_plan, bytes_saved, fuse
from torchy.plan.check import check_plan
from torchy.plan.listing import plan_listing


def plan_of(program, *live_views, dead_inputs=()):
    live = frozenset(program.buffer_of(view) for view in live_views)
    plan = build_plan(program.trace, live, role_of=role_of, dead_inputs=frozenset(dead_inputs))
    assert check_trace(program.trace, program.layouts) == []
    assert check_plan(plan, program.trace, role_of) == []
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


def test_an_op_whose_result_nobody_sees_is_dead():
    p = Program()
    x = p.input(4)
    p.op("step", p.op("call", x))
    y = p.op("step", x)
    plan = plan_of(p, y)
    assert plan.dead == (0, 1)
    assert shape(plan) == [(2,)]


def test_to_measure_it_what_is_dropped_unread_is_computed_and_released_at_once():
    p = Program()
    x = p.input(4)
    y = p.op("step", p.op("step", x))
    z = p.op("call", x)
    w = p.op("step", x)
    live = frozenset({p.buffer_of(w)})
    plan = build_plan(p.trace, live, role_of=role_of, skip_dead=False)
    assert plan.dead == ()
    assert shape(plan) == [(0, 1, 3), 2]
    assert check_plan(plan, p.trace, role_of) == []
    assert plan.steps[0].accesses == (x, y, w)  # not what is between the two steps
    assert plan.release == ((p.buffer_of(y),), (p.buffer_of(z),))


def test_an_op_that_writes_nothing_stays():
    p = Program()
    x = p.input(4)
    trace = p.trace
    op = Op(0, "mini::call", (Operand(x),), (), None, ())
    trace = Trace(trace.buffers, trace.views, (op,))
    assert build_plan(trace, frozenset(), role_of=role_of).dead == ()


def test_a_write_to_an_input_is_seen():
    p = Program()
    x = p.input(4)
    p.op("step_", x)
    plan = plan_of(p)
    assert shape(plan) == [(0,)]
    assert plan.allocate == ((),)
    assert plan.steps[0].form.stores == (Store(0, Result(0)),)


def test_a_write_to_an_input_that_nothing_reaches_is_dead():
    p = Program()
    x = p.input(4)
    p.op("step_", x)
    assert plan_of(p, dead_inputs=[p.buffer_of(x)]).dead == (0,)


def test_a_dead_input_is_released_after_its_last_use_and_no_other_input_is():
    p = Program()
    x, y = p.input(4), p.input(4)
    z = p.op("call", p.op("call", x, y))
    plan = plan_of(p, z, dead_inputs=[p.buffer_of(x)])
    assert plan.release == ((p.buffer_of(x),), (2,))


def test_a_write_that_is_overwritten_before_it_is_read_is_dead():
    p = Program()
    x, y = p.input(4), p.input(4)
    p.op("step_", x)
    p.op("copy_", x, y)
    assert plan_of(p).dead == (0,)


def test_a_write_that_is_overwritten_through_another_view_stays():
    p = Program()
    x, y = p.input(4), p.input(4)
    p.op("step_", p.view(x, (4,), (1,), 0))
    p.op("copy_", x, y)
    assert plan_of(p).dead == ()


def test_a_write_that_is_read_before_it_is_overwritten_stays():
    p = Program()
    x, y = p.input(4), p.input(4)
    p.op("step_", x)
    z = p.op("call", p.view(x, (2,), (2,), 1))
    p.op("copy_", x, y)
    assert plan_of(p, z).dead == ()


def test_an_out_form_overwrites_without_reading():
    p = Program()
    x, y = p.input(4), p.input(4)
    p.op("step_", x)
    p.op("mix", y, y, out=x)
    plan = plan_of(p)
    assert plan.dead == (0,)
    assert plan.steps[0].accesses == (y, x)


def test_an_unannounced_write_is_a_hazard_and_is_seen():
    p = Program()
    x, y = p.input(4), p.input(4)
    z = p.op("call", y, x)  # writes x too
    w = p.op("step", x)

    def with_hidden_write(op, trace):
        role = role_of(op, trace)
        return role._replace(writes=(*role.writes, x)) if op.index == 0 else role

    live = frozenset({p.buffer_of(w)})
    plan = build_plan(p.trace, live, role_of=with_hidden_write)
    assert shape(plan) == [0, (1,)]
    assert build_plan(p.trace, frozenset(), role_of=with_hidden_write).dead == (1,)
    assert z in p.trace.ops[0].writes


def test_unrelated_ops_between_do_not_break_a_group():
    p = Program()
    x, y = p.input(4), p.input(7)
    a = p.op("step", x)
    b = p.op("call", y)
    c = p.op("step", y)
    d = p.op("step", a)
    plan = plan_of(p, b, c, d)
    assert shape(plan) == [(0, 3), 1, (2,)]


def test_a_group_waits_for_a_call_that_a_later_member_needs():
    p = Program()
    x, y = p.input(4), p.input(4)
    a = p.op("step", x)
    b = p.op("call", y)
    c = p.op("mix", a, b)
    assert shape(plan_of(p, c)) == [1, (0, 2)]


def test_an_op_does_not_join_a_group_that_its_operand_waits_for():
    p = Program()
    x = p.input(4)
    a = p.op("step", x)
    b = p.op("call", a)
    c = p.op("mix", a, b)
    plan = plan_of(p, c)
    assert shape(plan) == [(0,), 1, (2,)]


def test_a_read_before_a_write_in_place_fuses_with_it():
    p = Program()
    x = p.input(4)
    a = p.op("step", x)
    p.op("step_", x)
    b = p.op("mix", x, a)
    plan = plan_of(p, b)
    assert shape(plan) == [(0, 1, 2)]
    assert plan.steps[0].form.statements[2].arguments == (Result(1), Result(0))


def test_a_call_between_read_and_write_of_its_operand_keeps_the_order():
    p = Program()
    x = p.input(4)
    a = p.op("step", x)
    b = p.op("call", x)
    p.op("step_", x)
    assert shape(plan_of(p, a, b)) == [1, (0, 2)]


def test_another_view_of_a_buffer_written_in_the_group_breaks_it():
    p = Program()
    x = p.input(5)
    low, high = p.view(x, (4,), (1,), 0), p.view(x, (4,), (1,), 1)
    p.op("mix", low, high)  # tells that the two have equal layouts
    p.op("step_", low)
    y = p.op("step", high)
    plan = plan_of(p, y)
    assert shape(plan) == [(1,), (2,)]
    assert plan.why_apart == {1: fuse.OVERLAPPING}


def test_two_views_of_a_buffer_that_is_only_read_share_a_group():
    p = Program()
    x = p.input(5)
    low, high = p.view(x, (4,), (1,), 0), p.view(x, (4,), (1,), 1)
    plan = plan_of(p, p.op("mix", low, high))
    assert plan.steps[0].accesses[:2] == (low, high)


def test_a_view_with_another_dtype_is_another_view():
    p = Program()
    x = p.input(4)
    other = p.view(x, (4,), (1,), 0, dtype=torch.float64)
    p.op("mix", x, other)
    p.op("step_", x)
    p.op("step_", other)
    assert shape(plan_of(p)) == [(1,), (2,)]


def test_an_op_that_reads_what_it_writes_through_another_view_is_a_call():
    p = Program()
    x = p.input(5)
    p.op("mix_", p.view(x, (4,), (1,), 0), p.view(x, (4,), (1,), 1))
    assert shape(plan_of(p)) == [0]


def test_different_sizes_do_not_fuse():
    p = Program()
    a, b = p.op("step", p.input(4)), p.op("step", p.input(5))
    plan = plan_of(p, a, b)
    assert shape(plan) == [(0,), (1,)]
    assert plan.why_apart == {1: fuse.DIFFERENT_SIZES}


def test_equal_sizes_that_the_trace_does_not_know_of_do_not_fuse():
    p = Program()
    a, b = p.op("step", p.input(4)), p.op("step", p.input(4))
    assert shape(plan_of(p, a, b)) == [(0,), (1,)]


def test_equal_sizes_may_become_known_later_in_the_trace():
    p = Program()
    a, b = p.op("step", p.input(4)), p.op("step", p.input(4))
    assert shape(plan_of(p, p.op("mix", a, b))) == [(0, 1, 2)]


def test_equal_sizes_in_another_memory_order_do_not_fuse():
    p = Program()
    x = p.input(2, 3)
    across = p.view(p.input(3, 2), (2, 3), (1, 2))
    p.op("mix_", across, p.op("step", x))
    plan = plan_of(p)
    assert shape(plan) == [(0,), (1,)]
    assert plan.why_apart == {1: fuse.DIFFERENT_LAYOUT}


def test_broadcast_operands_are_walked_in_their_own_way():
    p = Program()
    x, row, column, one = p.input(2, 3), p.input(3), p.input(2, 1), p.input()
    y = p.op("mix", p.op("mix", p.op("mix", x, row), column), one)
    (group,) = plan_of(p, y).steps
    assert [access.mode for access in group.form.accesses] == [
        Mode.LINEAR,
        Mode.UNIT,
        Mode.REPEAT,
        Mode.SCALAR,
        Mode.LINEAR,
    ]
    assert not group.form.flat


def test_a_scalar_made_by_an_op_is_stored_for_the_op_that_broadcasts_it():
    p = Program()
    x, one = p.input(4), p.input()
    y = p.op("mix", x, p.op("step", one))
    assert shape(plan_of(p, y)) == [(0,), (1,)]


def test_ops_on_scalars_fuse_with_each_other():
    p = Program()
    y = p.op("step", p.op("step", p.input()))
    assert shape(plan_of(p, y)) == [(0, 1)]


def test_writes_in_place_through_one_strided_view_fuse():
    p = Program()
    x, y = p.input(8), p.input(4)
    every_second = p.view(x, (4,), (2,), 0)
    p.op("step_", every_second)
    p.op("mix_", every_second, y)
    plan = plan_of(p)
    assert shape(plan) == [(0, 1)]
    modes = [access.mode for access in plan.steps[0].form.accesses]
    assert modes == [Mode.STRIDED, Mode.UNIT]


def test_several_results_of_a_group_may_live():
    p = Program()
    x = p.input(4)
    a = p.op("step", x)
    b = p.op("step", a)
    plan = plan_of(p, a, b)
    assert shape(plan) == [(0, 1)]
    assert len(plan.steps[0].form.stores) == 2


def test_what_a_later_step_reads_is_stored_and_released():
    p = Program()
    x = p.input(4)
    a = p.op("step", x)
    b = p.op("call", p.op("step", a))
    plan = plan_of(p, b)
    assert shape(plan) == [(0, 1), 2]
    assert plan.allocate == ((2,), ())
    assert plan.release == ((), (2,))


def test_a_written_view_is_stored_once_with_its_last_value():
    p = Program()
    x = p.input(4)
    p.op("step_", x)
    p.op("step_", x)
    (group,) = plan_of(p).steps
    assert group.form.stores == (Store(0, Result(1)),)


def test_a_group_is_full_at_its_bound_of_ops():
    p = Program()
    x = p.input(4)
    for _ in range(fuse.MAX_OPS + 5):
        x = p.op("step", x)
    plan = plan_of(p, x)
    assert [len(step.ops) for step in plan.steps] == [fuse.MAX_OPS, 5]
    assert plan.why_apart == {1: fuse.FULL}


def test_no_kernel_has_more_accesses_than_its_bound():
    p = Program()
    x = p.input(4)
    views = []
    for _ in range(2 * fuse.MAX_ACCESSES):
        x = p.op("step", x)
        views.append(x)
    plan = plan_of(p, *views)
    counts = [len(step.accesses) for step in plan.steps]
    assert max(counts) == fuse.MAX_ACCESSES
    assert len(plan.steps) == 3


def test_results_are_not_held_beside_each_other_when_eager_frees_one_before_the_next():
    p = Program()
    x = p.input(4)
    sums = []
    for number in (1, 2, 3):
        temporary = p.op("mix", x, Constant(number))
        sums.append(p.op("call", temporary))
    plan = plan_of(p, *sums)
    assert shape(plan) == [(0,), 1, (2,), 3, (4,), 5]


def test_operands_are_not_held_longer_to_make_a_group_larger():
    p = Program()
    x, y = p.input(4), p.input(4)
    a, b = p.op("call", x), p.op("call", y)
    c = p.op("mix", a, b)  # frees a and b in eager, before the call below
    d = p.op("call", x)
    e = p.op("mix", c, d)
    assert shape(plan_of(p, e)) == [0, 1, (2,), 3, (4,)]


def test_numbers_are_runtime_arguments_and_constants_part_of_the_code():
    p = Program()
    x = p.input(4)
    n, m = p.number(11), p.number(13)
    y = p.op("mix", p.op("mix", p.op("mix", x, m), n), Constant(5))
    (group,) = plan_of(p, y).steps
    assert group.numbers == (m.index, n.index)
    arguments = [statement.arguments[1] for statement in group.form.statements]
    assert arguments == [RuntimeNumber(0), RuntimeNumber(1), Literal(5)]


def test_equal_groups_of_different_traces_have_one_form():
    p, q = Program(), Program()
    y = p.op("mix", p.op("step", p.input(4)), p.number(1))
    q.op("call", q.input(9), q.number(1))
    row = q.input(3, 3)
    z = q.op("mix", q.op("step", row), q.number(2))
    one = plan_of(p, y).steps[0]
    other = plan_of(q, z).steps[0]
    assert one.form == other.form
    assert hash(one.form) == hash(other.form)


def test_a_plan_serves_other_sizes():
    def program(n):
        p = Program()
        x, row = p.input(n, 3), p.input(3)
        y = p.op("mix", x, row)
        p.op("step_", x)
        return p, p.op("mix", y, p.op("call", x))

    small, live = program(2)
    large, _ = program(17)
    assert small.trace == large.trace
    plan = build_plan(small.trace, frozenset({small.buffer_of(live)}), role_of=role_of)
    for way in WAYS:
        memory = run_plan(large, plan, way)
        assert memory[large.buffer_of(live)] == run_trace(large)[large.buffer_of(live)]


def test_bytes_saved_are_those_of_buffers_without_memory():
    p = Program()
    x = p.input(4)
    a = p.op("step", x)
    b = p.op("call", a)
    c = p.op("step", p.op("step", b))
    plan = plan_of(p, c)
    sizes = [8 * size for size in p.sizes]
    assert bytes_saved(plan, p.trace, sizes) == 32


def test_neighbours_of_a_call_are_told_which():
    p = Program()
    x = p.input(4)
    y = p.op("step", p.op("call", p.op("step", x)))
    assert plan_of(p, y).why_apart == {
        1: "%2 = mini::call is a call",
        2: "%2 = mini::call is a call",
    }


def test_planning_takes_calls_linear_in_the_length_of_a_trace():
    def calls(count):
        p = Program()
        x, w = p.input(2), p.input(2)
        for _ in range(count // 4):
            y = p.op("call", p.op("mix", p.op("step", x), w))
            x = p.op("mix", y, x)
        trace, seen = p.trace, []
        sys.setprofile(lambda frame, event, argument: seen.append(event))
        try:
            build_plan(trace, frozenset({p.buffer_of(x)}), role_of=role_of)
        finally:
            sys.setprofile(None)
        return len(seen)

    assert calls(4000) < 11 * calls(400)


def test_an_op_of_the_plan_prints_with_its_kernel():
    p = Program()
    x = p.input(4)
    y = p.op("step", p.op("call", p.op("mix", x, p.number(3))))
    text = plan_listing(plan_of(p, y), p.trace, p.layouts, p.numbers)
    assert text == PRINTED


PRINTED = """\
step 0: group over %1
    %1: i64[4] = mini::mix(%0, 3)
  kernel
    %0: i64 linear
    %1: i64 linear
    t0: i64 = mix(%0, n0)
    %1 ← t0
  allocate buffers 1
step 1: call   # %2 = mini::call is a call
    %2: i64[4] = mini::call(%1)
  release buffers 1
step 2: group over %3   # %2 = mini::call is a call
    %3: i64[4] = mini::step(%2)
  kernel
    %2: i64 linear
    %3: i64 linear
    t0: i64 = step(%2)
    %3 ← t0
  allocate buffers 3
  release buffers 2"""
