"""Each step under Torchy and by eager: times, memory, bits."""

from __future__ import annotations

import pytest
import torch
from remembered import PROGRAMS

import torchy
from torchy.watch import comparison


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


def test_other_bits_are_told(monkeypatch):
    x = torch.linspace(0, 1, 4096)
    with torchy.lazy(compare=True) as session:
        (x + 1).sum().item()
        walker = session.watch._walker
        monkeypatch.setattr(walker, "hash", lambda address, count: bytes([address % 251]))
        monkeypatch.setattr(comparison, "same_bits", lambda one, other: False)
        (x + 2).sin().sum().item()
    equal, other = session.comparison[0], session.comparison[-1]
    assert equal.equal and equal.text.endswith("equal")
    assert not other.equal and other.text.endswith("OTHER BITS")


def test_it_is_told_if_eager_was_not_run():
    with torchy.lazy() as session:
        torch.ones(3).add(1).sum().item()
    with pytest.raises(RuntimeError, match="eager was not run for comparison"):
        _ = session.comparison
