"""Rule 8: a session that falls asleep, wherever it does, and is woken again, changes nothing that a program can tell."""

import pytest
import torch
from sameness import wait_for_kernels
from steps import PROGRAMS, facts, require_same

ALL = pytest.mark.parametrize("name", PROGRAMS)
ENOUGH_FLUSHES = 3 * 32  # until it is known whether they have paid
SECOND = 10**9


@pytest.mark.parametrize("wakes", [False, True])
@ALL
def test_a_session_falls_asleep_between_any_two_steps(name, wakes):
    import torchy
    from torchy.face import _process

    program = PROGRAMS[name]()
    expected = program.eagerly()[-1][0]
    for position in range(len(program.steps)):
        state = program.start()
        with torchy.lazy() as session:
            program.run(state, [], until=position)
            _process.runtime.upkeep.put_to_sleep(session, "it is tired")
            program.steps[position](state)
            assert session.asleep
            if wakes:
                with torchy.lazy():
                    assert not session.asleep
            for step in program.steps[position + 1 :]:
                step(state)
        require_same([expected], facts(state))


@ALL
def test_a_session_falls_asleep_since_a_flush_has_cost_more_than_it_brought(name):
    import torchy
    from torchy.face import _process

    program = PROGRAMS[name]()
    expected = program.eagerly()[-1][0]
    slept = []
    for visit in range(8):  # until plans and kernels are there: before that nothing is weighed
        state = program.start()
        with torchy.lazy() as session:
            library = _process.runtime.walker.library
            for _ in range(ENOUGH_FLUSHES - 1):  # the next one that counts is the last
                assert not library.torchy_weigh(session.id, 0, 0, 0, SECOND)
            program.run(state, [])
            for kept in state.values():
                if isinstance(kept, torch.Tensor):
                    kept.tolist()
            slept.append(session.asleep)
        require_same([expected], facts(state))
        if visit > 1:
            wait_for_kernels()
    assert slept[-1]
