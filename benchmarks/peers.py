"""What is compared: each peer turns a function into one that is called the same way."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from benchmarks.chains import Chain


@dataclass(frozen=True)
class Peer:
    """One way to run a function.

    Parameters
    ----------
    name
        As the table calls it.
    prepare
        Takes a function and example operands; what it returns is called and timed. Its own time counts as part of the
        first call.
    region
        Entered around a batch of calls, and timed with them.
    """

    name: str
    prepare: Callable[[Chain, Sequence[torch.Tensor]], Chain]
    region: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext


def _as_it_is(function: Chain, _: Sequence[torch.Tensor]) -> Chain:
    return function


def _script(function: Chain, examples: Sequence[torch.Tensor]) -> Chain:
    traced: Chain = torch.jit.trace(function, tuple(examples))  # type: ignore[no-untyped-call]
    return traced


def _compile(function: Chain, _: Sequence[torch.Tensor]) -> Chain:
    return torch.compile(function)


def _torchy(function: Chain, _: Sequence[torch.Tensor]) -> Chain:
    import torchy  # noqa: F401  # the import is part of the first call, as it is for torch.compile

    return function


def _lazy() -> AbstractContextManager[object]:
    import torchy

    return torchy.lazy()


def peers() -> list[Peer]:
    """Return all peers, eager first."""
    return [
        Peer("eager", _as_it_is),
        Peer("TorchScript", _script),
        Peer("torch.compile", _compile),
        Peer("Torchy", _torchy, _lazy),
    ]
