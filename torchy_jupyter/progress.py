"""A line that tells how far a long cell is, while it runs."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

from IPython.display import display

PATIENCE = 2.0  # seconds: a shorter cell shows nothing
EVERY = 0.5  # seconds between updates


class Progress:
    """Shows and updates the line, from a thread of its own, until it is told to stop; then the line is gone.

    Parameters
    ----------
    counters
        Gives the session's: how many ops are recorded, and how many flushes there were.
    """

    def __init__(self, counters: Callable[[], Mapping[str, int]]) -> None:
        self._counters = counters
        self._began = perf_counter()
        self._done = threading.Event()
        context = contextvars.copy_context()  # says which cell the output belongs to
        self._thread = threading.Thread(target=context.run, args=(self._run,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop, and take the line away."""
        self._done.set()
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        if self._done.wait(PATIENCE):
            return
        line: Any = None
        while True:
            text = _Line(self._text())
            if line is None:
                line = display(text, display_id=True)
            else:
                line.update(text)
            if line is None:  # nobody can update it
                return
            if self._done.wait(EVERY):
                line.update(_Line(""))
                return

    def _text(self) -> str:
        counters = self._counters()
        seconds = perf_counter() - self._began
        return (
            f"Torchy: {counters['recorded']:,} ops recorded, {counters['flushes']:,} flushes,"
            f" {seconds:.0f} s so far"
        )


class _Line:
    """The line; empty, it takes no room."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        if not self._text:
            return '<span style="display: none"></span>'
        return f'<span style="color: #747c85; font-size: 90%">{self._text}</span>'
