"""The public face: switching Torchy on and off."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

import torch

from torchy.record import building
from torchy.record.native import Counters
from torchy.runtime import Runtime
from torchy.session.regions import Regions
from torchy.session.session import Session
from torchy.settings import OFF, Settings, switched_off

P = ParamSpec("P")
R = TypeVar("R")


class _Process:
    """The runtime of this process, made when it is first needed: torch has one dispatcher."""

    def __init__(self) -> None:
        self.runtime: Runtime | None = None
        self._lock = threading.RLock()
        self._building = False

    def get(self, cache_dir: str | os.PathLike[str] | None = None) -> Runtime | None:
        """Return the runtime; None if the environment says so, and, for a signal handler or finalizer, while it is made."""
        if self.runtime is not None:  # without the lock: a fork may have left it locked
            return self.runtime
        if switched_off():
            return None
        with self._lock:
            if self.runtime is None and not self._building:
                self._building = True
                try:
                    self.runtime = Runtime(cache_dir)
                finally:
                    self._building = False
            return self.runtime

    @property
    def regions(self) -> Regions[Session] | None:
        """The regions of all threads, once there has been one."""
        return self.runtime.regions if self.runtime is not None else None


class _Nothing:
    """What is told of a region that is not recorded: Torchy is off, or its runtime is just being made."""

    def read(self, session: Session) -> None:
        """There is nothing to tell."""

    def counters(self, session: Session) -> dict[str, int]:
        """Nothing has happened."""
        return Counters()._asdict() | {"kernels_compiled": 0}


def _unrecorded(settings: Settings) -> Session:
    session = Session(_Nothing(), 0, settings)
    session.asleep, session.open, session.closed = True, False, True
    off = switched_off()
    session.builder.event("off", OFF if off else "the runtime was just being made")
    return session


_process = _Process()
_DEFAULTS = Settings()


def walker_ready(cache_dir: str | os.PathLike[str] | None = None) -> bool:
    """Return False if enabling would first have to compile the walker, which takes seconds."""
    return switched_off() or _process.runtime is not None or building.is_built(cache_dir)


def enable(**settings: Any) -> Session:
    """Record this thread's ops from now on, until :func:`disable`.

    Parameters
    ----------
    **settings
        See :class:`torchy.Settings`. Within an enabled region they apply until its end.

    Returns
    -------
    Session
        Its ``report`` tells what happened.

    Raises
    ------
    TypeError, ValueError
        If a setting is unknown, or its value not allowed.
    WalkerUnavailable
        If the walker cannot be built or loaded here; the message says what to do.
    """
    known = Settings.of(**settings)
    runtime = _process.get(known.cache_dir)
    if runtime is None:
        return _unrecorded(known)
    before = runtime.regions.last(None)
    try:
        return runtime.enter(None, known, {name: getattr(known, name) for name in settings})
    except BaseException:
        runtime.regions.undo(None, before)
        raise


def disable() -> None:
    """Flush, and end what :func:`enable` began last on this thread; if there is none, its innermost region."""
    if (regions := _process.regions) is not None and (here := regions.here.regions):
        regions.leave(regions.last(None) or here[-1], "disable")


def flush(reason: str = "flush()") -> None:
    """Compute everything that is pending in this thread's session.

    Parameters
    ----------
    reason
        What the report says of it.

    Raises
    ------
    TypeError
        If that is no text.
    """
    if not isinstance(reason, str):
        raise TypeError(f"flush takes a reason in words, a str, not {type(reason).__name__}")
    if _process.runtime is not None:
        _process.runtime.pending.compute_here(reason)


def release_memory() -> int:
    """Give the memory that is kept for tensors to come back to the system; return how many bytes that were.

    Tensors that exist are not concerned.
    """
    return _process.runtime.walker.release_memory() if _process.runtime is not None else 0


def is_pending(tensor: torch.Tensor) -> bool:
    """Return True if a tensor's values have not been computed yet; does not flush."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"is_pending takes a tensor, not {type(tensor).__name__}")
    return _process.runtime is not None and _process.runtime.walker.is_pending(tensor)


def current_session() -> Session | None:
    """Return the session of this thread, None if it has none."""
    return _process.regions.here.session if _process.regions is not None else None


class lazy:  # noqa: N801  (reads as a function)
    """A region whose ops are recorded; a context manager, and a decorator.

    Parameters
    ----------
    **settings
        See :class:`torchy.Settings`.

    Examples
    --------
    >>> with torchy.lazy() as session:
    ...     y = (x * 2 + 1).relu()
    >>> print(session.report.summary())
    """

    def __init__(self, *given: object, **settings: Any) -> None:
        if given:
            raise TypeError(
                "torchy.lazy takes settings by name: `with torchy.lazy():`, or `@torchy.lazy()` "
                "(with parentheses) above a function"
            )
        self._settings = Settings.of(**settings) if settings else _DEFAULTS
        self._given = {name: getattr(self._settings, name) for name in settings}

    def __enter__(self) -> Session:
        settings = self._settings
        runtime = _process.runtime or _process.get(settings.cache_dir)
        if runtime is None:
            return _unrecorded(settings)
        before = runtime.regions.last(self)
        try:
            return runtime.enter(self, settings, self._given)
        except BaseException:  # nobody would call `__exit__`
            runtime.regions.undo(self, before)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        region = None
        try:
            regions = _process.regions
            if regions is not None and (region := regions.last(self)) is not None:
                regions.leave(region, "end of the region")
        except BaseException:  # an interrupt may come in before, or within, what ends it
            regions = _process.regions
            if regions is not None and (region := region or regions.last(self)):
                regions.end(region)
            raise

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return the function with its whole run as a region."""

        @functools.wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            with lazy(**self._given):
                return function(*args, **kwargs)

        return wrapped
