"""What the test server loads before it forks: torch, the parts of it that come late, and the walker."""

import contextlib

import sameness  # noqa: F401
import sympy  # noqa: F401
import torch
import torch._dynamo
import torch.func
import torch.testing
import torch.utils.flop_counter

# MKL finds out at its first call which processor it runs on; where two threads call at once, one may get a coarser exp.
torch.ones(1).exp()

with contextlib.suppress(ImportError):
    import torchy

    with torchy.lazy():
        pass  # loads the walker; no thread starts
    torchy.face._process.get().walker.library.torchy_set_planning(
        0.0
    )  # few visits: planned at once
