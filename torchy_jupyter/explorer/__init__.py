"""The trace explorer: what was recorded, what was fused, the kernels, and why each flush happened."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

from IPython.display import display

from torchy.report import Report
from torchy_jupyter.explorer.graph import dot, svg
from torchy_jupyter.explorer.page import page
from torchy_jupyter.explorer.snapshot import CellSource, Snapshot, take
from torchy_jupyter.explorer.static import static_html
from torchy_jupyter.explorer.widget import ExplorerWidget

__all__ = ["CellSource", "Explorer"]

LAYOUT_SECONDS = 1.0  # for all graphs of a cell together; what is left is laid out in the browser
LISTING_LINES = 16


class Explorer:
    """Shows one cell's report. It reads the report once, and never touches torch or a session.

    Parameters
    ----------
    report
        The cell's; also there as an attribute.
    cells
        Texts by the file name of their code, the cell that ran last.
    seconds
        What the cell took.
    hints
        More notes to show.
    """

    def __init__(
        self,
        report: Report,
        cells: Mapping[str, CellSource],
        seconds: float | None = None,
        hints: Iterable[str] = (),
    ) -> None:
        self.report = report
        self.key = uuid.uuid4().hex[:8]
        self._cells = cells
        self._seconds = seconds
        self._hints = tuple(hints)
        self._widget: ExplorerWidget | None = None
        self._widgets: list[ExplorerWidget] = []  # ipywidgets keeps each until it is closed

    @cached_property
    def snapshot(self) -> Snapshot:
        """What is shown, as plain data."""
        return take(self.report, self._cells, self._seconds, self._hints)

    @cached_property
    def dots(self) -> list[str]:
        """The graph of each shown trace, in the DOT language."""
        traces = self.snapshot.traces
        return [dot(trace, f"{self.key}-{index}-") for index, trace in enumerate(traces)]

    @cached_property
    def svgs(self) -> dict[int, str]:
        """The graphs that could be laid out here, in time, by their trace's position."""
        found: dict[int, str] = {}
        until = perf_counter() + LAYOUT_SECONDS
        for index, source in enumerate(self.dots):
            picture = svg(source) if perf_counter() < until else None
            if picture is None:  # no `dot`, or no time left
                break
            found[index] = picture
        return found

    def show(self) -> None:
        """Display the static copy, then the widget, which hides it: what is saved shows something."""
        display(self)
        if self.snapshot.traces:
            self._widget = ExplorerWidget(**self._state())
            self._widgets.append(self._widget)
            display(_Interactive(self._widget))

    def close(self) -> None:
        """Let go of what it displayed, here and in the browser, which shows the static copies again."""
        while self._widgets:
            widget = self._widgets.pop()
            widget.layout.close()  # a widget of its own
            widget.close()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one HTML file that needs no kernel and no network: ``explorer.save("trace.html")``."""
        Path(path).write_text(page(self.snapshot.title, self._state()), encoding="utf-8")

    def _state(self) -> dict[str, Any]:
        laid_out = {str(index): picture for index, picture in self.svgs.items()}
        if self._widget is not None:  # what the browser laid out
            laid_out |= self._widget.svgs
        return {
            "key": self.key,
            "snapshot": self.snapshot.to_dict(),
            "dots": self.dots,
            "svgs": laid_out,
        }

    def __repr__(self) -> str:
        """Return the report's summary, and a short listing of its longest trace."""
        text = f"Torchy, {self.snapshot.title}: {self.report.summary()}"
        if not self.report.traces:
            return text
        longest = max(self.report.traces, key=lambda record: len(record.trace.ops))
        lines = longest.listing.split("\n")
        if len(lines) > LISTING_LINES:
            left = len(lines) - LISTING_LINES
            lines[LISTING_LINES:] = [f"  … {left} more lines in last_explorer().report.traces"]
        return "\n".join([text, *lines])

    def _repr_html_(self) -> str:
        return static_html(self.snapshot, self.svgs, self.key)


class _Interactive:
    """The widget's own output; where no widget can be shown, its text says where the copy is."""

    def __init__(self, widget: ExplorerWidget) -> None:
        self._widget = widget

    def __repr__(self) -> str:
        return "(Torchy's explorer: the copy above shows the same)"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = self._widget._repr_mimebundle_(**options)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        return {**data, "text/plain": repr(self)}, metadata
