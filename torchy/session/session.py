"""One enabled region on one thread: what it recorded, flushed and reports."""

from __future__ import annotations

from time import perf_counter
from typing import Any, Protocol

import torch

from torchy.record.codes import SessionPlace
from torchy.record.native import Counters, Handle, Record
from torchy.report import Report, ReportBuilder
from torchy.session.script import Recording, Script
from torchy.settings import Settings

NOWHERE, RESTS = int(SessionPlace.NOWHERE), int(SessionPlace.RESTS)


class Teller(Protocol):
    """What knows what the walker has done for a session."""

    def read(self, session: Session) -> None:
        """Tell a session's report of its flushes that it has not been told of yet."""

    def counters(self, session: Session) -> dict[str, int]:
        """Return how often what happened."""


def not_asked(what: str, setting: str) -> str:
    """Return what to say where something was not looked at, since no setting asked for it."""
    return f"{what}: record with torchy.lazy({setting}), or torchy.enable({setting})"


class Watch(Protocol):
    """What looks at the flushes of a session: see :mod:`torchy.watch`."""

    def follow(self, settings: Settings) -> None:
        """Watch as the settings say from now on."""

    def begin(self, running: Record, recording: Recording, script: Script) -> Any:
        """See a flush that is about to run; return what :meth:`end` wants back, None if it need not be called."""

    def end(self, flush: Any, ended: Record, seconds: float) -> None:
        """See what it has made, before it is handed to the program."""

    def value(self, op: str | int, step: int | None, trace: int | None) -> torch.Tensor:
        """See :meth:`Session.value`."""

    @property
    def hunts(self) -> bool:
        """Whether what is born not finite is still to be found."""

    @property
    def first_nan(self) -> Any:
        """See :attr:`Session.first_nan`."""

    @property
    def comparison(self) -> tuple[Any, ...]:
        """See :attr:`Session.comparison`."""

    @property
    def keeper(self) -> Any:
        """What keeps values; None: nothing does."""

    @property
    def comparer(self) -> Any:
        """What runs flushes by eager; None: nothing does."""


class Session:
    """One enabled region on one thread: what it recorded, flushed and reports."""

    _builder: ReportBuilder | None = None
    handle: Handle = None  # of the walker's, once it knows of the session
    watch: Watch | None = None
    weighed: Counters | None = None  # when places were forgotten last
    never: tuple[str, ...] = ()  # ops that the walker has been told not to defer in it
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

    def value(
        self, op: str | int, step: int | None = None, trace: int | None = None
    ) -> torch.Tensor:
        """Return a value of the past: that of any op that was recorded, also if it was fused away, dead, or overwritten.

        Its flush is run again, op by op as eager does, from copies of what it was given; what it makes is compared with
        what it made, so the value is the one that the program had, to the bit.

        Parameters
        ----------
        op
            A name as in the listing of the trace, ``"%3"``, or the index of an op in it. A view that no op writes is as
            the first op that reads it found it.
        step
            Which execution of that op of that trace, from 0; may be left out if there was one.
        trace
            The number of a flush of the trace, as in ``report.traces``; may be left out if no other trace has such an op.

        Raises
        ------
        ValueError
            If the question has no answer, or several; the message names them.
        LookupError
            If the answer is not kept any more (:class:`torchy.NotKept`); the message tells which are.
        RuntimeError
            If nothing was to be kept: see ``keep`` in :class:`torchy.Settings`.
        """
        return self._watch("no value was kept", "keep='256MiB'").value(op, step, trace)

    @property
    def first_nan(self) -> Any:
        """Where the first NaN or infinity was born (:class:`torchy.watch.hunt.BirthRecord`); None: none was.

        Not one that was in the data, that an op was given as a number, or that an op only passed on; nor of an op whose
        result nobody could reach: it never ran.

        Raises
        ------
        RuntimeError
            If nobody looked: see ``nan`` in :class:`torchy.Settings`.
        """
        return self._watch("NaNs were not looked for", "nan=True").first_nan

    @property
    def comparison(self) -> tuple[Any, ...]:
        """Each step of each trace, under Torchy and by eager (:class:`torchy.watch.comparison.ComparedRecord`).

        Raises
        ------
        RuntimeError
            If eager was not run: see ``compare`` in :class:`torchy.Settings`.
        """
        return self._watch("eager was not run for comparison", "compare=True").comparison

    def _watch(self, what: str, setting: str) -> Watch:
        if self.watch is None:
            raise RuntimeError(not_asked(what, setting))
        return self.watch
