"""Where the layouts of a trace's views lie in the words of a recording: for each view its offset, sizes and strides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torchy.ir.trace import Layout, Trace, View


class ViewWords(NamedTuple):
    """Where one view's layout begins, and what is known of the view without it."""

    at: int
    rank: int
    buffer: int
    itemsize: int

    def layout(self, words: tuple[int, ...]) -> Layout:
        """Return the view's layout in a recording; strides in elements."""
        sizes = self.at + 1
        strides = sizes + self.rank
        return Layout(words[sizes:strides], words[strides : strides + self.rank], words[self.at])


def view_words(views: Sequence[View]) -> tuple[ViewWords, ...]:
    """Return for each view of a trace where its layout lies."""
    words, at = [], 0
    for view in views:
        words.append(ViewWords(at, view.rank, view.buffer, view.dtype.itemsize))
        at += 1 + 2 * view.rank
    return tuple(words)


def layouts(trace: Trace, words: Sequence[int]) -> tuple[Layout, ...]:
    """Return the layout of each view in a recording."""
    words = tuple(words)
    return tuple(view.layout(words) for view in view_words(trace.views))
