from unittest.mock import Mock

import pytest

from torchy.record.codes import Ask
from torchy.session.answers import Answers


def answers():
    rooms = {name: Mock() for name in ("sessions", "flushes", "upkeep", "verdicts")}
    rooms["sessions"].by_number = {7: "session"}
    return Answers(**rooms).to, rooms


def test_each_question_has_an_answer():
    to, _ = answers()
    assert set(to) == set(Ask)


def test_a_flush_is_asked_for_with_a_reason():
    to, rooms = answers()
    assert to[Ask.FLUSH](7, 0, "aten::sort") == 1
    rooms["flushes"].flush.assert_called_once_with(7, "aten::sort runs now", (0, "aten::sort"))


def test_a_session_that_does_not_pay():
    to, rooms = answers()
    assert to[Ask.PACE](7, 1, "") == 1
    rooms["upkeep"].mind_pace.assert_called_once_with("session", lost=True)


@pytest.mark.parametrize("ask", [Ask.PACE, Ask.PLACES])
def test_a_session_that_has_been_closed_meanwhile(ask):
    to, rooms = answers()
    assert to[ask](8, 0, "") == 1
    assert not rooms["upkeep"].method_calls


def test_the_policy_decides_on_places_and_ops():
    to, rooms = answers()
    rooms["verdicts"].place.return_value = 5
    assert to[Ask.PLACE](7, 12, "") == 5
    assert to[Ask.CLASSIFY](7, 3, "aten::add.Tensor") == 1
    rooms["verdicts"].classify.assert_called_once_with(3, "aten::add.Tensor")
