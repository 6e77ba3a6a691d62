"""What was looked at while a cell ran: values that are kept, the first NaN, eager's own times; and what to change."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from IPython.core.getipython import get_ipython

import torchy
from torchy.explain import EagerCosts, Estimate, Finding, findings
from torchy.ir.dtypes import short_name
from torchy.ir.trace import Trace
from torchy.report import Report, TensorRecord

WAIT = 55.0  # seconds until the kernel is idle
BINS = 32  # of a histogram
MOST_POINTS, MOST_PIXELS = 240, 48  # of a plot; of a picture, in each direction
MOST_SHOWN = 8  # first elements


class Costs:
    """What eager takes for an op: measured, where it was run for comparison, else estimated.

    Parameters
    ----------
    session
        Of the cell.
    estimates
        Estimates; None: there are none.
    """

    def __init__(self, session: torchy.Session | None, estimates: EagerCosts | None) -> None:
        self._comparer = session.watch.comparer if session is not None and session.watch else None
        self._estimates = estimates

    @property
    def measured(self) -> bool:
        """Whether eager has been run."""
        return self._comparer is not None

    def of(
        self, trace: Trace, index: int, tensors: Sequence[TensorRecord], until: float
    ) -> Estimate:
        """Return what one op of a trace takes: see :meth:`EagerCosts.of`."""
        if self._comparer is not None:
            seconds = self._comparer.seconds_of(trace, index)
            if seconds is not None:
                return Estimate(seconds, known=True)
        if self._estimates is None:
            return Estimate(0.0, known=False)
        return self._estimates.of(trace, index, tensors, until)


class Watched:
    """What can be asked about a cell after it has ended.

    Parameters
    ----------
    texts
        The program's text, by file.
    names
        The program's variables.
    """

    def __init__(
        self,
        report: Report,
        session: torchy.Session | None,
        seconds: float,
        texts: Mapping[str, str],
        names: Mapping[str, object],
    ) -> None:
        self._report = report
        self._session = session
        self._seconds = seconds
        self._texts = texts
        self._names = names
        self._likely: tuple[Finding, ...] | None = None
        self._measured: tuple[Finding, ...] | None = None

    @property
    def keeps(self) -> bool:
        """Whether values are kept."""
        return self._session is not None and bool(
            self._session.watch and self._session.watch.keeper
        )

    def birth(self) -> Any:
        """Return where the first NaN was born, if that was looked for."""
        if self._session is None or not self._session.settings.nan:
            return None
        return self._session.first_nan

    def unequal(self) -> list[Any] | None:
        """Return what has other bits than eager; None if it was not compared."""
        if self._session is None or not (self._session.watch and self._session.watch.comparer):
            return None
        return [row for row in self._session.comparison if not row.equal]

    def likely_findings(self) -> tuple[Finding, ...]:
        """Return what costs most, estimated."""
        if self._measured is None and self._likely is None:
            self._likely = findings(
                self._report, self._own_seconds, self._texts, None, self._names, measure=False
            )
        return self._likely or () if self._measured is None else self._measured

    def findings(self) -> tuple[Finding, ...]:
        """Return what costs most, with what a change brings, where inputs are kept; measured once."""
        if self._measured is None:
            watch = self._session.watch if self._session is not None else None
            keeper = watch.keeper if watch is not None else None
            self._measured = findings(
                self._report, self._own_seconds, self._texts, keeper, self._names
            )
        return self._measured

    @property
    def _own_seconds(self) -> float:
        totals = self._report.totals
        return max(0.0, self._seconds - totals.watching - totals.prepared)

    def value_text(self, trace: int, op: int, step: int | None) -> str:
        """Return as JSON what there is to see of a value: by the number of a flush, the op's index, and the step.

        May be called on any thread: it is told by the kernel's own, once that is idle.
        """
        return on_main_thread(lambda: json.dumps(self._value(trace, op, step)))

    def _value(self, trace: int, op: int, step: int | None) -> dict[str, Any]:
        session = self._session
        if session is None or session.watch is None or session.watch.keeper is None:
            return {"error": "nothing was kept: run the cell with --keep 256MiB"}
        try:
            steps = session.watch.keeper.steps(op, trace)
            at = len(steps) - 1 if step is None else step
            value = session.value(op, at, trace)
        except (ValueError, LookupError, RuntimeError) as error:
            return {"error": str(error)}
        return {"steps": len(steps), "step": at, "kept": steps} | described(value)


def on_main_thread(question: Callable[[], str]) -> str:
    """Answer a question on the kernel's main thread; waits until that is idle.

    Raises
    ------
    TimeoutError
        If it is not, for so long.
    """
    if threading.current_thread() is threading.main_thread():
        return question()
    loop: asyncio.AbstractEventLoop = get_ipython().kernel.io_loop.asyncio_loop  # type: ignore[union-attr]
    answer: concurrent.futures.Future[str] = concurrent.futures.Future()

    def ask() -> None:
        if not answer.set_running_or_notify_cancel():
            return
        try:
            answer.set_result(question())
        except BaseException as error:
            answer.set_exception(error)

    loop.call_soon_threadsafe(ask)
    try:
        return answer.result(WAIT)
    finally:
        answer.cancel()  # nobody waits for it any more


def described(value: torch.Tensor) -> dict[str, Any]:
    """Return what there is to see of a tensor, as JSON types: statistics, a histogram, a plot or a picture."""
    with torch.no_grad():
        plain = value.abs() if value.is_complex() else value
        numbers = plain.double()
        finite = numbers[numbers.isfinite()]
        found: dict[str, Any] = {
            "type": f"{short_name(value.dtype)}[{', '.join(map(str, value.shape))}]",
            "elements": value.numel(),
            "nans": int(numbers.isnan().sum()),
            "infinities": int(numbers.isinf().sum()),
            "zeros": int((numbers == 0).sum()),
            "first": [str(each) for each in value.flatten()[:MOST_SHOWN].tolist()],
        }
        if finite.numel():
            least, greatest = finite.min().item(), finite.max().item()
            found |= {
                "least": least,
                "greatest": greatest,
                "mean": finite.mean().item(),
                "deviation": finite.std(correction=0).item(),
            }
            if math.isfinite(greatest - least):  # else nothing can be drawn to scale
                found["histogram"] = _histogram(finite, least, greatest)
                found |= _drawn(numbers, least, greatest)
    # JSON has no other numbers
    return {k: v for k, v in found.items() if not (isinstance(v, float) and not math.isfinite(v))}


def _histogram(finite: torch.Tensor, least: float, greatest: float) -> list[int]:
    if least == greatest:
        return [finite.numel()]
    counts: list[int] = torch.histc(finite, BINS, least, greatest).long().tolist()
    return counts


def _drawn(numbers: torch.Tensor, least: float, greatest: float) -> dict[str, Any]:
    """Return a plot of what has one dimension, a picture of (the first of) what has more; None where not finite."""
    span = (greatest - least) or 1.0
    if numbers.dim() == 1 and numbers.numel() > 1:
        return {"plot": _finite(_thinned(numbers, 0, MOST_POINTS))}
    if numbers.dim() >= 2:
        picture = numbers.reshape(-1, *numbers.shape[-2:])[0]
        for dimension in (0, 1):
            picture = _thinned(picture, dimension, MOST_PIXELS)
        shades = ((picture - least) / span * 255).round()
        return {"picture": [_finite(row) for row in shades]}
    return {}


def _thinned(numbers: torch.Tensor, dimension: int, most: int) -> torch.Tensor:
    count = numbers.shape[dimension]
    if count <= most:
        return numbers
    return numbers.index_select(dimension, torch.linspace(0, count - 1, most).round().long())


def _finite(row: torch.Tensor) -> list[float | None]:
    return [each if -1e300 < each < 1e300 else None for each in row.tolist()]
