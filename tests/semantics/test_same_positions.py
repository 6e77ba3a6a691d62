"""Rule 1 for functions that eager computes otherwise at the ends of its loops: body and tail, chunk by chunk."""

import pytest
import torch
import torch.nn.functional as F
from sameness import program, quiet

FUNCTIONS = {
    "sigmoid": lambda x, y: torch.sigmoid(x) * y,
    "silu": lambda x, y: F.silu(x) * y,
    "softplus": lambda x, y: F.softplus(x * 1.5, 1.3, 9.0) - y,
    "mish": lambda x, y: F.mish(x) + F.elu(y, 0.7),
    "hyperbolic": lambda x, y: x.sinh() / (y.cosh() + 0.1),
    "of two": lambda x, y: torch.atan2(x, y) * torch.hypot(x, y),
    "powers of two": lambda x, y: torch.exp2(x) - torch.atanh(y / 200),
    "beside others": lambda x, y: (torch.sigmoid(x) * torch.tanh(y) + x.exp()).relu(),
    "of comparisons": lambda x, y: torch.sigmoid(torch.where(x > y, x, y)) > 0.4,
    "twice": lambda x, y: torch.sigmoid(torch.sigmoid(x) * y) + torch.sigmoid(y),
}
EACH = pytest.mark.parametrize("name", FUNCTIONS)


def values(*sizes):
    return torch.randn(*sizes) * 20, torch.randn(*sizes) * 3


@program(given=lambda: [values(n) for n in (*range(1, 70), 127, 1000, 1001, 4097)], recorded=True)
@EACH
def test_every_length_of_body_and_tail(pairs, name):
    return [FUNCTIONS[name](x, y) for x, y in pairs]


@program(
    given=lambda: [values(n) for n in (32_768, 32_769, 65_536, 65_573, 98_305, 131_000, 200_003)]
)
@EACH
@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_chunks_of_several_threads(pairs, name, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    found = [FUNCTIONS[name](x, y) for x, y in pairs]
    torch.set_num_threads(before)
    return found


def layouts():
    x, y = values(6, 5, 35)
    return [
        (x, y),
        (x.transpose(0, 2), y.transpose(0, 2)),
        (
            x.transpose(0, 1).contiguous().transpose(0, 1),
            y.transpose(0, 1).contiguous().transpose(0, 1),
        ),
        (x.transpose(0, 1), y),
        (x[..., 1:], y[..., 1:]),
        (x[..., ::2], y[..., ::2]),
        (x[:, :1], y[:, :1].expand(6, 5, 35)),
        (x[0, 0], y),
        (x[0, 0, 0], y[0, 0, 0]),
        (x[:0], y[:0]),
        (x.double(), y.double()),
        (x.bfloat16(), y.bfloat16()),
        (x, y),
    ]


@program(given=layouts, times=4)
@EACH
def test_layouts_that_change_at_the_same_lines(layouts, name):
    return [FUNCTIONS[name](x, y) for x, y in layouts]


@program(given=lambda: values(300, 41))
def test_in_place_and_into_what_is_there(x, y):
    z = x * 2
    z.sigmoid_().mul_(y)
    w = torch.empty(41, 300).t()
    torch.sigmoid(x, out=w)
    F.silu(y, inplace=True)
    z[:, ::2].sigmoid_()
    z.view(-1)[5:77].sigmoid_()
    return z, w * 2, y


@program(given=lambda: [t.requires_grad_() for t in values(64, 130)])
def test_gradients(pair):
    x, y = pair
    loss = (F.silu(x) * torch.sigmoid(y) + F.softplus(x) * F.mish(y)).sum()
    loss.backward()
    return loss, x.grad, y.grad


@program(
    given=lambda: torch.tensor(
        [0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e-40, -1e-40, 88.8, -104.0] * 11
    )
)
@EACH
def test_zeros_infinities_and_missing_values(x, name):
    return FUNCTIONS[name](x, x.flip(0))


def test_a_gate_is_one_kernel():
    import torchy

    x, y = values(50, 70)
    with torchy.lazy(compile="always") as session:
        kept = FUNCTIONS["beside others"](x, y)
        torchy.flush()
    (group,) = session.report.traces[0].groups
    assert (group.kind, len(group.ops)) == ("fused", 6)
    with quiet():
        assert torch.equal(kept, FUNCTIONS["beside others"](x, y))
