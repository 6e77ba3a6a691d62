"""Rule 7 from the inside: whatever fails, or comes in between, within Torchy itself, nothing is lost."""

import importlib
import threading
import time

import pytest
import torch
from tiers import SETTLED, TIERS

import torchy
from torchy.face import _process
from torchy.run.kept import KeptPlans


def chain(x):
    return (x * 3 + 1).exp() / (x + 2)


# where Torchy calls them
ROOMS = {
    "build_plan": "torchy.run.planner",
    "prepare": "torchy.run.planner",
    "Script": "torchy.session.flush",
}


def replace(name, function):
    """Put something in place of a function that Torchy calls; for good: the process is the test's own."""
    KeptPlans.get = lambda self, key: None  # nor is one of an earlier process taken
    setattr(importlib.import_module(ROOMS[name]), name, function)


def in_the_midst(name, happening):
    """Have something happen when Torchy calls a function for the first time."""
    original, calls = getattr(importlib.import_module(ROOMS[name]), name), []

    def replaced(*args, **kwargs):
        calls.append(name)
        if len(calls) == 1:
            happening()
        return original(*args, **kwargs)

    replace(name, replaced)


def interrupt():
    raise KeyboardInterrupt


# Raises TypeError for whatever it is called with, from no line of the program.
FAILS = iter


@pytest.mark.parametrize("where", ["build_plan", "prepare"])
def test_an_interrupt_of_the_last_flush(where):
    x = torch.linspace(0, 1, 7)
    expected = chain(x)
    in_the_midst(where, interrupt)
    with pytest.raises(KeyboardInterrupt), torchy.lazy(compile="always"):
        y = chain(x)
    assert torch.equal(y, expected)  # looks again, after the region
    with torchy.lazy(compile="always"):
        assert torch.equal(chain(x), expected)


@TIERS
def test_a_plan_that_cannot_be_made(compile):
    x = torch.linspace(0, 1, 7)
    expected = chain(x)
    replace("build_plan", FAILS)
    with torchy.lazy(compile=compile) as session:
        for _ in range(5):
            x.add_(0)
            assert torch.equal(chain(x), expected)
    (event,) = {(event.kind, event.text.partition(":")[0]) for event in session.report.events}
    assert event == ("planning failed", "TypeError")


@pytest.mark.parametrize("compile", ["always", "auto"])
def test_a_compiler_that_raises_what_it_should_not(compile):
    x = torch.linspace(0, 1, 7)
    expected = chain(x)
    with torchy.lazy(compile=compile) as session:
        _process.runtime.kernels.backend.compile = FAILS
        for _ in range(5):
            assert torch.equal(chain(x), expected)
            time.sleep(0.05)  # for the compiler's thread
        assert torch.equal(chain(x), expected)
    (event,) = session.report.events
    assert event.kind == "kernel failed to compile"
    assert "TypeError" in event.text


@pytest.mark.parametrize(
    ("where", "compile"),
    [
        ("build_plan", "always"),
        ("build_plan", "never"),
        ("prepare", "always"),
        ("Script", "always"),
        ("Script", "never"),
    ],
)
def test_a_trace_is_looked_at_while_it_is_planned(where, compile):
    x = torch.linspace(0, 1, 7)
    expected = chain(x)
    seen = []
    with torchy.lazy(compile=compile) as session:
        y = chain(x)
        # as a signal handler or a finalizer may
        in_the_midst(where, lambda: seen.append(y.tolist()))
        assert torch.equal(y, expected)
        for _ in range(4):
            assert torch.equal(chain(x), expected)
    assert seen == [expected.tolist()]
    assert len(session.report.traces) == 5


@TIERS
def test_threads_that_hold_the_interpreter_and_threads_that_flush(compile):
    done = []

    def flushes():
        with torchy.lazy(compile=compile):
            for _ in range(300):
                z = torch.ones(100) * 2
                assert z.sum().item() == 200
        done.append("flushes")

    def indexes():
        with torchy.lazy(compile=compile):
            for _ in range(30):
                y = torch.ones(300) + 1
                views = [y[i] for i in range(300)]
                assert views[-1].item() == 2
        done.append("indexes")

    threads = [threading.Thread(target=f, daemon=True) for f in (flushes, indexes) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(done) == 4, "a deadlock"


@TIERS
def test_places_are_forgotten_in_the_midst(compile):
    x = torch.linspace(0, 1, 7)
    programs = [chain, lambda t: t.sin() * 2, lambda t: (t + t.cumsum(0)).sqrt(), lambda t: t @ t]
    expected = [program(x) for program in programs]
    with torchy.lazy(compile=compile) as session:
        _process.runtime.upkeep.most_places = 3
        for turn in range(60):
            index = turn % 4 if turn < 30 else 0
            assert torch.equal(programs[index](x), expected[index])
    assert session.counters["places"] > 30  # met anew

    def work():
        for turn in range(40):
            with torchy.lazy(compile=compile):
                for _ in range(4):
                    assert torch.equal(programs[turn % 4](x), expected[turn % 4])
        done.append(1)

    done = []
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 3


def test_files_beside_the_package_are_the_program_s():
    import torchy.record.source as source

    path = source._TORCHY.rstrip("/") + "_train.py"
    code = "import torch\ndef f(x):\n    return x * 2 + 1\n"
    names = {}
    exec(compile(code, path, "exec"), names)
    with torchy.lazy() as session:
        names["f"](torch.ones(3)).tolist()
    assert [(op.file, op.line) for op in session.report.traces[0].ops] == [(path, 3)] * 2


@SETTLED
def test_saved_bytes_are_those_of_this_size(compile):
    def run(size):
        return ((torch.ones(size) * 2 + 1) * 3).amax().item()

    with torchy.lazy(compile=compile) as session:
        for size in (10, 10, 10, 1000, 1000, 10):
            run(size)
    saved = [trace.bytes_saved for trace in session.report.traces]
    if compile == "always":
        assert saved == [120, 120, 120, 12000, 12000, 120]
