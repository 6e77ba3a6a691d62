"""Programs with a known flaw, on the line that says so; and programs without."""

from __future__ import annotations

from collections.abc import Callable

import numpy
import torch
import torch.nn.functional as F
from torch import nn

ILL: list[tuple[Callable[[], object], str]] = []
WELL: list[Callable[[], object]] = []

SMALL = torch.linspace(0, 1, 2000)
LARGE = torch.linspace(0, 1, 1 << 20)
WIDE = torch.linspace(0, 1, 1 << 20, dtype=torch.float64)


def ill(kind: str):
    """Note a program with a flaw of a kind."""

    def note(function):
        ILL.append((function, kind))
        return function

    return note


def well(function):
    """Note a program without."""
    WELL.append(function)
    return function


@ill("look")
def an_element_in_a_loop():
    x = LARGE
    for _ in range(40):
        x = x * 0.999
        x[0].item()  # flaw


@ill("look")
def a_condition_in_a_loop():
    x = LARGE
    for _ in range(40):
        x = x * 0.999
        if x[5] > 5:  # flaw
            break


@ill("look")
def a_float_in_a_loop():
    x = LARGE
    total = 0.0
    for _ in range(40):
        x = x + 0.001
        total += float(x[-1])  # flaw
    return total


@ill("look")
def a_list_in_a_loop():
    x = LARGE
    for _ in range(40):
        x = x.neg()
        x[:3].tolist()  # flaw


@ill("look")
def numpy_in_a_loop():
    x = LARGE
    seen = []
    for _ in range(40):
        x = x.abs() * 0.5
        seen.append(x[:2].clone().numpy())  # flaw
    return seen


@ill("look")
def printed_in_a_loop():
    x = LARGE
    for _ in range(40):
        x = x * 1.001
        str(x[7])  # flaw


@ill("dtype")
def a_weight_in_double():
    x = LARGE
    for _ in range(4):
        y = x * WIDE  # flaw
        y = (y + 1).sin().exp()
        y = (y * 2).cos()
        y = (y - 1).abs().sqrt() * 0.5
        y = (y + 0.1).log().neg()
    return y.sum().item()


@ill("dtype")
def data_of_numpy_in_double():
    mean = torch.tensor(numpy.linspace(0, 1, 1 << 10))
    x = LARGE.view(1 << 10, 1 << 10)
    z = (x - mean).abs()  # flaw
    for _ in range(6):
        z = (z + 1).log().exp()
    return z.sum().item()


@ill("dtype")
def a_mask_in_double():
    x = LARGE
    mask = (WIDE > 0.5).double()
    for _ in range(3):
        y = x * mask  # flaw
        y = y.tanh() + y.sin()
        y = (y * y).exp()
        y.sum().item()


@ill("made")
def a_ramp_in_a_loop():
    x = LARGE
    for _ in range(20):
        x = x + torch.linspace(0, 1, 1048576)  # flaw
    return x.sum().item()


@ill("made")
def an_identity_in_a_loop():
    a = torch.ones(1000, 1000)
    for _ in range(20):
        a = a * 0.5 + torch.eye(1000, 1000)  # flaw
    return a.sum().item()


@ill("made")
def positions_in_a_loop():
    x = torch.zeros(1 << 20)
    for _ in range(20):
        p = torch.arange(1048576, dtype=torch.float32)  # flaw
        x = x + p
    return x.sum().item()


@ill("shared")
def handed_to_numpy():
    x = LARGE * 1
    array = x.numpy()
    for _ in range(10):
        y = (x * 2).sin()  # flaw
    return y.sum().item() + array[0]


@ill("shared")
def written_beside_numpy():
    x = LARGE * 1
    array = x.numpy()
    for _ in range(15):
        x.mul_(0.9)  # flaw
    return array[0]


@ill("shared")
def of_numpys_memory():
    x = LARGE.clone()
    view = numpy.asarray(x)
    total = 0
    for _ in range(10):
        total = total + x.exp()  # flaw
    return total[0].item() + view[0]


@well
def chain():
    x = LARGE
    for _ in range(30):
        x = x * 0.99 + 0.01
    return x.sum().item()


@well
def one_look():
    return (LARGE * 2).sin().sum().item()


@well
def looks_that_are_apart():
    for scale in (1.0, 2.0, 3.0):
        (LARGE * scale).sin().sum().item()


@well
def training():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 512))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = torch.randn(512, 512)
    for _ in range(10):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), x)
        loss.backward()
        optimizer.step()
        loss.item()


@well
def all_in_double():
    x = WIDE
    for _ in range(5):
        x = (x * 1.01).sin()
    return x.sum().item()


@well
def a_double_number():
    x = LARGE
    scale = torch.tensor(0.5, dtype=torch.float64)
    for _ in range(5):
        x = (x * scale).sin()
    return x.sum().item()


@well
def made_before_the_loop():
    ramp = torch.linspace(0, 1, 1048576)
    x = LARGE
    for _ in range(20):
        x = x + ramp
    return x.sum().item()


@well
def made_anew_each_time():
    x = LARGE
    for turn in range(20):
        x = x + torch.full((1048576,), float(turn))
    return x.sum().item()


@well
def a_copy_for_numpy():
    x = LARGE * 1
    array = x.numpy().copy()
    x = LARGE * 1
    for _ in range(10):
        x = (x * 2).sin()
    return x.sum().item() + array[0]


@well
def products():
    a = torch.ones(400, 400)
    for _ in range(20):
        a = a @ a * 1e-3
        a[0, 0].item()


@well
def rows():
    x = LARGE.view(1024, 1024)
    return F.layer_norm(F.softmax(x, -1), (1024,)).sum().item()


@well
def short():
    return (torch.ones(10) + 1).sum().item()


@well
def nothing():
    return None


@well
def convolutions():
    x = torch.ones(4, 8, 64, 64)
    layer = nn.Conv2d(8, 16, 3)
    with torch.no_grad():
        for _ in range(10):
            layer(x).relu().mean().item()


@well
def sums_after_the_loop():
    x = SMALL
    sums = []
    for _ in range(300):
        x = x * 0.99 + 0.01
        sums.append(x.sum())
    return torch.stack(sums).sum().item()
