"""A thread for Torchy's own work, which the program does not meet: neither its signals nor its lists of threads do."""

from __future__ import annotations

import os
import signal
from _thread import allocate_lock, start_new_thread
from collections.abc import Callable
from typing import Final

# What a thread does to itself; blocked, it would kill the process without a word.
_OWN_FAULTS: Final = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT,
                      signal.SIGTRAP, signal.SIGSYS}  # fmt: skip

_NICENESS: Final = 10  # more than the program: a tenth of a core, where the program wants all


class Background:
    """A thread that ``threading`` does not list, and that leaves all signals and all time to the program's threads.

    A signal that the program blocks stays pending then, as in eager.

    Parameters
    ----------
    work
        What it runs, once.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._running = allocate_lock()
        self._deaf = allocate_lock()
        self._deaf.acquire()  # until the thread lets go of it

    def start(self) -> None:
        """Start it; return once it hears no signals.

        Raises
        ------
        RuntimeError
            If the system has no thread to give.
        """
        start_new_thread(self._run, ())
        self._deaf.acquire()

    @property
    def is_alive(self) -> bool:
        """True once it has begun, to the end of its work."""
        return self._running.locked()

    def join(self) -> None:
        """Wait for the end of its work."""
        with self._running:
            return

    def _run(self) -> None:
        with self._running:
            try:
                signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _OWN_FAULTS)
            finally:
                self._deaf.release()
            os.nice(_NICENESS)  # on Linux, of this thread alone
            self._work()
