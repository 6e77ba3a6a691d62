"""Rule 1 and 3: type promotion as eager does, for all pairs of dtypes and kinds of scalars."""

import operator

import pytest
import torch
from sameness import program

DTYPES = [
    "bool",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "complex64",
]
OPERATORS = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv,
    "floordiv": operator.floordiv, "mod": operator.mod, "eq": operator.eq, "lt": operator.lt, "ge": operator.ge,
    "and": operator.and_, "maximum": torch.maximum, "where": lambda x, y: torch.where(x == x, x, y),
    "atan2": torch.atan2, "pow": operator.pow,
}  # fmt: skip


def attempt(function, *operands):
    """Return the result, or what was raised."""
    try:
        return function(*operands)
    except Exception as error:
        return error


def operands(dtype):
    """Return a vector and a zero-dimensional tensor."""
    return torch.tensor([1, 0, 1, 1, 1], dtype=getattr(torch, dtype)), torch.tensor(
        1, dtype=getattr(torch, dtype)
    )


@program(times=2, slow=("never",))
@pytest.mark.parametrize("name", OPERATORS)
def test_all_pairs_of_dtypes_and_ranks(name):
    function, results = OPERATORS[name], {}
    for left in DTYPES:
        for right in DTYPES:
            (x, x0), (y, y0) = operands(left), operands(right)
            y, y0 = (y | True, y0) if right == "bool" else (y + 1, y0)
            results[f"{left} {right}"] = [attempt(function, x, y), attempt(function, x0, y), attempt(function, x, y0),
                                          attempt(function, x0, y0)]  # fmt: skip
    return results


@program(times=2, slow=("never",))
@pytest.mark.parametrize("name", OPERATORS)
def test_all_dtypes_with_all_kinds_of_scalars(name):
    function, results = OPERATORS[name], {}
    for dtype in DTYPES:
        for scalar in [True, False, 2, -3, 0.5, 2.0, 1e30, 1j]:
            if name in ("floordiv", "mod") and scalar in (0, False):
                continue
            for x in operands(dtype):
                y = x | True if dtype == "bool" else x + 1
                results[f"{dtype} {x.dim()} {scalar}"] = attempt(function, x, scalar)
                results[f"{scalar} {dtype} {x.dim()}"] = attempt(function, scalar, y)
    return results


@program(times=2, slow=("never",))
@pytest.mark.parametrize("name", ["add", "mul", "sub", "div", "floordiv", "mod", "and", "pow"])
def test_in_place_for_all_pairs_of_dtypes(name):
    results = {}
    for left in DTYPES:
        for right in DTYPES:
            x, y = operands(left)[0], operands(right)[0]
            y = y | True if right == "bool" else y + 1
            results[f"{left} {right}"] = attempt(in_place, name, x, y), x
            results[f"{left} {right} 0"] = attempt(in_place, name, x, operands(right)[1]), x
    return results


def in_place(name, x, y):
    """Do ``x op= y``."""
    return getattr(operator, {"div": "itruediv", "floordiv": "ifloordiv", "mod": "imod", "and": "iand",
                              "pow": "ipow"}.get(name, "i" + name))(x, y)  # fmt: skip


@program(times=2, slow=("never",))
def test_out_of_any_dtype():
    results = {}
    for source in ["float32", "int64", "bool"]:
        for target in DTYPES:
            x = torch.ones(3, dtype=getattr(torch, source))
            out = torch.zeros(3, dtype=getattr(torch, target))
            results[f"{source} {target}"] = [
                attempt(lambda x, out: torch.add(x, x, out=out), x, out),
                attempt(lambda x, out: torch.lt(x, x, out=out), x, out),
                attempt(lambda x, out: torch.exp(x, out=out), x, out), out,
            ]  # fmt: skip
    return results


@program(times=2, slow=("never",))
def test_conversions_between_all_dtypes():
    return {f"{a} {b}": (operands(a)[0] if a == "bool" else operands(a)[0] + 1).to(getattr(torch, b))
            for a in DTYPES for b in DTYPES}  # fmt: skip


@program(times=2, slow=("never",))
def test_copy_between_all_dtypes():
    results = {}
    for a in DTYPES:
        for b in DTYPES:
            x = operands(a)[0]
            x.copy_(operands(b)[0])
            results[f"{a} {b}"] = x
    return results


@program(times=2, slow=("never",))
def test_ternary_ops_of_mixed_dtypes():
    results = {}
    for a in ["int64", "float32", "float64", "bool"]:
        for b in ["int32", "float16", "float32", "float64"]:
            x, y = operands(a)[0], operands(b)[0]
            results[f"{a} {b}"] = [
                attempt(torch.clamp, x, 0, 0.5), attempt(lambda x, y: torch.clamp(x, min=y), x, y),
                attempt(torch.addcmul, x, y, y), attempt(torch.lerp, x, y, 0.5),
                attempt(lambda x, y: torch.where(y > 0, x, 2.5), x, y),
                attempt(lambda x: x.masked_fill(x > 0, 2.5), x), attempt(lambda x, y: x.masked_fill(x > 0, y[0]), x, y),
            ]  # fmt: skip
    return results


@program(times=2, slow=("never",))
@pytest.mark.parametrize("default", ["float32", "float64", "float16", "bfloat16"])
def test_the_default_dtype_decides_for_integers_and_scalars(default):
    torch.set_default_dtype(getattr(torch, default))
    x = torch.arange(5)
    return [x / 2, x * 2.5, x.sin(), torch.tensor(1.5) * x, torch.where(x > 1, 1.5, 2), x * 1.0,
            torch.true_divide(x, x + 1), torch.ones(2) + 1, x.float() * 2.5]  # fmt: skip
