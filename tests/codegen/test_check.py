"""Each rule of loop nests is broken once."""

from dataclasses import replace

import pytest
import torch

from torchy.codegen.check import check_nest
from torchy.codegen.cpu.orders import order
from torchy.codegen.loops import Stage, lower
from torchy.ir.kernel import Access, Axis, KernelForm, Load, Reduction, Result, Statement, Store
from torchy.ir.trace import Mode

F = torch.float32
SUM = order("sum", "sum", F, of_columns=False, lanes=8)
NEST = lower(
    KernelForm(
        (Access(F, Mode.LINEAR), Access(F, Mode.ROW)),
        (),
        (
            Statement("exp", (Load(0),), F, F),
            Reduction("sum", "sum", Result(0), F, F, SUM),
            Statement("div", (Result(0), Result(1)), F, F),
            Statement("neg", (Result(1),), F, F),
        ),
        (Store(0, Result(2)), Store(1, Result(3))),
        (Axis.PARALLEL, Axis.REDUCED),
    )
)


def with_stages(*stages):
    return replace(NEST, stages=stages)


def test_a_good_nest_has_no_problems():
    assert check_nest(NEST) == []
    assert [stage.kind for stage in NEST.stages if stage.nodes] == [
        "call",
        "reduction",
        "row",
        "loop",
    ]


LOOP, CALL, AGAIN, REDUCTION, ROW, LAST = NEST.stages


@pytest.mark.parametrize(
    ("nest", "problem"),
    [
        (replace(NEST, nodes=NEST.nodes[::-1]), "a node comes after its inputs"),
        (replace(NEST, uniform=(0,)), "depends on nothing that moves"),
        (replace(NEST, rows=(0,)), "of rows, has"),
        (with_stages(LOOP, REDUCTION, AGAIN, CALL, ROW, LAST), "before what it uses"),
        (with_stages(LOOP, CALL, AGAIN, REDUCTION, ROW), "stores are missing"),
        (with_stages(LOOP, CALL, CALL, AGAIN, REDUCTION, ROW, LAST), "twice"),
        (with_stages(LOOP, replace(CALL, kind="loop"), AGAIN, REDUCTION, ROW, LAST), "a loop, has"),
        (with_stages(replace(LOOP, stores=(0,)), CALL, AGAIN, REDUCTION, ROW, replace(LAST, stores=())),
         "before its value"),
        (with_stages(LOOP, replace(CALL, kind="reduction"), AGAIN, REDUCTION, ROW, LAST), "a reduction, has"),
        (replace(NEST, stages=(Stage("loop", (), (0,)), *NEST.stages)), "has been stored"),
    ],
)  # fmt: skip
def test_a_broken_nest_is_told(nest, problem):
    assert any(problem in text for text in check_nest(nest)), check_nest(nest)
