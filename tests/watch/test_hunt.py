"""NaNs and infinities are found where they are born: op, line, turn; and nowhere else."""

from __future__ import annotations

import pytest
import torch
from hunted import BORN, NONE, line_of

import torchy

TIERS = ["always", "auto", pytest.param("never", marks=pytest.mark.slow)]


@pytest.mark.parametrize("compile", TIERS)
@pytest.mark.parametrize(
    ("program", "op", "kind", "iteration"), BORN, ids=lambda p: getattr(p, "__name__", None)
)
def test_the_op_the_line_and_the_turn(program, op, kind, iteration, compile):
    with torchy.lazy(nan=True, compile=compile) as session:
        program()
    assert not session.report.events
    found = session.first_nan
    assert (found.short, found.kind, found.line) == (op, kind, line_of(program)), found
    assert found.file == program.__code__.co_filename
    assert found.iteration == iteration
    assert found.operands and (found.count is None or found.count > 0)
    for record in session.report.traces:
        assert record.listing and len(record.ops) == len(record.trace.ops)
        assert all(group.bytes_moved is not None for group in record.groups)
        assert record.plan_listing


@pytest.mark.parametrize("compile", TIERS)
@pytest.mark.parametrize("program", NONE, ids=lambda p: p.__name__)
def test_none_where_none_is_born(program, compile):
    with torchy.lazy(nan=True, compile=compile) as session:
        program()
    assert session.first_nan is None
    assert not session.report.events


def test_what_operands_were_like():
    x = torch.tensor([4.0, 0.0, -1.0, float("inf")])
    with torchy.lazy(nan=True) as session:
        y = x + 0
        y.log().sum().item()
    found = session.first_nan
    [operand] = found.operands
    assert (operand.least, operand.greatest, operand.nans, operand.infinities) == (-1.0, 4.0, 0, 1)
    assert operand.text == "%1: f32[4], -1 to 4, 1 inf"
    assert found.op == "%2: f32[4] = log(%1)"
    assert (found.trace, found.index, found.step, found.count) == (0, 1, 0, 1)


def test_it_is_told_if_nobody_looked():
    with torchy.lazy() as session:
        (torch.zeros(3) / 0).sum().item()
    with pytest.raises(
        RuntimeError, match=r"NaNs were not looked for: record with torchy.lazy\(nan=True\)"
    ):
        _ = session.first_nan


def test_a_watched_program_has_eagers_bits():
    def program():
        torch.manual_seed(3)
        x = torch.randn(40, 40)
        for _ in range(4):
            x = (x.tanh() @ x).log1p().nan_to_num() * 0.1
            x.sub_(x.mean(0, keepdim=True))
            x.sum().item()
        return x

    expected = program()
    for compile in ("always", "never", "auto"):
        with torchy.lazy(nan=True, keep="64MiB", compare=True, compile=compile) as session:
            found = program()
        assert torch.equal(found.view(torch.int32), expected.view(torch.int32))
        assert session.comparison and all(row.equal for row in session.comparison)
        assert not session.report.events
