"""Rule 5, random numbers: the same stream in the same order."""

import random

import numpy
import pytest
import torch
import torch.nn.functional as F
from sameness import program
from torch import nn


def attend(x):
    """Return attention with dropout."""
    return F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)


SAMPLERS = {
    "rand": lambda x: torch.rand(5),
    "randn": lambda x: torch.randn(5),
    "randint": lambda x: torch.randint(10, (5,)),
    "randperm": lambda x: torch.randperm(5),
    "rand_like": torch.rand_like,
    "randn_like": torch.randn_like,
    "bernoulli": lambda x: torch.bernoulli(x.sigmoid()),
    "bernoulli_": lambda x: x.bernoulli_(0.5),
    "normal": lambda x: torch.normal(x, 1.0),
    "normal_": lambda x: x.normal_(),
    "uniform_": lambda x: x.uniform_(-1, 1),
    "exponential_": lambda x: x.exponential_(),
    "dropout": lambda x: F.dropout(x, 0.5),
    "multinomial": lambda x: torch.multinomial(x.abs() + 1, 3),
    "poisson": lambda x: torch.poisson(x.abs()),
    "cauchy_": lambda x: x.cauchy_(),
    "geometric_": lambda x: x.geometric_(0.3),
    "random_": lambda x: x.random_(10),
    "log_normal_": lambda x: x.log_normal_(),
    "rrelu": lambda x: F.rrelu(x, training=True),
    "alpha_dropout": lambda x: F.alpha_dropout(x, 0.5, training=True),
    "gumbel": lambda x: F.gumbel_softmax(x, dim=0),
    "kaiming": lambda x: nn.init.kaiming_uniform_(x.reshape(1, -1)),
    "linear": lambda x: nn.Linear(5, 2)(x),
    "sdpa": lambda x: attend(x[None, None]),
    "inplace dropout": lambda x: F.dropout(x, 0.3, inplace=True),
    "feature dropout": lambda x: F.dropout1d(x[None, :, None]),
    "trunc_normal": nn.init.trunc_normal_,
    "distribution": lambda x: torch.distributions.Normal(x, 1.0).sample(),
    "gamma": lambda x: torch.distributions.Gamma(x.abs() + 1, 1.0).sample(),
    "categorical": lambda x: torch.distributions.Categorical(logits=x).sample((3,)),
    "shuffle": lambda x: x[torch.randperm(5)],
}


@program
@pytest.mark.parametrize("name", SAMPLERS)
def test_random_op_between_pending_ones(name):
    x = torch.randn(5) * 2
    a = SAMPLERS[name](x + 1)
    y = torch.rand(3) + 1
    b = SAMPLERS[name](torch.arange(5.0) * 0.1)
    return x, a, y, b, torch.rand(2)


@program
def test_a_sample_that_is_never_used_moves_the_stream():
    torch.rand(3) * 2
    F.dropout(torch.ones(10) * 2)
    x = torch.randn(4) * 0
    del x
    return torch.rand(3) + 1


@program
def test_seeds_and_states():
    a = torch.rand(3) * 2
    state = torch.get_rng_state()
    b = torch.rand(3) * 2
    torch.set_rng_state(state)
    c = torch.rand(3) * 2
    torch.manual_seed(7)
    d = torch.randn(3) + 1
    seed = torch.initial_seed()
    with torch.random.fork_rng():
        e = torch.rand(3) + 1
    return a, b, c, d, e, torch.rand(3) + 1, seed


@program
def test_generators_of_their_own():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(4, generator=generator) * 2
    y = torch.rand(4) * 2
    z = torch.ones(4).mul(2).normal_(generator=generator)
    w = torch.randperm(4, generator=generator)
    return x, y, z, w, generator.get_state()


@program
def test_python_and_numpy_generators():
    x = torch.ones(3) * random.random()
    y = torch.from_numpy(numpy.random.rand(3)) * 2
    return x * numpy.random.rand(), y + random.gauss(0, 1)


@program
def test_dropout_in_training_and_evaluation():
    model = nn.Sequential(
        nn.Linear(6, 20), nn.ReLU(), nn.Dropout(0.4), nn.Linear(20, 3), nn.Dropout(0.1)
    )
    x = torch.randn(4, 6)
    y = model(x * 2)
    y.sum().backward()
    model.eval()
    z = model(x)
    return y, z, model, torch.rand(2)


@program
def test_the_order_of_samples_and_writes():
    x = torch.zeros(6) + 1
    x[:3].normal_()
    x.mul_(2)
    x[2:].uniform_()
    y = x + torch.rand(6)
    x.bernoulli_()
    return x, y


@program
def test_a_random_walk_with_decisions():
    position, path = torch.zeros(2), []
    for _ in range(20):
        step = torch.randn(2) * 0.5
        candidate = position + step
        if torch.rand(()) < torch.exp(-(candidate**2).sum()):
            position = candidate
        path.append(position + 0)
    return path
