"""The walker's log: what it has flushed by itself, for the reports."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from torchy.record.native import Unplanned, Walker
from torchy.record.places import Places
from torchy.record.reasons import reason_in_words
from torchy.run.planner import Planner
from torchy.session.script import Script
from torchy.session.session import Session
from torchy.settings import VARIANTS


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

    def read(self, session: Session) -> None:
        """Tell a session's report of the flushes that the walker has run by itself."""
        with self.reading:
            self._read(session)

    def _read(self, session: Session) -> None:
        repeats, sums = self._walker.take_log(session.handle)
        for entry in sums:
            script = self._scripts.get(entry.script)
            session.builder.skip(
                count=entry.flushes,
                ops=entry.ops,
                seconds=entry.nanoseconds * 1e-9,
                bytes_saved=entry.bytes_saved,
                tier=script.tier if script else "interpreted",
                plan=script.entry.plan if script else None,
            )
        for repeat in repeats:
            if isinstance(repeat.origin, Unplanned):
                script = self._plan_later(session, repeat.origin)
            else:
                script = self._scripts[repeat.origin]
            script.tell_repeat(session.builder, repeat)

    def _plan_later(self, session: Session, flush: Unplanned) -> Script:
        """Plan what the walker has interpreted, so that the report can show what it would have become."""
        numerics, _, skip_dead = VARIANTS[flush.variant]
        trace, tell = self._places.trace(flush.path), session.builder.event
        node = flush.path[-1]
        entry = self._planner.plan(trace, node, flush.flags, numerics, skip_dead, tell)
        return Script(
            entry,
            entry.interpretation(),
            compiled=False,
            numerics=numerics,
            reason=reason_in_words(flush.reason, flush.text),
            where=self._walker.source(flush.line),
            line=flush.line,
        )

    def counters(self, session: Session) -> dict[str, int]:
        """Return how often what happened in a session, and how many kernels the process has compiled."""
        counters = self._walker.counters(session.handle)
        return counters._asdict() | {"kernels_compiled": self._planner.kernels.compiled}
