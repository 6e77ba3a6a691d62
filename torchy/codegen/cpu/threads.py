"""torch's OpenMP pool, reached through libgomp: kernels run on the very threads that eager's do."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import torch

from torchy.background import Background

GRAIN: Final = 32768  # elements for each thread, at least; as ATen
SYMBOLS: Final = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")


def pool() -> dict[str, int]:
    """Return the addresses of the pool's functions, empty if it cannot be had (kernels then run on one thread)."""
    library = _openmp()
    if library is None:
        return {}
    return {name: ctypes.cast(library[name], ctypes.c_void_p).value or 0 for name in SYMBOLS}


def _openmp() -> ctypes.CDLL | None:
    """Return torch's own libgomp, None if it has none."""
    path = Path(torch.__file__).parent / "lib" / "libgomp.so.1"
    used: bool = torch.backends.openmp.is_available()  # type: ignore[no-untyped-call]
    return ctypes.CDLL(str(path)) if used and path.exists() else None


def apart(work: Callable[[], str]) -> str:
    """Do something on a thread that has a pool of its own; return what it returns, raise what it raises.

    In a child that was forked, the pool of its first thread waits for threads that are not there.
    """
    found: list[str] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:  # the caller raises it
            failed.append(error)

    thread = Background(run)
    thread.start()
    try:
        thread.join()
    finally:  # an interrupt waits for it, too: a process must not end in the midst of LLVM
        thread.join()
    if failed:
        raise failed[0]
    return found[0]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Have what this thread computes stay on it: eager's loops, kernels, and MKL's vector functions.

    Else they start the pool for a few hundred values. In a child that was forked after that they wait for threads that are
    not there; and beside the pool of the program's own thread, one more has each region of both wait for its turn.
    """
    torch.get_num_threads()  # which tells OpenMP of this thread how many there are, the first time
    folder = Path(torch.__file__).parent / "lib"
    library = ctypes.CDLL(str(folder / "libtorch_cpu.so"))
    choose = getattr(library, "MKL_Set_Num_Threads_Local", None)  # not with every build of torch
    before = choose(1) if choose is not None else 0
    openmp = _openmp()
    threads = openmp.omp_get_max_threads() if openmp is not None else 1
    if openmp is not None:
        openmp.omp_set_num_threads(1)
    try:
        yield
    finally:
        if openmp is not None:
            openmp.omp_set_num_threads(threads)
        if choose is not None:
            choose(before)
