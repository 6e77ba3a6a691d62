"""How the walker launches a kernel: the words of its step. See `record/walker/pack.cpp`.

::

    how the space is walked: 0 in any strides, 1 as one run, 2 row by row, 3 columns side by side, 4 row by row however
    these lie, 5 as one row
    how many elements a row, or a block of columns, can have, and if there is no other row; of how many a row must have fewer
    to be done side by side with others; the dimensions that make up a row, as bits
    n, (offset in the recording's words, rank, buffer, item size, mode)[n]     the space, then each access
    n, numbers[n]
    what is filled in, n, sizes and strides of these views as they were last[n], arguments

where the walker lays out the kernel's arguments (see `driver.py`): while sizes and strides stay, a launch only fills in
addresses and numbers. What is filled in: 0 nothing, 1 the arguments, 2 arguments for one thread only, or less than 0: why
these layouts are none that the kernel may be launched for (:class:`torchy.record.codes.Refusal`).
"""

from __future__ import annotations

from collections.abc import Sequence

from torchy.codegen.cpu.driver import HEADER
from torchy.ir.kernel import WHOLE, KernelForm
from torchy.ir.words import ViewWords
from torchy.record.codes import MODES

# how the space is walked, for the walker
_STRIDED, _LINEAR, _ROWS, _COLUMNS, _LOOSE_ROWS, _WHOLE = range(6)


def launch_words(
    form: KernelForm,
    space: ViewWords,
    accesses: Sequence[ViewWords],
    numbers: Sequence[int],
    reduced: Sequence[int],
    most_elements: int,
    fewer_than: int,
) -> list[int]:
    """Return the kernel's part of a step; nothing is laid out yet. See :class:`torchy.codegen.backend.Kernel`.

    Parameters
    ----------
    most_elements
        How many a row, or a block of columns, can have.
    fewer_than
        Of how many a row must have fewer to be done side by side with others.
    """
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
    walk = _LINEAR if form.flat else _STRIDED
    if form.has_rows:
        walk = _COLUMNS if form.has_columns else _LOOSE_ROWS if form.has_loose_rows else _ROWS
        walk = _WHOLE if form.axes == WHOLE else walk
    bits = sum(1 << dimension for dimension in reduced)
    return [
        walk,
        most_elements,
        form.alone,
        fewer_than,
        bits,
        1 + len(accesses),
        *places,
        len(numbers),
        *numbers,
        *room,
    ]
