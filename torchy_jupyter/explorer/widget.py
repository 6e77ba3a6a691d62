"""The explorer as a widget: its first line at once, the rest when it is unfolded; all linking is in the browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anywidget
import traitlets
from anywidget.experimental import command

from torchy_jupyter.explorer.bundle import deflate, loader

Answer = Callable[..., str | None]


class ExplorerWidget(anywidget.AnyWidget):
    """Shows a snapshot. Its callbacks come on another thread: they touch neither torch nor a session.

    Parameters
    ----------
    answers
        By name, what gives a text that the browser asks for: ``details()``, ``level(kernel, name)``, ``value(trace,
        op, step)`` and ``issue()``.
    state
        ``key`` (the static copy of the same key is hidden), ``summary``, ``tags``, ``parts``, ``unfolded``, and ``data``:
        the snapshot as JSON, deflated; empty: it is asked for.
    """

    _esm = loader()
    key = traitlets.Unicode().tag(sync=True)
    summary: traitlets.List[str] = traitlets.List().tag(sync=True)
    tags: traitlets.List[Any] = traitlets.List().tag(sync=True)
    parts: traitlets.List[Any] = traitlets.List().tag(sync=True)
    unfolded = traitlets.Bool().tag(sync=True)
    data = traitlets.Bytes().tag(sync=True)

    def __init__(self, answers: dict[str, Answer], **state: Any) -> None:
        super().__init__(**state)
        self._answers = answers

    def _answer(self, name: str, *arguments: Any) -> tuple[Any, list[bytes]]:
        text = self._answers[name](*arguments)
        return None, [] if text is None else [deflate(text)]

    @command
    def details(self, message: object, buffers: list[bytes]) -> tuple[Any, list[bytes]]:
        """Give the snapshot."""
        return self._answer("details")

    @command
    def level(self, message: Any, buffers: list[bytes]) -> tuple[Any, list[bytes]]:
        """Give one level of a kernel."""
        kernel, name = message
        return self._answer("level", kernel, name)

    @command
    def value(self, message: Any, buffers: list[bytes]) -> tuple[Any, list[bytes]]:
        """Give what there is to see of a value."""
        trace, op, step = message
        return self._answer("value", trace, op, step)

    @command
    def issue(self, message: object, buffers: list[bytes]) -> tuple[Any, list[bytes]]:
        """Give what a bug report needs."""
        return self._answer("issue")
