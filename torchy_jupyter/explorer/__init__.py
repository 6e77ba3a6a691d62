"""The trace explorer: what was recorded, what was fused, the kernels, and why each flush happened."""

from __future__ import annotations

import functools
import json
import os
import tokenize
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import graphviz
import torch
from IPython.core.getipython import get_ipython
from IPython.display import display

from torchy import Session
from torchy.explain import EagerCosts, Finding
from torchy.report import Report
from torchy_jupyter.explorer.bundle import deflate
from torchy_jupyter.explorer.graph import digraph
from torchy_jupyter.explorer.issue import issue_text
from torchy_jupyter.explorer.page import page
from torchy_jupyter.explorer.shown import CellSource, Raised, ShownGroup, ShownKernel, Snapshot
from torchy_jupyter.explorer.snapshot import take
from torchy_jupyter.explorer.static import static_html
from torchy_jupyter.explorer.summary import summary, tags, time_parts
from torchy_jupyter.explorer.watched import Costs, Watched
from torchy_jupyter.explorer.widget import ExplorerWidget

__all__ = ["CellSource", "Explorer", "Raised", "write_script_page"]

LISTING_LINES = 16
LARGEST_LISTED = 64  # ops of a trace that is listed as text
MOST_NESTS = 3  # kernels whose loop nests the static copy has
LARGEST_NEST = 40  # and ops of each
MOST_TEXT = 60_000  # characters of one level of one kernel


class Explorer:
    """Shows one cell's report. It reads the report once, and never touches the program's tensors.

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
    costs
        What eager would have taken; without, nothing is estimated.
    raised
        What the cell has raised.
    session
        What recorded it: knows of values that are kept, of NaNs, and eager's own times.
    names
        The program's variables.
    """

    def __init__(
        self,
        report: Report,
        cells: Mapping[str, CellSource],
        seconds: float | None = None,
        hints: Iterable[str] = (),
        costs: EagerCosts | None = None,
        raised: Raised | None = None,
        session: Session | None = None,
        names: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        self.report = report
        self.key = uuid.uuid4().hex[:8]
        texts = {file: cell.text for file, cell in list(cells.items())[-1:]}
        took = report.totals.seconds if seconds is None else seconds
        self._session = session
        self._watched = Watched(report, session, took, texts, names)
        self._take: Callable[[], Snapshot] = functools.partial(
            take, report, cells, seconds, hints, Costs(session, costs), raised, self._watched
        )
        self._widgets: list[ExplorerWidget] = []  # ipywidgets keeps each until it is closed

    @cached_property
    def snapshot(self) -> Snapshot:
        """What is shown, as plain data."""
        return self._take()

    def show(self, unfolded: bool = True) -> None:
        """Display the static copy, then the widget, which hides it: what is saved shows something."""
        display(self)
        if getattr(get_ipython(), "kernel", None) is None:  # a terminal has shown the text
            return
        widget = ExplorerWidget(
            {
                "details": self._details,
                "level": self._level,
                "issue": self.issue,
                "value": self._watched.value_text,
            },
            unfolded=unfolded,
            data=deflate(self._details()) if unfolded else b"",
            **self._state(),
        )
        self._widgets.append(widget)
        display(_Interactive(widget))

    def close(self) -> None:
        """Let go of what it displayed, here and in the browser, which shows the static copies again."""
        while self._widgets:
            widget = self._widgets.pop()
            widget.layout.close()  # a widget of its own
            widget.close()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one HTML file that needs no kernel and no network: ``explorer.save("trace.html")``."""
        kernels = tuple(
            ShownKernel(
                kernel.id,
                kernel.compile_seconds,
                tuple((name, self._level(kernel.id, name) or "") for name, _ in kernel.levels),
            )
            for kernel in self.snapshot.kernels
        )
        complete = replace(self.snapshot, kernels=kernels, keeps=False).to_dict()
        html = page(self.snapshot.title, self._state(), complete, self._repr_html_())
        # a program's text may be anything
        Path(path).write_text(html, encoding="utf-8", errors="replace")

    def value(
        self, op: str | int, step: int | None = None, trace: int | None = None
    ) -> torch.Tensor:
        """Return a value that the cell has computed, to the bit, if it ran with ``--keep``: see :meth:`Session.value`."""
        return self._of_session("--keep 256MiB").value(op, step, trace)

    @property
    def first_nan(self) -> Any:
        """Where the first NaN or infinity was born, if the cell ran with ``--nan``; None: none was."""
        return self._of_session("--nan").first_nan

    @property
    def comparison(self) -> tuple[Any, ...]:
        """Each step beside eager, if the cell ran with ``--compare``: see :attr:`Session.comparison`."""
        return self._of_session("--compare").comparison

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What costs most, and what to change: at most three. What that brings is measured, with ``--keep``, on reading."""
        found = self._watched.findings()
        self.__dict__.pop("snapshot", None)  # what is shown from now on has what was measured
        return found

    def _of_session(self, option: str) -> Session:
        if self._session is None or self._session.watch is None:
            raise RuntimeError(f"run the cell with %%torchy {option}: nothing of that was noted")
        return self._session

    def to_graphviz(self, flush: int | None = None) -> graphviz.Digraph:
        """Return the graph of a flush, counted from 1; default: of the one that took longest.

        Raises
        ------
        ValueError
            If there is no such flush.
        """
        flushes = self.snapshot.flushes
        if flush is None and flushes:
            return digraph(max(flushes, key=lambda shown: shown.seconds))
        if flush is None or not 0 < flush <= len(flushes):
            shown = f"1 to {len(flushes)}" if flushes else "none"
            number = 1 if flush is None else flush
            raise ValueError(f"there is no flush {number} to draw: this cell has {shown}")
        return digraph(flushes[flush - 1])

    def issue(self) -> str:
        """Return what a bug report needs: versions, the listing of the longest trace, and a script that runs it."""
        return issue_text(self.report)

    def _details(self) -> str:
        return json.dumps(self.snapshot.to_dict(), separators=(",", ":"))

    def _level(self, kernel: str, name: str) -> str | None:
        record = self.report.kernels.get(kernel)
        if record is None or name not in record.levels:
            return None
        return _cut(record.levels[name])

    def _state(self) -> dict[str, Any]:
        snapshot = self.snapshot
        return {
            "key": self.key,
            "summary": list(summary(snapshot)),
            "tags": tags(snapshot),
            "parts": time_parts(snapshot.account),
        }

    def _loop_nests(self) -> dict[str, str]:
        """Return the most readable level of the heaviest kernels, by their letters."""
        groups = [group for flush in self.snapshot.flushes for group in flush.groups]
        kernels = [
            group
            for group in groups
            if group.kernel in self.report.kernels and len(group.ops) <= LARGEST_NEST
        ]
        by_kernel: dict[str, ShownGroup] = {}
        for group in sorted(kernels, key=lambda group: -group.seconds):
            by_kernel.setdefault(group.kernel or "", group)
        found = {}
        for kernel, group in list(by_kernel.items())[:MOST_NESTS]:
            levels = self.report.kernels[kernel].levels
            found[group.letter] = _cut(levels[next(iter(levels))])
        return found

    def __repr__(self) -> str:
        """Return the report's summary, and a short listing of its longest trace that is no monster."""
        text = f"Torchy, {self.snapshot.title}: {self.report.summary()}"
        if self.snapshot.birth:
            text += f"\n{self.snapshot.birth.text.replace('`', '')}"
        if self.snapshot.equal is not None:
            text += "\nall bits equal eager's" if self.snapshot.equal else "\nOTHER BITS than eager"
        text += "".join(f"\n{finding}" for finding in self._watched.likely_findings())
        short = [r for r in self.report.traces if len(r.trace.ops) <= LARGEST_LISTED]
        if not short:
            return text
        longest = max(short, key=lambda record: len(record.trace.ops))
        lines = longest.listing.split("\n")
        if len(lines) > LISTING_LINES:
            left = len(lines) - LISTING_LINES
            lines[LISTING_LINES:] = [f"  … {left} more lines in last_explorer().report.traces"]
        return "\n".join([text, *lines])

    def _repr_html_(self) -> str:
        return static_html(self.snapshot, self.key, self._loop_nests())


def write_script_page(
    path: Path, report: Report, script: Path, seconds: float, error: BaseException | None
) -> None:
    """Write the page of a script that ``python -m torchy run`` has run."""
    with tokenize.open(script) as source:
        cells = {str(script): CellSource(script.name, source.read().rstrip("\n"))}
    raised = None if error is None else Raised.at(error, cells)
    named = report.with_file_names({str(script): script.name})
    Explorer(named, cells, seconds, costs=EagerCosts(), raised=raised).save(path)


class _Interactive:
    """The widget's own output; a console shows nothing of it."""

    def __init__(self, widget: ExplorerWidget) -> None:
        self._widget = widget

    def __repr__(self) -> str:
        return "(Torchy's explorer)"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = self._widget._repr_mimebundle_(**options)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        return {**data, "text/plain": repr(self)}, metadata


def _cut(text: str) -> str:
    if len(text) <= MOST_TEXT:
        return text
    return f"{text[:MOST_TEXT]}\n… {len(text) - MOST_TEXT:,} more characters are in the report"
