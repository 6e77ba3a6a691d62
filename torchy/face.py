"""The public face: switching Torchy on and off."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

import torch

from torchy.record import native
from torchy.session import Runtime, Session
from torchy.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")


class _Process:
    """The runtime of this process, made when it is first needed: torch has one dispatcher."""

    def __init__(self) -> None:
        self.runtime: Runtime | None = None
        self._lock = threading.Lock()

    def get(self, cache_dir: str | os.PathLike[str] | None = None) -> Runtime:
        with self._lock:
            if self.runtime is None:
                self.runtime = Runtime(cache_dir)
            return self.runtime

    @property
    def depth(self) -> int:
        """How many regions are open on this thread."""
        return len(self.runtime.stack) if self.runtime is not None else 0

    def unwind(self, depth: int) -> None:
        """End the regions beyond a depth that an interrupt has left open; flushes nothing."""
        if self.runtime is not None and self.depth > depth:
            self.runtime.unwind(depth)

    def leave(self, reason: str) -> None:
        """End this thread's innermost region, if there is one."""
        if self.runtime is not None and self.depth > 0:
            self.runtime.leave(reason)


_process = _Process()


def walker_ready(cache_dir: str | os.PathLike[str] | None = None) -> bool:
    """Return False if enabling would first have to compile the walker, which takes seconds."""
    return _process.runtime is not None or native.is_built(cache_dir)


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
    depth = _process.depth
    try:
        checked = Settings.of(**settings)
        return _process.get(checked.cache_dir).enter(checked, settings)
    except BaseException:
        _process.unwind(depth)
        raise


def disable() -> None:
    """Flush, and end what :func:`enable` began last on this thread; nothing if there is none."""
    _process.leave("disable")


def flush(reason: str = "flush()") -> None:
    """Compute everything that is pending in this thread's session.

    Parameters
    ----------
    reason
        What the report says of it.
    """
    session = current_session()
    if session is not None and _process.runtime is not None:
        _process.runtime.flush(session.id, reason)


def is_pending(tensor: torch.Tensor) -> bool:
    """Return True if a tensor's values have not been computed yet; does not flush."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"is_pending takes a tensor, not {type(tensor).__name__}")
    return _process.runtime is not None and _process.runtime.walker.is_pending(tensor)


def current_session() -> Session | None:
    """Return the session of this thread, None if it has none."""
    if _process.runtime is None or not _process.runtime.stack:
        return None
    return _process.runtime.stack[-1][0]


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
        Settings.of(**settings)
        self._settings = settings

    def __enter__(self) -> Session:
        depth = _process.depth
        try:
            return enable(**self._settings)
        except BaseException:  # nobody would call `__exit__`
            _process.unwind(depth)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        depth = None
        try:
            depth = _process.depth
            _process.leave("end of the region")
        except BaseException:  # an interrupt may come in before, or within, what ends it
            _process.unwind((_process.depth if depth is None else depth) - 1)
            raise

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return the function with its whole run as a region."""

        @functools.wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            with lazy(**self._settings):
                return function(*args, **kwargs)

        return wrapped
