"""Rule 1 for 16 bits: kernels compute in 32 and round where eager rounds."""

import pytest
import torch
from sameness import program

BF16 = torch.bfloat16


def values():
    torch.manual_seed(6)
    return (torch.randn(37, 45) * 10.0 ** torch.randint(-3, 4, (37, 45))).to(BF16), torch.randn(
        37, 45
    ).to(BF16)


def chain(x, y):
    for _ in range(4):
        x = x * 1.1 + y
        x = (x - 0.7).relu() / 3
        x = torch.where(x > y, x, y * x).clamp(-2.3, 100.1)
        x = x.abs() - y.neg()
    return x


def numbers(x, y):
    return (
        x * 0.7,
        x / 0.7,
        0.7 / x,
        x + 0.7,
        0.7 - x,
        x * 3,
        x - True,
        x.clamp(0.1, 0.3),
        x > 0.7,
        x == 0.1,
        x**2,
    )


def alphas(x, y):
    return (
        torch.add(x, y, alpha=0.7),
        torch.sub(x, y, alpha=3),
        torch.addcmul(x, y, y, value=0.3),
        x.lerp(y, 0.1),
    )


def wider_results(x, y):
    """What is computed in 16 bits is rounded to these before it is written to more."""
    wide, double = torch.empty(37, 45), torch.empty(37, 45, dtype=torch.float64)
    torch.mul(x, 3.7, out=wide)
    torch.addcmul(x, y, y, value=0.3, out=double)
    return wide, double, torch.sub(x, y, out=wide.clone()) * 2


def conversions(x, y):
    wide = x.float()
    return (
        wide * y,
        (wide * 1.1).to(BF16) + y,
        x.double() - y,
        x.int() + y,
        (x > 0).to(BF16) * y,
        x.half() * 2,
    )


def writes(x, y):
    z = x * 2
    z.add_(y).mul_(0.3)
    z[:, 1:].sub_(y[:, :-1])
    w = (x.float() - 0.1).mul_(y)
    z.copy_(w)
    return z, w


def shapes(x, y):
    return (
        x * y[0] + y[:, :1],
        (x.mT + 0.1) * y.mT,
        x[::2] * 1.7 - y[::2, :],
        (x * torch.tensor(0.7)) + y,
    )


def integers(x, y):
    i = torch.arange(45) + 257  # 8 bits do not hold them
    return (
        x * i,
        i * x,
        x / i,
        i / x,
        x + i.int(),
        x * i[:1],
        x[:, :1] * i,
        x * torch.tensor(1001),
        x * (y > 0),
    )


def single_elements(x, y):
    wide, short = torch.tensor(0.7), torch.tensor(0.7, dtype=BF16)
    return (
        x * wide,
        wide * x,
        x + wide,
        x * short,
        short / x,
        x / wide,
        x - wide.double(),
        x * torch.tensor(7),
    )


def missing_values(x, y):
    z = (x - x) / (y - y)
    return z, z + 1, z > 0, z.isnan(), torch.where(z != z, y, x), z.abs(), z.float() * 2


def lists(x, y):
    mixed = [x.float(), x.clone(), y * 2]
    torch._foreach_mul_(mixed, 3.7)
    torch._foreach_div_(mixed, 0.7)
    torch._foreach_add_(mixed, 0.1)
    return (
        *mixed,
        *torch._foreach_mul(mixed, 0.3),
        *torch._foreach_sub(mixed, 0.7),
        *torch._foreach_div(mixed, [0.3, 0.7, 3.7]),
    )


def overloads(x, y):
    aten, z, w = torch.ops.aten, x * 1, y * 1
    return (
        aten.mul_.Scalar(z, 3.7),
        aten.mul.Scalar(x, 3.7),
        aten.div.Scalar(x, 3.7),
        aten.div_.Scalar(w, 3.7),
        aten.add.Scalar(x, 0.7),
    )


def functions(x, y):
    return (
        (x * 1.1).exp() + y,
        torch.sigmoid(x + y) * 2,
        (x * y).tanh(),
        x.abs().sqrt() - y,
        (x * y).sum(-1) + 1,
    )


@program(given=values, recorded=True)
@pytest.mark.parametrize(
    "function",
    [
        chain,
        numbers,
        alphas,
        wider_results,
        conversions,
        writes,
        shapes,
        integers,
        single_elements,
        missing_values,
        functions,
        lists,
        overloads,
    ],
    ids=lambda function: function.__name__,
)
def test_16_bits(x, y, function):
    return function(x, y)


@program(given=lambda: (torch.randn(300, 400).to(BF16), torch.randn(300, 400).to(BF16)))
def test_16_bits_on_several_threads(x, y):
    return chain(x, y), (x * y).float()


@program(given=lambda: torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(BF16))
def test_each_of_the_65536_numbers(x):
    found = (
        x * 1,
        x + 0.0,
        x.float(),
        x * x,
        -x,
        x.abs(),
        x.relu(),
        x.double().to(BF16),
        (x.float() * 1.001).to(BF16),
    )
    return [torch.where(y != y, 0, y) for y in found]


def test_a_chain_of_16_bits_is_one_kernel():
    import torchy

    x, y = values()
    with torchy.lazy(compile="always") as session:
        kept = chain(x, y)
        torchy.flush()
    (group,) = session.report.traces[0].groups
    assert group.kind == "fused" and len(group.ops) == 48 and kept.dtype is BF16
