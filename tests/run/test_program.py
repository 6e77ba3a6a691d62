import torch

from torchy.ir.trace import Buffer, Mode, Op, Operand, Trace, View
from torchy.plan.build import build_plan
from torchy.plan.plan import FusedGroup
from torchy.run.program import Program


def chain(length):
    """A trace of ``neg`` after ``neg``."""
    return Trace(
        (Buffer(0, None), *(Buffer(1 + i, i) for i in range(length))),
        tuple(View(i, i, torch.float32, 1) for i in range(1 + length)),
        tuple(
            Op(i, "aten::neg", (Operand(i, Mode.LINEAR, True),), (1 + i,), Mode.LINEAR, (1 + i,))
            for i in range(length)
        ),
        (),
    )


def steps(program):
    """Op, what is allocated before it, what is released after it, for each step that is no kernel."""
    words, at = list(program.words), 0
    while at < len(words):
        size, op, kernel = words[at : at + 3]
        assert kernel == 0
        allocated = words[at + 4 : at + 4 + words[at + 3]]
        rest = at + 4 + len(allocated)
        yield op, allocated, words[rest + 1 : rest + 1 + words[rest]]
        at += size


def test_in_a_group_without_a_kernel_memory_goes_after_its_last_use():
    trace = chain(5)
    plan = build_plan(trace, {5}, "exact", dead_inputs={0})
    (group,) = plan.steps
    assert isinstance(group, FusedGroup)
    found = list(steps(Program.of(plan, trace, [None])))
    assert [op for op, _, _ in found] == [0, 1, 2, 3, 4]
    assert [released for _, _, released in found] == [[0], [1], [2], [3], [4]]
    assert found[0][1] == [5] and not any(allocated for _, allocated, _ in found[1:])


def test_what_is_live_or_has_another_owner_stays():
    trace = chain(4)
    plan = build_plan(trace, {2, 4}, "exact", dead_inputs=set())
    found = list(steps(Program.of(plan, trace, [None] * len(plan.steps))))
    assert [released for _, _, released in found] == [[], [1], [], [3]]
