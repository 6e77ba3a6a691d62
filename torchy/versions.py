"""Versions of torch that Torchy makes a difference between."""

from __future__ import annotations

from typing import Final

import torch

OLDEST_TORCH: Final = (2, 13)  # that is supported
TORCH: Final = tuple(int(part) for part in torch.__version__.split(".")[:2])
