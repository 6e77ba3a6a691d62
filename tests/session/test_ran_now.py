"""What runs at once is told: which op, on which line, how often, how long, and why."""

import sys

import pytest
import torch

import torchy


def line_here():
    return sys._getframe(1).f_lineno


def the_only(report, name):
    [record] = [record for record in report.ran_now if record.short == name]
    return record


def test_an_op_that_is_never_deferred_has_its_line_count_and_time():
    x = torch.eye(40)
    with torchy.lazy() as session:
        for _ in range(3):
            torch.linalg.eigvalsh(x); line = line_here()  # noqa: E702  # fmt: skip
    record = the_only(session.report, "_linalg_eigh")
    assert (record.file, record.line, record.count) == (__file__, line, 3)
    assert 0 < record.seconds < 1
    assert record.why == "Torchy does not know how to defer it"


def test_many_are_counted_from_a_sample():
    x = torch.ones(3)
    with torchy.lazy() as session:
        for _ in range(1000):
            torch.nonzero(x)
    record = the_only(session.report, "nonzero")
    assert 1000 - 31 < record.count <= 1000  # the last ones wait for the next sample
    assert record.why == "how large its result is depends on values"
    assert session.counters["run_now"] == 1000


@pytest.mark.parametrize("lines", [2, 4, 16])
def test_a_sample_favours_no_line(lines):
    x = torch.ones(3)
    times = 3200 // lines  # a session of nothing else falls asleep after 4,096
    code = "\n".join([f"for _ in range({times}):", *["    torch.nonzero(x)"] * lines])
    with torchy.lazy(compile="never") as session:  # it is not compared with one that sleeps
        exec(compile(code, "file of many lines", "exec"), {"torch": torch, "x": x})
    counts = [r.count for r in session.report.ran_now if r.short == "nonzero"]
    assert len(counts) == lines and abs(sum(counts) - 3200) < 40
    assert min(counts) > times / 3 and max(counts) < times * 3


def test_each_session_counts_for_itself():
    x = torch.ones(3)
    counts = []
    for _ in range(2):
        with torchy.lazy() as session:
            for _ in range(60):
                torch.nonzero(x)
        counts.append(the_only(session.report, "nonzero").count)
    assert counts == [60, 60]


def shared(x):
    x.numpy()
    return x + 1


def seeded(x):
    return torch.rand_like(x)


def single(x):
    return torch.tensor(1.0) + 1


@pytest.mark.parametrize(
    ("program", "name", "why"),
    [
        (
            shared,
            "add",
            "something else (NumPy, say, or another session) has a hold on an operand's memory",
        ),
        (seeded, "uniform_", "random numbers keep their order"),
        (single, "add", "single elements that are there already: at once is faster"),
    ],
)
def test_why_is_told_in_words(program, name, why):
    x = torch.ones(3)
    with torchy.lazy() as session:
        program(x)
    assert the_only(session.report, name).why == why


def test_reading_the_report_twice_adds_up():
    x = torch.ones(3)
    with torchy.lazy() as session:
        torch.nonzero(x)
        assert the_only(session.report, "nonzero").count == 1
        for _ in range(2):
            torch.nonzero(x)
        assert sum(r.count for r in session.report.ran_now if r.short == "nonzero") == 3
    assert [r["short"] for r in session.report.to_dict()["ran_now"]].count("nonzero") == 2


def test_an_op_that_raises_is_not_noted_and_raises_as_it_does():
    x = torch.ones(3, 4)
    with torchy.lazy() as session:
        with pytest.raises(RuntimeError, match="must be batches of square matrices"):
            torch.linalg.eigvalsh(x)
        torch.linalg.eigvalsh(torch.eye(3))
    assert the_only(session.report, "_linalg_eigh").count == 1


def test_what_is_never_to_be_deferred_runs_at_once_at_known_places_too():
    x = torch.rand(64)

    def body():
        y = x * 2
        z = torch._foreach_mul([y, x], 0.5)
        y.mul_(3)
        return [torchy.is_pending(value) for value in (x + 1, y, *z)]

    with torchy.lazy() as session:
        for _ in range(3):
            assert body() == [True] * 4
        with torchy.lazy(never=["mul"]):
            for _ in range(2):
                assert body() == [True, False, False, False]
        assert body() == [True] * 4
    told = {(record.name, record.count, record.why) for record in session.report.ran_now}
    why = "it is never to be deferred: you have said so"
    names = ("aten::mul.Tensor", "aten::_foreach_mul.Scalar", "aten::mul_.Tensor")
    assert told == {(name, 2, why) for name in names}


def test_names_may_be_those_of_other_forms():
    names = ["mul_", "aten::add.Tensor", "_foreach_sub_", "aten::_foreach_div.List"]
    assert torchy.Settings.of(never=names).never == ("mul", "add", "sub", "div")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("softmax", "'softmax' is no op that Torchy defers; like it: _softmax"),
        (["add", "median"], "'median' is no op"),
        (7, "must be names of ops, not 7"),
        ([7], "7 is no op"),
    ],
)
def test_names_of_no_such_ops_are_errors(names, message):
    with pytest.raises(ValueError, match=message):
        torchy.lazy(never=names)


def test_an_interrupt_at_the_end_of_a_region_leaves_no_op_barred(monkeypatch):
    x = torch.rand(64)
    interrupts = [KeyboardInterrupt]
    with torchy.lazy():
        walker = torchy.face._process.runtime.walker
        really = walker.set

        def interrupted(*told):
            if interrupts:
                raise interrupts.pop()
            return really(*told)

        inner = torchy.lazy(never="mul")
        inner.__enter__()
        monkeypatch.setattr(walker, "set", interrupted)
        with pytest.raises(KeyboardInterrupt):
            inner.__exit__(None, None, None)
        assert torchy.is_pending(x * 2)
