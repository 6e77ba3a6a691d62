"""Rules 6 and 7 where the program's own code runs in the midst of recording and flushing.

Collections, finalizers, weak references, signals, and functions that trace, profile or monitor Python: whenever they
run, what they look at is there, and what they write is seen.
"""

import gc
import signal
import sys
import threading
import time
import weakref

import pytest
import torch
from sameness import program
from tiers import TIERS


def work(turns=12):
    """Chains, in-place ops, views, backward and looks."""
    w = torch.linspace(-1, 1, 6).requires_grad_()
    x = torch.linspace(0, 1, 6)
    seen = []
    for i in range(turns):
        y = (x * 1.5 + i).sin()
        y[1:3].mul_(2)
        loss = (y * w).exp().sum()
        loss.backward()
        x = y.detach() + w.grad * 0.1
        if i % 3 == 0:
            seen.append(x[i % 6].item())
    return w, x, y, seen


def expected(turns=12):
    """Return what the work gives when nothing comes in between."""
    w, x, y, seen = work(turns)
    return [w.tolist(), w.grad.tolist(), x.tolist(), y.tolist(), seen]


def found(result):
    """Return a result of the work to be compared with what is expected."""
    w, x, y, seen = result
    return [w.tolist(), w.grad.tolist(), x.tolist(), y.tolist(), seen]


class Visitor:
    """Code of the program that comes in at any time; runs torch code on tensors that may be pending."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.total = torch.zeros(3)
        self.watched = torch.linspace(1, 2, 3) * 2
        self.calls = self.busy = 0

    def __call__(self, *ignored):
        if self.busy:  # it comes into itself
            return None
        self.busy = 1
        try:
            self.calls += 1
            self.total.add_(1)
            self.watched = self.watched * 0.5 + 1
            if self.calls % 7 == 0:
                assert self.total[0].item() == self.calls
        finally:
            self.busy = 0
        return None

    def check(self):
        """Everything that eager would have computed is there, whenever it was called."""
        while self.busy:  # on the thread that compiles, where collections happen too
            time.sleep(0.001)
        assert self.total.tolist() == [float(self.calls)] * 3
        watched = torch.linspace(1, 2, 3) * 2
        for _ in range(self.calls):
            watched = watched * 0.5 + 1
        assert self.watched.tolist() == watched.tolist()


def lazily(compile, visitor, start, stop, turns=12, visits=4):
    """Run the work under Torchy with a visitor that comes in, several times each of several times."""
    import torchy

    plain = expected(turns)
    for _ in range(visits):
        with torchy.lazy(compile=compile):
            visitor.reset()
            while visitor.calls <= 5:  # a fast machine is soon done
                start()
                try:
                    result = work(turns)
                finally:
                    stop()
                assert found(result) == plain
        visitor.check()


@TIERS
def test_collections_whose_callbacks_run_torch_code(compile):
    visitor, before = Visitor(), gc.get_threshold()

    def start():
        gc.callbacks.append(visitor)
        gc.set_threshold(1)

    def stop():
        gc.callbacks.remove(visitor)
        gc.set_threshold(*before)

    lazily(compile, visitor, start, stop, turns=4, visits=3)


@TIERS
@pytest.mark.parametrize("period", [4e-4, 2e-3])
def test_signals_whose_handler_works_on_pending_tensors(compile, period):
    visitor = Visitor()
    signal.signal(signal.SIGALRM, visitor)
    lazily(
        compile,
        visitor,
        lambda: signal.setitimer(signal.ITIMER_REAL, period, period),
        lambda: signal.setitimer(signal.ITIMER_REAL, 0),
        turns=40,
        visits=3,
    )


@TIERS
def test_signals_whose_handler_looks_at_what_is_being_recorded(compile):
    import torchy

    x, seen, busy = torch.zeros(4), [], []

    def look(*ignored):
        if not busy:  # handlers nest
            busy.append(1)
            seen.append(x.tolist())
            busy.clear()

    signal.signal(signal.SIGALRM, look)
    with torchy.lazy(compile=compile):
        signal.setitimer(signal.ITIMER_REAL, 3e-4, 3e-4)
        for _ in range(400):
            x.add_(1)
            y = x * 2
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert x.tolist() == [400.0] * 4
    assert y.tolist() == [800.0] * 4
    assert all(len(set(values)) == 1 for values in seen)
    firsts = [values[0] for values in seen]
    assert firsts == sorted(firsts)
    assert len(seen) > 3


@TIERS
@pytest.mark.parametrize("set_hook", ["settrace", "setprofile"])
def test_python_s_hooks_run_torch_code(compile, set_hook):
    visitor = Visitor()
    hook = getattr(sys, set_hook)

    def visit(frame, event, argument):
        visitor()
        return visit

    lazily(compile, visitor, lambda: hook(visit), lambda: hook(None), turns=4, visits=3)


@TIERS
@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring came with Python 3.12")
def test_monitoring_runs_torch_code(compile):
    visitor, tool = Visitor(), 3
    monitoring = sys.monitoring

    def start():
        monitoring.use_tool_id(tool, "visitor")
        monitoring.register_callback(tool, monitoring.events.LINE, visitor)
        monitoring.set_events(tool, monitoring.events.LINE)

    def stop():
        monitoring.set_events(tool, 0)
        monitoring.free_tool_id(tool)

    lazily(compile, visitor, start, stop, turns=4, visits=3)


@TIERS
def test_a_hook_on_each_line_looks_at_the_program_s_own_tensors(compile):
    import torchy

    def lines(x):
        y = x * 2
        y.add_(1)
        z = y.exp()
        z[0] = 5
        return z + y

    def traced(log):
        def visit(frame, event, argument):
            if frame.f_code is lines.__code__:
                log.extend((k, v.tolist()) for k, v in sorted(frame.f_locals.items()))
                return visit
            return None

        sys.settrace(visit)
        try:
            log.append(lines(torch.arange(3.0)).tolist())
        finally:
            sys.settrace(None)
        return log

    plain = traced([])
    for _ in range(4):
        with torchy.lazy(compile=compile):
            assert traced([]) == plain


@program
def test_finalizers_within_chains_look_and_write():
    log, shared = [], torch.zeros(3)

    class Last:
        def __init__(self, t):
            self.t = t

        def __del__(self):
            shared.add_(self.t)
            log.append((self.t * 2).sum().item())

    x = torch.ones(3)
    for i in range(8):
        holder = Last(x * i)
        x = (x + holder.t) * 0.5
        del holder
        y = shared * 2
        holder = Last(y + shared)
        holder = Last(y - 1)
        x[:2].add_(y[:2] * 0.01)
    del holder
    return x, y, shared, log


@program
def test_weak_references_whose_callbacks_run_torch_code():
    log, references, shared = [], [], torch.zeros(3)

    def gone(reference):
        shared.add_(1)
        log.append((shared * 2).sum().item())

    x = torch.ones(3)
    for _ in range(6):
        y = x * 2
        references.append(weakref.ref(y, gone))
        weakref.finalize(y, shared.mul_, 2)
        x = y + shared
        del y
    return x, shared, log


@program
def test_finalizers_in_the_midst_of_backward():
    log, kept = [], torch.ones(3)

    class Watching(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            context.watch = Watch(x.detach())
            return x * 2

        @staticmethod
        def backward(context, gradient):
            (x,) = context.saved_tensors
            del context.watch
            return gradient * x

    class Watch:
        def __init__(self, t):
            self.t = t

        def __del__(self):
            log.append((self.t + kept).sum().item())
            kept.add_(1)

    x = torch.linspace(0, 1, 3).requires_grad_()
    for _ in range(3):
        y = Watching.apply(Watching.apply(x * 1.5) + 1)
        y.exp().sum().backward()
    return x, kept, log


@TIERS
def test_threads_that_switch_at_every_chance(compile):
    import torchy

    plain, before = expected(20), sys.getswitchinterval()
    results, errors = [], []

    def run():
        try:
            with torchy.lazy(compile=compile):
                results.append(work(20))
        except BaseException as error:
            errors.append(error)

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not errors
    assert [found(result) for result in results] == [plain] * 4


@TIERS
def test_a_thread_reads_at_every_chance_what_another_records(compile):
    import torchy

    before, stop, bad = sys.getswitchinterval(), threading.Event(), []
    box = [torch.zeros(5)]

    def read():
        while not stop.is_set():
            t = box[0]
            values = (t * 1).tolist()
            if len(set(values)) != 1 or t[0].item() != values[0]:
                bad.append(values)

    reader = threading.Thread(target=read)
    sys.setswitchinterval(1e-6)
    reader.start()
    try:
        with torchy.lazy(compile=compile):
            for i in range(150):
                box[0] = torch.ones(5) * i + 1 - 1
                x = box[0] * 2
    finally:
        stop.set()
        reader.join()
        sys.setswitchinterval(before)
    assert not bad
    assert x.tolist() == [298.0] * 5
