"""Which tier runs a trace: kernels that are compiled take over, at once where that pays."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torchy.codegen.cpu.kernel import Compiler, Kernel
from torchy.codegen.errors import CompileError
from torchy.ir.kernel import KernelForm
from torchy.ir.ops import Numerics
from torchy.ir.trace import Layout, Trace
from torchy.plan.plan import FusedGroup, Plan
from torchy.run.cache import LeastRecentlyUsed
from torchy.run.execute import Binding

EAGER_BANDWIDTH = (
    8e9  # bytes a second that eager moves through memory: measured, 32 ops at 4096 x 4096
)
COMPILE_SECONDS = 0.025  # a kernel
WORTH_COMPILING_BYTES = 1 << 18  # a trace that saves less is compiled when it comes the second time

Tell = Callable[[str, str], None]  # (kind, text) of an event


@dataclass(slots=True)
class Compiled:
    """A plan with what it takes to run it.

    Parameters
    ----------
    plan, live
        The plan, and the created or written buffers for which it was made.
    schedule
        How to interpret it: see :func:`torchy.run.interpret.interpretation`.
    bindings
        For each step how its kernel gets its arguments; None for a call.
    settled
        True once every kernel is compiled, or known not to compile.
    """

    plan: Plan
    live: frozenset[int]
    schedule: list[tuple[int, tuple[int, ...]]]
    bindings: list[Binding | None]
    visits: int = 0
    bytes_saved: int | None = None
    bytes_moved: int | None = None
    settled: bool = False

    @property
    def kernels(self) -> list[Kernel]:
        """The kernels that are ready."""
        return [b.kernel for b in self.bindings if b is not None and b.kernel is not None]

    @property
    def kernel_ids(self) -> tuple[str | None, ...]:
        """For each step the id of its kernel, compiled or not; None for a call."""
        return tuple(b.kernel_id if b is not None else None for b in self.bindings)


class Kernels:
    """All kernels of the process, by id: compiled here and now, or by a thread in the background."""

    def __init__(self, capacity: int = 4096) -> None:
        self.compiler = Compiler()
        self.compiled = 0
        self.failed = 0
        self._ready: LeastRecentlyUsed[str, Kernel | CompileError] = LeastRecentlyUsed(capacity)
        self._wanted: set[str] = set()
        self._queue: queue.SimpleQueue[tuple[KernelForm, Numerics, str, Tell]] = queue.SimpleQueue()
        self._worker: threading.Thread | None = None
        self._lock = threading.Lock()

    def find(self, binding: Binding) -> bool:
        """Give a binding its kernel if that is ready; return False if nothing is known of it yet."""
        found = self._ready.get(binding.kernel_id)
        if found is None:
            return False
        binding.settled = True
        binding.kernel = found if isinstance(found, Kernel) else None
        return True

    def compile(self, form: KernelForm, numerics: Numerics, kernel_id: str, tell: Tell) -> None:
        """Compile a kernel now; that it cannot be compiled is told."""
        if kernel_id in self._ready:
            return
        found: Kernel | CompileError
        try:
            found = self.compiler.compile(form, numerics)
            self.compiled += 1
        except CompileError as error:
            found = error
            self.failed += 1
            tell("kernel failed to compile", f"{kernel_id} is interpreted: {error}")
        self._ready.put(kernel_id, found)

    def request(self, form: KernelForm, numerics: Numerics, kernel_id: str, tell: Tell) -> None:
        """Have a kernel compiled in the background."""
        with self._lock:
            if kernel_id in self._wanted or kernel_id in self._ready:
                return
            self._wanted.add(kernel_id)
            self._queue.put((form, numerics, kernel_id, tell))
            if self._worker is None or not self._worker.is_alive():
                self._worker = threading.Thread(
                    target=self._work, name="torchy-compiler", daemon=True
                )
                self._worker.start()

    def _work(self) -> None:
        while True:
            try:
                form, numerics, kernel_id, tell = self._queue.get(timeout=5)
            except queue.Empty:
                with self._lock:
                    if self._queue.empty():
                        self._worker = None
                        return
                continue
            self.compile(form, numerics, kernel_id, tell)
            with self._lock:
                self._wanted.discard(kernel_id)

    def forget_worker(self) -> None:
        """After a fork: the child has no worker, and nothing of what it was doing."""
        self._worker = None
        self._wanted.clear()
        self._queue = queue.SimpleQueue()
        self._lock = threading.Lock()


def prepare(
    kernels: Kernels,
    entry: Compiled,
    trace: Trace,
    layouts: Callable[[], Sequence[Layout]],
    compile_: str,
    numerics: Numerics,
    tell: Tell,
) -> None:
    """See to the kernels of a plan: find, compile or request those that are missing."""
    if entry.settled or compile_ == "never":
        return
    settled = True
    for step, binding in zip(entry.plan.steps, entry.bindings, strict=True):
        if not isinstance(step, FusedGroup) or binding is None or binding.settled:
            continue
        if kernels.find(binding):
            continue
        saved = 0 if compile_ == "always" else _traffic_saved(trace, step, layouts())
        if compile_ == "always" or saved / EAGER_BANDWIDTH > COMPILE_SECONDS:
            kernels.compile(step.form, numerics, binding.kernel_id, tell)
            kernels.find(binding)
        else:
            settled = False
            if entry.visits > 1 or saved > WORTH_COMPILING_BYTES:
                kernels.request(step.form, numerics, binding.kernel_id, tell)
    entry.settled = settled


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
