"""Kernels compute what their forms mean, and each op means what eager computes."""

import random

import numpy
import pytest
import torch

from tests.codegen.cases import exact_cases, scalars_of
from tests.codegen.meaning import elements
from torchy.codegen.check import check_nest
from torchy.codegen.cpu.compare import same_bits
from torchy.codegen.cpu.exactness import inexact
from torchy.codegen.cpu.math import MathLibrary
from torchy.codegen.cpu.routines import Routine
from torchy.codegen.cpu.verify import samples, trials
from torchy.codegen.cpu.verify_rows import EAGER_ROWS, form_of
from torchy.codegen.loops import MATH
from torchy.ir.check_form import check_form
from torchy.ir.dtypes import IN_KERNELS, kind_of
from torchy.ir.kernel import (
    COLUMNS,
    WHOLE,
    Access,
    KernelForm,
    Level,
    Literal,
    Load,
    Reduction,
    Result,
    RuntimeNumber,
    Statement,
    Store,
)
from torchy.ir.kernel import ROWS as ROW_AXES
from torchy.ir.ops import ROWS, SPECS
from torchy.ir.trace import Mode

DTYPES = sorted(IN_KERNELS, key=str)
ORDER = "bif"  # a value of one kind may stand where a later one is computed in
TELLS = frozenset("eq ne lt le gt ge isnan isinf isposinf isneginf signbit logical_not logical_and logical_or"
                  " logical_xor".split())  # fmt: skip


def column(tensor):
    """The elements as numbers: of floats numpy's, so that none is rounded or converted."""
    return list((tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy())


def tensor_of(numbers, dtype):
    if dtype is torch.bfloat16:
        return tensor_of(numbers, torch.float32).bfloat16()
    return torch.from_numpy(numpy.array(numbers, dtype=torch.empty(0, dtype=dtype).numpy().dtype))


@pytest.mark.parametrize(("spec", "dtype", "literals"), list(exact_cases()))
def test_an_op_means_what_eager_computes(spec, dtype, literals):
    for trial in trials(spec, dtype, literals):
        scalars = scalars_of(trial)
        given = [samples(d, len(trial.operands), seed=3)[i] for i, d in enumerate(trial.operands)]
        shortest = min(map(len, given), default=511)
        picked = torch.arange(0, shortest, max(1, shortest // 90))
        given = [values[picked].contiguous() for values in given]
        form = trial.form(tuple(type(scalar) for scalar in scalars))
        expected = trial.eager(given, scalars)
        operands = [*map(column, given), [0] * expected.numel()]  # the last is only written
        (found,) = elements(form, operands, scalars)
        assert same_bits(tensor_of(found, expected.dtype), expected), trial.overload


def known_ops():
    """Ops with a formula that is exact: (spec, dtype computed in, literals)."""
    for spec in SPECS.values():
        for dtype in DTYPES:
            for rule in spec.rules:
                if kind_of(dtype) in rule.kinds and not inexact(spec, rule, dtype):
                    literals = dict(rule.literals)
                    if spec.rule(dtype, literals) is rule and spec.literals <= literals.keys():
                        yield spec, dtype, literals


KNOWN = list(known_ops())


SIGNS = frozenset(("signbit", "copysign"))


class Draw:
    """A random form, with values for what it reads."""

    def __init__(self, seed, count=77):
        self.draw = random.Random(seed)
        self.numbers, self.statements, self.kinds = [], [], []
        self.tensors = []
        self.values = []  # what a statement may use, with its dtype
        for index in range(self.draw.randint(1, 4)):
            dtype = self.draw.choice(DTYPES)
            values = samples(dtype, 2, seed + index)[self.draw.randrange(2)]
            self.tensors.append(values[torch.randperm(len(values))[:count]].contiguous())
            self.values.append((Load(index), dtype))
        for _ in range(self.draw.randint(1, 7)):
            self.statement(*self.draw.choice(KNOWN))

    def statement(self, spec, compute, literals):
        arguments = []
        for name in spec.parameters:
            if name in literals:
                arguments.append(Literal(literals[name]))
                continue
            mask = name in spec.masks
            ranks = ORDER[: ORDER.index("b" if mask else kind_of(compute)) + 1]
            # the sign of a NaN of 16 bits is nobody's business: eager's own differ
            shy = {torch.bfloat16} if spec.name in SIGNS else set()
            fits = [v for v, dtype in self.values if kind_of(dtype) in ranks and dtype not in shy]
            if name not in spec.promoted and not mask or not fits or self.draw.random() < 0.2:
                arguments.append(self.number("b" if mask else kind_of(compute)))
            else:
                arguments.append(self.draw.choice(fits))
        dtype = torch.bool if spec.name in TELLS else compute
        self.values.append((Result(len(self.statements)), dtype))
        self.statements.append(Statement(spec.name, tuple(arguments), compute, dtype))

    def number(self, kind):
        of_kind = {"b": [True, False], "i": [3, -2, 1, 0, 40], "f": [0.7, -2.5, 1.0, -0.0, 1e-40]}
        self.numbers.append(self.draw.choice(of_kind[kind]))
        return RuntimeNumber(len(self.numbers) - 1)

    def form(self):
        """Return the form: the last statement's result is stored, and some others."""
        reads = [Access(tensor.dtype, Mode.LINEAR) for tensor in self.tensors]
        results = [(value, dtype) for value, dtype in self.values if isinstance(value, Result)]
        kept = [each for each in results[:-1] if self.draw.random() < 0.3] + results[-1:]
        stores = tuple(Store(len(reads) + at, value) for at, (value, _) in enumerate(kept))
        written = [Access(dtype, Mode.LINEAR) for _, dtype in kept]
        kinds = tuple(type(number) for number in self.numbers)
        return KernelForm((*reads, *written), kinds, tuple(self.statements), stores)


@pytest.mark.parametrize("seed", range(150))
def test_a_kernel_computes_what_its_form_means(compiler, seed):
    drawn = Draw(seed)
    form = drawn.form()
    count = min(map(len, drawn.tensors))
    tensors = [tensor[:count].clone() for tensor in drawn.tensors]
    outs = [torch.empty(count, dtype=a.dtype) for a in form.accesses[len(tensors) :]]
    operands = [column(tensor) for tensor in tensors] + [[0] * count for _ in outs]
    expected = elements(form, operands, drawn.numbers)
    kernel = compiler.compile(form)
    assert check_form(form) == check_nest(kernel.nest) == []
    addresses = [(tensor.data_ptr(), None) for tensor in (*tensors, *outs)]
    kernel.launch(kernel.pack([count], addresses, drawn.numbers))
    for out, wanted in zip(outs, expected, strict=True):
        assert same_bits(out, tensor_of(wanted, out.dtype)), kernel.nest


# --- rows


LANES = MathLibrary.of_torch().lanes
# ops on rows that call no function: which of eager's it is, only a vector tells
PLAIN_ROWS = [
    spec.name
    for spec in ROWS.values()
    if all(MATH.isdisjoint(step.formula.rules[0].names()) for step in spec.steps if step.formula)
]


REDUCED = (torch.float32, torch.float64, torch.int64, torch.bool)


def reductions(columns):
    """Return op, operator, dtypes and order of all reductions whose order is known."""
    found = []
    for spec in ROWS.values():
        for dtype in REDUCED:
            form = form_of(spec, dtype, columns, LANES)
            of_rows = [s for s in form.statements if isinstance(s, Reduction)] if form else []
            found += [(s.op, s.operator, s.given, s.dtype, s.order) for s in of_rows]
    return found


@pytest.mark.parametrize("length", [2, 3, 7, 8, 9, 15, 31, 32, 33, 100, 127, 513, 2049])
@pytest.mark.parametrize(
    ("op", "dtype"),
    [
        (op, dtype)
        for op in PLAIN_ROWS
        for dtype in REDUCED
        if form_of(ROWS[op], dtype, False, LANES) is not None
    ],
)
def test_an_op_on_rows_means_what_eager_computes(op, dtype, length):
    form = form_of(ROWS[op], dtype, False, LANES, without=ROWS[op].along)
    generator = torch.Generator().manual_seed(length)
    count = len(form.accesses) - len(form.stores)
    shape = (count, 2 if ROWS[op].over else 1, length)
    powers = 10.0 ** torch.randint(-5, 5, shape, generator=generator)
    numbers = (torch.randn(shape, generator=generator, dtype=torch.float64) * powers).to(dtype)
    zeros = ((torch.randint(2, numbers.shape, generator=generator) - 0.5) * 0).to(dtype)
    for data in (numbers, zeros):
        found = EAGER_ROWS[op](-1, **dict(zip(ROWS[op].operands, data, strict=False)))
        expected = found if isinstance(found, tuple) else (found,)
        given = [[list(row) for row in each.numpy()] for each in data]
        each = [
            [[0] * length] * shape[1] if yes else [0] * shape[1] for yes in ROWS[op].of_elements
        ]
        stored = elements(form, [*given, *each], [])
        for wanted, numbers_, yes in zip(expected, stored, ROWS[op].of_elements, strict=True):
            flat = [n for row in numbers_ for n in row] if yes else numbers_
            assert same_bits(tensor_of(flat, wanted.dtype), wanted.flatten())


class DrawRows(Draw):
    """A random form with reductions, and matrices for what it reads; some have one element for each row."""

    known = reductions(columns=False)
    axes = ROW_AXES
    mode = Mode.LINEAR  # of elements

    def __init__(self, seed, rows=0):
        self.draw = random.Random(seed)
        self.length = self.draw.choice((2, 5, 8, 15, 16, 17, 33, 48, 77))
        self.rows = rows = rows or (19 if self.length < 8 else 3)
        self.numbers, self.statements, self.kinds = [], [], []
        self.tensors, self.modes, self.values = [], [], []
        for index in range(self.draw.randint(1, 4)):
            dtype = self.draw.choice((torch.float32, torch.float64, *DTYPES))
            mode = Mode.ROW if index and self.draw.random() < 0.3 else self.mode
            count = rows * (1 if mode is Mode.ROW else self.length)
            values = samples(dtype, 2, seed + index)[self.draw.randrange(2)]
            self.tensors.append(values[torch.randint(len(values), (count,))].clone())
            self.modes.append(mode)
            self.values.append((Load(index), dtype))
        for _ in range(self.draw.randint(2, 6)):
            if self.draw.random() < 0.4:
                self.reduction()
            else:
                self.statement(*self.draw.choice(KNOWN))
        self.reduction()
        for _ in range(self.draw.randint(0, 3)):
            self.statement(*self.draw.choice(KNOWN))

    def reduction(self):
        op, operator, given, dtype, found = self.draw.choice(self.known)
        argument, _ = self.draw.choice(self.values)
        self.values.append((Result(len(self.statements)), dtype))
        self.statements.append(Reduction(op, operator, argument, given, dtype, found))

    def form(self):
        """Return the form: what the draw made is stored, each at its level."""
        axes = self.axes
        reads = [Access(t.dtype, m) for t, m in zip(self.tensors, self.modes, strict=True)]
        kinds = tuple(type(number) for number in self.numbers)
        bare = KernelForm(tuple(reads), kinds, tuple(self.statements), (), axes)
        written, stores = [], []
        for value, dtype in self.values:
            if isinstance(value, Result) and self.draw.random() < 0.6:
                mode = self.mode if bare.level(value) is Level.ELEMENT else Mode.ROW
                stores.append(Store(len(reads) + len(written), value))
                written.append(Access(dtype, mode))
        return KernelForm((*reads, *written), kinds, bare.statements, tuple(stores), axes)


def run_rows(compiler, drawn, rows, length, threads=1):
    """Hold the kernel of a form with rows, or columns, against its meaning."""
    form = drawn.form()
    if not form.stores:
        return
    columns = form.has_columns

    def operand(tensor, mode):
        numbers = column(tensor)
        if mode in (Mode.ROW, Mode.SCALAR):
            return numbers
        if columns:
            return [numbers[r::rows] for r in range(rows)]
        return [numbers[r * length : (r + 1) * length] for r in range(rows)]

    def flat(stored, mode):
        if mode is Mode.ROW:
            return stored
        return [
            number for row in (zip(*stored, strict=True) if columns else stored) for number in row
        ]

    written = form.accesses[len(drawn.tensors) :]
    outs = [
        torch.empty(rows * (1 if access.mode is Mode.ROW else length), dtype=access.dtype)
        for access in written
    ]
    tensors = [*drawn.tensors, *outs]
    modes = [access.mode for access in form.accesses]
    operands = [operand(t, mode) for t, mode in zip(drawn.tensors, modes, strict=False)]
    operands += [
        operand(torch.zeros_like(out), a.mode) for out, a in zip(outs, written, strict=True)
    ]
    expected = elements(form, operands, drawn.numbers)
    kernel = compiler.compile(form)
    assert check_form(form) == check_nest(kernel.nest) == []
    of_row, sizes = ((0, 1), [length, rows]) if columns else ((1, 0), [rows, length])
    strides = [of_row if mode is Mode.ROW else None for mode in modes]
    addresses = [(t.data_ptr(), s) for t, s in zip(tensors, strides, strict=True)]
    kernel.launch(kernel.pack(sizes, addresses, drawn.numbers), threads)
    for out, wanted, access in zip(outs, expected, written, strict=True):
        assert same_bits(out, tensor_of(flat(wanted, access.mode), out.dtype)), kernel.nest


@pytest.mark.parametrize("seed", range(150))
def test_a_kernel_of_rows_computes_what_its_form_means(compiler, seed):
    drawn = DrawRows(seed)
    run_rows(compiler, drawn, drawn.rows, drawn.length, 1 + seed % 2)


class DrawBeside(DrawRows):
    """The same, of rows of a few elements in such layouts that they are done side by side: two times as many, all apart."""

    known = tuple(found for found in reductions(columns=False) if Routine(*found[1:]).fewer_than)
    mode = Mode.STRIDED

    def __init__(self, seed):
        self.half = random.Random(seed).choice((8, 9, 15, 16, 17, 33, 45))
        super().__init__(seed, 2 * self.half)
        self.length = self.draw.choice((1, 2, 3, 5, 7, 8, 9, 15, 16, 31))
        for index, mode in enumerate(self.modes):
            if mode is self.mode:
                self.tensors[index] = self.laid_out(self.tensors[index])

    def laid_out(self, values):
        few = values[torch.randint(len(values), (2, self.half, self.length))]
        which = self.draw.choice(("the same rows twice", "a row for each half", "columns", "rows"))
        if which == "the same rows twice":
            return few[0].expand(2, -1, -1)
        if which == "a row for each half":
            return few[:, :1].expand(-1, self.half, -1)
        return few if which == "rows" else few.mT.contiguous().mT


def test_rows_side_by_side_compute_what_their_form_means(compiler):
    beside = 0
    for seed in range(120):
        drawn = DrawBeside(seed)
        form, half, length = drawn.form(), drawn.half, drawn.length
        if not form.stores:
            continue
        outs = [
            torch.zeros(2 * half, dtype=a.dtype)
            if a.mode is Mode.ROW
            else torch.zeros(2, length, half, dtype=a.dtype).mT
            if seed % 2
            else torch.zeros(2, half, length, dtype=a.dtype)
            for a in form.accesses[len(drawn.tensors) :]
        ]
        tensors = [*drawn.tensors, *outs]
        operands = [
            column(t) if t.dim() == 1 else [column(row) for row in t.reshape(-1, length)]
            for t in (*drawn.tensors, *map(torch.zeros_like, outs))
        ]
        expected = elements(form, operands, drawn.numbers)
        kernel = compiler.compile(form)
        beside += length < kernel.fewer_than
        strides = [(half, 1, 0) if t.dim() == 1 else t.stride() for t in tensors]
        addresses = [(t.data_ptr(), s) for t, s in zip(tensors, strides, strict=True)]
        for threads in (1, 2):
            kernel.launch(kernel.pack((2, half, length), addresses, drawn.numbers), threads)
            for out, wanted in zip(outs, expected, strict=True):
                flat = wanted if out.dim() == 1 else [number for row in wanted for number in row]
                assert same_bits(out.flatten(), tensor_of(flat, out.dtype)), (seed, kernel.nest)
    assert beside > 40


class DrawColumns(DrawRows):
    """The same, of columns that stand side by side."""

    known = reductions(columns=True)
    axes = COLUMNS

    def __init__(self, seed):
        super().__init__(
            seed, rows=random.Random(seed).choice((2, 8, 15, 16, 17, 31, 32, 33, 45, 64))
        )


@pytest.mark.parametrize("seed", range(150))
def test_a_kernel_of_columns_computes_what_its_form_means(compiler, seed):
    drawn = DrawColumns(seed)
    run_rows(compiler, drawn, drawn.rows, drawn.length, 1 + seed % 2)


class DrawWhole(DrawRows):
    """One row, which is gone through once: reductions of elements, then what is made of their values."""

    known = tuple(found for found in reductions(columns=False) if found[-1].parts)
    axes = WHOLE

    def __init__(self, seed):
        self.draw = random.Random(seed)
        self.rows = 1
        self.length = self.draw.choice((1, 5, 31, 33, 515, 2047, 2048, 2049, 4100, 6151))
        self.numbers, self.statements, self.kinds = [], [], []
        self.tensors, self.modes, self.values = [], [], []
        for index in range(self.draw.randint(1, 3)):
            dtype = self.draw.choice((torch.float32, torch.float64, *DTYPES))
            values = samples(dtype, 2, seed + index)[self.draw.randrange(2)]
            mode = Mode.SCALAR if index and self.draw.random() < 0.3 else Mode.LINEAR
            number = values[torch.randint(len(values), (1,))]
            each = values[torch.randint(len(values), (self.length,))]
            self.tensors.append((number if mode is Mode.SCALAR else each).clone())
            self.modes.append(mode)
            self.values.append((Load(index), dtype))
        for _ in range(self.draw.randint(0, 3)):
            self.statement(*self.draw.choice(KNOWN))
        elements = self.values
        of_all = []
        for _ in range(self.draw.randint(1, 4)):
            self.values = list(elements)
            self.reduction()
            of_all.append(self.values[-1])
        self.values = of_all
        for _ in range(self.draw.randint(0, 3)):
            self.statement(*self.draw.choice(KNOWN))
        self.values = elements + self.values


@pytest.mark.parametrize("seed", range(100))
def test_a_kernel_that_reduces_all_elements_computes_what_its_form_means(compiler, seed):
    run_rows(compiler, drawn := DrawWhole(seed), 1, drawn.length)
