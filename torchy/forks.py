"""Forks: the child has the thread that forks, and no other; it finds nothing that those had in their hands."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from threading import RLock
from time import sleep
from typing import Final

PATIENCE: Final = 0.05  # seconds


class Forks:
    """What is done before and after each fork of the process.

    Parameters
    ----------
    compute
        Computes all that is pending: the child shall not do it once more.
    hold
        ``hold(True)`` waits until no other thread flushes, and keeps them from it until ``hold(False)``.
    locks
        Gives the locks of which a child needs all, in the order in which they nest.
    renew
        Called in the child: it has none of the threads that work in the background.
    """

    def __init__(
        self,
        compute: Callable[[], None],
        hold: Callable[[bool], None],
        locks: Callable[[], Iterable[RLock]],
        renew: Callable[[], None],
    ) -> None:
        self._compute = compute
        self._hold = hold
        self._locks = locks
        self._renew = renew
        self._taken = contextlib.ExitStack()
        os.register_at_fork(
            before=self._before, after_in_parent=self._taken.close, after_in_child=self._in_child
        )

    def _before(self) -> None:
        try:
            self._compute()
        finally:  # Python forks, and calls the other hooks, whatever is raised here
            while not self._take():
                sleep(PATIENCE)

    def _take(self) -> bool:
        self._taken.callback(self._hold, False)
        self._hold(True)
        for lock in self._locks():
            if not lock.acquire(
                timeout=PATIENCE
            ):  # its owner may be waiting for a flush, in a finalizer
                self._taken.close()
                return False
            self._taken.callback(lock.release)
        return True

    def _in_child(self) -> None:
        self._taken.close()
        self._renew()
