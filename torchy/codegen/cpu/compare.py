"""What it takes to hold a kernel against eager: something that runs a form, and whether bits are equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import torch

from torchy.ir.dtypes import word_of
from torchy.ir.kernel import KernelForm

_own: Final = torch._C._VariableFunctions  # torch's, whatever the program has put in their place


class Run(Protocol):
    """What runs a kernel."""

    def __call__(
        self,
        sizes: Sequence[int],
        tensors: list[torch.Tensor],
        numbers: list[Any],
        *results: torch.Tensor,
    ) -> None:
        """Run it for a space of some sizes; what is UNIT lies along the last of these."""


Compile = Callable[[KernelForm], Run]


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Tell if two tensors are equal to the last bit, where any NaN equals any NaN."""
    if a.dtype is not b.dtype or a.shape != b.shape:
        return False
    if not a.dtype.is_floating_point:
        return _own.equal(a, b)
    equal = _own.eq(a.view(word_of(a.dtype)), b.view(word_of(b.dtype)))
    return bool(_own.all(_own.logical_or(equal, _own.logical_and(_own.isnan(a), _own.isnan(b)))))
