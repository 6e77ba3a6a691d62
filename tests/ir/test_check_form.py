"""Each rule of kernel forms is broken once."""

from dataclasses import replace

import pytest
import torch

from torchy.codegen.cpu.orders import order
from torchy.ir.check_form import check_form
from torchy.ir.kernel import (
    Access,
    Axis,
    KernelForm,
    Load,
    Reduction,
    Result,
    RowLength,
    RuntimeNumber,
    Statement,
    Store,
)
from torchy.ir.trace import Mode

F = torch.float32
SUM = order("sum", "sum", F, of_columns=False, lanes=8)
ROWS = (Axis.PARALLEL, Axis.REDUCED)
GOOD = KernelForm(
    (Access(F, Mode.LINEAR), Access(F, Mode.ROW), Access(F, Mode.LINEAR)),
    (float,),
    (
        Reduction("sum", "sum", Load(0), F, F, SUM),
        Statement("div", (Result(0), RowLength()), F, F),
        Statement("mul", (Load(0), Result(1)), F, F),
        Statement("mul", (Result(2), RuntimeNumber(0)), F, F),
    ),
    (Store(1, Result(1)), Store(2, Result(3))),
    ROWS,
)


def with_statement(index, statement):
    statements = list(GOOD.statements)
    statements[index] = statement
    return replace(GOOD, statements=tuple(statements))


def test_a_good_form_has_no_problems():
    assert check_form(GOOD) == []


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        (with_statement(1, Statement("neg", (Result(2),), F, F)), "t2 is used by what comes before"),
        (with_statement(1, Statement("neg", (RuntimeNumber(1),), F, F)), "n1 is none of 1 numbers"),
        (with_statement(1, Statement("neg", (Load(3),), F, F)), r"accesses \[0, 1, 2, 3\] are used"),
        (replace(GOOD, axes=(Axis.PARALLEL,)), "reductions come together"),
        (replace(GOOD, axes=(Axis.REDUCED, Axis.PARALLEL)), "no loop is over axes reduced, parallel"),
        (with_statement(0, Statement("neg", (Load(0),), F, F)), "reductions come together"),
        (replace(GOOD, stores=(Store(1, Result(2)),)), "what is stored has many"),
        (replace(GOOD, accesses=(*GOOD.accesses[:2], Access(F, Mode.REPEAT))), "is repeat, and stored"),
        (replace(GOOD, stores=(Store(2, Result(3)), Store(2, Result(2)))), "are stored"),
        (replace(GOOD, stores=()), "nothing is stored"),
    ],
)  # fmt: skip
def test_a_broken_form_is_told(form, problem):
    import re

    (found, *_) = [text for text in check_form(form) if re.search(problem, text)]
    assert found.endswith(")")
