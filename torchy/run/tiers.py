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

Key = tuple[KernelForm, Numerics]
Tell = Callable[[str, str], None]  # (kind, text) of an event


@dataclass(slots=True)
class Compiled:
    """A plan with what it takes to run it."""

    plan: Plan
    live: frozenset[int]
    schedule: list[tuple[int, tuple[int, ...]]]
    bindings: list[Binding | None]
    visits: int = 0
    bytes_saved: int | None = None
    kernel_ids: tuple[str | None, ...] = ()


class Kernels:
    """All kernels of the process, by form: compiled here and now, or by a thread in the background."""

    def __init__(self, capacity: int = 4096) -> None:
        self.compiler = Compiler()
        self.compiled = 0
        self.failed = 0
        self._ready: LeastRecentlyUsed[Key, Kernel | CompileError] = LeastRecentlyUsed(capacity)
        self._wanted: set[Key] = set()
        self._queue: queue.SimpleQueue[tuple[Key, Tell]] = queue.SimpleQueue()
        self._worker: threading.Thread | None = None
        self._lock = threading.Lock()

    def identity(self, form: KernelForm, numerics: Numerics) -> str:
        """Return the id that the kernel of a form has, compiled or not."""
        return self.compiler.identity(form, numerics)

    def get(self, form: KernelForm, numerics: Numerics) -> Kernel | None:
        """Return a kernel if it is ready."""
        found = self._ready.get((form, numerics))
        return found if isinstance(found, Kernel) else None

    def settled(self, form: KernelForm, numerics: Numerics) -> bool:
        """Return True if a form is compiled, or known not to compile."""
        return (form, numerics) in self._ready

    def compile(self, form: KernelForm, numerics: Numerics, tell: Tell) -> Kernel | None:
        """Compile a kernel now; None if it cannot be, which is told."""
        key = (form, numerics)
        found = self._ready.get(key)
        if found is None:
            try:
                found = self.compiler.compile(form, numerics)
                self.compiled += 1
            except CompileError as error:
                found = error
                self.failed += 1
                identity = self.compiler.identity(form, numerics)
                tell("kernel failed to compile", f"{identity} is interpreted: {error}")
            self._ready.put(key, found)
        return found if isinstance(found, Kernel) else None

    def request(self, form: KernelForm, numerics: Numerics, tell: Tell) -> None:
        """Have a kernel compiled in the background."""
        key = (form, numerics)
        with self._lock:
            if key in self._wanted or key in self._ready:
                return
            self._wanted.add(key)
            self._queue.put((key, tell))
            if self._worker is None or not self._worker.is_alive():
                self._worker = threading.Thread(
                    target=self._work, name="torchy-compiler", daemon=True
                )
                self._worker.start()

    def _work(self) -> None:
        while True:
            try:
                key, tell = self._queue.get(timeout=5)
            except queue.Empty:
                with self._lock:
                    if self._queue.empty():
                        self._worker = None
                        return
                continue
            self.compile(*key, tell)
            with self._lock:
                self._wanted.discard(key)

    def forget_worker(self) -> None:
        """After a fork: the child has no worker, and nothing that it was doing."""
        self._worker = None
        self._wanted.clear()
        self._queue = queue.SimpleQueue()
        self._lock = threading.Lock()


def choose(
    kernels: Kernels,
    entry: Compiled,
    trace: Trace,
    layouts: Callable[[], Sequence[Layout]],
    compile_: str,
    numerics: Numerics,
    tell: Tell,
) -> list[Kernel | None]:
    """Return the kernel for each step of a plan, None where it is interpreted this time."""
    chosen: list[Kernel | None] = []
    for step in entry.plan.steps:
        kernel: Kernel | None = None
        if isinstance(step, FusedGroup) and compile_ != "never":
            kernel = kernels.get(step.form, numerics)
            if kernel is None and not kernels.settled(step.form, numerics):
                saved = -1 if compile_ == "always" else _traffic_saved(trace, step, layouts())
                if compile_ == "always" or saved / EAGER_BANDWIDTH > COMPILE_SECONDS:
                    kernel = kernels.compile(step.form, numerics, tell)
                elif entry.visits > 1 or saved > WORTH_COMPILING_BYTES:
                    kernels.request(step.form, numerics, tell)
        chosen.append(kernel)
    return chosen


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
