"""Rule 1, values: bit-identical to eager, signs of zeros included."""

import math

import pytest
import torch
import torch.nn.functional as F
from sameness import program

SPECIAL = [0.0, -0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e-45, -1e-45, 1e-38, 3e38, 0.5,
           -2.5, 1e-310, 88.7, -104.0, 709.8, 1e16, 3.0, 2**24 + 1.0]  # fmt: skip


def special(dtype=torch.float32):
    """Return every special value against every other: two tensors of 400 elements."""
    column = torch.tensor(SPECIAL, dtype=torch.float64).to(dtype)
    return column.repeat(len(SPECIAL)), column.repeat_interleave(len(SPECIAL))


UNARY = """abs neg exp exp2 expm1 log log2 log10 log1p sqrt rsqrt sin cos tan asin acos atan sinh cosh tanh asinh acosh
atanh erf erfc erfinv sigmoid reciprocal floor ceil round trunc frac sign sgn signbit isnan isinf isfinite isposinf
isneginf logit lgamma digamma square positive relu nan_to_num logical_not deg2rad rad2deg sinc i0""".split()
BINARY = """add sub mul div true_divide floor_divide remainder fmod pow atan2 hypot maximum minimum fmax fmin eq ne lt le
gt ge logical_and logical_or logical_xor copysign nextafter ldexp logaddexp logaddexp2 heaviside xlogy
float_power""".split()
ACTIVATIONS = """relu relu6 elu selu celu gelu silu mish softplus hardtanh hardswish hardsigmoid leaky_relu logsigmoid
softsign tanhshrink softshrink hardshrink threshold""".split()
DTYPES = ["float32", "float64", "bfloat16", "float16"]


@program
@pytest.mark.parametrize("dtype", DTYPES)
def test_unary_ops_on_special_values(dtype):
    x, _ = special(getattr(torch, dtype))
    return {name: getattr(torch, name)(x) for name in UNARY}


@program
@pytest.mark.parametrize("dtype", DTYPES)
def test_binary_ops_on_special_values(dtype):
    x, y = special(getattr(torch, dtype))
    return {name: getattr(torch, name)(x, y) for name in BINARY}


@program
@pytest.mark.parametrize("dtype", DTYPES)
def test_activations_on_special_values(dtype):
    x, _ = special(getattr(torch, dtype))
    more = {"threshold": (0.1, 20.0)}
    results = {name: getattr(F, name)(x, *more.get(name, ())) for name in ACTIVATIONS}
    return results | {
        "gelu tanh": F.gelu(x, approximate="tanh"),
        "softplus 2": F.softplus(x, 2.0, 5.0),
    }


@program
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_of_activations_on_special_values(dtype):
    gradients = {}
    for name in ACTIVATIONS:
        x = special(getattr(torch, dtype))[0].requires_grad_()
        more = (0.1, 20.0) if name == "threshold" else ()
        getattr(F, name)(x, *more).backward(torch.linspace(-1, 1, 400, dtype=x.dtype))
        gradients[name] = x.grad
    return gradients


@program
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_of_unary_ops_on_special_values(dtype):
    gradients = {}
    for name in UNARY:
        x = special(getattr(torch, dtype))[0].requires_grad_()
        y = getattr(torch, name)(x)
        if y.requires_grad:
            y.backward(torch.linspace(-1, 1, 400, dtype=x.dtype))
        gradients[name] = x.grad
    return gradients


@program
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64", "bool"])
def test_integer_ops_at_their_limits(dtype):
    kind = getattr(torch, dtype)
    low, high = (0, 1) if dtype == "bool" else (torch.iinfo(kind).min, torch.iinfo(kind).max)
    values = torch.tensor([low, low + 1, high, high - 1, 0, 1], dtype=torch.int64).to(kind)
    x, y = values.repeat(6), values.repeat_interleave(6)
    results = {
        name: getattr(torch, name)(x, y)
        for name in [
            "add",
            "mul",
            "bitwise_and",
            "bitwise_or",
            "bitwise_xor",
            "maximum",
            "minimum",
            "eq",
            "lt",
            "true_divide",
        ]
    }
    results |= {
        "not": ~x,
        "float": x.float(),
        "double": x.double(),
        "sum": x.sum(),
        "prod": x.prod(),
        "bool": x.bool(),
        "long": x.long(),
        "char": x.to(torch.int8),
        "half": x.half(),
    }
    if dtype != "bool":
        few = torch.tensor([0, 1, 2, 3, 5, 7], dtype=kind).repeat(6)
        results |= {
            "sub": x - y,
            "neg": -x,
            "abs": x.abs(),
            "shift": x << few,
            "shift right": x >> few,
            "pow": x**2,
            "clamp": x.clamp(1, 5),
            "sign": x.sign(),
        }
        nonzero = torch.where(y == 0, torch.ones_like(y), y)
        safe = torch.where((x == low) & (nonzero == -1), torch.zeros_like(x), x) if low else x
        results |= {
            "floor_divide": safe // nonzero,
            "remainder": safe % nonzero,
            "fmod": torch.fmod(safe, nonzero),
            "trunc": torch.div(safe, nonzero, rounding_mode="trunc"),
        }
    return results


@program
def test_conversions_out_of_range():
    x = torch.tensor([*SPECIAL, 1e10, -1e10, 255.9, 256.0, -129.0, 2.0**31, 2.0**63, -(2.0**63)])
    kinds = [
        torch.int8,
        torch.uint8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.bool,
        torch.float16,
        torch.bfloat16,
    ]
    y = x.repeat(5)
    return [y.to(kind) for kind in kinds], [y.double().to(kind) for kind in kinds]


@program
@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 65, 1000, 1025, 40_001])
def test_odd_lengths(size):
    x = torch.linspace(-5, 5, size)
    y = torch.linspace(3, -7, size)
    z = (x * y + 0.3).tanh().exp() * 0.5 - x
    return (
        z,
        z.sigmoid(),
        torch.where(z > 0, z, y).mul(2),
        (x.double() / y.double()).sin(),
        z.sum(),
        z.mean(),
    )


@program
def test_a_long_chain_on_large_tensors():
    x, y = torch.randn(300, 401), torch.randn(300, 401)
    for _ in range(8):
        x = (x + y) * y / 1.7 - x.abs()
        y = torch.where(x > y, x, y.neg()).clamp(-3, 3)
    return x, y


@program
def test_fused_multiply_add_forms():
    x, y, z = torch.randn(3, 1001).unbind()
    return [
        torch.add(x, y, alpha=0.1), torch.sub(x, y, alpha=1.1), torch.addcmul(x, y, z, value=0.3),
        torch.addcdiv(x, y, z, value=-0.7), torch.lerp(x, y, 0.3), torch.lerp(x, y, 0.8), torch.lerp(x, y, z),
        torch.rsub(x, y, alpha=3), x.add(2, alpha=3), x * y + z, x * 3 + 1, 1 - x, 2 / x, 2**x, x**3, x**0.5, x**-1,
    ]  # fmt: skip


@program
def test_reductions_keep_eagers_order_of_operations():
    x = torch.randn(37, 129, 5)
    y = x * 3 + 1
    return [y.sum(), y.sum(0), y.sum((0, 2)), y.mean(), y.mean(-1, keepdim=True), y.amax(1), y.amin((1, 2)),
            (y > 0).any(), (y > 0).all(1), y.prod(2), y.var(), y.var(1), y.std(0, correction=0), y.norm(),
            y.softmax(-1), y.log_softmax(1), y.logsumexp(0), y.max(1), y.argmax(), y.cumsum(0), y.sort(1)]  # fmt: skip


@program
def test_matrix_products_of_pending_operands():
    x, w, b = torch.randn(33, 20) * 2, torch.randn(20, 17) + 1, torch.randn(17) / 3
    batch = torch.randn(4, 33, 20).tanh()
    return [x @ w, torch.addmm(b, x, w), torch.addmm(b, x, w, beta=0.5, alpha=2), batch @ w, torch.bmm(batch, batch.mT),
            torch.baddbmm(batch @ batch.mT, batch, batch.mT), F.linear(x, w.t(), b), x.mv(w[:, 0]), b.dot(b),
            torch.einsum("bij,jk->bik", batch, w), torch.outer(b, b)]  # fmt: skip


@program
def test_values_that_the_program_dropped_do_not_matter():
    x = torch.randn(100)
    for _ in range(5):
        x * 3
        y = x + 1
        del y
        x = x.sin() + 0.1
    return x


@program(recorded=True)
def test_pointwise_ops_are_recorded():
    x = torch.randn(100)
    return ((x + 1) * x).exp()


@program
def test_layer_norm_and_softmax_of_pending_operands():
    x = torch.randn(8, 50) * 4 - 1
    w, b = torch.rand(50) + 0.5, torch.randn(50) * 0.1
    return [F.layer_norm(x, (50,), w, b), F.rms_norm(x, (50,), w), F.group_norm(x, 5), F.softmax(x * 2, 0),
            F.batch_norm(x, None, None, training=True), F.cosine_similarity(x, x + 1), F.normalize(x)]  # fmt: skip


@program
def test_selections_and_fills():
    x = torch.randn(50)
    mask = x > 0
    y = x + 1
    return [y.masked_fill(mask, 3.0), y.masked_fill(mask, -math.inf), torch.where(mask, y, 0.0), torch.where(mask, 1, 2),
            y.clamp(min=0.0), y.clamp(max=torch.zeros(50)), y.clamp(-math.inf, math.nan), y.fill_(7), y.zero_(),
            torch.zeros_like(x) + y, torch.full_like(x, 3).mul(x), torch.ones(3, 1) * torch.arange(2.0)]  # fmt: skip
