"""The explorer as a widget: the whole snapshot in its state, all linking in the browser."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import anywidget
import traitlets
from anywidget.experimental import command

FRONT = files("torchy_jupyter.explorer") / "front"
STATIC = files("torchy_jupyter.explorer") / "static"


def front(name: str) -> str:
    """Return a file of the front end: ``explorer.js``, ``explorer.css``."""
    return (FRONT / name).read_text(encoding="utf-8")


class ExplorerWidget(anywidget.AnyWidget):
    """Shows a snapshot. Its callbacks come on another thread: they touch neither torch nor a session.

    ``svgs`` are the graphs that have been laid out, here or in the browser, by their trace's
    position; ``dots`` has the DOT of all.
    """

    _esm = front("explorer.js")
    _css = front("explorer.css")
    key = traitlets.Unicode().tag(sync=True)
    snapshot = traitlets.Dict().tag(sync=True)
    dots: traitlets.List[str] = traitlets.List().tag(sync=True)
    svgs = traitlets.Dict().tag(sync=True)

    @command
    def engine(self, message: object, buffers: list[bytes]) -> tuple[Any, list[bytes]]:
        """Give the browser the layout engine, where this machine has no ``dot``."""
        return None, [(STATIC / "graphviz.js").read_bytes()]
