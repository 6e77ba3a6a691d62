"""Every op that may be fused gives eager's bits: any values, any length, any layout, in place, on any threads."""

import itertools

import pytest
import torch

from tests.codegen.cases import exact_cases, scalars_of
from torchy.codegen.cpu.compare import same_bits
from torchy.codegen.cpu.verify import samples, trials
from torchy.ir.kernel import (
    Access,
    Functions,
    KernelForm,
    Load,
    Result,
    RuntimeNumber,
    Statement,
    Store,
)
from torchy.ir.trace import Mode


def values_of(trial, length):
    """Operands of this length, special values and random ones mixed."""
    columns = []
    for i, dtype in enumerate(trial.operands):
        column = samples(dtype, len(trial.operands), seed=length)[i]
        generator = torch.Generator().manual_seed(length)
        columns.append(column[torch.randint(len(column), (length,), generator=generator)])
    return columns


# Around the lanes of a vector, of two, four and eight of them, and in between.
LENGTHS = (*range(1, 20), 23, 31, 32, 33, 37, 47, 48, 49, 57, 63, 64, 65, 70, 1003, 70001)
LAYOUTS = ("transposed", "row", "column", "padded")


def lay_out(value, rows, columns, layout):
    if layout == "transposed":
        return value.view(columns, rows).t(), Mode.STRIDED
    if layout == "row":
        return value[:columns].expand(rows, columns), Mode.UNIT
    if layout == "column":
        return value[:rows, None].expand(rows, columns), Mode.REPEAT
    return torch.cat([value.view(rows, columns)] * 2, 1)[:, :columns], Mode.UNIT


def run(kernel, sizes, tensors, numbers, threads=1):
    accesses = [
        (tensor.data_ptr(), None if access.mode in (Mode.LINEAR, Mode.SCALAR) else tensor.stride())
        for tensor, access in zip(tensors, kernel.form.accesses, strict=True)
    ]
    kernel.launch(kernel.pack(sizes, accesses, numbers), threads)


@pytest.mark.parametrize(("spec", "dtype", "literals"), list(exact_cases()))
def test_bits_do_not_depend_on_length_or_threads(compiler, spec, dtype, literals):
    found = list(trials(spec, dtype, literals))
    assert found, "nothing to compare with"
    for trial in found:
        numbers = scalars_of(trial)
        kernel = compiler.compile(trial.form(tuple(type(number) for number in numbers)))
        many = values_of(trial, 70001)
        if not many:  # fill, zero: eager makes a tensor of its own size
            continue
        for length, threads in [*((n, 1) for n in LENGTHS), (70001, 2)]:
            tensors = [value[:length].clone() for value in many]
            out = torch.empty(length, dtype=trial.statement.dtype)
            run(kernel, [length], [*tensors, out], numbers, threads)
            assert same_bits(out, trial.eager(tensors, numbers)), (trial.overload, length, threads)


@pytest.mark.parametrize(("spec", "dtype", "literals"), list(exact_cases()))
def test_bits_do_not_depend_on_layout(compiler, spec, dtype, literals):
    for trial in trials(spec, dtype, literals):
        numbers = scalars_of(trial)
        kernel = None
        for rows, columns in ((21, 45), (131, 5)):  # long rows; short ones are gathered
            values = values_of(trial, rows * columns)
            laid_out = [
                lay_out(value, rows, columns, layout)
                for value, layout in zip(values, itertools.cycle(LAYOUTS), strict=False)
            ]
            operands = [operand for operand, _ in laid_out]
            out = torch.zeros(rows, columns + 3, dtype=trial.statement.dtype)[:, :columns]
            if kernel is None:
                modes = [*(mode for _, mode in laid_out), Mode.UNIT]
                dtypes = [*trial.operands, trial.statement.dtype]
                accesses = tuple(Access(d, mode) for d, mode in zip(dtypes, modes, strict=True))
                kinds = tuple(type(number) for number in numbers)
                stores = (Store(len(operands), Result(0)),)
                kernel = compiler.compile(KernelForm(accesses, kinds, (trial.statement,), stores))
            run(kernel, [rows, columns], [*operands, out], numbers)
            if operands:
                expected = trial.eager([operand.contiguous() for operand in operands], numbers)
                assert same_bits(out.contiguous(), expected), (trial.overload, rows, columns)


@pytest.mark.parametrize(("spec", "dtype", "literals"), list(exact_cases()))
def test_in_place_the_target_is_read_before_it_is_written(compiler, spec, dtype, literals):
    for trial in trials(spec, dtype, literals):
        if not trial.operands or trial.operands[0] is not trial.statement.dtype:
            continue
        numbers = scalars_of(trial)
        tensors = values_of(trial, 1003)
        expected = trial.eager(tensors, numbers)
        accesses = tuple(Access(d, Mode.LINEAR) for d in trial.operands)
        kinds = tuple(type(number) for number in numbers)
        form = KernelForm(accesses, kinds, (trial.statement,), (Store(0, Result(0)),))
        run(compiler.compile(form), [1003], tensors, numbers)
        assert same_bits(tensors[0], expected), trial.overload


def test_numbers_are_rounded_as_eager_rounds_them(compiler):
    from torchy.ir.kernel import Statement

    f = torch.float32
    for number in (3.7, 1e-50, 16777217, 1 / 3, 2**53 + 1, True):
        form = KernelForm(
            (Access(f, Mode.LINEAR), Access(f, Mode.LINEAR)),
            (type(number),),
            (Statement("mul", (Load(0), RuntimeNumber(0)), f, f),),
            (Store(1, Result(0)),),
        )
        x = torch.randn(33)
        out = torch.empty(33)
        run(compiler.compile(form), [33], [x, out], [number])
        assert same_bits(out, x * number), number


def test_the_exp_that_is_written_into_loops_is_that_of_eagers_vectors(compiler):
    if not compiler.math.inline:
        pytest.skip("eager has no vectors here")
    x = (torch.arange(1 << 24) * 257).to(torch.int32).view(torch.float32)  # one of 256 numbers
    accesses = (Access(torch.float32, Mode.LINEAR),) * 2
    exp = Statement("exp", (Load(0),), torch.float32, torch.float32, Functions.VECTORS)
    found = torch.empty_like(x)
    form = KernelForm(accesses, (), (exp,), (Store(1, Result(0)),))
    run(compiler._compile(form, "fast"), [len(x)], [x, found], [])
    # of a row with a sum of 1, the gradient is -exp where nothing comes in
    rows, begin = x.view(-1, 4096), 16
    gradient = torch.zeros(len(rows), begin + 4096)
    gradient[:, 0] = 1
    y = torch.zeros_like(gradient)
    y[:, begin:] = rows
    back = torch._log_softmax_backward_data(gradient, y, -1, torch.float32)
    assert same_bits(0 - back[:, begin:].flatten(), found + 0.0)
