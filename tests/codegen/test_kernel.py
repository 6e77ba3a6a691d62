"""Kernels as a whole: packing, stages, ids, listings, errors, threads."""

import ast
import ctypes
import random
import subprocess
import sys
import threading

import pytest
import torch

from torchy.codegen import CompileError, lower
from torchy.codegen.cpu import Compiler, compile_kernel
from torchy.codegen.cpu.compare import same_bits
from torchy.ir.kernel import (
    Access,
    KernelForm,
    Literal,
    Load,
    Result,
    RuntimeNumber,
    Statement,
    Store,
)
from torchy.ir.trace import Mode

F = torch.float32
ONE = Literal(1)


def flat(accesses, statements, stores, kinds=()):
    reached = tuple(Access(dtype, Mode.LINEAR) for dtype in accesses)
    return KernelForm(reached, kinds, tuple(statements), tuple(Store(*store) for store in stores))


def op(name, *arguments, dtype=F):
    return Statement(name, arguments, dtype, dtype)


def chain():
    """``(x * y + z).tanh().exp() * number - x``."""
    statements = (
        op("mul", Load(0), Load(1)),
        op("add", Result(0), Load(2), ONE),
        op("tanh", Result(1)),
        op("exp", Result(2)),
        op("mul", Result(3), RuntimeNumber(0)),
        op("sub", Result(4), Load(0), ONE),
    )
    return flat((F,) * 4, statements, [(3, Result(5))], (float,))


def addresses(*tensors):
    return [(tensor.data_ptr(), None) for tensor in tensors]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("length", [1, 15, 16, 17, 1000, 4096, 1000003])
def test_arithmetic_and_vector_math_in_one_kernel(compiler, length, threads):
    x, y, z = (torch.randn(length) for _ in range(3))
    out = torch.empty(length)
    kernel = compiler.compile(chain())
    kernel.launch(kernel.pack([length], addresses(x, y, z, out), [0.5]), threads)
    assert same_bits(out, (x * y + z).tanh().exp() * 0.5 - x)


def test_all_that_a_kernel_shows(compiler):
    kernel = compiler.compile(chain())
    texts = {name: text() for name, text in kernel.levels.items()}
    assert list(texts) == ["loop nest", "LLVM IR", "assembly"]
    assert "tanh(v" in texts["loop nest"] and "number0" in texts["loop nest"]
    assert "define internal void @vectors" in texts["LLVM IR"]
    assert "vectors" in texts["assembly"]
    assert kernel.compile_seconds > 0 and kernel.address > 0
    assert len(kernel.id) == 16


def test_equal_forms_have_equal_ids_in_all_processes(compiler):
    code = (
        "from tests.codegen.test_kernel import chain\n"
        "from torchy.codegen.cpu import Compiler\n"
        "print(Compiler().identity(chain()))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == compiler.identity(chain())
    assert compiler.identity(chain(), "fast") != compiler.identity(chain())


def test_the_listing_reads_like_the_program():
    form = flat((F, F), [op("add", Load(0), Load(0), ONE), op("exp", Result(0))], [(1, Result(1))])
    assert str(lower(form)) == (
        "a0: f32, linear, read\n"
        "a1: f32, linear, written\n"
        "for each block of elements:\n"
        "    for each vector of elements i in the block:\n"
        "        v1: f32 = a0[i] + a0[i]  # 0: add\n"
        "    v2: f32 = exp(v1)  # 1: exp, the whole block at once\n"
        "    for each vector of elements i in the block:\n"
        "        a1[i] = v2  # 1: exp\n"
    )


def test_equal_values_are_computed_once():
    statements = [op("mul", Load(0), Load(0)), op("mul", Load(0), Load(0))]
    form = flat((F, F, F), statements, [(1, Result(0)), (2, Result(1))])
    assert sum(node.op == "mul" for node in lower(form).nodes) == 1


def test_what_is_made_of_numbers_only_is_computed_once():
    form = flat((F, F), [op("leaky_relu", Load(0), RuntimeNumber(0))], [(1, Result(0))], (float,))
    nest = lower(form)
    assert any(nest.nodes[i].op == "cast" for i in nest.uniform)


def test_several_stores_and_an_access_that_is_both_loaded_and_stored(compiler):
    # exp needs x after the first stage: the store to x has to wait
    statements = [
        op("add", Load(0), Load(1), ONE),
        op("exp", Load(1)),
        op("mul", Result(1), Load(0)),
    ]
    form = flat((F, F, F), statements, [(0, Result(0)), (2, Result(2))])
    x, y = torch.randn(5003), torch.randn(5003)
    added, product = x + y, y.exp() * x
    out = torch.empty(5003)
    kernel = compiler.compile(form)
    kernel.launch(kernel.pack([5003], addresses(x, y, out)))
    assert same_bits(x, added) and same_bits(out, product)


def test_two_accesses_are_swapped(compiler):
    form = flat((F, F), (), [(0, Load(1)), (1, Load(0))])
    x, y = torch.randn(77), torch.randn(77)
    a, b = x.clone(), y.clone()
    kernel = compiler.compile(form)
    kernel.launch(kernel.pack([77], addresses(x, y)))
    assert same_bits(x, b) and same_bits(y, a)


def test_many_vector_functions_share_scratch(compiler):
    names = ("sin", "cos", "exp", "tanh", "log1p", "erf", "atan", "log") * 3
    statements = [op(names[0], Load(0))]
    for i, name in enumerate(names[1:]):
        statements.append(op(name, Result(2 * i)))
        statements.append(op("add", Result(2 * i + 1), Load(0), ONE))
    form = flat((F, F), statements, [(1, Result(len(statements) - 1))])
    x = torch.rand(4099)
    expected = getattr(torch, names[0])(x)
    for name in names[1:]:
        expected = getattr(torch, name)(expected) + x
    out = torch.empty(4099)
    kernel = compiler.compile(form)
    kernel.launch(kernel.pack([4099], addresses(x, out)))
    assert same_bits(out, expected)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "shape",
    [(1,), (1, 1), (3, 5), (2, 3, 4, 5), (70, 33, 29), (1, 40000), (40000, 1), (9, 1, 7, 1, 5)],
)
def test_any_rank_and_broadcast(compiler, shape, threads):
    x = torch.randn(shape)
    row = torch.randn(shape[-1])
    column = torch.randn((*shape[:-1], 1))
    out = torch.empty(shape)
    modes = (Mode.LINEAR, Mode.UNIT, Mode.REPEAT, Mode.LINEAR)
    form = KernelForm(
        tuple(Access(F, mode) for mode in modes),
        (),
        (op("mul", Load(0), Load(1)), op("add", Result(0), Load(2), ONE)),
        (Store(3, Result(1)),),
    )
    kernel = compiler.compile(form)
    packed = kernel.pack(
        shape,
        [
            (x.data_ptr(), None),
            (row.data_ptr(), row.expand(shape).stride()),
            (column.data_ptr(), column.expand(shape).stride()),
            (out.data_ptr(), None),
        ],
    )
    kernel.launch(packed, threads)
    assert same_bits(out, x * row + column)


def test_a_scalar_access_serves_the_whole_space(compiler):
    form = KernelForm(
        (Access(F, Mode.LINEAR), Access(torch.float64, Mode.SCALAR), Access(F, Mode.LINEAR)),
        (),
        (op("mul", Load(0), Load(1)),),
        (Store(2, Result(0)),),
    )
    x, factor, out = torch.randn(100), torch.tensor(1 / 3, dtype=torch.float64), torch.empty(100)
    kernel = compiler.compile(form)
    kernel.launch(kernel.pack([100], addresses(x, factor, out)))
    assert same_bits(out, x * factor)


def test_nothing_is_touched_for_no_elements(compiler):
    form = flat((F, F), [op("neg", Load(0))], [(1, Result(0))])
    kernel = compiler.compile(form)
    kernel.launch(kernel.pack([0], [(0, None), (0, None)]), 2)
    strided = KernelForm(
        (Access(F, Mode.STRIDED), Access(F, Mode.UNIT)), (), form.statements, form.stores
    )
    kernel = compiler.compile(strided)
    kernel.launch(kernel.pack([0, 4], [(0, (1, 7)), (0, (4, 1))]), 2)
    kernel.launch(kernel.pack([4, 0], [(0, (1, 7)), (0, (4, 1))]), 2)


def test_dimensions_that_lie_behind_each_other_are_merged(compiler):
    form = KernelForm(
        (Access(F, Mode.UNIT), Access(F, Mode.UNIT)),
        (),
        (op("neg", Load(0)),),
        (Store(1, Result(0)),),
    )
    kernel = compiler.compile(form)
    packed = kernel.pack([4, 5, 6], [(0, (60, 6, 1)), (0, (30, 6, 1))])
    assert list(packed[:3]) == [120, 30, 1]  # elements, inner size, outer dimensions


def test_conversions_that_do_not_fit_are_the_processors(compiler):
    values = [
        float("nan"),
        float("inf"),
        -float("inf"),
        2.0**31,
        -(2.0**31) - 2,
        2.0**63,
        1e30,
        -1e30,
        2.9,
    ]
    for wide, narrow in ((torch.float64, torch.int32), (torch.float32, torch.int64)):
        form = flat(
            (wide, narrow), [Statement("_to_copy", (Load(0),), narrow, narrow)], [(1, Result(0))]
        )
        x = torch.tensor(values * 3, dtype=wide)
        out = torch.empty(len(x), dtype=narrow)
        kernel = compiler.compile(form)
        kernel.launch(kernel.pack([len(x)], addresses(x, out)))
        assert torch.equal(out, x.to(narrow))


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (flat((F, F), [op("no_such_op", Load(0))], [(1, Result(0))]), "no_such_op"),
        (
            flat((F, F), [op("sigmoid", Load(0))], [(1, Result(0))]),
            "is not exact: eager's result depends on",
        ),
        (flat((F, F), [op("sum")], [(1, Result(0))]), "sum"),
        (flat((F,), [], []), "without"),
        (flat((F, F), [op("neg", Load(0))], [(1, Result(0)), (1, Load(0))]), "two stores"),
    ],
)
def test_what_cannot_be_compiled_says_why(compiler, form, words):
    with pytest.raises(CompileError, match=words):
        compiler.compile(form)


def test_a_store_to_a_broadcast_access_is_refused(compiler):
    form = KernelForm((Access(F, Mode.REPEAT),), (), (op("neg", Load(0)),), (Store(0, Result(0)),))
    with pytest.raises(CompileError, match="repeat"):
        compiler.compile(form)


def test_fast_mode_fuses_what_depends_on_the_position(compiler):
    form = flat((F, F), [op("sigmoid", Load(0))], [(1, Result(0))])
    x, out = torch.randn(999), torch.empty(999)
    kernel = compiler.compile(form, "fast")
    kernel.launch(kernel.pack([999], addresses(x, out)))
    assert torch.allclose(out, x.sigmoid(), rtol=1e-6)


def test_an_op_that_differs_from_eager_is_refused_from_then_on():
    compiler = Compiler()
    own = compiler.verifier.compile

    def wrong(form):
        def run(sizes, tensors, numbers, out):
            own(form)(sizes, tensors, numbers, out)
            out[7] = 12345.0

        return run

    compiler.verifier.compile = wrong
    form = flat((F, F), [op("neg", Load(0))], [(1, Result(0))])
    from torchy.ir.ops import SPECS

    neg, why_inexact = SPECS["neg"], compiler.verifier.why_inexact
    assert why_inexact(neg, neg.rules[0], F, {}) == ""
    with pytest.raises(CompileError, match="differs from eager"):
        compiler.compile(form)
    assert why_inexact(neg, neg.rules[0], F, {}) == "it has been seen to differ on this machine"


def test_kernels_outlive_their_compiler():
    kernel = compile_kernel(chain())
    Compiler()  # another, dropped at once: its driver goes with it
    x = torch.rand(100)
    out = torch.empty(100)
    kernel.launch(kernel.pack([100], addresses(x, x, x, out), [2.0]))
    assert same_bits(out, (x * x + x).tanh().exp() * 2.0 - x)


def test_threads_compile_and_run_side_by_side(compiler):
    failures = []

    def work(seed):
        x = torch.full((3001,), float(seed))
        out = torch.empty(3001)
        statements = [op("add", Load(0), Literal(float(seed)), ONE), op("exp", Result(0))]
        for _ in range(5):
            kernel = compiler.compile(flat((F, F), statements, [(1, Result(1))]))
            kernel.launch(kernel.pack([3001], addresses(x, out)), 2)
            if not same_bits(out, (x + float(seed)).exp()):
                failures.append(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


def test_compiling_parses_no_python(monkeypatch):
    # CPython 3.11's parser fails if two threads use it: kernels are compiled beside the notebook's
    with monkeypatch.context() as patched:
        patched.setattr(ast, "parse", None)
        kernel = Compiler().compile(chain())
    assert str(kernel.nest)


def test_the_packed_words_are_what_the_c_function_takes(compiler):
    form = flat((F, F), [op("neg", Load(0))], [(1, Result(0))])
    kernel = compiler.compile(form)
    x, out = torch.randn(10), torch.empty(10)
    packed = kernel.pack([10], addresses(x, out))
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32)(kernel.address)
    function(ctypes.addressof(packed), 1)
    assert same_bits(out, -x)


@pytest.mark.parametrize("seed", range(60))
def test_random_layouts(compiler, seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high):
        return int(torch.randint(low, high, (), generator=generator))

    rank = draw(1, 6)
    shape = [draw(1, 9) for _ in range(rank)]
    shape[draw(0, rank)] = draw(1, 300)
    in_place = bool(draw(0, 2))

    def operand():
        """A view of this shape: permuted, padded, or broadcast in some dimensions."""
        order = torch.randperm(rank, generator=generator).tolist()
        base = torch.randn([shape[d] + draw(0, 3) for d in order], generator=generator)
        for d, size in enumerate(shape[d] for d in order):
            base = base.narrow(d, 0, size)
        view = base.permute([order.index(d) for d in range(rank)])
        for d in range(rank):
            if draw(0, 4) == 0:
                view = view.narrow(d, 0, 1).expand([-1] * d + [shape[d]] + [-1] * (rank - d - 1))
        return view

    def mode_of(view):
        step = view.stride(-1)
        if shape[-1] == 1:
            return Mode.STRIDED
        return {0: Mode.REPEAT, 1: Mode.UNIT}.get(step, Mode.STRIDED)

    x, y = operand(), operand()
    out = torch.randn(shape, generator=generator)
    expected = (out if in_place else x).exp() * y
    first = Load(2) if in_place else Load(0)
    form = KernelForm(
        (Access(F, mode_of(x)), Access(F, mode_of(y)), Access(F, Mode.LINEAR)),
        (),
        (op("exp", first), op("mul", Result(0), Load(1))),
        (Store(2, Result(1)),),
    )
    kernel = compiler.compile(form)
    accesses = [(x.data_ptr(), x.stride()), (y.data_ptr(), y.stride()), (out.data_ptr(), None)]
    kernel.launch(kernel.pack(shape, accesses), 1 + seed % 2)
    assert same_bits(out, expected), shape


@pytest.mark.parametrize("function", ["sin", "exp", "sqrt"])
def test_a_vector_function_reads_an_access_before_it_is_written(compiler, function):
    statements = [op(function, Load(0)), op("neg", Load(0))]
    form = flat((F, F), statements, [(0, Result(1)), (1, Result(0))])
    x = torch.rand(5003)
    negative, expected, out = -x, getattr(x, function)(), torch.empty(5003)
    kernel = compiler.compile(form)
    kernel.launch(kernel.pack([5003], addresses(x, out)))
    assert same_bits(x, negative)
    assert same_bits(out, expected)


@pytest.mark.parametrize("seed", range(60))
def test_all_loads_come_before_all_stores(compiler, seed):
    """Random statements and stores: every load is of what was there before the kernel."""
    draw = random.Random(seed)
    tensors = [torch.rand(1003) + 0.5 for _ in range(4)]
    before, results, statements = [t.clone() for t in tensors], [], []

    def argument():
        choices = [(Load(i), before[i]) for i in range(4)]
        choices += [(Result(i), value) for i, value in enumerate(results)]
        return draw.choice(choices)

    for _ in range(draw.randint(2, 9)):
        if draw.random() < 0.5:
            function = draw.choice(["sin", "exp", "tanh", "neg", "abs"])
            given, value = argument()
            statements.append(op(function, given))
            results.append(getattr(value, function)())
        else:
            (one, a), (other, b) = argument(), argument()
            statements.append(op("mul", one, other))
            results.append(a * b)
    stores, expected = [], list(before)
    for access in draw.sample(range(4), draw.randint(1, 4)):
        given, expected[access] = argument()
        stores.append((access, given))
    kernel = compiler.compile(flat((F,) * 4, statements, stores))
    kernel.launch(kernel.pack([1003], addresses(*tensors)), 1 + seed % 2)
    for found, wanted in zip(tensors, expected, strict=True):
        assert same_bits(found, wanted), kernel.nest
