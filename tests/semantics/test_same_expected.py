"""An op that comes where one was recorded before is compared with that one: whatever differs is not overlooked.

Each body visits its lines many times, so that all but the first visits go the short way, and then changes one thing.
"""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from sameness import program
from tiers import TIERS

TURNS = 6


def elsewhere(function):
    """Return what a function gives on a thread without a session."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def visits(body, changed, *others):
    """Run a body several times with one set of arguments, then with others, then as before; always at the same place."""
    results, one = [], torch.ones(2)
    turns = [0] * TURNS + [turn for other in (*others, 1, 2, 3) for turn in (other, 0)]
    for turn in turns:
        (one * 2).sum().item()  # a look: what comes next begins a trace
        results.append(body(*changed(turn)))
    return results


def chain(x, y):
    z = x * y + 1
    return (z.exp() - x).sum(), z


@program
def test_offsets_of_operands():
    rows = torch.randn(4, 6)
    return visits(chain, lambda i: (rows[i], rows[3 - i]))


@program
def test_offsets_of_two_views_of_one_storage():
    x = torch.randn(20)
    return visits(chain, lambda i: (x[i : i + 4], x[2 * i : 2 * i + 4]))


@program
def test_which_of_several_views_an_operand_is():
    x = torch.randn(30)

    def body(i):
        a, b = x[:5], x[i : i + 5]
        y = a * 2
        return y + b, (y * a).sum(), b - a

    return visits(body, lambda i: (i,))


@program
@pytest.mark.parametrize("aliased", [False, True])
def test_operands_that_become_the_same_tensor(aliased):
    x, y = torch.randn(5), torch.randn(5)

    def pair(i):
        if i % 2 == 0:
            return x, y
        return x, x.view(5) if aliased else x

    return visits(chain, pair)


@program
def test_operands_of_one_trace_that_change_places():
    x = torch.randn(5)

    def body(i):
        a, b = x * 2, x * 3
        a, b = (a, b) if i % 2 == 0 else (b, a)
        return a - b, (a / b).sum()

    return visits(body, lambda i: (i,))


@program
def test_an_operand_that_is_pending_or_not():
    x = torch.randn(5)

    def body(i):
        y = x + 1
        if i % 2:
            y.sum().item()
        return y * 2, y - x

    return visits(body, lambda i: (i,))


@program
@pytest.mark.parametrize("rank", [0, 1, 2, 4])
def test_sizes_and_ranks(rank):
    made = [torch.randn([2 + i] * rank) for i in range(4)]
    return visits(chain, lambda i: (made[i], made[i] + 1))


@program
def test_more_sizes_than_are_expected():
    made = [torch.randn(n) for n in range(1, 14)]
    return [chain(made[n % 13], made[n % 13] * 2) for n in range(60)]


SIZES = [(4, 6), (6, 4), (1, 6), (4, 1), (1, 1), (0, 6), (2, 3), (40, 50), (79, 64), (2, 2)]


@program(times=2)
@pytest.mark.parametrize("start", range(0, len(SIZES), 3))
def test_sizes_that_change_each_time(start):
    order = SIZES[start:] + SIZES[:start]

    def body(sizes):
        x, byte = (
            torch.linspace(-1, 1, sizes[0] * sizes[1]).reshape(sizes),
            torch.ones(sizes).byte(),
        )
        small = torch.tensor(0.25)
        y = (x * small + 1).exp() - x
        z = torch.zeros(sizes).add_(y).mul_(0.5)
        results = [
            y,
            z,
            y < z,
            torch.where(y < z, y, small),
            y.softmax(-1),
            y.cumsum(0),
            y.sum(),
            y.tril(),
        ]
        results += [
            y.sum(0),
            y.sum(1, keepdim=True),
            y * y[:1],
            y.t() * 2,
            byte * 3 + byte,
            y @ y.t(),
        ]
        return results, (y.relu() * z).sum().item()

    return visits(body, lambda i: (order[i % len(order)],), *range(len(order)))


@program
def test_sizes_that_change_until_the_op_raises():
    def body(left, right):
        x, y = torch.ones(left), torch.ones(right)
        results = []
        for op in (torch.mul, torch.mm, torch.maximum, torch.Tensor.add_, torch.Tensor.copy_):
            try:
                results.append(op(x.clone(), y))
            except RuntimeError as error:
                results.append(str(error))
        return results

    sizes = [
        ((3, 3), (3, 3)),
        ((4, 4), (4, 4)),
        ((2, 3), (2, 3)),
        ((3, 3), (2, 2)),
        ((3, 3), (1, 3)),
    ]
    sizes += [((1, 3), (3, 3)), ((5, 5), (5, 5)), ((5, 5), (5, 6))]
    return visits(body, lambda i: sizes[i], *range(len(sizes)))


@program
def test_sizes_that_change_until_what_is_written_overlaps():
    def body(size):
        base = torch.arange(60.0)
        base[:size].add_(base[20 : 20 + size]).mul_(base[:size])
        return base

    sizes = [4, 5, 19, 20, 21, 30, 40, 4]
    return visits(body, lambda i: (sizes[i],), *range(len(sizes)))


@program
def test_sizes_that_change_to_those_of_a_generator_s_state():
    state = torch.get_rng_state()

    def body(size):
        x = state[:size] if size <= state.numel() else state
        y = x ^ 0
        if y.numel() == state.numel():
            torch.set_rng_state(y)
        return y, torch.rand(3)

    sizes = [16, 100, state.numel(), 17]
    return visits(body, lambda i: (sizes[i],), *range(len(sizes)))


@program
def test_strides():
    x = torch.randn(4, 4)
    ways = [lambda: x, lambda: x.t(), lambda: x[:1].expand(4, 4), lambda: x[::2, ::2].repeat(2, 2)]
    return visits(chain, lambda i: (ways[i](), x))


@program
def test_dtypes():
    ways = [torch.float32, torch.float64, torch.int32, torch.complex64]
    x = torch.arange(5)
    return visits(chain, lambda i: (x.to(ways[i]), x.to(ways[i])))


NUMBERS = [2.5, 1, 1.0, True, -0.0, float("nan"), float("inf"), 1e300, 2**40, -3, 300, 0]


@program
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8, torch.int32])
@pytest.mark.parametrize("name", ["mul", "add", "sub", "pow", "lt"])
def test_numbers(name, dtype):
    x = torch.arange(5).to(dtype)

    def body(number):
        try:
            y = getattr(x, name)(number)
            return y + 1, y.dtype
        except Exception as error:
            return type(error).__name__, str(error)

    return visits(body, lambda i: (NUMBERS[i],), *range(len(NUMBERS)))


@program
def test_alphas_and_other_scalars():
    x, y = torch.randn(5), torch.randn(5)

    def body(number):
        a = torch.add(x, y, alpha=number)
        b = torch.addcmul(a, x, y, value=number)
        c = torch.addmm(x[:2], x[:4].view(2, 2), y[:4].view(2, 2), beta=number, alpha=number)
        return a, b, c, torch.where(x > 0, x, number)

    return visits(body, lambda i: (NUMBERS[i],), 1, 2, 4)


@program
def test_an_alpha_of_zero_is_negated_as_the_number_that_it_is():
    x = torch.tensor([-0.0, 0.0, 1.5, -1.5, float("inf"), float("nan")])
    alphas = [2, 0, 0.0, -0.0, 3, 0]

    def body(alpha):
        return (
            torch.sub(x, x, alpha=alpha),
            torch.rsub(x, x, alpha=alpha),
            x.clone().sub_(x, alpha=alpha),
            torch.sub(x.double(), x, alpha=alpha),
        )

    return visits(body, lambda i: (alphas[i],), *range(6))


@program
def test_constants():
    x = torch.randn(3, 4, 5)

    def body(dim, keepdim, dtype):
        y = x * 2
        return y.sum(dim, keepdim, dtype=dtype), y.amax(dim, keepdim), y.softmax(dim[0]).mean(dim)

    ways = [
        ((0,), False, None),
        ((1, 2), False, None),
        ((0,), True, None),
        ((0,), False, torch.float64),
    ]
    return visits(body, lambda i: ways[i])


@program
def test_writes_to_what_has_other_tensors():
    results, kept = [], []
    for i in range(12):
        x = torch.randn(5)
        if i > TURNS and i % 2:
            kept.append(x.view(5))
        x.add_(1).mul_(2.0)
        if kept:
            results.append(elsewhere(lambda: kept[-1] * 1))
        x.copy_(x * 2)
        results.append((x, (x + 1).sum().item()))  # the next turn begins at the same place
    return results, kept


@program
def test_writes_to_an_operand_that_is_shared_with_numpy():
    results = []
    for i in range(12):
        x = torch.arange(5.0)
        seen = x.numpy() if i > TURNS and i % 2 else None
        x.add_(1)
        results.append(None if seen is None else seen.copy())
        x.fill_(3.0)
        results.append((x, (x + 0).sum().item()))
    return results


@program
def test_an_operand_that_somebody_resized():
    results = []
    for i in range(12):
        x = torch.arange(6.0)
        y = x * 2
        if i > TURNS and i % 2:
            y.resize_(3)
        results.append((y, (y + 1).sum().item()))
    return results


@program
@pytest.mark.parametrize("call", [False, True])
def test_gradients_that_come_and_go(call):
    x, w = torch.randn(4, 4), torch.randn(4, 4)

    def body(i):
        w.requires_grad_(i % 2 == 1)
        with torch.no_grad() if i == 3 else contextlib.nullcontext():
            y = (x @ w if call else x * w).tanh()
        return y, y.requires_grad, type(y.grad_fn).__name__

    return visits(body, lambda i: (i,))


@program
def test_a_view_whose_base_has_a_gradient_by_now():
    w = torch.ones(4, requires_grad=True)
    results = []
    for i in range(10):
        base = torch.zeros(4)
        view = base[:2]
        if i > TURNS:
            base.add_(w)
        y = view * 2
        results.append((y, y.requires_grad, type(y.grad_fn).__name__))
    return results


@program
def test_modes():
    x = torch.randn(5)

    def body(mode):
        with mode():
            y = x * 2
            return y, y.is_inference(), (y + 1).sum()

    modes = [contextlib.nullcontext, torch.inference_mode, torch.no_grad, torch.enable_grad]
    return visits(body, lambda i: (modes[i],))


@program
def test_operands_made_in_inference_mode():
    plain = torch.randn(5)
    with torch.inference_mode():
        inference = torch.randn(5)
    return visits(chain, lambda i: ((plain, inference)[i % 2], plain))


@program
def test_conjugates_and_negatives():
    x = torch.randn(5, dtype=torch.complex64)
    ways = [x, x.conj(), x.conj().imag.neg() + 0j, torch._neg_view(x)]
    return visits(chain, lambda i: (ways[i], x))


@program
def test_default_dtypes():
    x = torch.arange(5)
    results = []
    for i in range(12):
        torch.set_default_dtype(torch.float64 if i > TURNS and i % 2 else torch.float32)
        y = x / 2
        results.append((y, y * 0.3, (x * 0.5).sum()))
    torch.set_default_dtype(torch.float32)
    return results


@program
def test_kernels_and_gradients_that_the_program_puts_in_place():
    x = torch.arange(4.0)

    def body():
        return x.cos(), (x + 1).cos().sum()

    results = [body() for _ in range(TURNS)]
    for key in ("CPU", "AutogradCPU", "Autograd"):
        library = torch.library.Library("aten", "IMPL")
        library.impl("cos", lambda t: torch.ones_like(t), key)
        results.append(body())
        library._destroy()
        results.append(body())
    return results


@program
def test_dispatch_modes_and_function_modes():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Doubling(TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            result = op(*args, **(kwargs or {}))
            return result * 2 if isinstance(result, torch.Tensor) else result

    x = torch.randn(4)
    results = []
    for i in range(12):
        with Doubling() if i > TURNS and i % 2 else contextlib.nullcontext():
            y = x.exp()
            results.append((y, y + x))
    return results


@program
def test_long_traces_are_cut():
    results = []
    for _ in range(4):
        x = torch.ones(3)
        for i in range(40):
            x = x + i
        results.append(x)
    return results


@program(max_ops=7)
def test_short_traces_are_cut():
    results = []
    for _ in range(6):
        x = torch.ones(3)
        for i in range(20):
            x = x + i
        results.append(x)
    return results


@program
def test_views_of_a_pending_tensor_whose_layout_differs():
    """The places of both are the same, and so are the last operand's sizes and strides, but not what it is of."""
    w, square = torch.randn(4, 4), torch.randn(4, 4)

    def body(x, transposed):
        y = x + 1
        z = y.t() if transposed else y
        return z * w, (z * w).sum()

    ways = [(square, False), (square.t(), True), (square, True), (square.t(), False)]
    return visits(body, lambda i: ways[i])


@program
def test_parts_of_a_pending_tensor_whose_size_differs():
    made = [torch.randn(4), torch.randn(8), torch.randn(6), torch.randn(8)]

    def body(x, n):
        y = x + 1
        return y[:n] * 2, (y[:n] * 2).sum()

    return visits(body, lambda i: (made[i], 4))


@program
def test_forward_gradients_that_a_view_has_from_its_base():
    import torch.autograd.forward_ad as forward

    results = []
    for i in range(10):
        with forward.dual_level():
            base = torch.zeros(4)
            view = base[:2]
            if i > TURNS:
                base.copy_(forward.make_dual(torch.ones(4), torch.arange(4.0)))
            y = view * 2
            view.mul_(3.0)
            tangents = [forward.unpack_dual(t).tangent for t in (y, view, base)]
            results.append((y, [None if t is None else t.clone() for t in tangents]))
        (torch.ones(2) * 2).sum().item()
    return results


@TIERS
def test_two_threads_repeat_one_long_flush(compile):
    """A flush of more than 20 ms, begun from Python, is gone on with there: its program is nobody else's meanwhile."""
    import torchy

    def run(x):
        y = x
        for _ in range(40):
            y = y @ y * 1e-3
        return (y + x * 2).tolist()

    inputs = [torch.rand(300, 300) for _ in range(4)]
    expected = [run(x) for x in inputs]
    wrong = []

    def work(index):
        for _ in range(4):
            with torchy.lazy(compile=compile, max_bytes=2**40):
                if run(inputs[index]) != expected[index]:
                    wrong.append(index)

    work(0)
    work(1)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert not wrong
