"""Flaws are found, on their lines, with what mending them brings; and nothing is said of programs without."""

from __future__ import annotations

import inspect
from pathlib import Path
from time import perf_counter

import pytest
from patients import ILL, WELL

import torchy
from torchy.explain import findings

FILE = str(Path(__file__).with_name("patients.py"))


def examined(program, **settings):
    begin = perf_counter()
    with torchy.lazy(**settings) as session:
        program()
    seconds = perf_counter() - begin
    keeper = session.watch.keeper if session.watch else None
    spent = session.report.totals.watching + session.report.totals.prepared
    return findings(session.report, seconds - spent, {FILE: Path(FILE).read_text()}, keeper)


def line_of(program):
    lines, first = inspect.getsourcelines(program)
    return first + next(i for i, line in enumerate(lines) if "# flaw" in line)


@pytest.mark.parametrize(("program", "kind"), ILL, ids=lambda p: getattr(p, "__name__", None))
def test_a_flaw_is_found_on_its_line(program, kind):
    for _ in range(3):  # what is compiled in the background is there then
        program_findings = examined(program, keep="512MiB", compile="always")
    found = next((f for f in program_findings if f.kind == kind), None)
    assert found is not None, program_findings
    assert (found.file, found.line) == (FILE, line_of(program))
    assert found.lost_seconds > 0
    if kind != "shared":  # what ran as eager is not kept
        assert found.gain_seconds is not None and found.gain_seconds > 0
        assert "measured" in str(found)
    else:
        assert found.gain_seconds is None
    assert found.text and str(found).startswith(f"line {found.line}: ")


@pytest.mark.parametrize("program", WELL, ids=lambda p: p.__name__)
def test_a_program_without_flaws_is_left_in_peace(program):
    for _ in range(3):
        program_findings = examined(program, keep="512MiB", compile="always")
    assert program_findings == ()


def test_no_gain_is_named_where_nothing_is_kept():
    program, _ = ILL[0]
    for _ in range(2):
        found = examined(program, compile="always")
    assert all(f.gain_seconds is None for f in found if f.kind == "look")
