"""All that watches one session, by its settings."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from torchy.ir.trace import Trace
from torchy.record.native import Record, Walker
from torchy.record.source import raised_by_program
from torchy.session.script import Recording, Script
from torchy.session.session import Session, not_asked
from torchy.settings import Settings
from torchy.watch.comparison import ComparedRecord, Comparison
from torchy.watch.flush import WatchedFlush
from torchy.watch.hunt import BirthRecord, Hunter
from torchy.watch.keeper import Keeper
from torchy.watch.store import Store


class Watching:
    """Tells of each flush, before it runs and after, what keeps, hunts, compares or notes it.

    Parameters
    ----------
    store
        Where inputs are kept, for all sessions of the process.
    """

    def __init__(self, walker: Walker, store: Store, session: Session) -> None:
        self._walker = walker
        self._store = store
        self._session = session
        self._settings = session.settings
        self._told: set[str] = set()  # what has failed
        self._keeper: Keeper | None = None
        self._hunter: Hunter | None = None
        self._comparison: Comparison | None = None

    def follow(self, settings: Settings) -> None:
        """Watch as the settings say from now on; what has been seen stays."""
        self._settings = settings
        if settings.keep:
            self._store.bytes = settings.keep
            self._keeper = self._keeper or Keeper(self._store)
        if settings.nan:
            self._hunter = self._hunter or Hunter(self._walker, self._flushes)
        if settings.compare:
            self._comparison = self._comparison or Comparison(self._walker)

    def begin(self, running: Record, recording: Recording, script: Script) -> WatchedFlush | None:
        """See a flush that is about to run; None if it is not watched."""
        if not self._settings.watches:
            return None
        try:
            with torch.inference_mode(False), torch.no_grad():
                keeps_inputs = self._settings.compare or self.hunts
                number = self._session.id
                flush = WatchedFlush(self._walker, number, running, recording, script, keeps_inputs)
                if self._keeper and self._settings.keep:
                    self._keeper.begin(flush)
                return flush
        except Exception as error:  # what the flush computes must not be lost
            self._failed(error)
            return None

    def end(self, flush: WatchedFlush, ended: Record, seconds: float) -> None:
        """See what a flush has made, before it is handed to the program."""
        flush.seconds, flush.times = seconds, ended.times
        settings = self._settings
        try:
            with torch.inference_mode(False), torch.no_grad():
                if self._keeper and settings.keep:
                    self._keeper.end(flush)
                if self._hunter and self.hunts:
                    self._hunter.end(flush, self._session.handle)
                    if self._hunter.found:
                        self._walker.hunt_no_more(self._session.handle)
                if self._comparison and settings.compare:
                    self._comparison.end(flush)
                if settings.receipt is not None:
                    settings.receipt.note(self._walker, flush)
        except Exception as error:
            self._failed(error)
        finally:
            flush.let_go()

    def _failed(self, error: Exception) -> None:
        if raised_by_program(error):
            raise error
        what = f"{type(error).__name__}: {error}"
        if what not in self._told:
            self._told.add(what)
            text = f"{what}: this flush, and perhaps others, was not looked at"
            self._session.builder.event("watching failed", text)

    def value(self, op: str | int, step: int | None, trace: int | None) -> torch.Tensor:
        """See :meth:`Session.value`."""
        if self._keeper is None:
            raise RuntimeError(not_asked("no value was kept", "keep='256MiB'"))
        with torch.inference_mode(False), torch.no_grad():
            return self._keeper.value(op, step, trace)

    def _flushes(self) -> Iterator[tuple[Trace, int]]:
        """Yield the traces of the flushes so far, with how many these were."""
        report = self._session.report
        yield from ((record.trace, 1) for record in report.traces)
        yield from ((record.trace, record.count) for record in report.older)

    @property
    def hunts(self) -> bool:
        """Whether what is born not finite is still to be found."""
        return bool(self._settings.nan and self._hunter and not self._hunter.found)

    @property
    def comparer(self) -> Comparison | None:
        """What runs flushes by eager, if anything does."""
        return self._comparison

    @property
    def keeper(self) -> Keeper | None:
        """What keeps values, if any does."""
        return self._keeper

    @property
    def first_nan(self) -> BirthRecord | None:
        """See :attr:`Session.first_nan`."""
        if self._hunter is None:
            raise RuntimeError(not_asked("NaNs were not looked for", "nan=True"))
        return self._hunter.look(self._session.handle)

    @property
    def comparison(self) -> tuple[ComparedRecord, ...]:
        """See :attr:`Session.comparison`."""
        if self._comparison is None:
            raise RuntimeError(not_asked("eager was not run for comparison", "compare=True"))
        return self._comparison.rows
