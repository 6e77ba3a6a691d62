"""Ties the rooms together; what the walker asks, for whatever session, arrives here."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
from collections.abc import Iterator
from threading import RLock
from typing import Any

from torchy.codegen.cpu import Compiler
from torchy.disk import Shelf, cache_folder
from torchy.forks import Forks
from torchy.ir.ops import SPECS
from torchy.record import building
from torchy.record.native import Walker
from torchy.record.places import Places
from torchy.record.readers import Readers
from torchy.record.served import Served
from torchy.record.unseen import any_compiled, paused, uncompiled
from torchy.record.verdicts import Verdicts
from torchy.run.cache import LeastRecentlyUsed
from torchy.run.pace import INTERPRETED_SECONDS, tiny_op_seconds
from torchy.run.planner import Planner, Plans
from torchy.run.tiers import Kernels
from torchy.session.answers import Answers
from torchy.session.flush import Flushes
from torchy.session.log import Log
from torchy.session.pending import Pending
from torchy.session.regions import Here, Region, Regions
from torchy.session.script import Script
from torchy.session.session import NOWHERE, RESTS, Session
from torchy.session.sessions import Sessions
from torchy.session.upkeep import Upkeep
from torchy.settings import Settings
from torchy.watch.store import Store
from torchy.watch.watching import Watching

KERNELS, PLANS = "kernels", "plans"  # their folders, in that of all that is kept
PLANS_BYTES = 8 << 20  # of some thousand plans


def _load_walker(cache_dir: str | os.PathLike[str] | None, *arguments: Any) -> Walker:
    """Load the walker: not one that came with the package and lacks a symbol here, as builds of one torch have differed."""
    library = building.build(cache_dir)
    try:
        return Walker(library, *arguments)
    except building.WalkerUnavailable:
        if library.parent != building.BUNDLED:
            raise
    return Walker(building.build(cache_dir, bundled=False), *arguments)


class Runtime:
    """What the process has one of, since torch has one dispatcher: the walker, and whatever deals with it."""

    def __init__(self, cache_dir: str | os.PathLike[str] | None) -> None:
        recordable = sorted({name.partition(".")[0] for name in SPECS})
        walker = self.walker = _load_walker(cache_dir, self._answer, tiny_op_seconds(), recordable)
        walker.library.torchy_set_planning(INTERPRETED_SECONDS)
        here: Here[Session] = Here()
        self.places = Places(walker)
        self.store = Store(walker)
        self.sessions = Sessions(walker, functools.partial(Watching, walker, self.store))
        folder = cache_folder(cache_dir)
        compiler = Compiler(Shelf(folder / KERNELS))
        self.kernels = Kernels(compiler, busy=lambda: bool(self.sessions.by_number))
        self.plans: Plans = LeastRecentlyUsed(4096)
        self.scripts: dict[int, Script] = {}  # that the walker runs by itself
        checks = os.environ.get("TORCHY_DEBUG") == "1"
        shelf = Shelf(folder / PLANS, PLANS_BYTES)
        planner = Planner(self.plans, self.kernels, checks, shelf)
        self.log = Log(walker, self.places, planner, self.scripts)
        self._numbers = itertools.count(1)  # of sessions
        kept = (self.places, self.plans, self.scripts)
        self.upkeep = Upkeep(walker, self.sessions, self.log, here, kept)
        flushes = Flushes(
            walker, self.sessions, self.places, planner, self.scripts, self.log, self.upkeep
        )
        pending = self.pending = Pending(walker, self.sessions, flushes, self.upkeep, here)
        self.regions = Regions(self.sessions, pending.compute, here)
        self.served = Served(lambda name: walker.library.torchy_renew(name.encode()))
        verdicts = Verdicts(walker, self.places, self.served, self.sessions.tell)
        self._answers = Answers(self.sessions, flushes, self.upkeep, verdicts).to
        self.readers = Readers(
            pending.settle,
            pending.settle_storage,
            pending.settle_all,
            functools.partial(paused, walker),
            self._note_registered,
            walker.hook,
        )
        atexit.register(self._at_exit)
        self.forks = Forks(
            compute=functools.partial(pending.settle_all, "fork"),
            hold=walker.library.torchy_hold_flushes,
            locks=self._locks,
            renew=self.kernels.forget_worker,
        )

    @uncompiled
    def _answer(self, what: int, session: int, argument: int, text: str) -> int:
        return self._answers[what](session, argument, text)

    def enter(self, owner: object, settings: Settings, given: dict[str, Any]) -> Session:
        """Begin a region on this thread: of a session of its own, or joined to the one that is open."""
        regions = self.regions
        here = regions.here.regions
        if here and here[-1].session.open:
            self._prepare()
            session = here[-1].session
            session.asleep = False
            regions.join(Region(owner, session, settings), given)
            return session
        # a cell, or what somebody has enabled by hand, is not compared with others
        compared = settings.may_sleep and owner is not None
        place = self.walker.place_here() if compared else NOWHERE
        if place <= RESTS and any_compiled():
            place = NOWHERE
        session = Session(self.log, next(self._numbers), settings, place)
        if place > RESTS:
            self._prepare()
        regions.begin(Region(owner, session, settings))
        return session

    def _prepare(self) -> None:
        """See to what may have changed since ops were recorded last."""
        self.served.check(self.walker.prepare())
        sessions = self.sessions
        if sessions.by_number:
            for other in list(sessions.by_number.values()):
                sessions.close_if_done(other)  # one that ended before what it owed was computed
        self.upkeep.bound_places()
        if not self.readers.in_place():
            with sessions.lock:
                self.readers.install()

    def _note_registered(self) -> None:
        """Have kernels that Python has registered looked at: at once, if somebody may call them."""
        self.served.unchecked = True
        if self.sessions.by_number:
            self.served.check(self.walker.prepare())

    def _locks(self) -> Iterator[RLock]:
        """Yield the locks that a fork takes, in the order in which they nest."""
        yield self.kernels.compiling
        yield self.log.reading
        yield self.sessions.lock
        yield self.store.lock
        for session in list(self.sessions.by_number.values()):
            yield session.builder.lock

    def _at_exit(self) -> None:
        """Python goes: nothing may call it any more."""
        errors: list[Exception] = []
        here = self.regions.here.regions
        while here:
            try:
                self.regions.leave(here[-1], "exit")
            except Exception as error:  # the other regions end all the same
                errors.append(error)
        self.kernels.end()
        if errors:
            raise errors[0]
