"""Rule 6, surroundings: regions that code has which comes in the midst of Torchy's own: tracers, handlers, threads."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from injection import ROOT, require_off

HANDLER = """
import signal, torch, torchy
begun = []

def handler(*_):
    with torchy.lazy() as session:
        begun.append((torch.arange(3.0) + 1).sum().item())
    assert session.counters["flushes"] == len(session.report.traces)

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, {delay})
with torchy.lazy():
    y = torch.arange(3.0) + 1
while not begun:
    pass
print(y.tolist(), begun)
"""
REGISTERED = """
import torch, torchy
x, kept = torch.arange(3.0), []

def values():
    return [x.clone().tolist(), torch.zeros(2).copy_(x[:2]).tolist(), torch.zeros(2).tolist()]

def register():
    library = torch.library.Library("aten", "IMPL")
    for name, kernel in KERNELS.items():
        library.impl(name, kernel, KEY)
    return library

KEY, KERNELS = {kernels}
before = values()
library = register()
registered = values()
assert registered != before
with torchy.lazy():
    assert values() == registered
assert values() == registered
library._destroy()
assert values() == before
with torchy.lazy():
    assert values() == before
library = register()  # the first one goes only now
with torchy.lazy():
    assert values() == registered
print("same")
"""
KERNELS = {
    "a factory": """("BackendSelect", {"zeros": lambda size, **_: torch.empty(size).fill_(7.0)})""",
    "clone": """("BackendSelect", {"clone": lambda x, **_: torch.neg(x)})""",
    "copy_": """("BackendSelect", {"copy_": lambda x, y, *_: x.fill_(-1.0)})""",
    "autograd's": """("AutogradCPU", {"clone": lambda x, **_: torch.neg(x)})""",
}


def fresh(program):
    """Run a program in a process of its own; return what it prints."""
    command = [sys.executable, "-W", "ignore", "-c", program]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@pytest.mark.parametrize("delay", [0.002, 0.01, 0.03])
def test_a_region_that_begins_while_the_runtime_is_made(delay):
    assert fresh(HANDLER.replace("{delay}", str(delay))) == "[1.0, 2.0, 3.0] [6.0]"


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_that_were_registered_before_the_first_session(name):
    assert fresh(REGISTERED.replace("{kernels}", KERNELS[name])) == "same"


class Comes:
    """Calls something before the n-th line of Torchy's own Python that this thread runs, once."""

    def __init__(self, position, what):
        self.count, self._position, self._what, self.came = 0, position, what, False

    def __enter__(self):
        sys.settrace(self._trace)
        return self

    def __exit__(self, *error):
        sys.settrace(None)

    def _trace(self, frame, event, argument):
        if not Path(frame.f_code.co_filename).is_relative_to(ROOT / "torchy"):
            return None
        if event == "line" and not self.came:
            self.count += 1
            if self.count == self._position:
                self.came = True
                sys.settrace(None)
                self._what()
                sys.settrace(self._trace)
        return self._trace


def region():
    import torchy

    with torchy.lazy():
        y = (torch.arange(5.0) * 2 + 1).sum()
    assert y.item() == 25.0


def enabled():
    import torchy

    torchy.enable()
    y = (torch.arange(5.0) * 2 + 1).sum()
    torchy.disable()
    assert y.item() == 25.0


def on_another_thread():
    thread = threading.Thread(target=region)
    thread.start()
    thread.join(0.2)  # it may have to wait until this one has gone on
    on_another_thread.begun.append(thread)
    assert (torch.arange(5.0) * 2 + 1).sum().item() == 25.0  # while this one is in the midst of it


on_another_thread.begun = []


@pytest.mark.parametrize("rests", [False, True])
@pytest.mark.parametrize("what", [region, enabled, on_another_thread])
def test_what_comes_in_at_any_line_of_entering_and_leaving_has_regions_too(what, rests):
    import torchy
    from torchy.face import _process
    from torchy.record.codes import SessionPlace

    def once():
        with torchy.lazy() as session:
            y = (torch.arange(5.0) + 3).sum()
        return y, session

    once()
    if rests:
        _process.runtime.walker.place_here = lambda: SessionPlace.RESTS
    for position in range(1, 1000):
        with Comes(position, what) as comes:
            y, session = once()
        assert y.item() == 25.0, position
        require_off()
        for thread in getattr(what, "begun", []):
            thread.join()
        assert session.closed, position
        assert not _process.runtime.sessions.by_number, position
        if not comes.came:
            break
    assert 20 < position < 1000
