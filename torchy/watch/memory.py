"""Memory by its address, as tensors: windows on it, and copies that lie like it."""

from __future__ import annotations

import ctypes

import torch

from torchy.ir.trace import Layout

LINE = 64  # bytes of a cache line: where memory lies within one may show in what a library computes


def copy_of(address: int, count: int) -> torch.Tensor:
    """Return a copy of memory, as far from the beginning of a cache line as that is."""
    room = torch.empty(count + LINE, dtype=torch.uint8)
    begin = (address - room.data_ptr()) % LINE
    copy = room[begin : begin + count]
    if count:
        ctypes.memmove(copy.data_ptr(), address, count)
    return copy


def window(address: int, dtype: torch.dtype, layout: Layout) -> torch.Tensor:
    """Return a strided window on memory that begins at an address; it is not owned, and has to stay there."""
    if 0 in layout.sizes:
        return torch.empty_strided(layout.sizes, layout.strides, dtype=dtype)
    reach = 1 + sum((n - 1) * step for n, step in zip(layout.sizes, layout.strides, strict=True))
    first = address + layout.offset * dtype.itemsize
    memory = (ctypes.c_char * (reach * dtype.itemsize)).from_address(first)
    return torch.frombuffer(memory, dtype=dtype).as_strided(layout.sizes, layout.strides)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Tell if two tensors of one dtype and size have the same bits in all elements."""
    if one.numel() == 0:
        return True
    as_bytes = (
        one.contiguous().view(-1).view(torch.uint8),
        other.contiguous().view(-1).view(torch.uint8),
    )
    return torch.equal(*as_bytes)
