"""Which line of the program an op comes from."""

from __future__ import annotations

import os
import sys
from types import FrameType

import torch

from torchy.ir.trace import Source

_TORCH = os.path.dirname(torch.__file__) + os.sep
_TORCHY = os.path.dirname(os.path.dirname(__file__)) + os.sep
_JUPYTER = _TORCHY[: -len(os.sep)] + "_jupyter" + os.sep
_OURS = (_TORCH, _TORCHY, _JUPYTER, "<frozen")
_LIBRARIES = tuple(
    {
        os.path.dirname(os.path.dirname(torch.__file__)) + os.sep,  # site-packages
        os.path.dirname(os.__file__) + os.sep,
    }
)


def current_source(frame: FrameType | None = None) -> Source | None:
    """Return the innermost line that is the program's own, neither torch's nor Torchy's.

    Code outside site-packages and the standard library wins over code in them.
    """
    frame = frame or sys._getframe(1)
    fallback: Source | None = None
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_OURS):
            if not file.startswith(_LIBRARIES):
                return Source(file, frame.f_lineno)
            fallback = fallback or Source(file, frame.f_lineno)
        frame = frame.f_back
    return fallback


def raised_by_program(error: BaseException) -> bool:
    """Return True if an exception comes from code of the program, such as a signal handler."""
    traceback = error.__traceback__
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if not file.startswith(_OURS + _LIBRARIES):
            return True
        traceback = traceback.tb_next
    return False
