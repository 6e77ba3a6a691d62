"""Flushes that Python sees: all that the walker does not do by itself."""

from __future__ import annotations

import functools
import itertools
import struct
import weakref
from dataclasses import replace
from time import perf_counter
from typing import Any

from torchy.record import slots
from torchy.record.codes import Claim, ScriptId
from torchy.record.native import Record, Walker
from torchy.record.places import Places
from torchy.record.unseen import unseen
from torchy.run.execute import Execution
from torchy.run.planner import Planner
from torchy.run.program import Program
from torchy.session.log import Log
from torchy.session.script import Recording, Script
from torchy.session.session import Session
from torchy.session.sessions import Sessions
from torchy.session.upkeep import Upkeep


class Flush:
    """A flush under way, of a serial number in its session; ``kept`` if the walker keeps the script."""

    def __init__(
        self,
        walker: Walker,
        session: int,
        serial: int,
        script: Script,
        recording: Recording,
        kept: bool = False,
    ) -> None:
        self.serial = serial
        self.kept = kept
        self.script = script
        self.recording = recording
        self._walker = walker
        self._session = session
        self.execution = Execution(walker, session, serial)
        self.began = perf_counter()
        self.prepared = 0.0  # seconds, before
        self.seconds = 0.0
        self.watched: Any = None  # what the session's watch wants back
        self.watching = 0.0  # seconds

    def advance(self) -> None:
        """Run what has not been run; may raise, and may be called again."""
        begin = perf_counter()
        self._add_checks()
        try:
            self.execution.run(self.script.program)
        except Exception as error:
            index = self.execution.op(self.script.program)
            if index is not None:
                op = self.recording.trace.ops[index]
                error.add_note(f"Torchy was running {op.name}, recorded at {op.source}")
            raise
        finally:
            self.seconds += perf_counter() - begin

    def _add_checks(self) -> None:
        """Give the program's kernels the buffers that they write their checks to, once."""
        like = [check.like for check in self.script.entry.checks]
        if like:
            words = struct.pack(f"={len(like)}q", *like)
            self._walker.add_checks(self._session, self.serial, words)


class Flushes:
    """Begins flushes, goes on with those in whose midst something was raised, and sees to what follows.

    Parameters
    ----------
    scripts
        Those that the walker runs by itself, by identity; added to.
    """

    def __init__(
        self,
        walker: Walker,
        sessions: Sessions,
        places: Places,
        planner: Planner,
        scripts: dict[int, Script],
        log: Log,
        upkeep: Upkeep,
    ) -> None:
        self._walker = walker
        self._sessions = sessions
        self._places = places
        self._planner = planner
        self._scripts = scripts
        self._log = log
        self._upkeep = upkeep
        self._identities = itertools.count(1)  # of scripts
        # of sessions; gone with them, if an interrupt comes before it is removed
        self._under_way: weakref.WeakKeyDictionary[Session, Flush] = weakref.WeakKeyDictionary()

    def flush(self, number: int, reason: str, asked: tuple[int, str]) -> None:
        """Give every live buffer of a session its values; may be called in the midst of a flush.

        Parameters
        ----------
        number, reason
            Of the session, and for the report.
        asked
            The walker's own words for the reason: it will run the same flush by itself next time.
        """
        walker, session = self._walker, self._sessions.by_number.get(number)
        if session is None:  # another thread was first: a session that owes nothing may be closed
            return
        with unseen(walker):
            joined = walker.library.torchy_flushes(number)
            try:
                with self._planner.kernels.waiting():
                    begun = walker.library.torchy_begin(number)
                if begun == Claim.NOTHING:
                    return
                running = walker.running(number)
                if running is None:  # a signal handler, or a finalizer, has finished it meanwhile
                    return
                flush = self._under_way.get(session)
                if flush is None or flush.serial != running.serial:
                    begin = perf_counter()
                    flush = self._under_way[session] = self._begin(session, running, reason)
                    flush.prepared = flush.began - begin
                    self._watch_begin(session, running, flush)
                flush.advance()
                ended = walker.running(number)
                if ended is None or ended.serial != flush.serial:  # finished from within
                    self._under_way.pop(session, None)
                    return
                self._watch_end(session, ended, flush)
                if not flush.kept and not session.settings.watches_each:
                    self._remember(session, flush, asked)
                origin = walker.origin(flush.script.line)
                called = walker.library.torchy_finish(number, flush.serial, origin)
                self._under_way.pop(session, None)
                if called >= 0:
                    flush.recording = replace(flush.recording, times=ended.times)
                    self._finished(session, flush, called)
            except BaseException:
                if not joined:
                    walker.library.torchy_leave(number)
                raise

    def _begin(self, session: Session, running: Record, reason: str) -> Flush:
        """Decide what the running trace of a session becomes."""
        walker, planner, settings = self._walker, self._planner, session.settings
        numerics, tell = settings.numerics, session.builder.event
        recording = self._recording(running)
        # the walker has begun, and something was raised, or is to be looked at
        known = self._scripts.get(running.script)
        if known is not None:
            recording = recording.with_checks(known.entry.trace, known.entry.checks)
            return Flush(walker, session.id, running.serial, known, recording, kept=True)
        node, flags = running.path[-1], running.flags
        entry = planner.plan(
            recording.trace,
            node,
            flags,
            numerics,
            settings.skip_dead,
            tell,
            recording.layouts,
            running.refusals,
            settings.nan,
        )
        recording = recording.with_checks(entry.trace, entry.checks)
        entry.visits = max(entry.visits + 1, running.visits)
        by_walker = running.script == ScriptId.INTERPRETED  # it has begun, too
        if by_walker:
            program, compiled = Program.at(running.program, running.size), False
        else:
            heavy = slots.is_heavy(flags)
            program, compiled = planner.program(
                entry, recording.layouts, numerics, settings.compile, heavy, tell
            )
        line = walker.line_here()
        script = Script(entry, program, compiled, reason, walker.source(line), line)
        return Flush(walker, session.id, running.serial, script, recording, kept=by_walker)

    def _recording(self, running: Record) -> Recording:
        """Return what was recorded; if checks have been added to the flush, without them."""
        trace = self._places.trace(running.path)
        words = running.words[: 8 * sum(1 + 2 * view.rank for view in trace.views)]
        return Recording(trace, words, running.numbers)

    def _watch_begin(self, session: Session, running: Record, flush: Flush) -> None:
        """Show a flush to the session's watch, before it runs."""
        if session.watch is None:
            return
        begin = perf_counter()
        flush.watched = session.watch.begin(running, self._recording(running), flush.script)
        flush.began = perf_counter()
        flush.watching += flush.began - begin

    def _watch_end(self, session: Session, ended: Record, flush: Flush) -> None:
        """Show a flush to it that has run, once."""
        if session.watch is None or flush.watched is None:
            return
        begin = perf_counter()
        session.watch.end(flush.watched, ended, flush.seconds)
        flush.watched = None
        flush.watching += perf_counter() - begin

    def _remember(self, session: Session, flush: Flush, asked: tuple[int, str]) -> None:
        """Have the walker run such a flush by itself from now on, if nothing can change any more.

        That it comes from the same line then is assumed, as for the ops of a place.
        """
        script = flush.script
        entry = script.entry
        if _is_compiled_meanwhile(session, script):
            self._walker.library.torchy_put_off(session.id, flush.serial)
            return
        if entry.visits < 2:
            return
        program, identity = script.program, next(self._identities)
        self._scripts[identity] = script  # first: the walker will hold addresses of it
        flush.kept = True  # as long as that is not known: the program is nobody else's then
        remembered = self._walker.remember(
            session.id,
            flush.serial,
            *asked,
            program.address,
            len(program.words),
            identity,
            self._walker.origin(script.line),
            script.unstored(),
            script.fused_views(),
            [check.like for check in script.entry.checks],
        )
        if not remembered:
            flush.kept = False
            self._scripts.pop(identity, None)  # all may have been forgotten meanwhile

    def _finished(self, session: Session, flush: Flush, called: int) -> None:
        """Tell the report of a flush; ``called``: nanoseconds that calls of torch's ops took."""
        script, recording = flush.script, flush.recording
        tell = functools.partial(
            script.tell,
            session.builder,
            recording,
            flush.began,
            flush.seconds,
            flush.prepared,
            flush.watching,
        )
        self._log.note(session, tell, recording.held_bytes)
        if script.compiled and not flush.kept:
            script.entry.give_back(script.program)
        lost = self._loses(session, flush, called)
        self._upkeep.bound_places(session)
        self._sessions.close_if_done(session)
        if lost:
            self._upkeep.mind_pace(session, lost)

    def _loses(self, session: Session, flush: Flush, called: int) -> bool:
        """Weigh a flush; tell if the session has cost more than it has brought."""
        script, recording = flush.script, flush.recording
        if script.entry.visits <= 2 or _is_compiled_meanwhile(session, script):
            return False  # first sights, and compiling, are paid once
        ops = len(recording.trace.ops)
        calls = script.program.calls
        moved, own = script.bytes_moved(recording), int(flush.seconds * 1e9) - called
        return bool(self._walker.library.torchy_weigh(session.id, ops, calls, moved, own))


def _is_compiled_meanwhile(session: Session, script: Script) -> bool:
    return session.settings.compile != "never" and bool(script.entry.unsettled)
