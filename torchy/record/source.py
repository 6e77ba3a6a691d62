"""Whose code is whose: the program's, a library's, torch's and Torchy's own.

Which line of the program an op comes from is found by the walker: see source.h.
"""

from __future__ import annotations

import os

import torch

_TORCH = os.path.dirname(torch.__file__) + os.sep
_TORCHY = os.path.dirname(os.path.dirname(__file__)) + os.sep
_JUPYTER = _TORCHY[: -len(os.sep)] + "_jupyter" + os.sep
OWN_FOLDERS = (_TORCH, _TORCHY, _JUPYTER, "<frozen")
LIBRARY_FOLDERS = tuple(
    {
        os.path.dirname(os.path.dirname(torch.__file__)) + os.sep,  # site-packages
        os.path.dirname(os.__file__) + os.sep,
    }
)


def raised_by_program(error: BaseException) -> bool:
    """Return True if an exception comes from code of the program, such as a signal handler."""
    traceback = error.__traceback__
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if not file.startswith(OWN_FOLDERS + LIBRARY_FOLDERS):
            return True
        traceback = traceback.tb_next
    return False
