"""What has been flushed, by the walker itself or by Python, until a report is told of it."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from torchy.record.native import Counters, Repeat, Unplanned, Walker
from torchy.record.places import Places
from torchy.record.reasons import reason_in_words, why_now_in_words
from torchy.record.unseen import unseen
from torchy.run.planner import Planner
from torchy.session.script import Recording, Script
from torchy.session.session import Session
from torchy.settings import VARIANTS

# What nobody has planned is planned for the report: so many ops at most (a tenth of a second), of the newest flushes.
MOST_PLANNED_OPS = 3000
# So many flushes may wait until somebody reads the report, and so many bytes of theirs.
MOST_UNTOLD, MOST_UNTOLD_BYTES = 1000, 4 << 20


# What the walker has run by itself, as it tells it; what tells of a flush that Python has run.
Entry = Repeat | Callable[[], None]


class Untold:
    """Flushes of a session that its report does not know of yet, the oldest first."""

    def __init__(self) -> None:
        self.flushes: deque[Entry] = deque()
        self.held_bytes = 0

    def add(self, repeats: Iterable[Repeat]) -> None:
        """Add what the walker has run by itself."""
        for repeat in repeats:
            self.flushes.append(repeat)
            self.held_bytes += repeat.held_bytes

    def are_many(self) -> bool:
        """Tell if they should not wait any longer."""
        return len(self.flushes) > MOST_UNTOLD or self.held_bytes > MOST_UNTOLD_BYTES


class Log:
    """Reads the walker's records, and tells them to the reports of the sessions.

    Parameters
    ----------
    scripts
        Those that the walker runs by itself, by identity.

    Attributes
    ----------
    reading
        Held while records become the report's: places and scripts stay meanwhile.
    """

    def __init__(
        self, walker: Walker, places: Places, planner: Planner, scripts: Mapping[int, Script]
    ) -> None:
        self.reading = threading.RLock()
        self._walker = walker
        self._places = places
        self._planner = planner
        self._scripts = scripts
        self._untold: weakref.WeakKeyDictionary[Session, Untold] = weakref.WeakKeyDictionary()

    def note(self, session: Session, tell: Callable[[], None], held_bytes: int) -> None:
        """Note a flush that Python has run: ``tell`` tells the report of it, after those before it."""
        with self.reading:
            untold = self._take(session)
            untold.flushes.append(tell)
            untold.held_bytes += held_bytes
            if untold.are_many():
                self.read(session)

    def read(self, session: Session, most_planned_ops: int = MOST_PLANNED_OPS) -> None:
        """Tell a session's report of its flushes: of those that nobody has planned, so many ops in full."""
        if session.handle is None:
            return  # it has slept so far
        with self.reading, unseen(self._walker):
            untold = self._take(session)
            del self._untold[session]
            shown = _worth_planning(untold.flushes, most_planned_ops)
            for flush in untold.flushes:
                if not isinstance(flush, Repeat):
                    flush()
                elif not isinstance(flush.origin, Unplanned):
                    self._scripts[flush.origin].tell_repeat(session.builder, flush)
                elif _identity(flush.origin) in shown:
                    script = self._plan_later(session, flush.origin, flush.words)
                    script.tell_repeat(session.builder, flush)
                else:
                    session.builder.skip(
                        count=1,
                        ops=len(flush.origin.path),
                        seconds=flush.nanoseconds * 1e-9,
                        bytes_saved=flush.bytes_saved,
                        tier="interpreted",
                    )

    def _take(self, session: Session) -> Untold:
        """Take the walker's records of a session; those that it has dropped only count."""
        repeats, sums, ran_now = self._walker.take_log(session.handle)
        for entry in sums:
            script = self._scripts.get(entry.script)
            session.builder.skip(
                count=entry.flushes,
                ops=entry.ops,
                seconds=entry.nanoseconds * 1e-9,
                bytes_saved=entry.bytes_saved,
                tier=script.tier if script else "interpreted",
                plan=script.entry.plan if script else None,
                trace=script.entry.trace if script else None,
                reason=script.reason if script else "",
                where=script.where if script else None,
            )
        for run in ran_now:
            session.builder.ran_now(
                name=run.name,
                where=self._walker.source(run.line),
                why=why_now_in_words(run.why, run.name),
                began=run.began * 1e-9,
                count=run.times,
                seconds=run.nanoseconds * 1e-9,
            )
        untold = self._untold.setdefault(session, Untold())
        untold.add(repeats)
        return untold

    def _plan_later(self, session: Session, flush: Unplanned, words: bytes) -> Script:
        """Plan what the walker has interpreted, so that the report can show what it would have become."""
        numerics, _, skip_dead, _ = VARIANTS[flush.variant]
        trace, tell = self._places.trace(flush.path), session.builder.event
        node = flush.path[-1]
        entry = self._planner.plan(
            trace, node, flush.flags, numerics, skip_dead, tell, Recording(trace, words).layouts
        )
        return Script(
            entry,
            entry.interpretation(),
            compiled=False,
            reason=reason_in_words(flush.reason, flush.text),
            where=self._walker.source(flush.line),
            line=flush.line,
        )

    def counters(self, session: Session) -> dict[str, int]:
        """Return how often what happened in a session, and how many kernels the process has compiled."""
        asleep = session.handle is None  # so far
        counted = Counters() if asleep else self._walker.counters(session.handle)
        return counted._asdict() | {"kernels_compiled": self._planner.kernels.compiled}


def _identity(flush: Unplanned) -> tuple[int, bytes]:
    """Return what one plan is for: where the trace ends, and what is live then."""
    return flush.path[-1], flush.flags


def _worth_planning(flushes: deque[Entry], most_ops: int) -> set[tuple[int, bytes]]:
    """Return which of the unplanned flushes are planned for the report: the newest ones, one at least."""
    shown: set[tuple[int, bytes]] = set()
    ops = 0
    for flush in reversed(flushes):
        if not isinstance(flush, Repeat) or not isinstance(flush.origin, Unplanned):
            continue
        identity = _identity(flush.origin)
        if identity not in shown:
            ops += len(flush.origin.path)
            if shown and ops > most_ops:
                break
            shown.add(identity)
    return shown
