"""Random programs while what is kept between flushes is evicted all the time."""

from __future__ import annotations

import gc

from allocator import ALLOCATOR
from batch import drawing
from bounds import resident
from programs import Program, disagreement, run

import torchy
from torchy.face import _process


def with_small_caches(places: int, plans: int, kernels: int) -> None:
    """Have the process keep less than it does."""
    with torchy.lazy():
        runtime = _process.runtime
    runtime.upkeep.most_places = places
    runtime.plans.capacity, runtime.kernels._ready.capacity = plans, kernels


def footprints(tier: str, shares: int, count: int) -> list[int]:
    """Return the resident memory, in bytes, after each share of programs."""
    with_small_caches(1000, 128, 64)
    found = []
    for share in range(shares):

        @drawing(share, count, shrink=False)
        def each(program: Program) -> None:
            run(program, torchy.lazy(compile=tier, **program.settings))

        each()
        gc.collect()
        ALLOCATOR.malloc_trim(0)
        found.append(resident())
    return found


def disagreements(tier: str, count: int) -> list[str]:
    """Return how programs differ from eager where nothing is kept for long."""
    with_small_caches(20, 2, 2)
    found = []

    @drawing(7, count, shrink=False)
    def each(program: Program) -> None:
        found.extend(disagreement(program, tier))

    each()
    return found
