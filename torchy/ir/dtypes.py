"""What Torchy knows of torch's dtypes, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import torch

Kind = Literal["f", "i", "b", "-"]

# In the order of c10::ScalarType, by whose numbers the walker calls them: torch's name, the short one of listings, and the
# kind of those that kernels know: floating, integer or bool.
_TABLE: Final[tuple[tuple[str, str, Kind], ...]] = (
    ("uint8", "u8", "-"), ("int8", "i8", "-"), ("int16", "i16", "-"), ("int32", "i32", "i"), ("int64", "i64", "i"),
    ("float16", "f16", "-"), ("float32", "f32", "f"), ("float64", "f64", "f"),
    ("complex32", "c32", "-"), ("complex64", "c64", "-"), ("complex128", "c128", "-"), ("bool", "bool", "b"),
    *((name, name, "-") for name in ("qint8", "quint8", "qint32")),
    ("bfloat16", "bf16", "f"),
    *((name, name, "-") for name in ("quint4x2", "quint2x4", "bits1x8", "bits2x4", "bits4x2", "bits8", "bits16")),
    *((name, name, "-") for name in ("float8_e5m2", "float8_e4m3fn", "float8_e5m2fnuz", "float8_e4m3fnuz")),
    *((f"uint{bits}", f"u{bits}", "-") for bits in (16, 32, 64)),
    *((f"uint{bits}", f"u{bits}", "-") for bits in range(1, 8)),
    *((f"int{bits}", f"i{bits}", "-") for bits in range(1, 8)),
    *((name, name, "-") for name in ("float8_e8m0fnu", "float4_e2m1fn_x2")),
)  # fmt: skip

BY_CODE: Final[tuple[torch.dtype, ...]] = tuple(getattr(torch, name) for name, _, _ in _TABLE)
_SHORT: Final = {dtype: short for dtype, (_, short, _) in zip(BY_CODE, _TABLE, strict=True)}
_KINDS: Final = {dtype: kind for dtype, (_, _, kind) in zip(BY_CODE, _TABLE, strict=True)}

IN_KERNELS: Final = frozenset(dtype for dtype, kind in _KINDS.items() if kind != "-")
# Of 16 bits: what ATen's kernels compute in; they round once, to what is stored.
_COMPUTED_IN: Final = {torch.bfloat16: torch.float32}
# of Python's numbers, as they are handed to a kernel
OF_NUMBERS: Final[Mapping[type, torch.dtype]] = {
    bool: torch.bool,
    int: torch.int64,
    float: torch.float64,
}
_WORDS: Final = {
    dtype.itemsize: dtype for dtype in (torch.int8, torch.int16, torch.int32, torch.int64)
}


def kind_of(dtype: torch.dtype) -> Kind:
    """Return ``f``, ``i`` or ``b`` for the dtypes that kernels know, and a dash for all others."""
    return _KINDS.get(dtype, "-")


def computed_in(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which kernels compute what has this one."""
    return _COMPUTED_IN.get(dtype, dtype)


def short_name(dtype: torch.dtype) -> str:
    """Return the short name of a dtype: ``f32`` for ``torch.float32``."""
    return _SHORT.get(dtype) or str(dtype).removeprefix("torch.")


def word_of(dtype: torch.dtype) -> torch.dtype:
    """Return the integer dtype of the same size: as that, elements are compared by their bits."""
    return _WORDS[dtype.itemsize]
