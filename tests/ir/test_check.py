from dataclasses import replace

import pytest
import torch

from torchy.ir.check import InvalidTraceError, check_trace, is_dense, mode_is_true, require_valid
from torchy.ir.trace import Buffer, Constant, Layout, Mode, Number, Op, Operand, Trace, View

F32 = torch.float32


def operand(view, mode=Mode.LINEAR, same_sizes=True):
    return Operand(view, mode, same_sizes)


def trace_of(*ops, inputs=1, numbers=()):
    """Views 0... of the inputs, then one for each op that creates its result."""
    buffers = [Buffer(index, None) for index in range(inputs)]
    for op in ops:
        if op.results[0] == len(buffers):
            buffers.append(Buffer(len(buffers), op.index))
    views = tuple(View(buffer.index, buffer.index, F32, 2) for buffer in buffers)
    return Trace(tuple(buffers), views, ops, numbers)


GOOD = Op(0, "aten::neg", (operand(0),), (1,), Mode.LINEAR, (1,))


def with_op(**changes):
    return trace_of(replace(GOOD, **changes))


def test_a_good_trace_has_no_problems():
    trace = trace_of(
        GOOD,
        Op(
            1,
            "aten::add_.Tensor",
            (operand(1), operand(0), Number(0, float)),
            (1,),
            Mode.LINEAR,
            (1,),
        ),
        Op(2, "aten::mm", (Operand(1), Operand(0)), (2,), None, (2,)),
        numbers=(float,),
    )
    assert check_trace(trace) == []
    require_valid(trace)


A_VIEW = View(1, 1, F32, 2)
BAD = {
    "op 0 calls itself 3": replace(trace_of(GOOD), ops=(replace(GOOD, index=3),)),
    "buffer 1 calls itself 2": replace(trace_of(GOOD), buffers=(Buffer(0, None), Buffer(2, 0))),
    "view 1 looks at buffer 7": replace(
        trace_of(GOOD), views=(View(0, 0, F32, 2), replace(A_VIEW, buffer=7))
    ),
    "buffer 0 is created by op 9": replace(trace_of(GOOD), buffers=(Buffer(0, 9), Buffer(1, 0))),
    "op 0 names view 5": with_op(arguments=(operand(5),)),
    "op 0 names number 0": with_op(arguments=(operand(0), Number(0, int))),
    "creates buffer 1 and does not write it": with_op(writes=()),
    "reads view 1 of a buffer that op 0 creates": with_op(arguments=(operand(1),)),
    "writes view 1 of a buffer that op 1 creates": replace(
        trace_of(replace(GOOD, arguments=(operand(1),)), replace(GOOD, index=1)),
        buffers=(Buffer(0, None), Buffer(1, 1)),
    ),
    "returns view 0 without writing it": trace_of(GOOD, replace(GOOD, index=1, results=(0,))),
    "writes view 0, which is neither fresh nor an argument": trace_of(
        Op(0, "aten::neg", (), (0,), Mode.LINEAR, (0,))
    ),
    "has a number of kind complex": replace(
        with_op(arguments=(operand(0), Number(0, complex))), number_kinds=(complex,)
    ),
    "calls number 0 a int; it is a float": replace(
        with_op(arguments=(operand(0), Number(0, int))), number_kinds=(float,)
    ),
    "has a result mode None and an operand mode Mode.LINEAR": with_op(result_mode=None),
    "and an operand mode None": with_op(arguments=(Operand(0),)),
    "is not pointwise; view 0 cannot have its sizes": with_op(
        result_mode=None, arguments=(Operand(0, None, True),)
    ),
    "is pointwise and has no first result": replace(
        trace_of(GOOD), ops=(replace(GOOD, results=(None,)),)
    ),
    "reaches view 0 as": with_op(arguments=(operand(0), operand(0, Mode.UNIT))),
    "reaches view 0 linearly, but sizes or density differ": with_op(result_mode=Mode.UNIT),
    "with the same sizes has 1": replace(trace_of(GOOD), views=(View(0, 0, F32, 1), A_VIEW)),
    "whose sizes are not its own": trace_of(
        Op(0, "aten::neg_", (operand(0, Mode.UNIT, False),), (0,), Mode.UNIT, (0,))
    ),
}


@pytest.mark.parametrize("problem", BAD)
def test_each_broken_rule_is_named(problem):
    assert any(problem in line for line in check_trace(BAD[problem])), check_trace(BAD[problem])


def test_an_invalid_trace_raises_with_all_that_is_wrong():
    with pytest.raises(InvalidTraceError, match="op 0 calls itself 3"):
        require_valid(replace(trace_of(GOOD), ops=(replace(GOOD, index=3),)))


def test_constants_and_undefined_results_are_fine():
    op = Op(0, "aten::mm", (Operand(0), Constant(None)), (1, None), None, (1,))
    assert check_trace(trace_of(op)) == []


SPACE = Layout((4, 3), (3, 1), 0)


@pytest.mark.parametrize(
    ("mode", "layout", "is_true"),
    [
        (Mode.LINEAR, Layout((4, 3), (3, 1), 7), True),
        (Mode.LINEAR, Layout((4, 3), (1, 4), 0), False),
        (Mode.LINEAR, Layout((3,), (1,), 0), False),
        (Mode.SCALAR, Layout((), (), 5), True),
        (Mode.SCALAR, Layout((1, 1), (9, 9), 0), True),
        (Mode.SCALAR, Layout((4, 1), (1, 1), 0), False),
        (Mode.UNIT, Layout((3,), (1,), 0), True),
        (Mode.UNIT, Layout((4, 3), (6, 1), 0), True),
        (Mode.UNIT, Layout((4, 3), (1, 4), 0), False),
        (Mode.REPEAT, Layout((4, 1), (1, 1), 0), True),
        (Mode.REPEAT, Layout((3,), (1,), 0), False),
        (Mode.STRIDED, Layout((4, 3), (1, 4), 0), True),
        (Mode.STRIDED, Layout((2, 4, 3), (12, 3, 1), 0), False),
    ],
)
def test_a_mode_is_true_of_a_layout_or_not(mode, layout, is_true):
    assert mode_is_true(mode, layout, SPACE) is is_true


def test_an_empty_space_is_walked_in_any_way():
    empty = Layout((0, 3), (3, 1), 0)
    assert mode_is_true(Mode.UNIT, empty, empty)
    assert is_dense(empty)


@pytest.mark.parametrize(
    ("layout", "dense"),
    [
        (Layout((4, 3), (3, 1), 0), True),
        (Layout((4, 3), (1, 4), 0), True),
        (Layout((4, 1), (1, 99), 0), True),
        (Layout((), (), 3), True),
        (Layout((4,), (2,), 0), False),
        (Layout((4, 3), (0, 1), 0), False),
    ],
)
def test_dense_views_fill_a_stretch_of_memory(layout, dense):
    assert is_dense(layout) is dense


@pytest.mark.parametrize(
    ("layouts", "problem"),
    [
        ([SPACE, SPACE], ""),
        ([SPACE], "1 layouts for 2 views"),
        ([SPACE, Layout((3,), (1,), 0)], "view 1 has rank 2"),
        ([Layout((4, 4), (4, 1), 0), SPACE], "has other sizes"),
        ([Layout((4, 3), (1, 4), 0), SPACE], "is not linear"),
        ([SPACE, Layout((4, 3), (6, 1), 0)], "the result is not dense"),
    ],
)
def test_what_a_trace_says_must_be_true_of_a_recording(layouts, problem):
    problems = check_trace(trace_of(GOOD), layouts)
    assert any(problem in line for line in problems) if problem else problems == []
