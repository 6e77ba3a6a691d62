"""What every random program begins with."""

# ruff: noqa: F401 - statements use them

import copy
import gc
import io
import pickle
import threading

import numpy
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

log, arrays, ZERO = [], [], torch.tensor([0])
MANY = 32768  # elements: eager gives them to several threads, which race where an op overlaps its own operand


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, t):
        ctx.save_for_backward(t)
        return t * 2

    @staticmethod
    def backward(ctx, gradient):
        (t,) = ctx.saved_tensors
        return gradient * 2 + t * 0


def in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def as_integers(t):
    """View integers as narrower ones; not floats: which NaN one is, is nobody's business."""
    return t.view(
        {torch.int64: torch.int32, torch.int32: torch.int16, torch.bool: torch.uint8}[t.dtype]
    )


def saved(t):
    file = io.BytesIO()
    torch.save(t, file)
    file.seek(0)
    return torch.load(file)


def look():
    """Note copies of all that there is."""
    there = {k: v for k, v in sorted(globals().items()) if type(v) is torch.Tensor and k != "ZERO"}
    log.append({k: v.detach().clone() for k, v in there.items()})
