"""Whole programs, as notebooks have them: each makes its data, and returns a function that does one step and looks at it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import nn

Step = Callable[[], float]


def attention() -> Step:
    """Attention by hand: 8 heads over 512 tokens."""
    q, k, v = (torch.randn(8, 512, 64) for _ in range(3))

    def step() -> float:
        scores = q @ k.transpose(1, 2) * 64**-0.5
        weights = (scores - scores.amax(-1, keepdim=True)).exp()
        weights = weights / weights.sum(-1, keepdim=True)
        return float((weights @ v).sum().item())

    return step


def layer_norm() -> Step:
    """A layer norm by hand over 8192 rows of 512."""
    x, weight, bias = torch.randn(8192, 512), torch.randn(512), torch.randn(512)

    def step() -> float:
        centred = x - x.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + 1e-5).rsqrt()
        return (centred * scale * weight + bias).sum().item()

    return step


def softmax() -> Step:
    """A softmax by hand over 4096 rows of 1000."""
    x = torch.randn(4096, 1000)

    def step() -> float:
        shifted = (x - x.amax(1, keepdim=True)).exp()
        return (shifted / shifted.sum(1, keepdim=True)).std().item()

    return step


def images() -> Step:
    """Brightness, contrast, gamma and a soft vignette on 16 photographs."""
    photos = torch.rand(16, 3, 256, 256)
    ramp = torch.linspace(-1, 1, 256)
    vignette = 1 - 0.3 * (ramp[:, None].square() + ramp[None].square())

    def step() -> float:
        x = photos * 1.1 + 0.05
        x = (x - x.mean((2, 3), keepdim=True)) * 1.2 + 0.5
        x = x.clamp(0, 1) ** (1 / 2.2) * vignette
        grey = 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]
        return grey.mean().item()

    return step


def n_body() -> Step:
    """One step of 700 bodies that attract each other."""
    position, velocity = torch.randn(700, 3), torch.zeros(700, 3)

    def step() -> float:
        nonlocal position, velocity
        apart = position[None] - position[:, None]
        distance = (apart.square().sum(-1, keepdim=True) + 0.05) ** 1.5
        velocity = velocity + 1e-4 * (apart / distance).sum(1)
        position = position + 1e-2 * velocity
        return position.square().sum().item()

    return step


def mandelbrot() -> Step:
    """20 iterations on 600 x 400 points."""
    re, im = torch.meshgrid(torch.linspace(-2, 1, 600), torch.linspace(-1, 1, 400), indexing="xy")

    def step() -> float:
        x, y = torch.zeros_like(re), torch.zeros_like(im)
        count = torch.zeros_like(re)
        for _ in range(20):
            x, y = x * x - y * y + re, 2 * x * y + im
            inside = x * x + y * y < 4
            count = count + inside
            x, y = torch.where(inside, x, 2.0), torch.where(inside, y, 0.0)
        return count.mean().item()

    return step


def mlp() -> Step:
    """A training step of a small network, with Adam."""
    model = nn.Sequential(
        nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    x, target = torch.randn(128, 64), torch.randint(10, (128,))

    def step() -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), target)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.item()

    return step


def lstm() -> Step:
    """An LSTM by hand, forward and backward, over 60 steps of 32 sequences."""
    x = torch.randn(60, 32, 16)
    inner = torch.randn(16, 256, requires_grad=True)
    outer = torch.randn(64, 256, requires_grad=True)
    bias = torch.zeros(256, requires_grad=True)

    def step() -> float:
        h, c = torch.zeros(32, 64), torch.zeros(32, 64)
        for row in x:
            i, f, g, o = (row @ inner * 0.1 + h @ outer * 0.1 + bias).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        loss = h.square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for weight in (inner, outer, bias):
                assert weight.grad is not None
                weight -= 0.1 * weight.grad
                weight.grad = None
        return loss.item()

    return step


def adamw() -> Step:
    """AdamW by torch, over 200 small tensors."""
    weights = [torch.randn(32, 16, requires_grad=True) for _ in range(200)]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    optimizer = torch.optim.AdamW(weights, 1e-3)

    def step() -> float:
        optimizer.step()
        return weights[0].sum().item()

    return step


def conv_net() -> Step:
    """A training step of a small convolutional network, with SGD."""
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 64, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    x, target = torch.randn(32, 3, 32, 32), torch.randint(10, (32,))

    def step() -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), target)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.item()

    return step


PROGRAMS: Mapping[str, Callable[[], Step]] = {
    make.__name__: make
    for make in (
        attention,
        layer_norm,
        softmax,
        images,
        n_body,
        mandelbrot,
        mlp,
        lstm,
        adamw,
        conv_net,
    )
}
