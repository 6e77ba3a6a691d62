"""Ops that are never to be deferred: a program is the same, in whole sessions and in regions of others."""

import pytest
import torch
import torch.nn.functional as F
from sameness import program

import torchy

NAMES = ("mul", "add,sub", "_softmax native_layer_norm", "tanh,sum,mm,allclose,copy,fill,clone")


def work(x, kept):
    y = (x * 2 + 1).tanh()
    y.mul_(0.5).add_(x, alpha=3)
    z = F.layer_norm(y.softmax(-1), (5,)) - x
    view = z.t()
    view[1] *= 2
    z.fill_diagonal_(0.25)
    kept.append(torch.allclose(z, x))
    many = torch._foreach_add(torch._foreach_mul([x, y], 0.3), [z, z])
    torch._foreach_mul_(many, z.sum().item())
    return y, z, many, (z.t() @ y).sum(0, keepdim=True), z._version


@program(recorded=True, never=NAMES[0])
def test_multiplications_run_at_once(kept):
    return work(torch.linspace(-2, 2, 35).view(7, 5), kept)


@program(never=NAMES[3])
def test_many_kinds_run_at_once(kept):
    return work(torch.linspace(-2, 2, 35).view(7, 5), kept)


@program
@pytest.mark.parametrize("names", NAMES)
def test_in_a_region_within(names, kept):
    x = torch.linspace(-2, 2, 35).view(7, 5)
    found = []
    for turn in range(3):
        x = x * 1.5
        if torchy.current_session() is None:
            found += work(x, kept)
        else:
            with torchy.lazy(never=names):
                found += work(x, kept)
        found.append(x + turn)
    return found


@program(never="mul,sum,tanh")
def test_with_gradients(kept):
    w = torch.linspace(-1, 1, 35).view(7, 5).requires_grad_()
    for _ in range(3):
        loss = ((w * 2).tanh() * w).sum()
        loss.backward()
        with torch.no_grad():
            w.mul_(0.9).sub_(w.grad)
        kept.append(loss.item())
    return w, w.grad, w._version
