from torchy.record import slots
from torchy.record.slots import CREATED, HEAVY, LIVE, WRITTEN

FLAGS = bytes([0, LIVE, WRITTEN, WRITTEN | LIVE, CREATED, CREATED | LIVE])


def test_what_is_live_was_made_or_changed_and_can_be_reached():
    assert slots.live(FLAGS) == {3, 5}


def test_dead_inputs_are_those_that_only_the_trace_reaches():
    assert slots.dead_inputs(FLAGS) == {0, 2}


def test_whether_memory_is_short_is_told_on_the_first():
    assert slots.is_heavy(bytes([LIVE | HEAVY, LIVE]))
    assert not slots.is_heavy(FLAGS)
    assert not slots.is_heavy(b"")
