"""Which tier runs a trace: kernels that are compiled take over, at once where that pays."""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic, sleep

from torchy.background import Background
from torchy.codegen.backend import Backend, Kernel
from torchy.codegen.errors import CompileError
from torchy.ir.kernel import KernelForm
from torchy.ir.ops import Numerics
from torchy.ir.trace import Layout, Trace
from torchy.plan.checks import CheckedPlan
from torchy.plan.plan import FusedGroup
from torchy.record.source import raised_by_program
from torchy.run.cache import LeastRecentlyUsed
from torchy.run.interpret import interpretation
from torchy.run.program import Program

EAGER_BANDWIDTH = (
    16e9  # bytes a second that eager moves through memory, where no pages are new: measured
)
COMPILE_SECONDS = 0.025  # a kernel
PATIENCE = 0.05  # seconds
WORTH_COMPILING_BYTES = 1 << 18  # a trace that saves less is compiled when it comes the second time
URGENT_BYTES = 1 << 24  # a kernel that saves as much, a millisecond a flush, is compiled at once
DELAY = 0.05  # seconds: others wait until the program's regions are over, but no longer

Tell = Callable[[str, str], None]  # (kind, text) of an event
Job = tuple[Callable[[], object], float]  # and when it is due, while regions are open


@dataclass(slots=True)
class Sizes:
    """The layouts with which a plan was run last, in words, and what was reckoned from them, once that was asked."""

    words: bytes = b""
    bytes_saved: int | None = None
    bytes_moved: int | None = None


class Compiled:
    """A plan with what it takes to run it.

    Parameters
    ----------
    of
        The plan, and what it is a plan of.
    live
        The created or written buffers for which it was made.
    kernel_ids
        For each step the id of its kernel, compiled or not; None for a call.
    backend
        What compiles them.
    refusals
        How often kernels of the trace's plans had been given up when it was made, since they refused again and again.
    """

    def __init__(
        self,
        of: CheckedPlan,
        live: frozenset[int],
        kernel_ids: tuple[str | None, ...],
        backend: Backend,
        refusals: int = 0,
    ) -> None:
        self.refusals = refusals
        self.plan, self.trace, self.checks = of
        self.live = live
        self.kernel_ids = kernel_ids
        self.backend = backend
        self.kernels: list[Kernel | None] = [None] * len(kernel_ids)  # those that are ready
        self.unsettled = {i for i, id in enumerate(kernel_ids) if id is not None}
        self.visits = 0
        self.sizes = Sizes()
        self._interpretation: Program | None = None
        self._idle: list[Program] = []  # programs that no flush is running

    @property
    def compiled(self) -> bool:
        """True if a kernel is ready."""
        return any(self.kernels)

    def settle(self, step: int, kernel: Kernel | None) -> None:
        """Note a step's kernel; None: it cannot be compiled."""
        self.kernels[step] = kernel
        self.unsettled.discard(step)
        self._idle = []

    def interpretation(self) -> Program:
        """Return the program that runs the ops one by one."""
        if self._interpretation is None:
            schedule = interpretation(self.trace, self.plan, self.live)
            self._interpretation = Program.interpreting(schedule)
        return self._interpretation

    def take(self) -> Program:
        """Return a program with the kernels that are ready, for one flush alone."""
        try:
            return self._idle.pop()
        except IndexError:
            return Program.of(self.plan, self.trace, self.kernels)

    def give_back(self, program: Program) -> None:
        """Keep a program for the next flush, unless kernels have become ready meanwhile."""
        if program.kernels == sum(kernel is not None for kernel in self.kernels):
            self._idle.append(program)


class Kernels:
    """All kernels of the process, by id: compiled here and now, or by a thread in the background.

    Parameters
    ----------
    backend
        What makes them.
    busy
        Tells whether regions are open: what compiles takes the interpreter's lock from them.
    capacity
        How many are kept: about 50 KB each.
    """

    def __init__(
        self, backend: Backend, busy: Callable[[], bool] = lambda: False, capacity: int = 1024
    ) -> None:
        self.backend = backend
        self._busy = busy
        self.compiled = 0
        self.failed = 0
        self._ready: LeastRecentlyUsed[str, Kernel | Exception] = LeastRecentlyUsed(capacity)
        self._wanted: set[str] = set()
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._worker: Background | None = None
        self._ended = False
        self._lock = threading.RLock()  # a signal handler may come back in on this thread
        self.compiling = threading.RLock()  # a fork takes it first
        self._compiler_thread: int | None = None
        self._stalled = False

    def settle(self, entry: Compiled, step: int, kernel_id: str) -> bool:
        """Give a step its kernel if that is ready; return False if nothing is known of it yet."""
        found = self._ready.get(kernel_id)
        if found is None:
            return False
        entry.settle(step, None if isinstance(found, Exception) else found)
        return True

    def compile(self, form: KernelForm, numerics: Numerics, kernel_id: str, tell: Tell) -> None:
        """Compile a kernel now; that it cannot be compiled is told.

        Not if whoever compiles waits for a flush meanwhile: it may be the one that wants the kernel.
        """
        me, held = threading.get_ident(), False
        outer = me if self._compiler_thread == me else None
        try:  # an interrupt may come before any line
            while not (held := self.compiling.acquire(timeout=PATIENCE)):
                if self._stalled:
                    return
            self._compiler_thread = me
            if kernel_id not in self._ready:
                self._ready.put(kernel_id, self._compile(form, numerics, kernel_id, tell))
        finally:
            if held:
                self._compiler_thread = outer
                self.compiling.release()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Note that this thread waits for a flush, in case it is compiling: in a finalizer, say."""
        stalls = self._compiler_thread == threading.get_ident()
        outer, self._stalled = self._stalled, stalls or self._stalled
        try:
            yield
        finally:
            if stalls:
                self._stalled = outer

    def _compile(
        self, form: KernelForm, numerics: Numerics, kernel_id: str, tell: Tell
    ) -> Kernel | Exception:
        found: Kernel | Exception
        try:
            found = self.backend.compile(form, numerics)
            self.compiled += 1
        except Exception as error:  # whatever it is, there is the interpreter
            if raised_by_program(error):  # a signal handler, in the midst of it
                raise
            found = error
            self.failed += 1
            what = "" if isinstance(error, CompileError) else f"{type(error).__name__}: "
            tell("kernel failed to compile", f"{kernel_id} is interpreted: {what}{error}")
        return found

    def request(
        self,
        form: KernelForm,
        numerics: Numerics,
        kernel_id: str,
        tell: Tell,
        urgent: bool = False,
    ) -> None:
        """Have a kernel compiled in the background; if that is not urgent, when the regions that are open are over."""
        with self._lock:
            if self._ended or kernel_id in self._wanted or kernel_id in self._ready:
                return
            try:
                self._have_worker()
            except RuntimeError as error:
                if raised_by_program(error):  # a signal handler, in the midst of it
                    raise
                # no thread is to be had: asked for again next time
                tell("no thread to compile on", f"{kernel_id} is interpreted: {error}")
                return
            self._wanted.add(kernel_id)
            job = functools.partial(self._compile_wanted, form, numerics, kernel_id, tell)
            self._queue.put((job, monotonic() + (0 if urgent else DELAY)))

    def later(self, job: Callable[[], object]) -> None:
        """Have something done in the background that nobody waits for; not at all where no thread is to be had."""
        with self._lock:
            if self._ended:
                return
            try:
                self._have_worker()
            except RuntimeError as error:
                if raised_by_program(error):
                    raise
                return
            self._queue.put((job, monotonic() + DELAY))

    def _have_worker(self) -> None:
        if self._worker is None or not self._worker.is_alive:
            self._worker = Background(self._work)
            self._worker.start()

    def _compile_wanted(
        self, form: KernelForm, numerics: Numerics, kernel_id: str, tell: Tell
    ) -> None:
        try:
            self.compile(form, numerics, kernel_id, tell)
        finally:
            with self._lock:
                self._wanted.discard(kernel_id)

    def end(self) -> None:
        """Before the process ends: a thread that Python stops in the midst of LLVM takes the process with it."""
        with self._lock:
            self._ended = True
            worker = self._worker
        if worker is not None:
            self._queue.put(None)
            worker.join()

    def _work(self) -> None:
        while not self._ended:
            try:
                wanted = self._queue.get(timeout=5)
            except queue.Empty:
                with self._lock:
                    if self._queue.empty():
                        self._worker = None
                        return
                continue
            if wanted is None:
                return
            job, due = wanted
            while monotonic() < due and self._busy() and not self._ended:
                sleep(DELAY / 10)
            job()

    def forget_worker(self) -> None:
        """After a fork: the child has no worker, and nothing of what it was doing."""
        self._worker = None
        self._wanted.clear()
        self._queue = queue.SimpleQueue()
        self._lock = threading.RLock()


def prepare(
    kernels: Kernels,
    entry: Compiled,
    layouts: Callable[[], Sequence[Layout]],
    always: bool,
    numerics: Numerics,
    tell: Tell,
) -> None:
    """See to the kernels of a plan: find, compile or request those that are missing."""
    layouts = functools.cache(layouts)  # many steps may ask
    for index in tuple(entry.unsettled):
        step, kernel_id = entry.plan.steps[index], entry.kernel_ids[index]
        if not isinstance(step, FusedGroup) or kernel_id is None:
            continue
        if kernels.settle(entry, index, kernel_id):
            continue
        saved = 0 if always else _traffic_saved(entry.trace, step, layouts())
        if always or saved / EAGER_BANDWIDTH > COMPILE_SECONDS:
            kernels.compile(step.form, numerics, kernel_id, tell)
            kernels.settle(entry, index, kernel_id)
        elif entry.visits > 1 or saved > WORTH_COMPILING_BYTES:
            kernels.request(step.form, numerics, kernel_id, tell, urgent=saved > URGENT_BYTES)


def _traffic_saved(trace: Trace, group: FusedGroup, layouts: Sequence[Layout]) -> int:
    """Return the bytes that a fused group does not move, compared with its ops one by one."""

    def size(view: int) -> int:
        count = trace.views[view].dtype.itemsize
        for length in layouts[view].sizes:
            count *= length
        return count

    eager = sum(
        size(view) for op in group.ops for view in (*trace.ops[op].reads, *trace.ops[op].writes)
    )
    return eager - sum(size(view) for view in group.accesses)
