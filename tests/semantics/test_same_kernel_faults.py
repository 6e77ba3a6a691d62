"""Rule 7: whichever kernels of a plan cannot be compiled, the values are eager's, and the report tells which."""

import itertools

import pytest
import torch
from injection import in_a_child
from steps import PROGRAMS, facts, require_same

from torchy.codegen.errors import CompileError
from torchy.run import tiers


def several_groups(x, w):
    """Five fused groups with calls between them."""
    a = (x * 2 + 1).tanh()
    b = a @ w
    c = (b - 1).exp() * x
    d = c.cumsum(0)
    e = torch.where(d > 0, d, c) / 2
    f = (e @ w).sqrt_().abs_()
    x.add_(f)
    g = f.cumprod(-1)
    return a, c, e, g, (g - x).sigmoid()


def broken(compiler, fails, error):
    """Have kernels fail to compile by their number, in the order in which they are asked for."""
    original, numbers = compiler.compile, itertools.count()
    asked = []

    def compile(form, numerics):
        asked.append(compiler.identity(form, numerics))
        if fails(next(numbers)):
            raise error
        return original(form, numerics)

    # what is raised by lines of the program is the program's own: these are Torchy's
    compile.__code__ = compile.__code__.replace(co_filename=tiers.__file__)
    compiler.compile = compile  # for good: the process is the test's own
    return asked


def run(fails, error, settings):
    """Run with failing kernels three times; return the kernels asked for, and the report."""
    import torchy
    from torchy.face import _process

    torch.set_num_threads(1)

    def given():
        return torch.linspace(0.1, 1, 36).view(6, 6).clone(), torch.linspace(0, 1, 36).view(6, 6)

    expected = [t.tolist() for t in several_groups(*given())]
    with torchy.lazy(**settings) as session:
        asked = broken(_process.runtime.kernels.backend, fails, error)
        for _ in range(3):
            assert [t.tolist() for t in several_groups(*given())] == expected
    events = [(event.kind, event.text) for event in session.report.events]
    return asked, events, [trace.tier for trace in session.report.traces]


@pytest.mark.parametrize(
    "error", [CompileError("no"), ValueError("wrong"), MemoryError()], ids=repr
)
def test_any_one_kernel_of_a_plan_fails(error):
    settings = {"compile": "always"}
    asked, events, ran = in_a_child(lambda: run(lambda number: False, error, settings))
    assert (len(asked), events) == (5, [])
    for broken_one in range(5):
        again, events, ran = in_a_child(
            lambda one=broken_one: run(lambda number: number == one, error, settings)
        )
        ((kind, text),) = events
        assert kind == "kernel failed to compile"
        assert text.startswith(f"{again[broken_one]} is interpreted: ")
        assert "compiled" in ran


def test_any_two_kernels_of_a_plan_fail():
    for pair in itertools.combinations(range(5), 2):
        asked, events, _ = in_a_child(
            lambda two=pair: run(lambda n: n in two, ValueError("wrong"), {"compile": "always"})
        )
        told = {text.split(" is ")[0] for _, text in events}
        assert told == {asked[number] for number in pair}


def test_all_kernels_fail():
    asked, events, ran = in_a_child(
        lambda: run(lambda number: True, CompileError("no"), {"compile": "always"})
    )
    assert {text.split(" is ")[0] for _, text in events} == set(asked)
    assert set(ran) == {"interpreted"}


def session_of(name, fails):
    import torchy
    from torchy.face import _process

    program, asked = PROGRAMS[name](), None
    expected = in_a_child(program.eagerly)
    for _ in range(3):
        state = program.start()
        with torchy.lazy(compile="always"):
            if asked is None:
                asked = broken(_process.runtime.kernels.backend, fails, OSError("disk"))
            program.run(state, [])
        require_same([expected[-1][0]], facts(state))
    return len(asked)


@pytest.mark.parametrize("name", ["chain", "calls", "gradients", "training"])
def test_programs_whose_every_other_kernel_fails(name):
    for rest in (0, 1):
        assert in_a_child(lambda one=rest: session_of(name, lambda n: n % 2 == one)) > 1
