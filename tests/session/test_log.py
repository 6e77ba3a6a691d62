"""The report is told of all flushes in their order; what nobody has planned is planned when it is read, within bounds."""

import itertools

import torch

import torchy
from torchy.session import log

FILES = itertools.count()


def run_each(lines):
    """Run lines that each end a trace, at a place that is new."""
    code = "".join(f"{line}; flush()\n" for line in lines)
    name = f"file {next(FILES)}"
    exec(compile(code, name, "exec"), {"x": torch.randn(4), "flush": torchy.flush})


def names(report):
    return [[op.name.removeprefix("aten::") for op in trace.trace.ops] for trace in report.traces]


def test_flushes_that_python_has_run_stand_between_those_of_the_walker():
    def step():
        y = x.neg()
        torchy.flush()
        return y

    x = torch.randn(4)
    with torchy.lazy(compile="always") as session:  # Python runs what it compiles; then the walker
        for _ in range(4):
            step()
        y = x.abs()
        torchy.flush()
        for _ in range(2):
            step()
        counters = session.counters
        report = session.report
    del y
    assert counters["repeated"] > 0
    assert [name for (name,) in names(report)] == ["neg"] * 4 + ["abs"] + ["neg"] * 2


def test_a_flush_by_python_plans_nothing_of_what_the_walker_has_interpreted():
    planned = []
    with torchy.lazy() as session:
        planner = session._log._planner
        plan, planner.plan = (
            planner.plan,
            lambda trace, *rest: planned.append(trace) or plan(trace, *rest),
        )
        try:
            run_each(["y = x.neg()", "y = x.abs()", "y = x.exp()"])
            assert session.counters["interpreted"] == 3 and not planned
            with torchy.lazy(compile="always"):
                run_each(["y = x.sin()"])
            assert [[op.name for op in trace.ops] for trace in planned] == [["aten::sin"]]
            report = session.report
            assert len(planned) == 4
        finally:
            planner.plan = plan
    assert names(report) == [["neg"], ["abs"], ["exp"], ["sin"]]


def test_only_the_newest_are_planned_for_the_report_and_the_others_counted():
    with torchy.lazy() as session:
        run_each([f"y = x.exp() * {i}.5 - x" for i in range(6)])
        session._log.read(session, most_planned_ops=7)
        report = session.report
    assert names(report) == [["exp", "mul.Tensor", "sub.Tensor"]] * 2
    assert (report.totals.traces, report.totals.ops) == (6, 18)


def test_flushes_of_one_plan_are_planned_once_and_all_told():
    def step(number):
        y = x * number
        torchy.flush()
        return y

    x = torch.randn(4)
    with torchy.lazy() as session:
        step(0.5)
        for i in range(4):
            step(float(i))
        report = session.report
    assert names(report) == [["mul.Tensor"]] * 5


def test_untold_flushes_are_told_once_they_are_many(monkeypatch):
    monkeypatch.setattr(log, "MOST_UNTOLD", 4)
    with torchy.lazy(compile="always") as session:
        run_each(["y = x.neg()"] * 5)
        assert session.builder.report(0).totals.traces == 5
        run_each(["y = x.neg()"] * 2)
        assert session.builder.report(0).totals.traces == 5
        assert session.report.totals.traces == 7
