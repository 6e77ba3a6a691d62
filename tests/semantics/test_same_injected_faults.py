"""Rule 7, position by position: a program or a flush is cut off everywhere, and nothing is lost."""

import ctypes
import itertools

import pytest
from injection import in_a_child, in_a_thread, require_off
from steps import PROGRAMS, facts, require_same
from tiers import COMPILED, TIERS

ALL = pytest.mark.parametrize("name", PROGRAMS)


class Fault(Exception):  # noqa: N818
    """What is raised; nobody expects it."""


@TIERS
@ALL
def test_the_program_raises_between_any_two_steps(name, compile):
    import torchy

    program = PROGRAMS[name]()
    expected = program.eagerly()
    for _ in range(3):  # places unknown, known, flushes repeated by the walker
        for position, (before, _) in enumerate(expected):
            state = program.start()
            with pytest.raises(Fault), torchy.lazy(compile=compile):  # noqa: PT012
                program.run(state, [], until=position)
                raise Fault
            require_off()
            require_same([before], facts(state))


@TIERS
@ALL
def test_the_program_raises_between_any_two_steps_and_goes_on(name, compile):
    import torchy

    program = PROGRAMS[name]()
    expected = program.eagerly()
    for position in range(len(program.steps)):
        state = program.start()
        with torchy.lazy(compile=compile):
            try:
                program.run(state, [], until=position)
                raise Fault
            except Fault:
                for step in program.steps[position:]:
                    step(state)
        require_same([expected[-1][0]], facts(state))


class Stopper:
    """Lets flushes run up to their n-th step, counted over all of them, and raises there once."""

    def __init__(self, position):
        import torchy.face

        self.position = position
        self.steps = 0
        self.stopped = False
        self.walker = torchy.face._process.runtime.walker
        self.original = self.walker.execute

    def __enter__(self):
        self.walker.execute = self.execute

    def __exit__(self, *error):
        self.walker.execute = self.original

    def execute(self, session, serial, address, size):
        if self.stopped:
            return self.original(session, serial, address, size)
        words = (ctypes.c_int64 * size).from_address(address)
        end = begin = self.walker.running(session).at
        while end < size and self.steps < self.position:
            end += words[end]  # a step's first word tells how long it is
            self.steps += 1
        progress = self.original(session, serial, address, end)
        if progress or (end == size and begin < size and self.steps < self.position):
            return progress
        self.stopped = True
        raise Fault


def cut(program, expected, position, visits, compile):
    """Run a program, cut it off in a flush the last time; return what was noted, None if no flush is as long."""
    import torchy

    with torchy.lazy():
        pass  # there is a runtime
    torchy.face._process.runtime.walker.library.torchy_set_planning(0.0)  # at the second visit
    for _ in range(visits - 1):
        with torchy.lazy(compile=compile):
            program.run(program.start(), [])
    state, done, notes = program.start(), [], None
    stopper = Stopper(position)
    try:
        with stopper, torchy.lazy(compile=compile):
            program.run(state, done)
    except Fault as fault:
        assert stopper.stopped
        notes = getattr(fault, "__notes__", [])
    require_off()
    there = list(expected[len(done)])
    require_same(there, in_a_thread(lambda: facts(state)), program.composite)
    require_same(there, facts(state), program.composite)
    again = program.start()
    with torchy.lazy(compile=compile):
        program.run(again, [])
    require_same([expected[-1][0]], facts(again))
    return notes


@COMPILED
@pytest.mark.parametrize("name", ["chain", "calls", "gradients"])
def test_a_flush_is_cut_off_before_any_of_its_steps(name, compile):
    program = PROGRAMS[name]()
    expected = in_a_child(program.eagerly)
    noted, positions = [], 0
    for visits in (1, 2, 3):  # at some of them the walker flushes by itself
        for position in itertools.count():
            notes = in_a_child(lambda at=position, n=visits: cut(program, expected, at, n, compile))
            if notes is None:
                break
            noted += notes
        positions += position
    assert positions > 3
    for note in noted:
        assert note.startswith("Torchy was running aten::")
        assert "/steps.py:" in note
    assert len(noted) > positions / 2  # none where the flush had run all of its steps
