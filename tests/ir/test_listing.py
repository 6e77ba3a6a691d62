import torch

from torchy.ir.kernel import (
    Access,
    KernelForm,
    Literal,
    Load,
    Result,
    RuntimeNumber,
    Statement,
    Store,
)
from torchy.ir.listing import form_text, listing, short_op
from torchy.ir.trace import (
    Buffer,
    Constant,
    Layout,
    Mode,
    Number,
    Op,
    Operand,
    Source,
    Trace,
    View,
)

F32 = torch.float32


def example():
    """Return ``y = x + 2.5 * row``; ``y[:, 1].neg_()``; ``z = y.sum((0,), False, dtype=float64)``."""
    buffers = (Buffer(0, None), Buffer(1, None), Buffer(2, 0), Buffer(3, 2))
    views = (
        View(0, 0, F32, 2),
        View(1, 1, F32, 1),
        View(2, 2, F32, 2),
        View(3, 2, F32, 1),
        View(4, 3, torch.float64, 1),
    )
    linear = Operand(0, Mode.LINEAR, True)
    ops = (
        Op(
            0,
            "aten::add.Tensor",
            (linear, Operand(1, Mode.UNIT), Number(0, float)),
            (2,),
            Mode.LINEAR,
            (2,),
            Source("/tmp/ipykernel_1/2.py", 7),
        ),
        Op(1, "aten::neg_", (Operand(3, Mode.STRIDED, True),), (3,), Mode.STRIDED, (3,)),
        Op(
            2,
            "aten::sum.dim_IntList",
            (Operand(2), Constant((0,)), Constant(False), Constant(torch.float64)),
            (4,),
            None,
            (4,),
            Source("/home/me/model.py", 12),
        ),
    )
    layouts = (
        Layout((2, 3), (3, 1), 0),
        Layout((3,), (1,), 0),
        Layout((2, 3), (3, 1), 0),
        Layout((2,), (3,), 1),
        Layout((3,), (1,), 0),
    )
    return Trace(buffers, views, ops, (float,)), layouts, (2.5,)


def test_a_trace_prints_with_sizes_numbers_and_lines():
    trace, layouts, numbers = example()
    assert listing(trace, layouts, numbers, {"/tmp/ipykernel_1/2.py": "cell 4"}) == (
        "%0: f32[2, 3] = input\n"
        "%1: f32[3] = input\n"
        "%2: f32[2, 3] = add(%0, %1, 2.5)        # cell 4, line 7\n"
        "%3: f32[2] strides (3) = view of %2, offset 1\n"
        "%3: f32[2] strides (3) = neg_(%3)\n"
        "%4: f64[3] = sum(%2, [0], False, f64)   # model.py, line 12"
    )


def test_a_trace_prints_without_a_recording_too():
    trace, _, _ = example()
    assert listing(trace).splitlines()[:4] == [
        "%0: f32[·, ·] = input",
        "%1: f32[·] = input",
        "%2: f32[·, ·] = add(%0, %1, n0)         # 2.py, line 7",
        "%3: f32[·] = view of %2",
    ]


def test_lists_and_undefined_results_print():
    trace = Trace(
        (Buffer(0, None), Buffer(1, 0)),
        (View(0, 0, F32, 1), View(1, 1, F32, 1)),
        (Op(0, "aten::cat", ((Operand(0), Operand(0)), Constant(0)), (1, None), None, (1,)),),
    )
    assert listing(trace).splitlines()[1] == "%1: f32[·], none = cat([%0, %0], 0)"


def test_names_are_short():
    assert short_op("aten::add_.Tensor") == "add_"
    assert short_op("mine::op.out") == "mine::op"


def test_a_kernel_form_prints():
    form = KernelForm(
        (Access(F32, Mode.LINEAR), Access(torch.int64, Mode.UNIT)),
        (float,),
        (
            Statement("add", (Load(0), RuntimeNumber(0), Literal(1)), F32, F32),
            Statement("mul", (Result(0), Load(1)), F32, torch.int64),
        ),
        (Store(1, Result(1)),),
    )
    assert form_text(form) == (
        "a0: f32 linear\n"
        "a1: i64 unit\n"
        "t0: f32 = add(a0, n0, 1)\n"
        "t1: i64 = mul(t0, a1) in f32\n"
        "a1 ← t1"
    )
    assert "%7 ← t1" in form_text(form, (4, 7))
