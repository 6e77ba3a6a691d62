"""Flushes that the walker interprets at each visit: their places are known, but a plan would not pay yet."""

import torch
from sameness import program
from tiers import TIERS

import torchy
from torchy.face import _process


def interpret_all():
    """Have no flush planned, in this process."""
    if _process.runtime is not None:
        _process.get().walker.library.torchy_set_planning(1.0)


TURNS = 6


@program(recorded=True, times=4)
def test_what_is_live_changes():
    interpret_all()
    x, kept = torch.linspace(-1, 1, 12), []
    for turn in range(TURNS):
        a = x * 2.5
        b = a.exp() + a
        c = b - x
        d = c.add_(1) * a
        if turn % 2:
            del a, c
            kept.append(b)
        if turn % 3 == 0:
            del b
        kept += [d, d.sum().item()]
        (x + turn).sum().item()
    return kept


@program(recorded=True, times=4)
def test_numbers_sizes_and_strides_change():
    interpret_all()
    results = []
    for turn in range(TURNS):
        x = torch.arange(4.0 * (turn + 2)).reshape(4, turn + 2)
        y = (x.t() if turn % 3 == 2 else x) * (turn + 0.5) + turn
        z = torch.where(y > 3, y, -y)
        results += [y, z, z.max().item()]
    return results


@program(recorded=True, times=4)
def test_writes_views_and_inputs_that_are_dropped():
    interpret_all()
    results = []
    for turn in range(TURNS):
        base = torch.zeros(3, 4)
        base[1].add_(turn)
        row = base.mul_(2)[1]
        base.t().add_(torch.arange(3.0))
        results += [row + 1, base.sum().item(), base]
        del base, row
    return results


@program(times=4)
def test_an_op_raises_at_the_flush_in_one_of_the_turns():
    interpret_all()
    results = []
    for turn in range(TURNS):
        x = torch.ones(3, 3) * turn
        y = x.exp() + 1
        try:
            results += [y, torch.linalg.cholesky(y - turn * 2 * torch.eye(3)).sum().item()]
        except RuntimeError as error:
            results.append(str(error))
    return results


@program(recorded=True, times=4)
def test_gradients_are_computed():
    interpret_all()
    w = torch.linspace(-1, 1, 6).reshape(2, 3).requires_grad_()
    results = []
    for turn in range(TURNS):
        loss = ((w * turn).tanh() @ torch.ones(3)).square().sum()
        loss.backward()
        with torch.no_grad():
            w -= 0.1 * w.grad
        results += [loss.item(), w.grad.clone(), w.detach().clone()]
        w.grad = None
    return results


@TIERS
def test_they_are_told_as_interpreted_and_planned_once_it_pays(compile):
    interpret_all()
    x = torch.ones(5)
    with torchy.lazy(compile=compile) as session:
        for _ in range(5):
            (x * 2.5 + 1).exp().sum().item()
        before = session.counters["interpreted"]
        _process.get().walker.library.torchy_set_planning(0.0)
        for _ in range(5):
            (x * 2.5 + 1).exp().sum().item()
    assert before == (0 if compile == "always" else 5)
    assert [trace.tier for trace in session.report.traces[:5]] == [
        "compiled" if compile == "always" else "interpreted"
    ] * 5
    assert len(session.report.traces) == 10
