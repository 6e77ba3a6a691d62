"""One enabled region on one thread: what it recorded, flushed and reports."""

from __future__ import annotations

from time import perf_counter
from typing import Protocol

from torchy.record.codes import SessionPlace
from torchy.record.native import Counters, Handle
from torchy.report import Report, ReportBuilder
from torchy.settings import Settings

NOWHERE, RESTS = int(SessionPlace.NOWHERE), int(SessionPlace.RESTS)


class Teller(Protocol):
    """What knows what the walker has done for a session."""

    def read(self, session: Session) -> None:
        """Tell a session's report of its flushes that it has not been told of yet."""

    def counters(self, session: Session) -> dict[str, int]:
        """Return how often what happened."""


class Session:
    """One enabled region on one thread: what it recorded, flushed and reports."""

    _builder: ReportBuilder | None = None
    handle: Handle = None  # of the walker's, once it knows of the session
    weighed: Counters | None = None  # when places were forgotten last
    open = True  # while a region records into it
    closed = False  # once nothing is pending any more either

    def __init__(self, log: Teller, number: int, settings: Settings, place: int = NOWHERE) -> None:
        self._log = log
        self._began = perf_counter()
        self.id = number
        self.settings = settings
        self.place = place  # where it begins: see SessionPlace
        self.asleep = place <= RESTS

    @property
    def rests(self) -> bool:
        """Whether it has slept from its beginning on."""
        return self.place <= RESTS

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<torchy.Session {self.id}, {state}, {self.counters['recorded']} ops recorded>"

    @property
    def builder(self) -> ReportBuilder:
        """Where what happened is written down."""
        if self._builder is None:
            self._builder = ReportBuilder(began=self._began)
            if self.rests:
                self._builder.event("asleep", "recording did not pay here, or it is being compared")
        return self._builder

    @property
    def report(self) -> Report:
        """What happened so far, as plain data; reading it touches no tensor and flushes nothing."""
        self._log.read(self)
        return self.builder.report(self.counters["run_now"])

    @property
    def counters(self) -> dict[str, int]:
        """How often what happened: ``recorded``, ``run_now``, ``places``, ``policy_calls``, ..."""
        return self._log.counters(self)
