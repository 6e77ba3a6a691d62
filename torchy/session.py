"""Ties the stages together: ops are recorded, traces are planned, compiled and run.

The only file that knows all of them. What the walker calls back, for whatever session, arrives at the
one :class:`Runtime` of the process, since torch has one dispatcher.
"""

from __future__ import annotations

import atexit
import contextlib
import enum
import functools
import itertools
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter
from typing import Any

import torch

from torchy.flush import Flush, Recording, Script
from torchy.forks import Forks
from torchy.ir.check import require_valid
from torchy.ir.trace import Source, Trace
from torchy.plan.build import build_plan, plan_of_calls
from torchy.plan.check import require_valid_plan
from torchy.plan.plan import FusedGroup
from torchy.record import native, policy
from torchy.record.native import Record, Walker
from torchy.record.places import Places
from torchy.record.readers import Readers
from torchy.record.served import Served
from torchy.record.source import current_source, raised_by_program
from torchy.record.unseen import uncompiled, untraced
from torchy.regions import Region, Regions
from torchy.report import Report, ReportBuilder
from torchy.run.cache import LeastRecentlyUsed
from torchy.run.pace import Pace, tiny_op_seconds
from torchy.run.tiers import Compiled, Kernels, prepare
from torchy.settings import Settings


class Ask(enum.IntEnum):
    """What the walker asks; the numbers are the walker's."""

    FLUSH = 0
    PLACE = 1
    CLASSIFY = 2
    ORIGIN = 3
    PACE = 4
    PACK = 5
    PAUSE = 6


CREATED, WRITTEN, LIVE, HEAVY = 1, 2, 4, 8  # a slot's flags; the walker's

REASONS = (
    "{} runs now",  # an operand is pending
    "{} reads the memory",
    "max_ops recorded",
    "memory bound reached",
    "process state changed",
    "{} writes what a pending op reads",
    "{} on another thread",
)
MODES = ("record", "pass_through", "carry")
# what calls the __torch_dispatch__ of the program's modes
_MODES = torch._C.DispatchKeySet(torch._C.DispatchKey.Python) | torch._C.DispatchKeySet(
    torch._C.DispatchKey.PythonTLSSnapshot
)
OP_READERS = {"aten::_local_scalar_dense": "item()", "aten::equal": "torch.equal"}


class Session:
    """One enabled region on one thread: what it recorded, flushed and reports."""

    def __init__(self, runtime: Runtime, number: int, settings: Settings) -> None:
        self._runtime = runtime
        self.id = number
        self.settings = settings
        self.builder = ReportBuilder()
        self.pace = Pace(runtime.tiny_op)
        self.asleep = False
        self.open = True
        self._last_counters: native.Counters | None = None

    def __repr__(self) -> str:
        state = "open" if self._last_counters is None else "closed"
        return f"<torchy.Session {self.id}, {state}, {self.counters['recorded']} ops recorded>"

    @property
    def report(self) -> Report:
        """What happened so far, as plain data; reading it touches no tensor and flushes nothing."""
        self._runtime.read_log(self)
        return self.builder.report(self.counters["run_now"])

    @property
    def counters(self) -> dict[str, int]:
        """How often what happened: ``recorded``, ``run_now``, ``places``, ``policy_calls``, ..."""
        counters = self._last_counters or self._runtime.walker.counters(self.id)
        return counters._asdict() | {"kernels_compiled": self._runtime.kernels.compiled}

    def close(self) -> None:
        """Let go of the walker's side; called once nothing is pending any more, again after an interrupt."""
        if self._last_counters is None:
            self._runtime.read_log(self)
            self._last_counters = self._runtime.walker.counters(self.id)
        self._runtime.walker.library.torchy_close(self.id)


class Runtime:
    """What the process has one of: the walker, what is known of places, plans and kernels."""

    def __init__(self, cache_dir: str | os.PathLike[str] | None) -> None:
        self.walker = Walker(native.build(cache_dir), self._answer)
        self.places = Places(self.walker)
        self.plans: LeastRecentlyUsed[tuple[Any, ...], Compiled] = LeastRecentlyUsed(4096)
        self.kernels = Kernels()
        self.sessions: dict[int, Session] = {}
        self._switch = threading.RLock()  # while sessions come and go
        library = self.walker.library
        self.served = Served(
            lambda name: library.torchy_renew(name.encode()), library.torchy_libraries
        )
        self.readers = Readers(
            self.settle,
            self._settle_storage,
            self._settle_all,
            self.paused,
            self.served.check,
            self.walker.hook,
        )
        self.most_places = 40_000  # about 3 KB each, in the walker and here
        self._flushes: dict[int, Flush] = {}  # under way, by session
        self._origins: dict[Source | None, int] = {}
        self._variants: dict[tuple[Any, ...], int] = {}  # settings that change what a flush runs
        self._scripts: dict[int, Script] = {}  # that the walker runs by itself
        self._numbers = itertools.count(1)
        self._checks = os.environ.get("TORCHY_DEBUG") == "1"  # of each trace and plan
        self.tiny_op = tiny_op_seconds()
        self.regions: Regions[Session] = Regions(self)
        self.walker.library.torchy_claim()
        atexit.register(self._at_exit)
        self.forks = Forks(
            compute=functools.partial(self._settle_all, "fork"),
            hold=self.walker.library.torchy_hold_flushes,
            locks=self._locks,
            renew=self.kernels.forget_worker,
        )

    # sessions

    def enter(self, owner: object, settings: Settings, given: dict[str, Any]) -> Session:
        """Begin a region on this thread: of a session of its own, or joined to the one that is open."""
        self.walker.library.torchy_claim()
        self.served.check()
        self._bound_places()
        session = self.regions.session
        if session is not None:
            session.asleep = False
            self.regions.join(Region(owner, session, settings), given)
            return session
        session = Session(self, next(self._numbers), settings)
        self.walker.library.torchy_pause(-1)
        self.regions.begin(Region(owner, session, settings))
        return session

    def open(self, session: Session) -> None:
        """Have the walker know of a session, and torch flush where it looks at memory."""
        settings = session.settings
        with self._switch:
            self.sessions[session.id] = session
            self.readers.install()
            self.walker.library.torchy_open(
                session.id, MODES.index(settings.mode), settings.max_ops, settings.max_bytes
            )

    def use(self, session: Session, settings: Settings) -> None:
        """Record into a session; what was flushed under other settings is not repeated."""
        session.settings = settings
        key = (settings.numerics, settings.compile, settings.skip_dead)
        variant = self._variants.setdefault(key, len(self._variants))
        self.walker.library.torchy_tune(session.id, variant)
        if not session.asleep:  # a region that begins has woken it
            self.walker.library.torchy_attach(session.id)

    def compute(self, session: Session, reason: str) -> None:
        """Flush a session."""
        self.flush(session.id, reason)

    def close(self, session: Session) -> None:
        """Record no more into a session."""
        self.walker.library.torchy_attach(-1)
        session.open = False
        self._close_if_done(session)

    def _bound_places(self, session: Session | None = None) -> None:
        """Forget all places if there are too many, and nobody but this session uses them.

        What is compiled stays.
        """
        if len(self.places.sources) <= self.most_places:
            return
        if session is not None:
            if not self._here(session):  # its own thread may be in the midst of recording
                return
            self.read_log(session)
        with self._switch:  # nobody opens a session meanwhile
            if self.walker.library.torchy_forget(-1 if session is None else session.id):
                self.places.clear()
                self.plans.clear()
                self._scripts.clear()
                self._origins.clear()

    def _here(self, session: Session) -> bool:
        """Tell whether this thread records into a session."""
        return self.regions.session is session

    def _close_if_done(self, session: Session) -> None:
        """Let go of a session that has ended; not while a flush that failed can still be resumed."""
        library = self.walker.library
        if session.open or library.torchy_owes(session.id):
            return
        session.close()
        with self._switch:
            self.sessions.pop(session.id, None)
            if not self.sessions:
                self.readers.uninstall()

    # what the walker asks

    @uncompiled
    def _answer(self, what: int, session: int, argument: int, text: str) -> int:
        if what == Ask.FLUSH:
            name = OP_READERS.get(text, text or "memory access")
            reason = REASONS[argument].format(name)
            self.flush(session, name if text in OP_READERS else reason, (argument, text))
            return 1
        if what == Ask.PACK:
            self._pack(session, argument)
            return 1
        if what == Ask.PAUSE:
            return 1  # signals have had their chance
        if what == Ask.PACE:
            self._mind_pace(session)
            return 1
        if what == Ask.ORIGIN:
            return self._origins.setdefault(current_source(), len(self._origins))
        try:
            if what == Ask.PLACE:
                self.places.sources[argument] = current_source()
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

    def flush(self, number: int, reason: str, asked: tuple[int, str] | None = None) -> None:
        """Give every live buffer of a session its values; may be called in the midst of a flush.

        Parameters
        ----------
        number, reason
            Of the session, and for the report.
        asked
            The walker's own reason, if it asked: it will not ask for the same flush again.
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
                called = library.torchy_finish(number, self._origin(flush.script.where))
                self._flushes.pop(number, None)
                if called >= 0 and ended is not None:
                    flush.recording = replace(flush.recording, times=ended.times)
                    self._finished(session, flush, called * 1e-9)
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
        entry = self.plan(trace, running.path[-1], running.flags, session)
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
        where = current_source()
        script = Script(entry, program, compiled, settings.numerics, reason, where)
        return Flush(self.walker, session.id, running.serial, script, recording)

    def _remember(self, session: Session, flush: Flush, asked: tuple[int, str] | None) -> None:
        """Have the walker run such a flush by itself from now on, if nothing can change any more.

        That it comes from the same line then is assumed, as for the ops of a place.
        """
        script = flush.script
        entry, settings = script.entry, session.settings
        if asked is None or entry.visits < 2:
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
            self._origin(script.where),
        )
        if not remembered:
            flush.kept = False
            del self._scripts[identity]

    def _origin(self, where: Source | None) -> int:
        """Return the number of the root for what is recorded after a flush; -1: ask."""
        return -1 if where is None else self._origins.setdefault(where, len(self._origins))

    def _pack(self, number: int, script: int) -> None:
        """Pack a kernel's arguments for layouts that the walker meets for the first time."""
        running = self.walker.running(number)
        if running is not None:
            words = memoryview(running.words).cast("q")
            self._scripts[script].program.pack(running.at, words)

    def _finished(self, session: Session, flush: Flush, called: float) -> None:
        script, recording = flush.script, flush.recording
        self.read_log(session)  # flushes before this one
        script.tell(session.builder, recording, flush.seconds)
        if script.compiled and not flush.kept:
            script.entry.give_back(script.program)
        if script.entry.visits > 2:  # first sights, and compiling, are paid once
            script.weigh(session.pace, recording, flush.seconds - called)
        self._bound_places(session)
        self._close_if_done(session)
        if session.pace.loses():
            self._put_to_sleep(session, "traces are small")

    def read_log(self, session: Session) -> None:
        """Tell the report of the flushes that the walker has run by itself."""
        begin = perf_counter()
        for record in self.walker.log(session.id):
            script = self._scripts[record.script]
            trace = script.entry.trace
            recording = Recording(trace, record.words, record.numbers, record.times)
            script.tell(session.builder, recording, record.seconds)
            script.weigh(session.pace, recording, record.seconds - record.call_seconds)
        session.pace.ours += perf_counter() - begin

    def _mind_pace(self, number: int) -> None:
        """Put a session to sleep that does not pay."""
        session = self.sessions.get(number)
        if session is None:  # closed meanwhile: this is another thread
            return
        self.read_log(session)
        counters = self.walker.counters(number)
        if session.pace.loses():
            self._put_to_sleep(session, "traces are small")
        elif session.pace.only_walks(counters.recorded, counters.run_now):
            self._put_to_sleep(session, "nearly all ops run now")

    def _put_to_sleep(self, session: Session, why: str) -> None:
        """End recording until the next region: ops run as if Torchy were off."""
        if not self._here(session) or session.settings.compile != "auto" or session.asleep:
            return
        session.asleep = True
        self.walker.library.torchy_attach(-1)
        session.builder.event("asleep", f"{why}: recording does not pay here")

    def plan(self, trace: Trace, node: int, flags: bytes, session: Session) -> Compiled:
        """Return the plan of a trace for what is live now, made or remembered."""
        settings, compiler = session.settings, self.kernels.compiler
        numerics = settings.numerics
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
        entry.visits += 1
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
        walker = self.walker
        storage = walker.storage(tensor)
        if storage is None:
            return
        for session in walker.storage_owing(storage, escapes):
            self.flush(session, f"{reason}()")
        walker.take_stray_bit(tensor)
        if escapes:
            walker.library.torchy_escaped(storage)

    def _settle_storage(self, storage: int, reason: str) -> None:
        for session in self.walker.storage_owing(storage, written=True):
            self.flush(session, f"{reason}()")
        if reason.endswith("data_ptr"):
            self.walker.library.torchy_escaped(storage)

    def _settle_all(self, reason: str) -> None:
        for number in list(self.sessions):
            self.flush(number, reason)

    # the process

    def _locks(self) -> Iterator[threading.RLock]:
        yield self.kernels.compiling
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
