"""torch's OpenMP pool, reached through libgomp: kernels run on the very threads that eager's do."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Final

import torch

GRAIN: Final = 32768  # elements for each thread, at least; as ATen
SYMBOLS: Final = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")


def pool() -> dict[str, int]:
    """Return the addresses of the pool's functions, empty if it cannot be had (kernels then run on one thread)."""
    path = Path(torch.__file__).parent / "lib" / "libgomp.so.1"
    openmp: bool = torch.backends.openmp.is_available()  # type: ignore[no-untyped-call]
    if not path.exists() or not openmp:
        return {}
    library = ctypes.CDLL(str(path))
    return {name: ctypes.cast(library[name], ctypes.c_void_p).value or 0 for name in SYMBOLS}
