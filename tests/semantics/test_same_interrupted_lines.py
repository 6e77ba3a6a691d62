"""Rule 7: an interrupt before any line of Torchy's own Python leaves a state that eager could have, and nothing behind.

The lines are those of opening a session, the policy, planning, compiling, running, reporting and closing. Each time a
fresh process runs a program and is interrupted at another one.
"""

import math

import pytest
import torch
from injection import Tracer, failures, in_a_child, in_a_thread, require_off
from steps import PROGRAMS, facts, require_same
from tiers import COMPILED, SETTLED


class Alarm(Exception):  # noqa: N818
    """What a signal handler may raise instead."""


def interrupted(tracer, program, expected, visits, raises, settings):
    """Run a program ``visits`` times, the last time with an interrupt; whatever follows must be as if there were none."""
    import torchy
    import torchy.face

    for _ in range(visits - 1):
        with torchy.lazy(**settings):
            program.run(program.start(), [])
    state, done = program.start(), []
    try:
        with tracer, torchy.lazy(**settings):
            program.run(state, done)
        assert tracer.where is None, "the interrupt was lost"
    except raises:
        assert tracer.where is not None
    require_off()
    there = list(expected[len(done)])
    require_same(there, in_a_thread(lambda: facts(state)), program.composite)
    require_same(there, facts(state), program.composite)
    for _ in range(2):
        state = program.start()
        with torchy.lazy(**settings) as session:
            program.run(state, [])
        require_same([expected[-1][0]], facts(state))
        require_off()
    assert session.counters["recorded"], "nothing is recorded any more"
    assert not torchy.face._process.runtime.sessions.by_number, "a session is held for good"
    assert torch.Tensor.tolist.__qualname__ != "Readers._method.<locals>.reader"
    return tracer


def sweep(name, visits, most, settings, raises=KeyboardInterrupt, part=(0, 1), files=""):
    """Interrupt a program at ``most`` of the lines that it comes by, or all, where it does first and where last.

    Only in some ``files``, if any are named; there, where it comes by first.
    """
    program = PROGRAMS[name]()
    expected = in_a_child(program.eagerly)

    def one(tracer):
        return interrupted(tracer, program, expected, visits, raises, settings)

    def lines():
        tracer = one(Tracer())
        return tracer.firsts, tracer.lasts

    firsts, lasts = in_a_child(lines)
    if files:
        firsts = {line: at for line, at in firsts.items() if line[0].endswith(tuple(files.split()))}
        lasts = {}
    positions = sorted({*firsts.values(), *lasts.values()})[part[0] :: part[1]]
    assert len(positions) >= FEWEST
    positions = positions[:: math.ceil(len(positions) / most)]
    found = failures(one, positions, raises=raises)
    assert not found, f"{len(found)} of {len(positions)}:\n" + "\n".join(found[:5])


SOME, ALL = 6, 10**6
FEWEST = 12  # lines that a sweep must have come by


@pytest.mark.parametrize(
    "files", ["face.py readers.py regions.py", "session.py sessions.py upkeep.py runtime.py"]
)
def test_interrupts_while_a_session_is_opened_and_closed(files):
    sweep("one", 2, ALL, {"compile": "never"}, files=files)


@COMPILED
def test_interrupts_while_all_is_new(compile):
    sweep("chain", 1, SOME, {"compile": compile})


@COMPILED
def test_interrupts_while_nearly_all_is_known(compile):
    sweep("chain", 2, SOME, {"compile": compile})


@COMPILED
def test_interrupts_while_the_walker_repeats_flushes(compile):
    sweep("chain", 3, SOME, {"compile": compile})


@COMPILED
def test_interrupts_of_a_program_with_calls(compile):
    sweep("calls", 1, SOME, {"compile": compile})


def test_interrupts_of_backward():
    sweep("gradients", 1, SOME, {"compile": "never"})


def test_interrupts_while_kernels_are_compiled_in_the_background():
    sweep("chain", 2, SOME, {"compile": "auto"})


@pytest.mark.parametrize("visits", [1, 2])
def test_signal_handlers_that_raise_an_exception(visits):
    sweep("chain", visits, SOME, {"compile": "never"}, raises=Alarm)


@pytest.mark.slow
@pytest.mark.seconds(1000)
@pytest.mark.parametrize("part", range(8))
@pytest.mark.parametrize("visits", [1, 3])
@pytest.mark.parametrize("name", ["chain", "calls", "gradients"])
@SETTLED
def test_interrupts_at_every_line(name, compile, visits, part):
    sweep(name, visits, ALL, {"compile": compile}, part=(part, 8))
