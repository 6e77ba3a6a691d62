"""Rule 1, where what is reduced is made of all pairs: short rows, which kernels do side by side."""

import pytest
import torch
from sameness import program

# points, others, and what each has: whichever is longer; rows that are too long for it, too
SIZES = (
    (40, 70, 3), (300, 8, 16), (9, 400, 2), (5, 5, 5), (70, 12, 7), (130, 66, 9), (33, 20, 31), (20, 65, 32), (64, 9, 1),
    (3000, 4, 12),
)  # fmt: skip


def squares(a, b):
    difference = a[:, None] - b
    return (difference * difference).sum(-1)


def extremes(a, b):
    difference = (a[:, None, :] - b[None]).abs()
    return difference.amax(-1), difference.amin(-1, keepdim=True)


def gravity(a, b):
    difference = b - a[:, None]
    cubed = ((difference**2).sum(-1) + 0.1) ** -1.5
    return cubed, (difference * cubed[..., None]).sum(1)


def means(a, b):
    product = a[:, None] * b.exp()
    return product.mean(-1) / product.sum(-1).sqrt()


def weighted(a, b):
    weights, offsets = a[:, 0].clone(), b[:, -1]
    return ((a[:, None] * b).sum(-1) + weights[:, None]) * offsets, (a[:, None] > b).float().sum(-1)


def normal(a, b):
    product = a[:, None] * b
    return product / (product.sum(-1, keepdim=True) + 3), product


def columns(a, b):
    return (
        (a.t() * 2).sum(-1),
        (b.t() - b[:, 0]).amax(-1),
        (a.t()[:, :, None] * b.t()[:, None]).sum(0),
    )


def in_batches(a, b):
    x = torch.stack([a, a + 1])
    return ((x[:, :, None] - b) ** 2).sum(-1), ((x[:, :, None] - x[:, None, :9]) ** 2).sum(-1)


def nearest(a, b):
    return squares(a, b).argmin(1), squares(a, b).min(1).values


FUNCTIONS = (squares, extremes, gravity, means, weighted, normal, columns, in_batches, nearest)
EACH = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)


def points(dtype=torch.float32):
    torch.manual_seed(8)
    return [(torch.randn(n, d, dtype=dtype), torch.randn(m, d, dtype=dtype)) for n, m, d in SIZES]


@program(given=points, recorded=True)
@EACH
def test_pairs_of_points(points, function):
    return [function(a, b) for a, b in points]


@program(given=lambda: points(torch.float64))
@EACH
def test_pairs_of_doubles(points, function):
    return [function(a, b) for a, b in points]


def special():
    torch.manual_seed(9)
    values = torch.tensor([0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e-40, 3e38, 1.0])
    return [
        (values[torch.randint(n, (50, d))], values[torch.randint(n, (21, d))])
        for n in (2, 4, 5, 8)
        for d in (3, 8)
    ]


@program(given=special)
@EACH
def test_zeros_infinities_and_missing_values(special, function):
    return [function(a, b) for a, b in special]


def lying():
    torch.manual_seed(10)
    a, b = torch.randn(60, 12), torch.randn(12, 30)
    return [(a, b.t()), (a[::2, ::3], b[:4].t()), (a[:, :4], a[:, 4:8]), (a.flip(0)[5:], b.t()[:9]),
            (a[:1].expand(40, 12), b.t()), (a.t(), b[:, :1].expand(12, 60)), (a, a)]  # fmt: skip


@program(given=lying, times=4)
@EACH
def test_points_that_lie_in_any_way(lying, function):
    return [function(a, b) for a, b in lying]


def few():
    torch.manual_seed(11)
    sizes = [
        (3, 2, 5),
        (5, 2, 3),
        (7, 6, 7),
        (3, 3, 5),
        (2, 3, 5),
        (8, 2, 5),
        (7, 2, 9),
        (2, 9, 2),
        (40, 2, 5),
        (1, 6, 3),
    ]
    return [(torch.rand(a, 1, n), torch.rand(b, n), torch.rand(a, b, n)) for a, b, n in sizes]


def kept(x, y, z):
    e = torch.exp(y - x)
    w = e * z
    return w, w.sum(-1)


def written_over(x, y, z):
    z.mul_(torch.tanh(y - x))
    return z, z.amax(-1)


def by_hand(x, y, z):
    d = (y - x).contiguous()
    p = torch.exp(d - d.amax(-1, keepdim=True))
    return p * z, (p * z).sum(-1, keepdim=True), d


FEW = pytest.mark.parametrize("function", [kept, written_over, by_hand], ids=lambda f: f.__name__)


@program(given=few, times=3)
@FEW
def test_few_rows_of_what_is_kept(few, function):
    return [function(x, y, z) for x, y, z in few]


@program(
    given=lambda: [
        (torch.randn(900, 3), torch.randn(1100, 3)),
        (torch.randn(20_000, 16), torch.randn(8, 16)),
    ]
)
@EACH
def test_pairs_on_several_threads(points, function):
    return [function(a, b) for a, b in points]


@program(given=lambda: torch.randn(50, 3))
def test_pairs_that_are_written_over_what_they_are_made_of(x):
    found = []
    for _ in range(4):
        difference = x[:, None] - x
        x += (difference * difference).sum(-1).sum(-1, keepdim=True) / 1e4
        difference.mul_(2)
        found.append((x.clone(), difference.amax(-1)))
    return found
