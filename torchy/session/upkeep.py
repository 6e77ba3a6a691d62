"""What is seen to between flushes: that recording pays, and that places do not become too many."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from torchy.record.codes import Repeated
from torchy.record.native import Walker
from torchy.record.unseen import any_compiled
from torchy.session.log import Log
from torchy.session.regions import Here
from torchy.session.session import Session
from torchy.session.sessions import Sessions

# A session is put to sleep if so many places were new, and that is so large a share of its ops: one costs twice an op.
MANY_NEWS, NEWS_SHARE = 10_000, 0.5


class Kept(Protocol):
    """What is known of places."""

    def clear(self) -> None:
        """Forget all of it."""


class Upkeep:
    """Puts sessions to sleep that do not pay, and has places forgotten.

    Parameters
    ----------
    here
        The regions of each thread.
    kept
        What names places, and is forgotten with them.
    """

    def __init__(
        self,
        walker: Walker,
        sessions: Sessions,
        log: Log,
        here: Here[Session],
        kept: Iterable[Kept],
    ) -> None:
        self._walker = walker
        self._sessions = sessions
        self._log = log
        self._here = here
        self._kept = tuple(kept)
        self.most_places = 40_000

    @property
    def most_places(self) -> int:
        """How many places there may be before they are forgotten: about 4 KB each, in the walker and here."""
        return self._most_places

    @most_places.setter
    def most_places(self, count: int) -> None:
        self._most_places = count
        self._walker.set_most_places(count)

    def mind(self, session: Session, done: int) -> None:
        """Look after a session whose flush the walker has run by itself."""
        if done == Repeated.MIND_PACE:
            self.mind_pace(session, lost=True)
        elif done == Repeated.MIND_PLACES:
            self.bound_places(session)

    def bound_places(self, session: Session | None = None) -> None:
        """Forget all places if there are too many, and nobody but this session uses them.

        What is compiled stays.
        """
        if self._walker.places() <= self._most_places:
            return
        if session is not None and self._here.session is not session:
            return  # its own thread may be in the midst of recording
        with self._log.reading, self._sessions.lock:  # nobody opens a session meanwhile
            for known in self._sessions.alive():
                self._log.read(known, most_planned_ops=500)  # the program waits
            if not self._walker.library.torchy_forget(-1 if session is None else session.id):
                return
            for kept in self._kept:
                kept.clear()
        if session is not None:
            self._mind_news(session)

    def _mind_news(self, session: Session) -> None:
        """Put a session to sleep that hardly ever comes by the same place again: each op costs more there."""
        before, now = session.weighed, self._walker.counters(session.handle)
        session.weighed = now
        recorded, places = now.recorded, now.places
        if before is not None:
            recorded, places = recorded - before.recorded, places - before.places
        if places > max(MANY_NEWS, NEWS_SHARE * recorded):
            self.put_to_sleep(session, "traces are new each time")

    def mind_pace(self, session: Session, lost: bool) -> None:
        """Put a session to sleep that does not pay: ``lost`` if its flushes have cost more than they brought."""
        if lost:
            self.put_to_sleep(session, "traces are small")
        elif self._walker.library.torchy_only_walks(session.id):
            self.put_to_sleep(session, "nearly all ops run now")

    def put_to_sleep(self, session: Session, why: str) -> None:
        """End this thread's recording until the next region: ops run as if Torchy were off."""
        here = self._here.session is session
        if not here or not session.settings.may_sleep or session.asleep or any_compiled():
            return
        session.asleep = True
        self._walker.library.torchy_attach(-1)
        where = self._walker.source(self._walker.line_here())
        session.builder.event("asleep", f"{why}: recording does not pay here", where)
