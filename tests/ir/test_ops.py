"""The op table: names, arguments, type promotion, and that nothing pointwise was forgotten."""

import itertools

import pytest
import torch

from tests.ir.absent import ABSENT
from torchy.ir.ops import (
    SPECS,
    compute_dtype,
    literal_arguments,
    lookup,
    statement_arguments,
)
from torchy.ir.trace import Buffer, Constant, Number, Op, Operand, Trace, View

TENSOR_DTYPES = (torch.float32, torch.float64, torch.int64, torch.int32, torch.bool)


def trace_of(name, arguments, result=torch.float32):
    """A trace of one op; tensors are given as ``(dtype, rank)``."""
    views, mapped = [], []
    for argument in arguments:
        if isinstance(argument, tuple):
            mapped.append(Operand(len(views)))
            views.append(View(len(views), len(views), *argument))
        else:
            mapped.append(argument if isinstance(argument, Number) else Constant(argument))
    views.append(View(len(views), len(views), result, 1))
    buffers = tuple(Buffer(i, None) for i in range(len(views)))
    op = Op(0, name, tuple(mapped), (len(views) - 1,), None, (len(views) - 1,))
    return op, Trace(buffers, tuple(views), (op,))


def compute(name, arguments, result=torch.float32):
    op, trace = trace_of(name, arguments, result)
    spec = lookup(name)
    assert spec is not None
    return compute_dtype(spec, op, trace)


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("aten::add.Tensor", "add"),
        ("aten::add_.Tensor", "add"),
        ("aten::add.out", "add"),
        ("aten::add_.Scalar", "add"),
        ("aten::pow.Tensor_Scalar", "pow"),
        ("aten::eq.Scalar", "eq"),
        ("aten::eq_.Scalar", "eq"),
        ("aten::clamp", "clamp"),
        ("aten::clamp_", "clamp"),
        ("aten::clamp.Tensor", "clamp_tensor"),
        ("aten::clamp_min.Tensor_out", "clamp_min_tensor"),
        ("aten::div.Tensor_mode", "div_mode"),
        ("aten::div_.Scalar_mode", "div_mode"),
        ("aten::lerp_.Scalar", "lerp"),
        ("aten::lerp.Tensor", "lerp_tensor"),
        ("aten::copy_", "copy"),
        ("aten::fill_.Scalar", "fill"),
        ("aten::zero_", "zero"),
        ("aten::threshold_backward.grad_input", "threshold_backward"),
        ("aten::sum.dim_IntList", "sum"),
        ("aten::cat.out", "cat"),
        ("aten::add.t", None),
        ("aten::round.decimals", None),
        ("aten::median.dim", None),
        ("aten::nonzero", None),
        ("aten::no_such_op", None),
        ("mylib::add.Tensor", None),
        ("aten::_foreach_add.List", None),
    ],
)
def test_lookup_derives_in_place_out_and_scalar_forms(name, spec):
    found = lookup(name)
    assert (found and found.name) == spec


def test_native_batch_norm_writes_what_its_schema_does_not_say():
    assert lookup("aten::native_batch_norm").hidden_writes == ("running_mean", "running_var")


def test_arguments_come_in_the_order_of_the_formula():
    # elu_backward(grad_output, alpha, scale, input_scale, is_result, self_or_result)
    name = "aten::elu_backward"
    op, _ = trace_of(name, [(torch.float32, 1), 1.0, 1.0, 1.0, True, (torch.float32, 1)])
    spec = lookup(name)
    arguments = statement_arguments(spec, op)
    assert len(arguments) == len(spec.parameters)
    named = dict(zip(spec.parameters, arguments, strict=True))
    assert named["self_or_result"] == Operand(1)
    assert literal_arguments(spec, op)["is_result"] is True


def test_copy_leaves_out_the_target_that_it_does_not_read():
    op, trace = trace_of("aten::copy_", [(torch.float32, 1), (torch.int64, 1), False])
    assert statement_arguments(lookup("aten::copy_"), op) == (Operand(1),)
    assert compute_dtype(lookup("aten::copy_"), op, trace) is torch.float32


def test_a_missing_argument_is_none():
    op, _ = trace_of("aten::add.Tensor", [(torch.float32, 1), (torch.float32, 1)])
    assert statement_arguments(lookup("aten::add.Tensor"), op)[2] == Constant(None)


@pytest.mark.parametrize(
    ("left", "right"), list(itertools.product(itertools.product(TENSOR_DTYPES, (0, 1)), repeat=2))
)
def test_promotion_of_tensors_is_eagers(left, right):
    tensors = [torch.ones((1,) * rank, dtype=dtype) for dtype, rank in (left, right)]
    expected = torch.mul(*tensors).dtype
    assert compute("aten::mul.Tensor", [left, right]) is expected
    assert compute("aten::div.Tensor", [left, right]) is torch.div(*tensors).dtype


@pytest.mark.parametrize("number", [True, 2, 2.5])
@pytest.mark.parametrize("operand", list(itertools.product(TENSOR_DTYPES, (0, 1))))
def test_promotion_with_a_number_is_eagers(operand, number):
    dtype, rank = operand
    expected = torch.mul(torch.ones((1,) * rank, dtype=dtype), number).dtype
    assert compute("aten::mul.Tensor", [operand, Number(0, type(number))]) is expected
    assert compute("aten::mul.Scalar", [operand, number]) is expected


def test_promotion_follows_the_default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        assert compute("aten::exp", [(torch.int64, 1)]) is torch.float64
        assert compute("aten::mul.Tensor", [(torch.int64, 1), Number(0, float)]) is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_alpha_takes_no_part_in_promotion():
    arguments = [(torch.float32, 1), (torch.float32, 1), Number(0, float)]
    assert compute("aten::add.Tensor", arguments) is torch.float32


def test_in_place_computes_in_the_common_dtype():
    assert (
        compute("aten::add_.Tensor", [(torch.float32, 1), (torch.float64, 1), 1]) is torch.float64
    )


def test_comparisons_compute_in_the_common_dtype():
    assert compute("aten::lt.Scalar", [(torch.int64, 1), 2.5]) is torch.float32


def test_rounding_division_keeps_integers():
    ints = [(torch.int64, 1), (torch.int64, 1)]
    assert compute("aten::div.Tensor_mode", [*ints, "floor"]) is torch.int64
    assert compute("aten::div.Tensor_mode", [*ints, None]) is torch.float32


def test_integer_division_has_no_formula_and_may_raise():
    for name in ("floor_divide", "remainder", "fmod", "div_mode"):
        spec = SPECS[name]
        assert "i" in spec.raises_on_data
        for dtype in (torch.int32, torch.int64):
            assert spec.rule(dtype, {"rounding_mode": "trunc"}) is None


def test_an_exponent_is_part_of_the_code():
    pow = SPECS["pow"]
    assert "exponent" not in pow.runtime
    f, i = torch.float32, torch.int64
    assert pow.rule(f, {"exponent": 2.0}).formula == pow.rule(i, {"exponent": 2}).formula
    assert pow.rule(i, {"exponent": 0.5}) is None


def pointwise_ops():
    """Functional bases of the ops that ATen tags as pointwise and that reach the dispatcher below autograd."""
    found = set()
    for name in torch._C._dispatch_get_all_op_names():
        qualified, _, overload = name.partition(".")
        namespace, _, base = qualified.partition("::")
        if namespace != "aten" or (base.endswith("_") and not base.endswith("__")):
            continue
        op = getattr(getattr(torch.ops.aten, base), overload or "default", None)
        if op is None or torch.Tag.pointwise not in op.tags or "out" in overload:
            continue
        composite = torch._C._dispatch_has_kernel_for_dispatch_key(
            name, "CompositeImplicitAutograd"
        )
        if not composite:
            found.add(name)
    return found


def test_every_pointwise_op_is_in_the_table_or_absent_for_a_reason():
    missing = {name for name in pointwise_ops() if lookup(name) is None}
    unexplained = {name for name in missing if not {name, name.partition(".")[0]} & set(ABSENT)}
    assert not unexplained
    assert all(ABSENT.values())


def test_no_op_is_both_absent_and_in_the_table():
    assert not {name for name in ABSENT if lookup(name)}


def test_absent_ops_exist():
    names = torch._C._dispatch_get_all_op_names()
    assert not set(ABSENT) - set(names) - {name.partition(".")[0] for name in names}
