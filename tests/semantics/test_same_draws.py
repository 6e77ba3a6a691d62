"""Rule 5, random numbers: those that the walker draws itself are eager's, and so is the state that they leave."""

import threading

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from sameness import program
from test_same_replaced_kernels import replaced
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

FILLS = {
    "bernoulli_": lambda x: x.bernoulli_(0.3),
    "bernoulli_ of half": lambda x: x.bernoulli_(),
    "never": lambda x: x.bernoulli_(0.0),
    "always": lambda x: x.bernoulli_(1.0),
    "hardly ever": lambda x: x.bernoulli_(2.0**-60),
    "uniform_": lambda x: x.uniform_(),
    "uniform_ between": lambda x: x.uniform_(-1.3, 2.9),
    "uniform_ of nothing": lambda x: x.uniform_(2.0, 2.0),
    "normal_": lambda x: x.normal_(),
    "normal_ around": lambda x: x.normal_(0.3, 1.7),
    "normal_ without spread": lambda x: x.normal_(0.5, 0.0),
}
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.bool, torch.int64)
# fewer and more than the walker draws, parts of what it draws at a time, more words than the generator has at once
SIZES = (1, 15, 16, 255, 256, 300, 623, 624, 1000, 1024, 1025, 2500, 5003)


@program
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_fills_of_all_sizes(fill, dtype):
    results = []
    for size in SIZES:
        x = torch.zeros(size, dtype=dtype)
        try:
            results.append(FILLS[fill](x) * 2)
        except RuntimeError as error:
            results.append(str(error))
        results += [torch.rand(3), torch.get_rng_state()]
    return results


MAKERS = {
    "rand": lambda x: torch.rand(40, 25),
    "randn": lambda x: torch.randn(1000),
    "rand of doubles": lambda x: torch.rand(1000, dtype=torch.float64),
    "randn that require gradients": lambda x: torch.randn(1000, requires_grad=True),
    "complex randn": lambda x: torch.randn(1000, dtype=torch.complex64),
    "normal": lambda x: torch.normal(0.5, 2.0, (1000,)),
    "rand_like": torch.rand_like,
    "randn_like": torch.randn_like,
    "randn_like of other dtypes": lambda x: torch.randn_like(x, dtype=torch.float64),
    "rand_like transposed": lambda x: torch.rand_like(x.t()),
    "bernoulli": lambda x: torch.bernoulli(x.sigmoid()),
    "bernoulli of p": lambda x: torch.bernoulli(x, 0.2),
    "bernoulli of doubles": lambda x: torch.bernoulli(x.double().sigmoid()),
    "bernoulli of rows": lambda x: torch.empty_like(x).bernoulli_(x[:1].sigmoid()),
    "bernoulli of itself": lambda x: x.sigmoid_().bernoulli_(x),
    "dropout": lambda x: F.dropout(x, 0.1),
    "dropout in place": lambda x: F.dropout(x, 0.6, inplace=True),
    "feature dropout": lambda x: F.dropout2d(x[None, :, :, None], 0.5),
    "attention": lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None], dropout_p=0.5),
    "distributions": lambda x: torch.distributions.Normal(x, 1.0).rsample(),
    "initialised": lambda x: nn.init.xavier_normal_(torch.empty(40, 25)),
    "columns": lambda x: x[:, 3:].normal_(),
    "every other": lambda x: x.view(-1)[::2].uniform_(),
    "expanded": lambda x: x[:, :1].expand(40, 25).clone().bernoulli_(0.5),
    "of an own generator": lambda x: torch.randn(1000, generator=torch.Generator().manual_seed(4)),
}


@program
@pytest.mark.parametrize("maker", MAKERS)
def test_what_is_filled_is_the_programs(maker):
    x = torch.linspace(-3, 3, 1000).view(40, 25) * 1
    made = MAKERS[maker](x)
    return made, made + 1, x, made._version, torch.rand(3), torch.get_rng_state()


@program
@pytest.mark.parametrize("fill", FILLS)
def test_what_is_overwritten_was_pending_and_is_read_before_and_after(fill):
    x = torch.ones(1000)
    y = x * 2
    view = y[100:900]
    before = y + x
    FILLS[fill](view)
    return before, y + 1, view * 2, y._version, view._version


@program
def test_probabilities_that_are_none():
    given = torch.full((1000,), 0.5) * 1
    results = []
    for wrong in (1.5, -0.1, float("nan")):
        given[700] = wrong
        try:
            results.append(torch.bernoulli(given))
        except RuntimeError as error:
            results.append(str(error))
        results.append(torch.get_rng_state())
    return results


@program
@pytest.mark.parametrize(
    "wrong",
    ["x.bernoulli_(1.5)", "x.bernoulli_(float('nan'))", "x.uniform_(2, 1)", "x.normal_(0, -1)",
     "x.uniform_(0, float('inf'))", "x.int().normal_()", "x.expand(3, 1000).normal_()",
     "x.requires_grad_().normal_()"],
)  # fmt: skip
def test_what_eager_refuses(wrong):
    x = torch.zeros(1000)
    try:
        eval(wrong, {"x": x, "torch": torch})
    except (RuntimeError, ValueError) as error:
        return str(error), x, torch.get_rng_state()
    return x, torch.get_rng_state()


@program
def test_states_that_are_saved_and_set_between_fills():
    x, results = torch.zeros(700), []
    state = torch.get_rng_state()
    for size in (300, 1, 700, 513):
        results += [x[:size].uniform_() + 0, torch.randn(5), torch.randperm(7)]
    torch.set_rng_state(state)
    results += [x.uniform_() * 2, torch.randn(()), torch.get_rng_state()]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        results.append(torch.rand(1000) + 1)
    torch.seed()
    torch.manual_seed(5)
    return *results, torch.rand(1000) + 1, torch.initial_seed(), torch.get_rng_state()


@program
def test_dropout_is_trained_through():
    model = nn.Sequential(nn.Linear(30, 64), nn.Dropout(0.2), nn.GELU(), nn.Linear(64, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, losses = torch.randn(50, 30), []
    for _ in range(4):
        optimizer.zero_grad()
        loss = F.dropout(model(x), 0.5).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, model, torch.get_rng_state()


@program
def test_kernels_that_draw_are_replaced():
    x = torch.zeros(1000)
    results = [x.normal_() + 1]
    with replaced(normal_=lambda x, *_, **__: x.fill_(7.0)):
        results += [x.normal_() + 1, torch.randn_like(x), torch.randn(1000) * 2]
    return *results, x.normal_() + 1


@program(never=("normal", "rand_like"))
def test_draws_that_are_left_to_eager():
    x = torch.zeros(1000)
    return x.normal_() + 1, torch.rand_like(x) * 2, torch.rand(1000) + 1, torch.get_rng_state()


@program(nan=True)
def test_draws_that_are_watched():
    x = torch.zeros(1000)
    return x.normal_() + 1, torch.rand_like(x) * 2, torch.get_rng_state()


class Logged(TorchDispatchMode):
    """Notes the ops that it sees."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.seen.append(str(function))
        return function(*arguments, **(keywords or {}))


@program
def test_draws_that_modes_see():
    with Logged() as mode:
        x = torch.randn(1000) * 2
        y = F.dropout(x, 0.3) + torch.rand_like(x)
    return mode.seen, x, y, torch.get_rng_state()


@program
@pytest.mark.parametrize("randomness", ["same", "different"])
def test_draws_in_transforms(randomness):
    x = torch.arange(1200.0).view(3, 400) * 0.5

    def one(row):
        return F.dropout(row, 0.4) + torch.randn_like(row) + torch.rand(400)

    return torch.vmap(one, randomness=randomness)(x), torch.get_rng_state()


@program
def test_draws_that_are_repeated_for_their_gradient():
    w = torch.randn(500, requires_grad=True)

    def block(t):
        return F.dropout(t * 2, 0.5) * torch.randn(500)

    y = torch.utils.checkpoint.checkpoint(block, w, use_reentrant=False)
    y.sum().backward()
    return y, w.grad, torch.get_rng_state()


@program
def test_draws_of_other_kinds_of_tensors():
    with torch.inference_mode():
        a = torch.randn(1000) + 1
        b = F.dropout(a, 0.2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        c = F.dropout(torch.randn(20, 30) @ torch.randn(30, 40), 0.1)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        d = torch.rand(1000) * 2 + torch.randn(1000)
    finally:
        torch.set_default_dtype(before)
    e = torch.empty(2, 16, 8, 8).to(memory_format=torch.channels_last).normal_()
    f = nn.Parameter(torch.empty(30, 40))
    nn.init.kaiming_normal_(f)
    nn.init.uniform_(f[:10].detach())
    return a, b, c, d, e, e.stride(), f, f._version, torch.empty(0).normal_(), torch.get_rng_state()


@program
def test_draws_with_normal_numbers_left_over():
    x = torch.zeros(3).double().normal_()  # one of a pair is kept
    y = torch.randn(1000)
    state = torch.get_rng_state()
    z = torch.zeros(1).double().normal_()
    torch.set_rng_state(state)
    return x, y, z, torch.rand(700), torch.zeros(2).double().normal_(), torch.get_rng_state()


@program
def test_threads_that_share_a_generator():
    generator = torch.Generator().manual_seed(9)

    def draw(count):
        for _ in range(count):
            torch.empty(300).uniform_(generator=generator)

    threads = [threading.Thread(target=draw, args=(5,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    draw(5)
    for thread in threads:
        thread.join()
    return torch.empty(300).uniform_(generator=generator), generator.get_state()
