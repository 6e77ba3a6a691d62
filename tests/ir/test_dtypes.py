"""The table of dtypes says of each what torch says."""

import pytest
import torch

from torchy.ir import dtypes

MADE = [torch.uint8, torch.int64, torch.float16, torch.float32, torch.float64, torch.bfloat16, torch.bool,
        torch.complex64, torch.complex128, torch.uint16, torch.uint64]  # fmt: skip


@torch.jit.script
def code(x: torch.Tensor) -> int:
    return x.dtype


@pytest.mark.parametrize("dtype", MADE)
def test_codes_are_those_of_torch(dtype):
    assert dtypes.BY_CODE[code(torch.empty(0, dtype=dtype))] is dtype


def test_every_dtype_of_torch_has_one_code():
    known = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}
    assert set(dtypes.BY_CODE) == known and len(dtypes.BY_CODE) == len(known)


def test_names_are_short():
    assert dtypes.short_name(torch.bfloat16) == "bf16"
    assert dtypes.short_name(torch.float8_e5m2) == "float8_e5m2"
    names = [dtypes.short_name(dtype) for dtype in dtypes.BY_CODE]
    assert len(set(names)) == len(names)


def test_kinds_are_those_of_what_kernels_know():
    kinds = {dtypes.short_name(dtype): dtypes.kind_of(dtype) for dtype in dtypes.IN_KERNELS}
    assert kinds == {"bf16": "f", "f32": "f", "f64": "f", "i32": "i", "i64": "i", "bool": "b"}
    assert dtypes.kind_of(torch.complex64) == "-"


def test_words_have_the_bits():
    x = torch.tensor([1.0, -0.0])
    assert x.view(dtypes.word_of(x.dtype)).tolist() == [0x3F800000, -(2**31)]
    assert dtypes.word_of(torch.bool) is torch.int8
