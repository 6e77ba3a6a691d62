"""Sessions come and go: the walker knows of those that are open, and of closed ones that owe values."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from typing import get_args

from torchy.record.codes import SessionMode
from torchy.record.native import Walker
from torchy.session.session import Session, Watch
from torchy.settings import VARIANT_NUMBERS, Mode, Settings

_MODES = {mode: SessionMode[mode.upper()] for mode in get_args(Mode)}


class Sessions:
    """The sessions of the process; the host of its regions.

    Parameters
    ----------
    watch
        Makes what looks at the flushes of a session.

    Attributes
    ----------
    by_number
        Those that are open, or whose flush has failed and can be resumed.
    lock
        Held while sessions come.
    """

    def __init__(self, walker: Walker, watch: Callable[[Session], Watch]) -> None:
        self.by_number: dict[int, Session] = {}
        self.lock = threading.RLock()
        self._walker = walker
        self._watch = watch
        self._alive: list[weakref.ref[Session]] = []  # also those that are closed

    def open(self, session: Session) -> None:
        """Have the walker know of a session, and record this thread's ops into it, unless it sleeps."""
        if session.asleep:
            return
        settings = session.settings
        with self.lock:
            session.handle = self._walker.open(
                session.id,
                _MODES[settings.mode],
                settings.max_ops,
                settings.max_bytes,
                settings.memory_pool,
                settings.may_sleep,
                session.place,
            )
            self.by_number[session.id] = session
            if len(self._alive) > 2 * len(self.by_number) + 64:
                self._alive = [known for known in self._alive if known() is not None]
            self._alive.append(weakref.ref(session))
        self._use(session, settings)

    def use(self, session: Session, settings: Settings) -> None:
        """Record into a session; what was flushed under other settings is not repeated."""
        session.settings = settings
        if session.handle is None:
            self.open(session)
        else:
            self._use(session, settings)

    def _use(self, session: Session, settings: Settings) -> None:
        variant = VARIANT_NUMBERS[
            settings.numerics, settings.compile, settings.skip_dead, settings.nan
        ]
        interprets = settings.compile != "always"
        if settings.watches and session.watch is None:
            session.watch = self._watch(session)
        if session.watch is not None:
            session.watch.follow(settings)
        self._walker.set(
            session.handle,
            variant,
            interprets,
            settings.skip_dead,
            settings.may_sleep,
            settings.watches_each,
            session.watch is not None and session.watch.hunts,
        )
        if settings.never != session.never:
            self._walker.never(session.handle, " ".join(settings.never))
            session.never = settings.never
        if not session.asleep:  # a region that begins has woken it
            self._walker.record_into(session.handle)

    def close(self, session: Session) -> None:
        """Record no more into a session."""
        session.open = False  # first: regions that begin in the midst of this have another one
        if session.handle is None:  # it has slept all the time
            session.closed = True
            self._walker.rested_here(session.place)
            return
        self._walker.record_no_more()
        self.close_if_done(session)

    def close_if_done(self, session: Session) -> None:
        """Let go of a session that has ended; not while a flush that failed can still be resumed."""
        if session.open or (session.handle and not self._walker.close(session.handle)):
            return
        session.closed = True
        self.by_number.pop(session.id, None)

    def alive(self) -> Iterator[Session]:
        """Yield the sessions that anybody still has, closed or not; call with the lock held."""
        for known in self._alive:
            if (session := known()) is not None:
                yield session

    def tell(self, kind: str, text: str) -> None:
        """Write an event into the reports of all that are open."""
        for session in list(self.by_number.values()):
            session.builder.event(kind, text)
