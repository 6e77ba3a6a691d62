"""Numbers in a program: their values change, their places do not."""

import math

import numpy
import pytest
import torch
from sameness import program


@program
def test_a_factor_that_changes_in_a_loop():
    x = torch.randn(20)
    results = []
    for i in range(20):
        x = x * (3.7 - i) + i / 7
        results.append(x + 0.1 * i)
    return results


@program
def test_a_number_object_that_is_reused():
    x, results = torch.ones(5), []
    for factor in [1.5, 2.5, 1.5, -0.0, 0.0, 1e300, 1e-300]:
        results.append(x * factor)
        results.append(factor * x)
        results.append(x.double() * factor)
    return results


@program
@pytest.mark.parametrize(
    "name", ["add", "sub", "mul", "div", "pow", "eq", "lt", "remainder", "floor_divide", "fmod"]
)
def test_special_numbers_of_every_kind(name):
    x, results = torch.tensor([1.5, -0.0, math.nan, -3.0, math.inf]), []
    for number in [
        math.nan,
        math.inf,
        -math.inf,
        -0.0,
        0.0,
        True,
        False,
        3,
        -3,
        2**40,
        1e-320,
        0.1,
    ]:
        results.append(getattr(torch, name)(x, number))
        results.append(getattr(x.clone(), name + "_")(number))
    return results


@program
def test_integers_beyond_float_precision():
    x, f = torch.tensor([2**53 + 1, -(2**62)]), torch.ones(3)
    return (
        x * 3,
        x + 2**40,
        x - (2**53 + 1),
        x == 2**53 + 1,
        f * 2**53,
        f * (2**24 + 1),
        f + 2**100,
        x / 3,
        x + 0.5,
    )


@program
def test_numbers_that_change_their_kind_at_one_place():
    x, y, results = torch.arange(5.0), torch.arange(5), []
    for number in [
        1,
        1.0,
        True,
        2,
        2.5,
        numpy.float32(0.1),
        numpy.float64(0.1),
        numpy.int32(7),
        -1,
    ]:
        results += [x * number, y * number, x + number, y + number, x > number, y > number]
    return results


@program
def test_exponents_have_their_own_kernels():
    x, results = torch.linspace(-2, 2, 33), []
    for exponent in [0, 1, 2, 3, 0.5, -0.5, -1, -2, 2.0, 1.7, 4, True, math.nan, 0.0]:
        results += [x**exponent, torch.pow(exponent, x), x.double() ** exponent]
    return results


@program
def test_zero_dimensional_tensors_in_place_of_numbers():
    x = torch.randn(10)
    half, whole = torch.tensor(0.5), torch.tensor(3)
    half.add_(1)
    y = x * half
    half.mul_(2)
    return (
        y,
        x * half,
        x + whole,
        x.double() * half,
        x.half() * half,
        torch.add(x, x, alpha=2),
        half * whole,
        half,
    )


@program
def test_a_zero_dimensional_tensor_read_as_a_number_later():
    scale = torch.tensor(2.0) * 3
    x = torch.ones(4)
    y = x * scale.item()
    scale += 1
    return y, x * float(scale), x.add(x, alpha=scale.item()), x[int(scale.item()) - 5 :]


@program
def test_alpha_beta_and_value_arguments():
    x, y, results = torch.randn(12), torch.randn(12), []
    for number in [0, 1, -1, 0.5, 2, math.nan, 0.0]:
        results += [x.add(y, alpha=number), torch.addcmul(x, y, y, value=number), torch.addcdiv(x, y, x, value=number),
                    torch.lerp(x, y, float(number)), x.sub(y, alpha=number)]  # fmt: skip
    matrix = torch.randn(3, 3)
    matrix[0, 0] = math.nan
    for number in [0, 1, 2.5]:
        results += [torch.addmm(matrix, torch.ones(3, 3), torch.ones(3, 3), beta=number),
                    torch.addmm(matrix, torch.ones(3, 3), torch.ones(3, 3), alpha=number)]  # fmt: skip
    return results


@program
def test_clamp_with_every_mix_of_limits():
    x, results = torch.linspace(-3, 3, 21), []
    for low in [None, -1, -1.5, 0, math.nan, -math.inf]:
        for high in [None, 1, 1.5, -2, math.nan]:
            if low is not None or high is not None:
                results += [x.clamp(low, high), x.clone().clamp_(low, high)]
    integers = torch.arange(-5, 5)
    return results, integers.clamp(-1, 2), integers.clamp(max=2.5), integers.clamp(0.5)


@program
def test_a_learning_rate_that_changes_at_every_step():
    weight, gradient = torch.randn(30), torch.randn(30)
    for step in range(30):
        weight.add_(gradient, alpha=-0.1 / (step + 1))
        weight.mul_(1 - 0.01 * step).addcdiv_(gradient, gradient.abs() + 1, value=-(0.9**step))
    return weight


@program
def test_bool_and_integer_fills():
    results = []
    for number in [True, 3, 2.7, -0.0, math.nan]:
        for dtype in [torch.float32, torch.float64]:
            results += [
                torch.zeros(3, dtype=dtype).fill_(number),
                torch.full((3,), number, dtype=dtype) * 2,
            ]
    results += [
        torch.zeros(3, dtype=torch.int64).fill_(2.7),
        torch.zeros(3, dtype=torch.bool).fill_(2.7),
    ]
    return results


CHANGING = {
    "lerp": lambda x, k: torch.lerp(x, x * 2, k),
    "lerp_": lambda x, k: (x * 1).lerp_(x.flip(0), k),
    "addmm": lambda x, k: torch.addmm(x * 1, x, x, beta=k, alpha=k),
    "addmm_": lambda x, k: (x * 1).addmm_(x, x, beta=k),
    "baddbmm": lambda x, k: torch.baddbmm(x[None] * 1, x[None], x[None], beta=k),
    "addmv": lambda x, k: torch.addmv(x[0] * 1, x, x[0], beta=1 - k, alpha=k),
    "addr": lambda x, k: torch.addr(x * 1, x[0], x[1], beta=k, alpha=k),
    "index_add": lambda x, k: torch.index_add(x * 1, 0, torch.tensor([0, 2, 0]), x[:3], alpha=k),
    "scatter": lambda x, k: torch.scatter(x * 1, 0, torch.tensor([[3, 0, 1, 1]]), k),
    "pad": lambda x, k: torch.nn.functional.pad(x * 1, (1, 2), value=k),
}
NUMBERS = (0.3, 0.7, -0.0, 0.0, 0.49999999999, 0.5, 1.0, 1, 0, 3, -1.5, 1e-45, math.inf, math.nan)


@program
@pytest.mark.parametrize("name", CHANGING)
def test_numbers_that_change_from_step_to_step(name):
    x, results = torch.linspace(-2, 2, 16).reshape(4, 4), []
    x[0, 0], x[1, 1], x[2, 2] = -0.0, math.inf, math.nan
    for number in 2 * NUMBERS:
        result = CHANGING[name](x, number)
        results += [result, result * 1, result.flatten()[1].item()]
    return results


@program
def test_numbers_made_by_pending_comparisons():
    x = torch.randn(40)
    count = 0
    for i in range(10):
        x = x * 1.1 - 0.05 * i
        if (x > 0).sum() > 20:
            count += 1
            x = x / (1 + count)
    return x, count


TAKES_A_NUMBER = {
    "masked_fill": lambda x, mask, value: x.masked_fill(mask, value),
    "masked_fill_": lambda x, mask, value: x.clone().masked_fill_(mask, value),
    "fill_": lambda x, mask, value: x.clone().fill_(value),
    "add, alpha": lambda x, mask, value: x.add(x, alpha=value),
    "mul": lambda x, mask, value: x * value,
    "div": lambda x, mask, value: x / value,
    "clamp": lambda x, mask, value: x.clamp(min=value),
    "clamp_": lambda x, mask, value: x.clone().clamp_(max=value),
    "where": lambda x, mask, value: torch.where(mask, x, value),
    "lt": lambda x, mask, value: x < value,
    "bitwise_or": lambda x, mask, value: x | value,
    "shift": lambda x, mask, value: x << value,
    "addcmul": lambda x, mask, value: torch.addcmul(x, x, x, value=value),
    "addcdiv": lambda x, mask, value: torch.addcdiv(x, x, x, value=value),
    "lerp": lambda x, mask, value: torch.lerp(x, x * 2, value),
    "hardtanh": lambda x, mask, value: torch.nn.functional.hardtanh(x, -1, value),
    "leaky_relu": lambda x, mask, value: torch.nn.functional.leaky_relu(x, value),
    "threshold": lambda x, mask, value: torch.nn.functional.threshold(x, 0, value),
    "elu": lambda x, mask, value: torch.nn.functional.elu(x, value),
    "remainder": lambda x, mask, value: x % value,
    "nan_to_num": lambda x, mask, value: torch.nan_to_num(x, value),
}
IN_AND_OUT_OF_RANGE = [1, 2**40, -(2**40), 2**63 - 1, 1.5, 1e300, -1e300, math.inf, math.nan, True, 300, -1, 0,
                       torch.tensor(2**40), torch.tensor(1e300, dtype=torch.float64), torch.tensor(1 + 2j)]  # fmt: skip


@program(slow=("never",))
@pytest.mark.parametrize("name", TAKES_A_NUMBER)
def test_numbers_that_a_dtype_cannot_hold_raise_at_the_line(name):
    results = []
    for dtype in ["float32", "float16", "int64", "int32", "uint8", "bool"]:
        x = torch.tensor([1, 2, 3, 0, 5]).to(getattr(torch, dtype))
        for value in IN_AND_OUT_OF_RANGE:  # all at one place
            for operand in (value, value.clone()) if isinstance(value, torch.Tensor) else (value,):
                try:
                    results.append(TAKES_A_NUMBER[name](x.clone(), x > 1, operand))
                except (RuntimeError, TypeError) as error:
                    results.append(str(error))
    return results
