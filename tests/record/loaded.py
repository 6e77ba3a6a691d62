"""What the test server loads before it forks: torch, and the walker; its allocator is torch's own still."""

import sympy  # noqa: F401 - torch loads it late
import torch

import torchy
from torchy.face import _process

torch.ones(1).exp()  # MKL finds out which processor it runs on
with torchy.lazy(memory_pool=False):
    pass
_process.get().walker.library.torchy_set_planning(0.0)  # the second flush at a place is planned
