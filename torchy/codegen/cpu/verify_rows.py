"""Does an op on rows, or on columns, give eager's bits on this machine? See :mod:`torchy.codegen.cpu.verify`."""

from __future__ import annotations

import itertools
import operator as operator_module
from collections.abc import Callable, Mapping
from typing import Final

import torch

from torchy.codegen.cpu import orders
from torchy.codegen.cpu.compare import Compile, same_bits
from torchy.ir import kernel as ir
from torchy.ir.ops import RowSpec
from torchy.ir.trace import Mode

_own: Final = torch._C._VariableFunctions  # torch's, whatever the program has put in their place

# all remainders of vectors and blocks, all levels of a cascade
_LENGTHS: Final = (*range(2, 72), 127, 512, 520, 1025, 16400)
_ROWS: Final = 3

# What eager computes, of operands and the dimension of which a row is.
EAGER_ROWS: Final[Mapping[str, Callable[..., torch.Tensor]]] = {
    "sum": _own.sum,
    "mean": _own.mean,
    "amax": _own.amax,
    "amin": _own.amin,
    "var": _own.var,
    "std": _own.std,
    "_softmax": lambda x, dim: _own._softmax(x, dim, False),
    "_log_softmax": lambda x, dim: _own._log_softmax(x, dim, False),
    "_log_softmax_backward_data": lambda g, y, dim: _own._log_softmax_backward_data(
        g, y, dim, g.dtype
    ),
}


def form_of(spec: RowSpec, dtype: torch.dtype, columns: bool, lanes: int) -> ir.KernelForm | None:
    """Return the form that is one op by itself; its last access is the result. None if an order is not known.

    Parameters
    ----------
    lanes
        float32 elements in a vector of eager's; 0: there are none.
    """
    order = orders.order(spec.name, dtype, columns, lanes)
    if order is None:
        return None
    operands = spec.operands
    values: dict[str, ir.Value] = {name: ir.Load(at) for at, name in enumerate(operands)}
    values |= {name: ir.Literal(number) for name, number in spec.numbers.items()}
    statements, count = spec.statements(values, dtype, order), len(operands)
    result = ir.Access(dtype, Mode.LINEAR if spec.keeps_elements else Mode.ROW)
    return ir.KernelForm(
        (*[ir.Access(dtype, Mode.LINEAR)] * count, result),
        (),
        tuple(statements),
        (ir.Store(count, ir.Result(len(statements) - 1)),),
        ir.COLUMNS if columns else ir.ROWS,
    )


def attempt_rows(
    spec: RowSpec, dtype: torch.dtype, columns: bool, lanes: int, compile: Compile
) -> str:
    """Compute rows or columns of many lengths both ways; return where that differs, empty if nowhere.

    Of columns, whole blocks and what is left of them; of both lengths that reach the last level of the cascade.
    """
    form, eager = form_of(spec, dtype, columns, lanes), EAGER_ROWS.get(spec.name)
    if eager is None or form is None:
        return f"nothing is known to compare {spec.name} with"
    run = compile(form)
    sizes = [(_ROWS, length) for length in _LENGTHS]
    if columns:
        narrow = [(length, 45) for length in _LENGTHS if length < 2000]
        sizes = [*narrow, (4200, 32), (16400, 9)]
    count = len(spec.operands)
    for data in _samples(dtype, count * max(itertools.starmap(operator_module.mul, sizes))):
        for size in sizes:
            many = size[0] * size[1]
            given = [data[at * many : (at + 1) * many].view(size) for at in range(count)]
            wanted = eager(*given, 0 if columns else -1)
            out = _own.empty_like(wanted)
            run(size, given, [], out)
            if not same_bits(wanted, out):
                return f"rows of {size} give {wanted.tolist()}, the kernel {out.tolist()}"
    return ""


def _samples(dtype: torch.dtype, count: int) -> list[torch.Tensor]:
    """Return numbers of all magnitudes, zeros of both signs, numbers with NaN among them, and small ones."""
    generator = torch.Generator().manual_seed(1)
    powers = _own.pow(10.0, _own.randint(-9, 9, (count,), generator=generator))
    small = _own.randn(count, generator=generator, dtype=dtype)
    numbers = _own.mul(small, powers).to(dtype)
    signs = _own.sub(_own.randint(2, (count,), generator=generator), 0.5)
    missing = _own.where(_own.gt(powers, 1e8), float("nan"), numbers)
    return [numbers, _own.mul(signs, 0.0).to(dtype), missing, _own.mul(small, 3.0)]
