"""torch's OpenMP pool, reached through libgomp: kernels run on the very threads that eager's do."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
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


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Have MKL's vector functions stay on this thread.

    Else they start the pool for a few hundred values, and in a child that was forked after that they wait for threads
    that are not there.
    """
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    choose = getattr(library, "MKL_Set_Num_Threads_Local", None)  # not with every build of torch
    before = choose(1) if choose is not None else 0
    try:
        yield
    finally:
        if choose is not None:
            choose(before)
