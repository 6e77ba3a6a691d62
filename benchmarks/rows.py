"""Rows, columns, activations and random numbers between their neighbours, eager and Torchy by turns: prints a line of JSON.

In one process, so that eager has Torchy's memory pool too; each result is looked at, and all bits are compared.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F

import torchy
from benchmarks.measure import Contender, in_turns

Body = Callable[[], torch.Tensor]

SECONDS = 2.0  # of rounds, each
MANY = 4_000_000


def bodies() -> Mapping[str, Body]:
    """Return what is measured, by name."""
    torch.manual_seed(0)
    x, y, weight, bias = (
        torch.randn(8192, 512),
        torch.randn(8192, 512),
        torch.rand(512),
        torch.rand(512),
    )
    table, points, line = torch.randn(200_000, 32), torch.randn(700, 3), torch.randn(20_000)
    samples, centres = torch.randn(100_000, 16), torch.randn(8, 16)
    a, b, few, small = torch.randn(MANY), torch.randn(MANY), torch.randn(16), torch.randn(4096)

    def by_hand(t: torch.Tensor) -> torch.Tensor:
        e = (t - t.amax(-1, keepdim=True)).exp()
        return e / e.sum(-1, keepdim=True)

    def rms_norm(t: torch.Tensor) -> torch.Tensor:
        return t * torch.rsqrt(t.pow(2).mean(-1, keepdim=True) + 1e-6) * weight

    return {
        "(d * d).sum(-1), 700 x 700 x 3": lambda: ((points[None] - points[:, None]) ** 2).sum(-1),
        "distances, 100,000 x 8 x 16": lambda: ((samples[:, None] - centres) ** 2).sum(-1),
        "var(-1)": lambda: x.var(-1),
        "rolling std, 20,000 by 20": lambda: line.unfold(0, 20, 1).std(-1),
        "standardise 200,000 x 32": lambda: (table - table.mean(0)) / table.std(0),
        "RMS norm by hand": lambda: rms_norm(x),
        "softmax by hand": lambda: by_hand(x),
        "softmax": lambda: torch.softmax(x, -1),
        "softmax(x / 8 + y)": lambda: torch.softmax(x * 0.125 + y, -1),
        "log_softmax(x + y)": lambda: torch.log_softmax(x + y, -1),
        "logsumexp": lambda: torch.logsumexp(x, -1),
        "layer norm": lambda: F.layer_norm(x, (512,), weight, bias),
        "layer norm of x + y": lambda: F.layer_norm(x + y, (512,), weight, bias),
        "silu(a) * b, 4 M": lambda: F.silu(a) * b,
        "sigmoid(a) * tanh(b), 4 M": lambda: torch.sigmoid(a) * torch.tanh(b),
        "mse_loss, 4,096": lambda: F.mse_loss(small, small + 1),
        "(a + a).sum(), 16": lambda: (few + few).sum(),
        "mean absolute error, 4 M": lambda: (a - b).abs().mean(),
        "mse_loss, 4 M": lambda: F.mse_loss(a, b),
        "isnan(a).any(), 4 M": lambda: torch.isnan(a).any(),
        "(a > b).sum(), 4 M": lambda: (a > b).sum(),
        "sum(), 4 M": lambda: a.sum(),
        "dropout(x + y, 0.1)": lambda: F.dropout(x + y, 0.1),
        "randn(8192, 512) * 2 + 1": lambda: torch.randn(8192, 512) * 2 + 1,
        "rand(8192, 512) < x": lambda: torch.rand(8192, 512) < x,
    }


def measure(body: Body) -> dict[str, Any]:
    """Time one body both ways; ratios are medians of the rounds' own."""

    def run() -> None:
        body().flatten()[0].item()

    torch.manual_seed(0)
    expected = body()
    with torchy.lazy(compile="always"):
        for _ in range(4):
            torch.manual_seed(0)
            found = body()
            run()
    times = in_turns({"eager": Contender(run), "torchy": Contender(run, torchy.lazy)}, SECONDS)
    pairs = zip(times["eager"], times["torchy"], strict=True)
    return {
        "eager": median(times["eager"]),
        "torchy": median(times["torchy"]),
        "ratio": median(eager / lazily for eager, lazily in pairs),
        "equal": torch.equal(found, expected),
    }


if __name__ == "__main__":
    print(json.dumps({name: measure(body) for name, body in bodies().items()}))
