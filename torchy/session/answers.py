"""What Python answers the walker."""

from __future__ import annotations

from collections.abc import Callable

from torchy.record.codes import Ask
from torchy.record.reasons import reason_in_words
from torchy.record.verdicts import Verdicts
from torchy.session.flush import Flushes
from torchy.session.sessions import Sessions
from torchy.session.upkeep import Upkeep

Answer = Callable[[int, int, str], int]  # of a session, an argument and a text


class Answers:
    """A function for each question.

    Attributes
    ----------
    to
        By :class:`Ask`. What a function raises arrives in the program.
    """

    def __init__(
        self, sessions: Sessions, flushes: Flushes, upkeep: Upkeep, verdicts: Verdicts
    ) -> None:
        self._sessions = sessions
        self._flushes = flushes
        self._upkeep = upkeep
        self._verdicts = verdicts
        self.to: dict[int, Answer] = {
            Ask.FLUSH: self._flush,
            Ask.PLACE: self._place,
            Ask.CLASSIFY: self._classify,
            Ask.PACE: self._pace,
            Ask.PAUSE: self._pause,
            Ask.PLACES: self._places,
        }

    def _flush(self, session: int, reason: int, text: str) -> int:
        self._flushes.flush(session, reason_in_words(reason, text), (reason, text))
        return 1

    def _place(self, _session: int, step: int, _text: str) -> int:
        return self._verdicts.place(step)

    def _classify(self, _session: int, op: int, name: str) -> int:
        self._verdicts.classify(op, name)
        return 1

    def _pace(self, session: int, lost: int, _text: str) -> int:
        if (known := self._sessions.by_number.get(session)) is not None:  # else closed meanwhile
            self._upkeep.mind_pace(known, lost=bool(lost))
        return 1

    def _pause(self, _session: int, _argument: int, _text: str) -> int:
        return 1  # signals have had their chance

    def _places(self, session: int, _argument: int, _text: str) -> int:
        if (known := self._sessions.by_number.get(session)) is not None:
            self._upkeep.bound_places(known)
        return 1
