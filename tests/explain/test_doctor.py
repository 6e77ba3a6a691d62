"""Flaws are found, on their lines, with what mending them brings; and nothing is said of programs without."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from patients import ILL, WELL

import torchy
from torchy.explain import doctor, findings
from torchy.explain.played import gain

FILE = str(Path(__file__).with_name("patients.py"))


def reckoned(one, other):
    """Return what a change brings, reckoned from what moves and is computed: the same on any machine, however busy."""
    costs = []
    for each in (one, other):
        with torch.no_grad(), torchy.lazy(compile="always") as session:
            each()
        cost = 0.0
        for record in session.report.traces:
            moved = sum(group.bytes_moved for group in record.groups)
            made = sum(r.nbytes for op in record.ops if not op.dead for r in op.results if r)
            cost += 15e-6 + (moved + made / 2) / 16e9
        costs.append(cost)
    return costs[0] - costs[1]


def examined(program, seconds=0.01, **settings):
    with torchy.lazy(**settings) as session:
        program()
    keeper = session.watch.keeper if session.watch else None
    return findings(session.report, seconds, {FILE: Path(FILE).read_text()}, keeper)


def line_of(program):
    lines, first = inspect.getsourcelines(program)
    return first + next(i for i, line in enumerate(lines) if "# flaw" in line)


@pytest.mark.parametrize(
    "measure", [reckoned, pytest.param(gain, marks=pytest.mark.slow)], ids=["reckoned", "measured"]
)
@pytest.mark.parametrize(("program", "kind"), ILL, ids=lambda p: getattr(p, "__name__", None))
def test_a_flaw_is_found_on_its_line(program, kind, measure, monkeypatch):
    monkeypatch.setattr(doctor, "gain", measure)
    found = next(
        (f for f in examined(program, keep="512MiB", compile="always") if f.kind == kind), None
    )
    assert found is not None
    assert (found.file, found.line) == (FILE, line_of(program))
    assert found.lost_seconds > 0
    if kind != "shared":  # what ran as eager is not kept
        assert found.gain_seconds is not None and found.gain_seconds > 0
        assert "measured" in str(found)
    else:
        assert found.gain_seconds is None
    assert found.text and str(found).startswith(f"line {found.line}: ")


@pytest.mark.parametrize("program", WELL, ids=lambda p: p.__name__)
def test_a_program_without_flaws_is_left_in_peace(program, monkeypatch):
    monkeypatch.setattr(doctor, "gain", reckoned)
    assert examined(program, seconds=0.05, keep="512MiB", compile="always") == ()


def test_no_gain_is_named_where_nothing_is_kept():
    program, _ = ILL[0]
    found = examined(program, compile="always")
    assert all(f.gain_seconds is None for f in found if f.kind == "look")
