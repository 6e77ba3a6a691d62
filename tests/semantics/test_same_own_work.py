"""Rules 3 and 7 for the work that Torchy does for itself: the program meets no thread, clock, call or error of it."""

import contextlib
import os
import signal
import sys
import threading
import time
from unittest import mock

import pytest
import torch
from tiers import COMPILED, TIERS


def work():
    """Run what is worth compiling."""
    x = torch.linspace(0, 1, 64)
    return [((x * 2 + i).sin() * x).exp().sum().item() for i in range(8)]


@contextlib.contextmanager
def compiling():
    """Open a session, and have its kernels compiled by a thread in the background."""
    import torchy

    before = len(os.listdir("/proc/self/task"))
    with torchy.lazy():
        work()
        assert len(os.listdir("/proc/self/task")) > before
        yield


def test_a_blocked_signal_waits_for_the_program():
    blocked = {signal.SIGUSR1, signal.SIGUSR2}
    with compiling():
        signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        for number in blocked:
            os.kill(os.getpid(), number)
        assert signal.sigpending() == blocked
        assert {signal.sigwait({number}) for number in blocked} == blocked


def test_an_interrupt_waits_for_the_end_of_a_critical_section():
    finished = []
    with compiling():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        os.kill(os.getpid(), signal.SIGINT)
        finished.append(work())
        with pytest.raises(KeyboardInterrupt):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    assert len(finished) == 1


def test_the_program_counts_its_own_threads():
    with compiling():
        assert threading.active_count() == 1
        assert [thread.name for thread in threading.enumerate()] == ["MainThread"]


def test_the_program_replaces_threads():
    with mock.patch("threading.Thread") as replaced, compiling():
        assert not replaced.called


def test_where_no_thread_is_to_be_had_ops_are_interpreted():
    import torchy

    expected = work()
    threading.stack_size(1 << 47)  # more than there are addresses
    with torchy.lazy() as session:
        assert work() == expected
    threading.stack_size(0)
    assert {event.kind for event in session.report.events} == {"no thread to compile on"}
    with compiling():  # the next session finds one
        assert work() == expected


@TIERS
def test_a_stopped_clock(compile):
    import torchy

    expected = work()
    with torchy.lazy(compile=compile), mock.patch("time.perf_counter", side_effect=[0.0, 1.0]):
        begin = time.perf_counter()
        assert work() == expected
        assert time.perf_counter() - begin == 1.0


@TIERS
def test_functions_that_the_program_has_replaced(compile):
    import torchy

    x = torch.linspace(0, 1, 64)
    calls = []

    def counting(function):
        def counted(*arguments, **keywords):
            calls.append(function.__name__)
            return function(*arguments, **keywords)

        return counted

    owners = [(torch, "ones tensor rand randn randint pow cat empty equal isnan all mul".split()),
              (torch.Tensor, "__add__ __mul__ __or__ __and__ __eq__ __lt__ isnan all".split())]  # fmt: skip
    with contextlib.ExitStack() as stack:
        for owner, names in owners:
            for name in names:
                stack.enter_context(mock.patch.object(owner, name, counting(getattr(owner, name))))
        with torchy.lazy(compile=compile):
            y = ((x + 1) * x.sin() + (x < 0.5)).sum().item()
    assert calls == ["__add__", "__mul__", "__lt__", "__add__"], calls
    assert y == ((x + 1) * x.sin() + (x < 0.5)).sum().item()


@COMPILED
@pytest.mark.parametrize("room", range(40, 200, 10))
def test_a_program_at_its_recursion_limit(compile, room):
    """How deep one gets differs; what was computed by then does not."""
    import torchy

    def deepen(x, steps):
        steps.append(x * 2 + len(steps))
        return deepen(steps[-1], steps)

    before, steps = sys.getrecursionlimit(), []
    with torchy.lazy(compile=compile):
        depth = len(_frames())
        sys.setrecursionlimit(depth + room)
        try:
            deepen(torch.arange(3.0), steps)
        except RecursionError:
            pass
        finally:
            sys.setrecursionlimit(before)
        after = steps[-1] + 1
    x = torch.arange(3.0)
    for index, step in enumerate(steps):
        x = x * 2 + index
        assert step.tolist() == x.tolist()
    assert after.tolist() == (x + 1).tolist()
    assert len(steps) > 5


LOOKS = {
    "tolist": lambda t: t.tolist(),
    "numpy": lambda t: t.numpy(),
    "data_ptr": lambda t: t.data_ptr(),
    "storage": lambda t: t.untyped_storage(),
    "repr": lambda t: repr(t),
    "dlpack": lambda t: torch.from_dlpack(t),
    "item": lambda t: t.sum().item(),
    "bool": lambda t: bool(t.sum()),
    "sort": lambda t: t.sort(),
}


@COMPILED
@pytest.mark.parametrize("look", LOOKS)
def test_a_program_that_looks_at_its_recursion_limit(compile, look):
    """It raises what Python raises there, whatever of Torchy's it is that has no room."""
    import torchy

    def deepen(x, steps):
        steps.append(x * 1.01 + len(steps))
        LOOKS[look](steps[-1])
        return deepen(steps[-1], steps)

    for room in range(30, 80):
        before, steps = sys.getrecursionlimit(), []
        with torchy.lazy(compile=compile):
            sys.setrecursionlimit(len(_frames()) + room)
            try:
                with pytest.raises(RecursionError):
                    deepen(torch.arange(3.0), steps)
            finally:
                sys.setrecursionlimit(before)
        x = torch.arange(3.0)
        for index, step in enumerate(steps):
            x = x * 1.01 + index
            assert step.tolist() == x.tolist()


def _frames():
    frame, found = sys._getframe(), []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found
