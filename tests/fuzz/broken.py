"""A Torchy that is out of order: whatever it flushes raises, again and again."""

from __future__ import annotations

from batch import Coverage, Failure, run_batch

MESSAGE = "nothing can be computed"


def broken_batch(seed: int) -> tuple[Coverage, Failure | None]:
    """Run a batch of random programs with it."""
    from torchy.run.execute import Execution

    def run(*_args: object) -> None:
        raise RuntimeError(MESSAGE)

    Execution.run = run
    return run_batch(seed, count=40, shrink=True)
