"""Eager's time is estimated from trying each kind of op, without the program noticing."""

import math
from time import perf_counter

import pytest
import torch

import torchy
from torchy.explain import EagerCosts, eager


def traced(program, *inputs):
    with torchy.lazy(compile="always") as session:
        results = program(*inputs)
        torchy.flush()
    [record] = session.report.traces
    del results
    return record


def estimates(record, costs=None, patience=10.0):
    costs = costs or EagerCosts()
    until = perf_counter() + patience
    return [costs.of(record.trace, op.index, record.tensors, until) for op in record.ops]


@pytest.fixture
def tried(monkeypatch):
    """The numbers of elements on which ops are tried: each takes a nanosecond, and all a microsecond."""
    elements = []

    def timed(trace, op, sizes):
        largest = max(math.prod(shape) for shape in sizes.values())
        elements.append(largest)
        return 1e-6 + 1e-9 * largest, largest

    monkeypatch.setattr(eager, "_timed", timed)
    monkeypatch.setattr(eager, "_best", lambda *given, **named: eager.TINY_OP)
    monkeypatch.setattr(eager, "tiny_op_seconds", lambda: eager.TINY_OP)
    return elements


def test_time_is_reckoned_from_little_and_much(tried):
    x = torch.rand(1000, 20)  # less than what torch shares among threads, and what caches hold
    [estimate] = estimates(traced(torch.tanh, x))
    assert estimate.known and estimate.seconds == pytest.approx(1e-6 + 20_064e-9)
    assert tried[0] <= eager.FEW_ELEMENTS and tried[1] > eager.MOST_ELEMENTS / 4


def test_an_op_that_was_met_on_few_elements_is_known_on_many(tried):
    costs = EagerCosts()
    [small] = estimates(traced(torch.tanh, torch.rand(5, 2)), costs)
    [large] = estimates(traced(torch.tanh, torch.rand(1000, 20)), costs)
    assert small.known and small.seconds == pytest.approx(1e-6 + 74e-9)
    assert large.seconds == pytest.approx(1e-6 + 20_064e-9)
    assert len(tried) == 2


def test_what_goes_through_memory_waits_for_it(tried):
    x = torch.rand(4000, 1000)
    [estimate] = estimates(traced(torch.tanh, x))
    assert estimate.seconds >= 2 * x.nbytes / eager.EAGER_BANDWIDTH


def test_what_cannot_be_tried_in_time_is_not_known():
    [estimate] = estimates(traced(torch.exp, torch.rand(8)), patience=-1.0)
    assert not estimate.known and estimate.seconds == eager.TINY_OP


def test_rows_and_in_place_ops_and_numbers_are_tried():
    def program(x):
        x = x * 2.5
        x.add_(1, alpha=3)
        return torch.softmax(x, -1).sum(0), torch.where(x > 1, x, 0.0), x.to(torch.bfloat16) + 1

    assert all(estimate.known for estimate in estimates(traced(program, torch.rand(30, 50))))


def test_the_program_notices_nothing():
    record = traced(lambda x: (x * 3).exp() + 1, torch.rand(64))
    torch.manual_seed(3)
    state, grad = torch.get_rng_state(), torch.is_grad_enabled()
    with torch.autograd.profiler.profile() as profile:
        pass
    assert all(estimate.known for estimate in estimates(record))
    assert torch.equal(torch.get_rng_state(), state) and torch.is_grad_enabled() == grad
    assert torchy.current_session() is None and not profile.function_events


@pytest.mark.parametrize("who", ["session", "dispatch mode", "function mode", "profiler"])
def test_nothing_is_tried_where_somebody_would_see_it(who):
    record = traced(torch.exp, torch.rand(64))
    watching = {
        "session": torchy.lazy,
        "dispatch mode": Watching,
        "function mode": torch.overrides.TorchFunctionMode,
        "profiler": torch.autograd.profiler.profile,
    }[who]
    with watching():
        [estimate] = estimates(record)
    assert not estimate.known


class Watching(torch.utils._python_dispatch.TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        raise AssertionError("seen")


@pytest.mark.parametrize(
    ("sizes", "most", "chosen"),
    [
        ({0: (1000, 1000), 1: (1000,)}, 100, {0: (8, 8), 1: (8,)}),
        ({0: (4, 5)}, 100, {0: (8, 8)}),
        ({0: (1 << 20,), 1: (1 << 20,)}, 64, {0: (64,), 1: (64,)}),
        ({0: (3, 3, 3, 3)}, 64, {0: (2, 2, 2, 2)}),
        ({0: ()}, 1, {0: ()}),
        ({0: (0, 7), 1: (1, 7)}, 64, {0: (0, 64), 1: (1, 64)}),
    ],
)
def test_sizes_are_chosen_together(sizes, most, chosen):
    assert eager._of_elements(sizes, most) == chosen
