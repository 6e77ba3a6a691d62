"""How the walker launches a kernel: the words of its step. See `record/walker/pack.cpp`.

::

    1 if the kernel is for linear accesses only
    n, (offset in the recording's words, rank, buffer, item size, mode)[n]     the space, then each access
    n, numbers[n]
    1 if the rest is filled in, n, sizes and strides of these views as they were last[n], arguments

where the walker lays out the kernel's arguments (see `driver.py`): while sizes and strides stay, a launch only fills in
addresses and numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

from torchy.codegen.cpu.driver import HEADER
from torchy.ir.kernel import KernelForm
from torchy.ir.words import ViewWords
from torchy.record.codes import MODES


def launch_words(
    form: KernelForm, space: ViewWords, accesses: Sequence[ViewWords], numbers: Sequence[int]
) -> list[int]:
    """Return the kernel's part of a step; nothing is laid out yet. See :class:`torchy.codegen.backend.Kernel`."""
    modes = [MODES.index(access.mode) for access in form.accesses]
    places = [
        word
        for view, mode in zip((space, *accesses), (0, *modes), strict=True)
        for word in (*view, mode)
    ]
    known = 2 * sum(view.rank for view in (space, *accesses))
    rows = 1 + max(space.rank, 1)  # one may be put before those of the space
    packed = HEADER + 2 * len(accesses) + len(numbers) + rows * (1 + len(accesses))
    room = (0, known, *[0] * (known + packed))
    return [form.flat, 1 + len(accesses), *places, len(numbers), *numbers, *room]
