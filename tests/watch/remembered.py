"""Programs whose values are asked for afterwards; each looks at something now and then."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

PROGRAMS: list[Callable[[], object]] = []


def program(function: Callable[[], object]) -> Callable[[], object]:
    """Note a program."""
    PROGRAMS.append(function)
    return function


@program
def chain() -> object:
    x = torch.linspace(-3, 3, 5000)
    y = (x * 2 + 1).sin().exp().log1p()
    return y.sum().item()


@program
def overwritten() -> object:
    x = torch.linspace(0, 1, 1000)
    for _ in range(5):
        x.mul_(1.5).add_(0.25)
        y = x.sqrt()
        x.sub_(y)
        x.sum().item()
    return x


@program
def dead() -> object:
    x = torch.linspace(-1, 1, 300).view(30, 10)
    for _ in range(3):
        unused = (x + 1).exp() * 3
        del unused
        x = x.t().contiguous().view(30, 10) * 0.9
        x[2].sum().item()
    return x


@program
def views() -> object:
    x = torch.zeros(20, 30)
    for i in range(4):
        x[i::4, 1:-1] += torch.full((5, 28), float(i)).cos()
        x.t()[3].mul_(2)
        x.diagonal().add_(1)
        x.max().item()
    return x


@program
def rows() -> object:
    x = torch.sin(torch.arange(64 * 96.0)).view(64, 96)
    for _ in range(3):
        x = F.layer_norm(F.softmax(x, -1) * x, (96,)) + x.mean(-1, keepdim=True)
        x.var().item()
    return x


@program
def mixed_types() -> object:
    x = torch.arange(-400, 400)
    y = (x.float() * 0.1).to(torch.bfloat16) * 3
    z = torch.where(x > 3, y.double(), x.double() / 7)
    (z > 0.5).sum().item()
    return (z.int() << 1) ^ x.int()


@program
def regression() -> object:
    torch.manual_seed(1)
    x, y = torch.randn(200, 12), torch.randn(200, 3)
    model = nn.Sequential(nn.Linear(12, 32), nn.GELU(), nn.Linear(32, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(6):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        loss.item()
    return loss


@program
def convolutions() -> object:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x = torch.randn(4, 2, 9, 9)
    for _ in range(4):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        loss.item()
    return loss


@program
def data_of_numpy() -> object:
    import numpy

    array = numpy.linspace(0, 1, 997, dtype=numpy.float32)[
        1:
    ]  # does not begin where torch's memory would
    x = torch.from_numpy(array)
    for i in range(4):
        y = torch.tanh(x * i) - x
        y.sum().item()
        array += 0.5
    return y


@program
def no_looks() -> object:
    x = torch.ones(50)
    for i in range(200):
        x = x * 1.01 + i
    return x
