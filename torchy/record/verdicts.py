"""The policy's verdicts, for the walker: on an op that is new, and on a place."""

from __future__ import annotations

from collections.abc import Callable

from torchy.record import policy
from torchy.record.codes import OpClass
from torchy.record.native import Walker
from torchy.record.places import Places
from torchy.record.served import Served
from torchy.record.source import raised_by_program
from torchy.record.unseen import unseen


class Verdicts:
    """Asks the policy; where that raises, the op runs now.

    Parameters
    ----------
    tell
        ``tell(kind, text)`` is told that the policy has raised.
    """

    def __init__(
        self, walker: Walker, places: Places, served: Served, tell: Callable[[str, str], None]
    ) -> None:
        self._walker = walker
        self._places = places
        self._served = served
        self._tell = tell

    def place(self, step: int) -> int:
        """Return what the policy allows at a place, by the walker's number: see :func:`.policy.allow`."""
        try:
            with unseen(self._walker):
                return policy.allow(self._places.step(step))
        except Exception as error:
            if raised_by_program(error):  # a signal handler, in the midst of it
                raise
            self._tell_raised(error, str(step))
            return 0

    def classify(self, op: int, name: str) -> None:
        """Tell the walker what class of op one is that it knows by a number."""
        try:
            verdict = policy.classify(name)
            if verdict.op_class != OpClass.RUN_NOW and not self._served.by_torch(name):
                verdict = verdict._replace(op_class=OpClass.RUN_NOW)
        except Exception as error:
            if raised_by_program(error):  # a signal handler, in the midst of it
                raise
            self._tell_raised(error, name)
            verdict = policy.RUN_NOW
        self._walker.library.torchy_set_op(
            op,
            int(verdict.op_class),
            verdict.pointwise,
            int(verdict.rule),
            verdict.minds_precision,
            verdict.runtime,
            verdict.unless_one,
            verdict.hidden,
            *verdict.indices,
            verdict.asks,
            verdict.fusable,
        )

    def _tell_raised(self, error: Exception, what: str) -> None:
        self._tell("policy raised", f"{what}: {type(error).__name__}: {error}")
