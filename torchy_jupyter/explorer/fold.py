"""Folds repeats: twelve parameters updated alike, or a loop's body, are shown once, as "×12"."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

LONGEST = 64  # of a repeated pattern, in ops
LEAST = 3  # repeats that are worth folding


def fold_repeats(tokens: Sequence[Hashable]) -> list[int]:
    """Find stretches that repeat one behind the other.

    Parameters
    ----------
    tokens
        What must be equal for two items to be shown as one.

    Returns
    -------
    list of int
        For each item the item that stands for it: itself, or its like in the first repeat.

    Examples
    --------
    >>> fold_repeats(["mul", "add", "mul", "add", "mul", "add", "sum"])
    [0, 1, 0, 1, 0, 1, 6]
    """
    numbers: dict[Hashable, int] = {}  # which are compared faster
    tokens = [numbers.setdefault(token, len(numbers)) for token in tokens]
    stands_for = list(range(len(tokens)))
    start = 0
    while start < len(tokens):
        period, repeats = _best_repeat(tokens, start)
        for index in range(start, start + period * repeats):
            stands_for[index] = start + (index - start) % period
        start += period * repeats
    return stands_for


def _best_repeat(tokens: Sequence[Hashable], start: int) -> tuple[int, int]:
    """Return the period and repeats that cover most; (1, 1) if nothing repeats from here."""
    best = (1, 1)
    for period in range(1, min(LONGEST, (len(tokens) - start) // LEAST) + 1):
        pattern = tokens[start : start + period]
        repeats = 1
        while True:
            follows = start + repeats * period
            if tokens[follows : follows + period] != pattern:
                break
            repeats += 1
        if repeats >= LEAST and repeats * period > best[0] * best[1]:
            best = (period, repeats)
    return best
