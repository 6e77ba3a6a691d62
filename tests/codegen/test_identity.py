"""A form and its kernel's id: equal for equal code only. Python holds ``1 == 1.0 == True`` and ``0.0 == -0.0``; code not."""

import pytest
import torch

from torchy.codegen.cpu.kernel import Compiler
from torchy.ir.kernel import Access, KernelForm, Literal, Load, Result, Statement, Store
from torchy.ir.trace import Mode


def form_with(value):
    f32 = torch.float32
    return KernelForm(
        (Access(f32, Mode.LINEAR), Access(f32, Mode.LINEAR)),
        (),
        (Statement("mul", (Load(0), Literal(value)), f32, f32),),
        (Store(1, Result(0)),),
    )


@pytest.mark.parametrize(
    ("one", "other"), [(1, 1.0), (1, True), (0.0, -0.0), ("1", 1), (None, "None")]
)
def test_forms_whose_literals_only_look_equal_differ_and_have_different_ids(one, other):
    compiler = Compiler()
    assert form_with(one) != form_with(other)
    assert compiler.identity(form_with(one)) != compiler.identity(form_with(other))


@pytest.mark.parametrize("value", [1, 1.5, True, None, "floor", "nan", "-inf"])
def test_equal_forms_have_equal_ids(value):
    one = float(value) if value in ("nan", "-inf") else value
    other = float(value) if value in ("nan", "-inf") else value
    compiler = Compiler()
    assert form_with(one) == form_with(other) and len({form_with(one), form_with(other)}) == 1
    assert compiler.identity(form_with(one)) == compiler.identity(form_with(other))
