"""Does an op on rows, or on columns, give eager's bits on this machine? See :mod:`torchy.codegen.cpu.verify`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import starmap
from operator import mul
from typing import Any, Final

import torch

from torchy.codegen.cpu import orders
from torchy.codegen.cpu.compare import Compile, Run, same_bits
from torchy.codegen.cpu.threads import apart, one_thread
from torchy.ir import kernel as ir
from torchy.ir.ops import RowSpec
from torchy.ir.trace import Mode

_own: Final = torch._C._VariableFunctions  # torch's, whatever the program has put in their place

# all remainders of vectors and blocks, all levels of a cascade
_LENGTHS: Final = (*range(2, 72), 127, 512, 520, 1025, 16400)
_ROWS: Final = 3
_MANY: Final = 500
# all elements: in blocks, and in parts
_WHOLE: Final = (2048, 2049, 6200, 32767, 40_000, 70_001, 131_073)
# where eager has several threads for three rows, if for any so short; compilers may write a loop for them otherwise
_SHARED: Final = (1025, 1031, 1039)


def form_of(
    spec: RowSpec, dtype: torch.dtype, columns: bool, lanes: int, without: Collection[str] = ()
) -> ir.KernelForm | None:
    """Return the form that is one op by itself: its accesses are the operands, then the results. None if no order is known.

    Parameters
    ----------
    lanes
        float32 elements in a vector of eager's; 0: there are none.
    without
        Operands that are numbers instead.
    """
    found = {}
    for operator in spec.operators:
        order = orders.order(spec.name, operator, dtype, columns, lanes)
        if order is None:
            return None
        found[operator] = order
    values: dict[str, ir.Value] = {}
    accesses: list[ir.Access] = []
    for name in spec.parameters:
        if name in without or name not in spec.operands:
            values[name] = ir.Literal(spec.numbers[name])
        else:
            values[name] = ir.Load(len(accesses))
            accesses.append(ir.Access(dtype, Mode.UNIT if name in spec.along else Mode.LINEAR))
    statements, results = spec.statements(values, dtype, found)
    stores = []
    for name, result, each in zip(spec.results, results, spec.of_elements, strict=True):
        stores.append(ir.Store(len(accesses), result))
        made = torch.int64 if name in spec.indices else dtype
        accesses.append(ir.Access(made, Mode.LINEAR if each else Mode.ROW))
    axes = ir.COLUMNS if columns else ir.ROWS
    return ir.KernelForm(tuple(accesses), (), tuple(statements), tuple(stores), axes)


def attempt_rows(
    spec: RowSpec, dtype: torch.dtype, columns: bool, lanes: int, compile: Compile
) -> str:
    """Compute rows or columns of many lengths both ways; return where that differs, empty if nowhere.

    Of columns, whole blocks and what is left of them; of both lengths that reach the last level of the cascade. On one
    thread; then a few of them on all. And all elements as one row, where they may be gone through once.
    """
    with one_thread():
        sizes = _sizes(spec, columns)
        differs = _attempt(spec, dtype, columns, lanes, compile, sizes, _LENGTHS, _WHOLE)
    if differs or columns:
        return differs
    shared = [(_ROWS, length) for length in _SHARED] if spec.over else []

    def on_all() -> str:
        with torch.device("cpu"):
            return _attempt(spec, dtype, columns, lanes, compile, shared, (), _WHOLE)

    return apart(on_all)


def _sizes(spec: RowSpec, columns: bool) -> list[tuple[int, int]]:
    sizes = [(_ROWS, length) for length in _LENGTHS]
    if not spec.over:  # all dimensions, always
        sizes = []
    if spec.double:  # what is off in there shows once in some hundred short rows
        sizes += [(_MANY, length) for length in range(3, 10)]
    if columns:
        narrow = [(length, 45) for length in _LENGTHS if length < 2000]
        sizes = [*narrow, (4200, 32), (16400, 9)]
        if spec.double:
            sizes += [(length, _MANY) for length in range(3, 10)]
    return sizes


def _attempt(
    spec: RowSpec,
    dtype: torch.dtype,
    columns: bool,
    lanes: int,
    compile: Compile,
    sizes: Sequence[tuple[int, int]],
    alone: Sequence[int],
    whole: Sequence[int],
) -> str:
    """Compute rows, or columns, of some sizes, and single rows where the orders allow; see :func:`attempt_rows`.

    Those of ``whole`` are gone through once, by another kernel.
    """
    along = sorted(spec.along)
    subsets = [itertools.combinations(along, count) for count in range(len(along) + 1)]
    for without in itertools.chain(*subsets):
        form, eager = form_of(spec, dtype, columns, lanes, without), EAGER_ROWS.get(spec.name)
        if eager is None or form is None:
            return f"nothing is known to compare {spec.name} with"
        single = [(1, length) for length in alone if length <= form.alone]
        at_once = [(1, length) for length in whole if form.one_pass]
        trials = [(form, [*sizes, *single])] if sizes or single else []
        trials += [(replace(form, axes=ir.WHOLE), at_once)] if at_once else []
        reads = form.accesses[: len(form.accesses) - len(form.stores)]
        names = [name for name in spec.operands if name not in without]
        for trial, shapes in trials:
            run = compile(trial)
            with one_thread():
                samples = _samples(dtype, len(reads) * max(starmap(mul, shapes)))
            for data, size in itertools.product(samples, shapes):
                given = []
                for at, access in enumerate(reads):
                    shape = size if access.mode is Mode.LINEAR else size[1:]
                    begin = at * size[0] * size[1]
                    given.append(data[begin : begin + math.prod(shape)].view(shape))
                found = eager(0 if columns else -1, **dict(zip(names, given, strict=True)))
                if differs := _differs(run, size, given, found):
                    return differs
    return ""


def _differs(run: Run, size: tuple[int, int], given: list[torch.Tensor], found: Any) -> str:
    """Run the kernel; return where it differs from what eager has found, empty if nowhere."""
    wanted = list(found) if isinstance(found, tuple) else [found]
    outs = [_own.empty_like(each) for each in wanted]
    run(size, given, [], *outs)
    for out, each in zip(outs, wanted, strict=True):
        if not same_bits(each, out):
            return f"rows of {size} give {each.tolist()}, the kernel {out.tolist()}"
    return ""


Eager = Callable[..., Any]


def _of_self(function: Eager) -> Eager:
    return lambda dim, self: function(self, dim)


# What eager computes, of the dimension of which a row is, and operands by name.
EAGER_ROWS: Final[Mapping[str, Eager]] = {
    "sum": _of_self(_own.sum),
    "mean": _of_self(_own.mean),
    "mse_loss": lambda dim, self, target: torch.ops.aten.mse_loss(self, target),
    "all": _of_self(_own.all),
    "any": _of_self(_own.any),
    "amax": _of_self(_own.amax),
    "amin": _of_self(_own.amin),
    "max": _of_self(_own.max),
    "min": _of_self(_own.min),
    "argmax": _of_self(_own.argmax),
    "argmin": _of_self(_own.argmin),
    "var": _of_self(_own.var),
    "std": _of_self(_own.std),
    "native_layer_norm": lambda dim, input, weight=None, bias=None: _own.native_layer_norm(
        input, input.shape[dim:], weight, bias, 1e-5
    ),
    "logsumexp": _of_self(_own.logsumexp),
    "_softmax": lambda dim, self: _own._softmax(self, dim, False),
    "_log_softmax": lambda dim, self: _own._log_softmax(self, dim, False),
    "_log_softmax_backward_data": lambda dim, grad_output, output: _own._log_softmax_backward_data(
        grad_output, output, dim, output.dtype
    ),
}


def _samples(dtype: torch.dtype, count: int) -> list[torch.Tensor]:
    """Return numbers of all magnitudes, zeros of both signs, numbers with NaN among them, small ones, and whole ones.

    What is computed of whole ones in more bits lies in the middle between two results now and then: there it shows how.
    """
    generator = torch.Generator().manual_seed(1)
    if dtype is torch.int64:
        return [_own.randint(-(2**63), 2**63 - 1, (count,), generator=generator)]
    if dtype is torch.bool:
        rare = _own.eq(_own.randint(3000, (count,), generator=generator), 0)
        none = _own.zeros(count, dtype=torch.bool)
        return [rare, _own.logical_not(rare), none, _own.logical_not(none)]
    powers = _own.pow(10.0, _own.randint(-9, 9, (count,), generator=generator))
    small = _own.randn(count, generator=generator, dtype=dtype)
    numbers = _own.mul(small, powers).to(dtype)
    signs = _own.sub(_own.randint(2, (count,), generator=generator), 0.5)
    missing = _own.where(_own.gt(powers, 1e8), float("nan"), numbers)
    whole = _own.round(_own.mul(small, 2048.0))
    return [numbers, _own.mul(signs, 0.0).to(dtype), missing, _own.mul(small, 3.0), whole]
