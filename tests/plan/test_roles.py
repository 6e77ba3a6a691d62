"""The roles of real ops, as the op table gives them."""

import torch

from torchy.ir.trace import Buffer, Constant, Mode, Number, Op, Operand, Trace, View
from torchy.plan import roles
from torchy.plan.roles import classify

F32 = torch.float32
LINEAR = Mode.LINEAR


def role_of(name, arguments, result, dtypes=(F32, F32, F32), mode=LINEAR, numerics="exact", **more):
    """Views 0, 1 are inputs, view 2 is fresh."""
    buffers = (Buffer(0, None), Buffer(1, None), Buffer(2, 0))
    views = tuple(View(i, i, dtype, 1) for i, dtype in enumerate(dtypes))
    op = Op(0, name, arguments, (result,), mode, (result,))
    kinds = tuple(number.kind for number in op.numbers())
    return classify(op, Trace(buffers, views, (op,), kinds), numerics, **more)


def operand(view):
    return Operand(view, LINEAR, True)


def test_a_functional_op_reads_its_operands_and_writes_its_result():
    role = role_of("aten::add.Tensor", (operand(0), operand(1), Constant(1)), 2)
    assert (role.reads, role.writes, role.overwrites) == ((0, 1), (2,), (2,))
    assert role.formula.op == "add"
    assert role.formula.arguments == (operand(0), operand(1), Constant(1))
    assert (role.formula.compute, role.formula.dtype) == (F32, F32)


def test_an_in_place_op_reads_its_target():
    role = role_of("aten::mul_.Tensor", (operand(0), Number(0, float)), 0)
    assert (role.reads, role.writes, role.overwrites) == ((0,), (0,), ())


def test_an_out_form_does_not_read_its_target():
    role = role_of("aten::mul.out", (operand(0), operand(1), operand(2)), 2)
    assert (role.reads, role.overwrites) == ((0, 1), (2,))
    assert role.formula is not None


def test_a_copy_overwrites_its_target_whether_fused_or_not():
    for dtypes in ((F32, F32, F32), (torch.complex64, F32, F32)):
        arguments = (operand(0), operand(1), Constant(False))
        role = role_of("aten::copy_", arguments, 0, dtypes)
        assert (role.reads, role.overwrites) == ((1,), (0,))


def test_an_op_that_the_table_does_not_have_is_a_call():
    role = role_of("aten::renorm", (Operand(0),), 2, mode=None)
    assert (role.formula, role.why_not, role.reads) == (None, roles.IS_CALL, (0,))


def test_a_matrix_product_is_a_call():
    role = role_of("aten::mm", (Operand(0), Operand(1)), 2, mode=None)
    assert (role.formula, role.why_not) == (None, roles.IS_CALL)


def test_a_dtype_without_kernels_stays_a_call():
    half = torch.float16
    role = role_of("aten::neg", (operand(0),), 2, (half, half, half))
    assert (role.formula, role.why_not) == (None, roles.NO_KERNEL_DTYPE)


class SeenToDiffer:
    def why_inexact(self, *_):
        return "seen to differ"

    def by_position(self, *_):
        return False


def test_an_op_seen_to_differ_from_eager_stays_a_call_in_exact_mode():
    arguments = (operand(0), operand(1))
    role = role_of("aten::mul.Tensor", arguments, 2, exactness=SeenToDiffer())
    assert role.formula is None
    assert role.why_not == f"{roles.NOT_IDENTICAL}: seen to differ"
    fast = role_of("aten::mul.Tensor", arguments, 2, numerics="fast", exactness=SeenToDiffer())
    assert fast.formula is not None


def test_batch_norm_writes_its_running_statistics():
    buffers = tuple(Buffer(i, None if i < 5 else 0) for i in range(8))
    views = tuple(View(i, i, F32, 4 if i in (0, 5) else 1) for i in range(8))
    arguments = (
        *(Operand(view) for view in range(5)),
        Constant(True),
        Constant(0.1),
        Constant(1e-5),
    )
    op = Op(0, "aten::native_batch_norm", arguments, (5, 6, 7), None, (5, 6, 7))
    role = classify(op, Trace(buffers, views, (op,)))
    assert role.writes == (5, 6, 7, 3, 4)
