"""The paper's microbenchmark: a chain of pointwise ops on square float32 operands, with one result."""

from __future__ import annotations

from collections.abc import Callable

import torch

Chain = Callable[..., torch.Tensor]

LENGTHS = (8, 16, 32)
SIZES = (100, 1000, 4096)
OPERANDS = 9


def chain(length: int) -> Chain:
    """Return a function of nine tensors that calls so many ops (a multiple of 8), one after the other."""

    def run(
        a: torch.Tensor,
        b: torch.Tensor,
        c: torch.Tensor,
        d: torch.Tensor,
        e: torch.Tensor,
        f: torch.Tensor,
        g: torch.Tensor,
        h: torch.Tensor,
        i: torch.Tensor,
    ) -> torch.Tensor:
        x = ((a + b) * c / d + e - f) * g / h + i
        for _ in range(length // 8 - 1):
            x = ((x - b) * c / d + e - f) * g / h + i
        return x

    return run


def operands(size: int) -> list[torch.Tensor]:
    """Return the nine operands, ``size`` x ``size``, of values from 0.5 to 1.5."""
    generator = torch.Generator().manual_seed(size)
    return [torch.rand(size, size, generator=generator) + 0.5 for _ in range(OPERANDS)]


def bytes_to_move(size: int) -> int:
    """Return what no implementation can avoid: each operand is read once, the result written once."""
    return (OPERANDS + 1) * size * size * 4


def look(result: torch.Tensor) -> float:
    """Look at one value of a result, as every peer must in every call."""
    return result.view(-1)[-1].item()
