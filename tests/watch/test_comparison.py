"""Each step under Torchy and by eager: times, memory, bits."""

from __future__ import annotations

import pytest
import torch
from remembered import PROGRAMS

import torchy


@pytest.mark.parametrize("compile", ["always", "auto"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_all_bits_are_equal(program, compile):
    with torchy.lazy(compare=True, compile=compile) as session:
        program()
    assert not session.report.events
    rows = session.comparison
    assert rows and all(row.equal for row in rows)
    assert sum(row.count * len(row.ops) for row in rows) == session.counters["recorded"]


def test_what_a_row_says():
    x = torch.linspace(0, 1, 1 << 16)
    with torchy.lazy(compare=True, compile="always") as session:
        for _ in range(3):
            y = (x + 1).exp().mul(2)
            unused = y - 1
            del unused
            torch.nonzero(y)
    kernel, dead = (row for row in session.comparison if row.trace == session.comparison[-1].trace)
    assert (kernel.kind, kernel.names) == ("kernel", ("add", "exp", "mul"))
    assert (dead.kind, dead.names) == ("dead", ("sub",))
    assert (kernel.bytes, kernel.eager_bytes) == (4 << 16, 3 * 4 << 16)
    assert (dead.bytes, dead.seconds) == (0, 0.0)
    assert kernel.seconds > 0 and kernel.eager_seconds > 0 and dead.eager_seconds > 0
    assert kernel.file == __file__ and kernel.line == dead.line - 1
    assert kernel.count in (2, 3)
    assert kernel.text.startswith("kernel add, exp, mul: ")
    assert set(kernel.to_dict()) >= {"seconds", "eager_seconds", "equal"}


def test_other_bits_are_told():
    x = torch.linspace(0, 1, 4096).view(64, 64)
    with torchy.lazy(compare=True, numerics="fast", compile="always") as session:
        y = x.float() * 3
        y.sum().item()
    from torchy.watch import comparison

    assert (
        all(row.equal for row in session.comparison) or comparison
    )  # fast may well have eager's bits
    watch = session.watch
    original = watch._walker.hash
    watch._walker.hash = lambda address, count: (
        original(address, max(0, count - 4)) + bytes([address % 251])
    )
    try:
        same = comparison.same_bits
        comparison.same_bits = lambda one, other: False
        with torchy.lazy(compare=True) as broken:
            (x + 1).sum().item()
        assert not all(row.equal for row in broken.comparison)
        assert "OTHER BITS" in "".join(row.text for row in broken.comparison)
    finally:
        comparison.same_bits = same
        watch._walker.hash = original


def test_it_is_told_if_eager_was_not_run():
    with torchy.lazy() as session:
        torch.ones(3).add(1).sum().item()
    with pytest.raises(RuntimeError, match="eager was not run for comparison"):
        _ = session.comparison
