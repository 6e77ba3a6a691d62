"""Random numbers that the walker draws in eager's place: when it does, and when it leaves them to eager."""

import pytest
import torch
from recording import counters, did

import torchy

DRAWN = {
    "bernoulli_": lambda x: x.bernoulli_(0.3),
    "bernoulli": lambda x: torch.bernoulli(x.zero_()),
    "dropout": lambda x: torch.nn.functional.dropout(x, 0.1),
    "uniform_": lambda x: x.uniform_(),
    "rand": lambda x: torch.rand(1000),
    "rand_like": torch.rand_like,
}
LEFT_TO_EAGER = {
    "few": lambda x: x[:10].bernoulli_(0.3),
    "not contiguous": lambda x: x[::2].bernoulli_(0.3),
    "another dtype": lambda x: x.int().bernoulli_(0.3),
    "another law": lambda x: x.exponential_(),
    "not random": lambda x: x.exp_(),
}


def bernoulli_is_known() -> bool:
    """Tell whether this machine's eager draws truths one by one: on Intel's processors a library does."""
    theirs, ours = torch.zeros(1000, dtype=torch.bool), torch.Generator().manual_seed(1)
    theirs.bernoulli_(0.5, generator=torch.Generator().manual_seed(1))
    state = torch.empty(1000, dtype=torch.float64)
    return torch.equal(theirs, state.uniform_(generator=ours) < 0.5)


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn(name):
    if name in ("bernoulli_", "dropout") and not bernoulli_is_known():
        pytest.skip("a library draws these here")
    x = torch.zeros(1000)
    with torchy.lazy(compile="never") as session:
        assert did(session, lambda: DRAWN[name](x)).drawn == 1
        assert did(session, lambda: DRAWN[name](x)).drawn == 1


@pytest.mark.parametrize("name", LEFT_TO_EAGER)
def test_what_is_left_to_eager(name):
    x = torch.zeros(1000)
    with torchy.lazy(compile="never") as session:
        assert did(session, lambda: LEFT_TO_EAGER[name](x)).drawn == 0


def test_nothing_is_drawn_where_nothing_is_recorded():
    x = torch.zeros(1000)
    with torchy.lazy(compile="never", never=("uniform",)) as session:
        x.uniform_()
        assert counters(session).drawn == 0
    with torchy.lazy(compile="never") as session:
        pass
    x.uniform_()
    assert counters(session).drawn == 0


def test_a_draw_is_noted_as_an_op_that_ran_now():
    x = torch.zeros(1000)
    with torchy.lazy(compile="never") as session:
        x.uniform_()
    (noted,) = session.report.ran_now
    assert (noted.name, noted.count) == ("aten::uniform_", 1)
    assert "random numbers" in noted.why
