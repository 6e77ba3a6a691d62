"""Pending values are computed, for whoever asks: the walker repeats a flush by itself, or Python sees to it."""

from __future__ import annotations

import torch

from torchy.record.codes import Reason, Repeated
from torchy.record.native import Walker, address_of
from torchy.session.flush import Flushes
from torchy.session.regions import Here
from torchy.session.session import Session
from torchy.session.sessions import Sessions
from torchy.session.upkeep import Upkeep


class Pending:
    """Computes what is pending: in a session, on a tensor or a storage, or all.

    Parameters
    ----------
    here
        The regions of each thread.
    """

    def __init__(
        self,
        walker: Walker,
        sessions: Sessions,
        flushes: Flushes,
        upkeep: Upkeep,
        here: Here[Session],
    ) -> None:
        self._walker = walker
        self._sessions = sessions
        self._flush = flushes.flush
        self._mind = upkeep.mind
        self._here = here

    def compute_here(self, reason: str) -> None:
        """Flush this thread's session, if it has one."""
        done = self._walker.flush_here(reason)
        if done != Repeated.YES and (here := self._here.session) is not None:
            self._go_on(here, reason, done)

    def compute(self, session: Session, reason: str) -> None:
        """Flush a session."""
        if session.handle is None:
            return  # it has slept so far
        done = self._walker.flush(session.handle, reason)
        if done != Repeated.YES:
            self._go_on(session, reason, done)

    def _go_on(self, session: Session, reason: str, done: int) -> None:
        """Do what the walker has left of a session's flush, and what is due after it."""
        if done == Repeated.NO:
            self._flush(session.id, reason, (Reason.CALLED, reason))
        elif done == Repeated.MIND_NAP:
            try:
                self._flush(session.id, reason, (Reason.CALLED, reason))
            finally:
                self._walker.nap(session.handle)
        else:
            self._mind(session, done)

    def settle(self, tensor: torch.Tensor, escapes: bool, reason: str) -> None:
        """Compute what is pending on a tensor that something outside the walker looks at.

        Parameters
        ----------
        escapes
            Whether memory is handed out for good: it may be written to later, unseen.
        """
        walker, address = self._walker, address_of(tensor)
        while (done := walker.settle(address, escapes, reason)) == Repeated.NO:
            storage = walker.storage(tensor)
            for session in walker.storage_owing(storage, escapes) if storage else ():
                self._flush(session, reason, (Reason.CALLED, reason))
        if done != Repeated.YES and (here := self._here.session) is not None:
            self._go_on(here, reason, done)

    def settle_storage(self, storage: int, reason: str) -> None:
        """Compute what is pending on a storage, by its address, before its memory is replaced or handed out."""
        for session in self._walker.storage_owing(storage, written=True):
            self._flush(session, reason, (Reason.CALLED, reason))
        if reason.endswith("data_ptr()"):
            self._walker.library.torchy_escaped(storage)

    def settle_all(self, reason: str) -> None:
        """Compute all that is pending in any session."""
        for number in list(self._sessions.by_number):
            self._flush(number, reason, (Reason.CALLED, reason))
