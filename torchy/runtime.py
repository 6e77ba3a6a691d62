"""Ties the stages together: ops are recorded, traces are planned, compiled and run.

The only file that knows all of them. What the walker calls back, for whatever session, arrives at the
one :class:`Runtime` of the process, since torch has one dispatcher.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from torchy.flush import Flush, Recording, Script
from torchy.forks import Forks
from torchy.ir.check import require_valid
from torchy.ir.ops import SPECS
from torchy.ir.trace import Trace
from torchy.plan.build import build_plan, plan_of_calls
from torchy.plan.check import require_valid_plan
from torchy.plan.plan import FusedGroup
from torchy.record import native, policy
from torchy.record.native import Record, Repeated, Walker, address_of
from torchy.record.places import Places
from torchy.record.questions import CALLED, Ask, reason_in_words
from torchy.record.readers import Readers
from torchy.record.served import Served
from torchy.record.source import raised_by_program
from torchy.record.unseen import uncompiled, untraced
from torchy.regions import Region, Regions
from torchy.run.cache import LeastRecentlyUsed
from torchy.run.pace import tiny_op_seconds
from torchy.run.program import Program
from torchy.run.tiers import Compiled, Kernels, prepare
from torchy.session import Session
from torchy.settings import Settings

CREATED, WRITTEN, LIVE, HEAVY = 1, 2, 4, 8  # a slot's flags; the walker's

MODES = ("record", "pass_through", "carry")
# what calls the __torch_dispatch__ of the program's modes
_MODES = torch._C.DispatchKeySet(torch._C.DispatchKey.Python) | torch._C.DispatchKeySet(
    torch._C.DispatchKey.PythonTLSSnapshot
)


class Runtime:
    """What the process has one of: the walker, what is known of places, plans and kernels."""

    def __init__(self, cache_dir: str | os.PathLike[str] | None) -> None:
        recordable = sorted({name.partition(".")[0] for name in SPECS})
        library_file = native.build(cache_dir)
        self.walker = Walker(library_file, self._answer, tiny_op_seconds(), recordable)
        self.places = Places(self.walker)
        self.most_places = 40_000
        self.plans: LeastRecentlyUsed[tuple[Any, ...], Compiled] = LeastRecentlyUsed(4096)
        self.kernels = Kernels()
        self.sessions: dict[int, Session] = {}
        self._reading = threading.RLock()  # while the walker's records become the report's
        self._switch = threading.RLock()  # while sessions come and go
        self._alive: list[weakref.ref[Session]] = []  # also those that are closed
        library = self.walker.library
        self.served = Served(lambda name: library.torchy_renew(name.encode()))
        self.readers = Readers(
            self.settle,
            self._settle_storage,
            self._settle_all,
            self.paused,
            self._note_registered,
            self.walker.hook,
        )
        self._flushes: dict[int, Flush] = {}  # under way, by session
        self._variants: dict[tuple[Any, ...], int] = {}  # settings that change what a flush runs
        self._settings_of: dict[int, Settings] = {}  # the inverse
        self._scripts: dict[int, Script] = {}  # that the walker runs by itself
        self._numbers = itertools.count(1)
        self._checks = os.environ.get("TORCHY_DEBUG") == "1"  # of each trace and plan
        self.regions: Regions[Session] = Regions(self)
        atexit.register(self._at_exit)
        self.forks = Forks(
            compute=functools.partial(self._settle_all, "fork"),
            hold=self.walker.library.torchy_hold_flushes,
            locks=self._locks,
            renew=self.kernels.forget_worker,
        )

    @property
    def most_places(self) -> int:
        """How many places there may be before they are forgotten: about 4 KB each, in the walker and here."""
        return self._most_places

    @most_places.setter
    def most_places(self, count: int) -> None:
        self._most_places = count
        self.walker.set_most_places(count)

    # sessions

    def enter(self, owner: object, settings: Settings, given: dict[str, Any]) -> Session:
        """Begin a region on this thread: of a session of its own, or joined to the one that is open."""
        self.served.check(self.walker.prepare())
        for other in list(self.sessions.values()):
            self._close_if_done(other)  # one that ended before what it owed was computed
        self._bound_places()
        session = self.regions.session
        if session is not None:
            session.asleep = False
            self.regions.join(Region(owner, session, settings), given)
            return session
        session = Session(self, next(self._numbers), settings)
        self.regions.begin(Region(owner, session, settings))
        return session

    def open(self, session: Session) -> None:
        """Have the walker know of a session, and torch flush where it looks at memory."""
        settings = session.settings
        with self._switch:
            self.readers.install()
            session.handle = self.walker.open(
                session.id,
                MODES.index(settings.mode),
                settings.max_ops,
                settings.max_bytes,
                settings.memory_pool,
            )
            self.sessions[session.id] = session
            if len(self._alive) > 2 * len(self.sessions) + 64:
                self._alive = [known for known in self._alive if known() is not None]
            self._alive.append(weakref.ref(session))

    def use(self, session: Session, settings: Settings) -> None:
        """Record into a session; what was flushed under other settings is not repeated."""
        session.settings = settings
        key = (settings.numerics, settings.compile, settings.skip_dead)
        variant = self._variants.get(key)
        if variant is None:
            variant = self._variants[key] = len(self._variants)
            self._settings_of[variant] = settings
        interprets = settings.compile != "always"
        self.walker.set(session.handle, variant, interprets, settings.skip_dead)
        if not session.asleep:  # a region that begins has woken it
            self.walker.record_into(session.handle)

    def _note_registered(self) -> None:
        """Have kernels that Python has registered looked at: at once, if somebody may call them."""
        self.served.unchecked = True
        if self.sessions:
            self.served.check(self.walker.prepare())

    def compute_here(self, reason: str) -> None:
        """Flush this thread's session, if it has one."""
        if self.walker.flush_here(reason) != Repeated.YES and (here := self.regions.session):
            self.compute(here, reason)

    def compute(self, session: Session, reason: str) -> None:
        """Flush a session."""
        done = self.walker.flush(session.handle, reason)
        if done == Repeated.NO:
            self.flush(session.id, reason, (CALLED, reason))
        elif done != Repeated.YES:
            self._mind(session, done)

    def _mind(self, session: Session, done: int) -> None:
        """Look after a session whose flush the walker has run by itself."""
        if done == Repeated.MIND_PACE:
            self._mind_pace(session, lost=True)
        elif done == Repeated.MIND_PLACES:
            self._bound_places(session)

    def close(self, session: Session) -> None:
        """Record no more into a session."""
        self.walker.record_no_more()
        session.open = False
        self._close_if_done(session)

    def _bound_places(self, session: Session | None = None) -> None:
        """Forget all places if there are too many, and nobody but this session uses them.

        What is compiled stays.
        """
        if len(self.places) <= self.most_places:
            return
        if session is not None and not self._here(session):
            return  # its own thread may be in the midst of recording
        with self._reading, self._switch:  # nobody opens a session meanwhile
            for known in self._alive:
                if (other := known()) is not None:
                    self.read_log(other)
            if self.walker.library.torchy_forget(-1 if session is None else session.id):
                self.places.clear()
                self.plans.clear()
                self._scripts.clear()

    def _here(self, session: Session) -> bool:
        """Tell whether this thread records into a session."""
        return self.regions.session is session

    def _close_if_done(self, session: Session) -> None:
        """Let go of a session that has ended; not while a flush that failed can still be resumed."""
        if session.open or (session.handle and not self.walker.close(session.handle)):
            return
        session.closed = True
        with self._switch:
            self.sessions.pop(session.id, None)

    # what the walker asks

    @uncompiled
    def _answer(self, what: int, session: int, argument: int, text: str) -> int:
        if what == Ask.FLUSH:
            self.flush(session, reason_in_words(argument, text), (argument, text))
            return 1
        if what == Ask.PAUSE:
            return 1  # signals have had their chance
        if what == Ask.PACE or what == Ask.PLACES:
            if (known := self.sessions.get(session)) is None:  # closed meanwhile
                return 1
            if what == Ask.PACE:
                self._mind_pace(known, lost=bool(argument))
            else:
                self._bound_places(known)
            return 1
        try:
            if what == Ask.PLACE:
                with self.unseen():
                    return policy.allow(self.places.step(argument))
            verdict = policy.classify(text)
            if verdict.op_class != policy.OpClass.RUN_NOW and not self.served.by_torch(text):
                verdict = verdict._replace(op_class=policy.OpClass.RUN_NOW)
        except Exception as error:  # the op runs now; the report says so
            if raised_by_program(error):  # a signal handler, in the midst of it
                raise
            for open_session in self.sessions.values():
                open_session.builder.event(
                    "policy raised", f"{text or argument}: {type(error).__name__}: {error}"
                )
            if what == Ask.PLACE:
                return 0
            verdict = policy.RUN_NOW
        self.walker.library.torchy_set_op(
            argument,
            int(verdict.op_class),
            verdict.pointwise,
            int(verdict.rule),
            verdict.runtime,
            verdict.unless_one,
            verdict.hidden,
        )
        return 1

    # flushing

    def flush(self, number: int, reason: str, asked: tuple[int, str]) -> None:
        """Give every live buffer of a session its values; may be called in the midst of a flush.

        Parameters
        ----------
        number, reason
            Of the session, and for the report.
        asked
            The walker's own words for the reason: it will run the same flush by itself next time.
        """
        library, session = self.walker.library, self.sessions.get(number)
        if session is None:  # another thread was first: a session that owes nothing may be closed
            return
        with self.unseen():
            joined = library.torchy_flushes(number)
            try:
                with self.kernels.waiting():
                    begun = library.torchy_begin(number)
                if begun == 0:
                    return
                running = self.walker.running(number)
                if running is None:  # a signal handler, or a finalizer, has finished it meanwhile
                    return
                flush = self._flushes.get(number)
                if flush is None or flush.serial != running.serial:
                    flush = self._flushes[number] = self._begin(session, running, reason)
                flush.advance()
                if not flush.kept:
                    self._remember(session, flush, asked)
                ended = self.walker.running(number)
                called = library.torchy_finish(number, self.walker.origin(flush.script.line))
                self._flushes.pop(number, None)
                if called >= 0 and ended is not None:
                    flush.recording = replace(flush.recording, times=ended.times)
                    self._finished(session, flush, called)
            except BaseException:
                if not joined:
                    library.torchy_leave(number)
                raise

    def _begin(self, session: Session, running: Record, reason: str) -> Flush:
        """Decide what the running trace of a session becomes."""
        settings = session.settings
        trace = self.places.trace(running.path)
        recording = Recording(trace, running.words, running.numbers)
        known = self._scripts.get(running.script)  # the walker has begun, and something was raised
        if known is not None:
            return Flush(self.walker, session.id, running.serial, known, recording, kept=True)
        entry = self.plan(trace, running.path[-1], running.flags, settings, session)
        entry.visits = max(entry.visits + 1, running.visits)
        if running.script == native.INTERPRETED:  # the same
            program = Program.at(running.program, running.size)
            script = self._script(entry, program, False, settings, reason, self.walker.line_here())
            return Flush(self.walker, session.id, running.serial, script, recording, kept=True)
        if self._checks:
            require_valid(trace, recording.layouts())
            require_valid_plan(entry.plan, trace)
        heavy = bool(running.flags) and bool(running.flags[0] & HEAVY)
        if settings.compile != "never" and not heavy:
            always, tell = settings.compile == "always", session.builder.event
            prepare(self.kernels, entry, recording.layouts, always, settings.numerics, tell)
        # a kernel needs all of its operands at once; op by op, each goes after its last use
        compiled = settings.compile != "never" and entry.compiled and not heavy
        program = entry.take() if compiled else entry.interpretation()
        line = self.walker.line_here()
        script = self._script(entry, program, compiled, settings, reason, line)
        return Flush(self.walker, session.id, running.serial, script, recording)

    def _script(
        self,
        entry: Compiled,
        program: Program,
        compiled: bool,
        settings: Settings,
        reason: str,
        line: int,
    ) -> Script:
        where = self.walker.source(line)
        return Script(entry, program, compiled, settings.numerics, reason, where, line)

    def _remember(self, session: Session, flush: Flush, asked: tuple[int, str]) -> None:
        """Have the walker run such a flush by itself from now on, if nothing can change any more.

        That it comes from the same line then is assumed, as for the ops of a place.
        """
        script = flush.script
        entry, settings = script.entry, session.settings
        if entry.visits < 2:
            return
        if settings.compile != "never" and entry.unsettled:
            return
        program, identity = script.program, next(self._numbers)
        self._scripts[identity] = script  # first: the walker will hold addresses of it
        flush.kept = True  # as long as that is not known: the program is nobody else's then
        remembered = self.walker.library.torchy_remember(
            session.id,
            asked[0],
            asked[1].encode(),
            program.address,
            len(program.words),
            identity,
            self.walker.origin(script.line),
            script.lists(),
        )
        if not remembered:
            flush.kept = False
            del self._scripts[identity]

    def _finished(self, session: Session, flush: Flush, called: int) -> None:
        """Tell the report of a flush; ``called``: nanoseconds that calls of torch's ops took."""
        script, recording = flush.script, flush.recording
        self.read_log(session)  # flushes before this one
        script.tell(session.builder, recording, flush.seconds)
        if script.compiled and not flush.kept:
            script.entry.give_back(script.program)
        lost = False
        if script.entry.visits > 2:  # first sights, and compiling, are paid once
            ops, moved = len(recording.trace.ops), script.bytes_moved(recording)
            own = int(flush.seconds * 1e9) - called
            lost = bool(self.walker.library.torchy_weigh(session.id, ops, moved, own))
        self._bound_places(session)
        self._close_if_done(session)
        if lost:
            self._mind_pace(session, lost)

    def read_log(self, session: Session) -> None:
        """Tell the report of the flushes that the walker has run by itself."""
        with self._reading:  # places and scripts stay meanwhile
            self._read_log(session)

    def _read_log(self, session: Session) -> None:
        repeats, sums = self.walker.take_log(session.handle)
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
            if isinstance(repeat.origin, native.Unplanned):
                script = self._plan_later(session, repeat.origin)
            else:
                script = self._scripts[repeat.origin]
            script.tell_repeat(session.builder, repeat)

    def _plan_later(self, session: Session, flush: native.Unplanned) -> Script:
        """Plan what the walker has interpreted, so that the report can show what it would have become."""
        trace = self.places.trace(flush.path)
        settings = self._settings_of[flush.variant]
        entry = self.plan(trace, flush.path[-1], flush.flags, settings, session)
        reason = reason_in_words(flush.reason, flush.text)
        program = entry.interpretation()
        return self._script(entry, program, False, settings, reason, flush.line)

    def _mind_pace(self, session: Session, lost: bool) -> None:
        """Put a session to sleep that does not pay: ``lost`` if its flushes have cost more than they brought."""
        if lost:
            self._put_to_sleep(session, "traces are small")
        elif self.walker.library.torchy_only_walks(session.id):
            self._put_to_sleep(session, "nearly all ops run now")

    def _put_to_sleep(self, session: Session, why: str) -> None:
        """End recording until the next region: ops run as if Torchy were off."""
        if not self._here(session) or session.settings.compile != "auto" or session.asleep:
            return
        session.asleep = True
        self.walker.library.torchy_attach(-1)
        session.builder.event("asleep", f"{why}: recording does not pay here")

    def plan(
        self, trace: Trace, node: int, flags: bytes, settings: Settings, session: Session
    ) -> Compiled:
        """Return the plan of a trace for what is live now, made or remembered."""
        compiler, numerics = self.kernels.compiler, settings.numerics
        # what turned out not to compile changes what is fused
        key = (node, flags, numerics, settings.skip_dead, self.kernels.failed)
        entry = self.plans.get(key)
        if entry is None:
            live = frozenset(i for i, f in enumerate(flags) if f & LIVE and f & (CREATED | WRITTEN))
            dead = frozenset(i for i, f in enumerate(flags) if not f & (CREATED | LIVE))
            try:
                skip, agrees = settings.skip_dead, compiler.verifier.agrees
                plan = build_plan(
                    trace, live, numerics, dead_inputs=dead, skip_dead=skip, agrees=agrees
                )
            except Exception as error:  # nothing must be lost
                if raised_by_program(error):
                    raise
                plan = plan_of_calls(trace)
                what = f"{type(error).__name__}: {error}"
                session.builder.event("planning failed", f"{what}: the ops run one by one")
            kernel_ids = tuple(
                compiler.identity(step.form, numerics) if isinstance(step, FusedGroup) else None
                for step in plan.steps
            )
            entry = Compiled(plan, live, trace, kernel_ids)
            self.plans.put(key, entry)
        return entry

    # readers

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Run this thread's ops without recording them."""
        self.walker.library.torchy_pause(1)
        try:
            yield
        finally:
            self.walker.library.torchy_pause(0)

    @contextlib.contextmanager
    def unseen(self) -> Iterator[None]:
        """Run this thread's ops without recording them, and hidden from the program's modes."""
        with (
            self.paused(),
            untraced(),
            torch._C.DisableTorchFunction(),
            torch._C._ExcludeDispatchKeyGuard(_MODES),
        ):
            yield

    def settle(self, tensor: torch.Tensor, escapes: bool, reason: str) -> None:
        """Compute what is pending on a tensor that something outside the walker looks at."""
        walker, address = self.walker, address_of(tensor)
        while (done := walker.settle(address, escapes, reason)) == Repeated.NO:
            storage = walker.storage(tensor)
            for session in walker.storage_owing(storage, escapes) if storage else ():
                self.flush(session, reason, (CALLED, reason))
        if done != Repeated.YES and (here := self.regions.session) is not None:
            self._mind(here, done)

    def _settle_storage(self, storage: int, reason: str) -> None:
        for session in self.walker.storage_owing(storage, written=True):
            self.flush(session, reason, (CALLED, reason))
        if reason.endswith("data_ptr()"):
            self.walker.library.torchy_escaped(storage)

    def _settle_all(self, reason: str) -> None:
        for number in list(self.sessions):
            self.flush(number, reason, (CALLED, reason))

    # the process

    def _locks(self) -> Iterator[threading.RLock]:
        yield self.kernels.compiling
        yield self._reading
        yield self._switch
        for session in list(self.sessions.values()):
            yield session.builder.lock

    def _at_exit(self) -> None:
        """Python goes: nothing may call it any more."""
        errors: list[Exception] = []
        while self.regions.here:
            try:
                self.regions.leave(self.regions.here[-1], "exit")
            except Exception as error:  # the other regions end all the same
                errors.append(error)
        self.kernels.end()
        if errors:
            raise errors[0]
