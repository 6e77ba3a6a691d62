"""How much memory a program takes at its peak, eagerly and under Torchy."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from pathlib import Path

from allocator import ALLOCATOR, M_MMAP_THRESHOLD
from sameness import wait_for_kernels
from tiers import COMPILED

MIB = 2**20


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Peak:
    """The highest resident memory within its block, as the kernel counts it, above that at its begin."""

    def __enter__(self):
        wait_for_kernels()  # what earlier tests want does not count
        gc.collect()
        ALLOCATOR.malloc_trim(0)  # what was freed before does not count
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
        self.start = resident()
        return self

    def __exit__(self, *error):
        status = Path("/proc/self/status").read_text()
        highest = int(status.partition("VmHWM:")[2].split()[0]) * 1024
        self.bytes = max(highest, resident()) - self.start


def peaks(body: Callable, warm: int = 1, **settings: object) -> tuple[int, int]:
    """Return the memory that a program needs eagerly and under Torchy, both measured warm."""
    import torchy

    ALLOCATOR.mallopt(M_MMAP_THRESHOLD, MIB)  # large blocks come and go, whatever was freed before
    for _ in range(warm):
        body()
        with torchy.lazy(**settings):
            body()
    with Peak() as eager:
        body()
    with Peak() as lazily, torchy.lazy(**settings):
        body()
    return eager.bytes, lazily.bytes


def assert_bounded(eager: int, lazily: int) -> None:
    """Rule 9's own words."""
    assert lazily <= eager * 1.05 + 16 * MIB, (
        f"eager {eager / MIB:.1f} MiB, torchy {lazily / MIB:.1f} MiB"
    )


def bounded(body: Callable) -> Callable:
    """Turn a program into a test, on both tiers (op by op only on demand): it peaks no higher than rule 9 allows."""

    @functools.wraps(body)
    def test(compile: str) -> None:
        assert_bounded(*peaks(body, compile=compile))

    del test.__wrapped__  # its signature is what pytest reads
    return COMPILED(test)
