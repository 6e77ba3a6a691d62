"""Keeps Torchy's own work out of sight: it is not recorded, and neither the program's modes nor torch's compilers see it.

Those may be at work on the program above it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import torch

from torchy.record.native import Walker

P = ParamSpec("P")
R = TypeVar("R")

_torch: Any = torch._C  # more than its type stubs tell
_TRACER = _torch._parse_dispatch_key("Tracer")
# private to torch: where there is no such thing, torch.compile may look into Torchy
_frames: Any = getattr(getattr(_torch, "_dynamo", None), "eval_frame", None)
_strategy = getattr(_frames, "_FrameExecStrategy", None)
_action = getattr(_frames, "_FrameAction", None)
# what calls the __torch_dispatch__ of the program's modes
_MODES = torch._C.DispatchKeySet(torch._C.DispatchKey.Python) | torch._C.DispatchKeySet(
    torch._C.DispatchKey.PythonTLSSnapshot
)


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """Have ``torch.compile`` leave a function alone, with all that it calls; returns it.

    A region that is compiled may break its graph and run Python: what that calls is compiled too.
    """
    if _strategy is not None and _action is not None:
        _frames.set_code_exec_strategy(function.__code__, _strategy(_action.SKIP, _action.SKIP))
    return function


@contextlib.contextmanager
def untraced() -> Iterator[None]:
    """Hide this thread's ops from ``torch.jit.trace``."""
    state = _torch._get_tracing_state()
    if state is None:
        yield
        return
    excluded = _torch._dispatch_tls_is_dispatch_key_excluded(_TRACER)
    _torch._dispatch_tls_set_dispatch_key_excluded(_TRACER, False)  # or the state cannot be set
    _torch._set_tracing_state(None)
    try:
        yield
    finally:
        _torch._set_tracing_state(state)
        _torch._dispatch_tls_set_dispatch_key_excluded(_TRACER, excluded)


@contextlib.contextmanager
def paused(walker: Walker) -> Iterator[None]:
    """Run this thread's ops without recording them."""
    walker.library.torchy_pause(1)
    try:
        yield
    finally:
        walker.library.torchy_pause(0)


@contextlib.contextmanager
def unseen(walker: Walker) -> Iterator[None]:
    """Run this thread's ops without recording them, and hidden from the program's modes."""
    with (
        paused(walker),
        untraced(),
        torch._C.DisableTorchFunction(),
        torch._C._ExcludeDispatchKeyGuard(_MODES),
    ):
        yield


def any_compiled() -> bool:
    """Tell whether torch.compile has been used: its functions are compiled anew where recording begins or stops."""
    dynamo = sys.modules.get("torch._dynamo.eval_frame")  # which another thread may be importing
    backends: dict[int, object] | None = getattr(dynamo, "cached_backends", None)
    if not backends:
        return False
    return any(each is not None for each in list(backends.values()))  # None: not to be compiled
