"""Rule 1, where what is reduced lies around the innermost dimension: eager's bits, column by column."""

import pytest
import torch
from sameness import program


def standardised(x):
    return (x - x.mean(0)) / (x.mean(0, keepdim=True) + 3)


def batch_norm(x):
    d = x - x.mean(0, keepdim=True)
    return d / torch.sqrt((d * d).mean(0, keepdim=True) + 1e-5) * x[0] + 0.5


def shares(x):
    e = x.exp()
    return e / e.sum(0, keepdim=True), e.sum(0).log()


def softmax(x):
    e = x.exp()
    return e / e.sum(0, keepdim=True)


def gradient_of_a_bias(x):
    g = torch.where(x > 0, x, 0.0)
    return g, g.sum(0)


def of_columns_only(x):
    s = (x + 1).sum(0, keepdim=True)
    s.mul_(2).sub_(s.exp().tanh())
    return s, s.clone() + x.abs().mean(0, keepdim=True), s * torch.tensor(0.5)


def in_place(x):
    y = x * 2
    m = y.mean(0)
    y.sub_(m)
    m += y.sum(0)
    return y / m, m


def the_middle(x):
    return (x * x).sum(-2), x - x.mean(-2, keepdim=True), (x * 2).sum(-2) - x.mean(-2)


def both(x):
    y = x * 3
    return y.sum(0), y.sum(-1), y - y.mean(0) - y.mean(-1, keepdim=True), y.amax(0)


def spreads(x):
    y = x * 0.5
    mean, deviation = y.mean(0), y.std(0)
    return (
        x.var(0),
        (y - mean) / deviation,
        y.var(0, correction=0, keepdim=True) + y,
        x.std((0,), correction=len(x) + 1),
    )


FUNCTIONS = (
    spreads, standardised, batch_norm, shares, gradient_of_a_bias, of_columns_only, in_place, the_middle, both,
)  # fmt: skip
EACH = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
SIZES = (
    (2, 9), (3, 8), (5, 31), (15, 32), (16, 33), (17, 64), (40, 100), (63, 45), (64, 129), (300, 16), (700, 40), (5000, 9),
    (40, 5), (1, 40), (40, 1), (0, 40), (3, 1, 50), (1, 7, 50), (4, 20, 17), (2, 3, 20, 17),
)  # fmt: skip


def matrices(dtype=torch.float32):
    torch.manual_seed(3)
    return [torch.randn(*sizes, dtype=dtype) * 3 for sizes in SIZES]


@program(given=matrices, recorded=True, times=4)
@EACH
def test_columns_of_any_length(matrices, function):
    return [function(x) for x in matrices]


@program(given=lambda: matrices(torch.float64))
@EACH
def test_columns_of_doubles(matrices, function):
    return [function(x) for x in matrices]


@program(
    given=lambda: [
        torch.randn(700, 301),
        torch.randn(40, 5000),
        torch.randn(70_000, 9),
        torch.randn(9, 300, 41),
    ]
)
@EACH
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_columns_on_several_threads(matrices, function, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    found = [function(x) for x in matrices]
    torch.set_num_threads(before)
    return found


def orders_of_columns():
    """Columns of several dimensions, which the sums have in another order than what is summed."""
    torch.manual_seed(6)
    x = torch.randn(33, 3, 4, 20)
    return [
        x.permute(2, 1, 0, 3),
        x.permute(1, 2, 0, 3),
        x[..., :8].contiguous().permute(2, 1, 0, 3),
        x.permute(1, 0, 2, 3),
    ]


@program(given=lambda: [y for x in orders_of_columns() for y in (x, x.double())], times=4)
def test_sums_whose_columns_lie_in_another_order(matrices):
    found = []
    for x in matrices:
        found += [
            x - x.mean(2, keepdim=True),
            x + x.sum(2, keepdim=True),
            (x * 2).sum(2),
            x * x.sum(-2, keepdim=True),
        ]
    return found


def layouts():
    torch.manual_seed(5)
    x = torch.randn(6, 4, 32)
    return [
        x,
        x.transpose(0, 2).contiguous().transpose(0, 2),
        x.transpose(0, 1).contiguous().transpose(0, 1),
        torch.stack([x, x], -1)[..., 0],
        x[:, :, ::2],
        x[:, :1].expand(6, 4, 32),
        x[:1],
        x[0].mT,
        x[0],
        x,
    ]


@program(given=layouts, times=4)
@EACH
def test_layouts_that_change_at_the_same_lines(layouts, function):
    return [function(x) for x in layouts]


@program(given=lambda: [torch.randn(40, 40), torch.randn(8, 40, 40)])
def test_square_matrices(matrices):
    found = []
    for x in matrices:
        y = x * 3
        s = y.sum(0)
        found += [
            y - s,
            y - s[:, None],
            y / y.sum(-2, keepdim=True),
            y.sum(-2) + y.sum(-1),
            y.sum((0, 1)),
        ]
    return found


@program(given=lambda: torch.randn(64, 40).requires_grad_())
def test_gradients_through_columns(x):
    loss = (batch_norm(x).relu() * 2).mean(0).sum()
    loss.backward()
    return loss, x.grad


@pytest.mark.parametrize(
    ("function", "ops"),
    [(standardised, 5), (batch_norm, 9), (in_place, 6)],
)
def test_columns_and_what_is_around_them_are_one_kernel(function, ops):
    import torchy

    x = torch.randn(50, 70)
    with torchy.lazy(compile="always") as session:
        kept = function(x)
        torchy.flush()
    del kept
    groups = session.report.traces[-1].groups
    assert [(group.kind, len(group.ops)) for group in groups] == [("fused", ops)]
