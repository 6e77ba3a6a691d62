"""Rule 1, where all elements are reduced to one: eager's bits, in one part or in several."""

import pytest
import torch
import torch.nn.functional as F
from sameness import program

SIZES = (1, 2, 7, 8, 31, 32, 100, 515, 4096, 32767, 32768, 32769, 70_001)


def of_all(x):
    y = x * 0.5
    return (
        y.sum(),
        (y * y).mean(),
        y.abs().sum() / y.numel(),
        (x - x.mean()).amax(),
        (y + x).amin() - 1,
        y.argmax() + (x * 0).argmin(),
        torch.sum(y, ()),
        y.sum(keepdim=True, dim=tuple(range(y.dim()))) * 2,
    )


def and_back(x):
    """What is made of all of them meets each of them again."""
    y = x * 2
    norm = (y * y).sum().sqrt()
    m = (y - y.mean()).abs().mean()
    m *= 3
    return y / norm, y - y.amax(), y * m + m, torch.where(y > y.mean(), y, norm), norm.exp() + m


def losses(x):
    y = x.flip(0) * 0.3
    return (
        F.mse_loss(x, y),
        F.mse_loss(x * 2, y) * 0.5 + F.l1_loss(x, y),
        F.mse_loss(x, y, reduction="sum"),
        F.mse_loss(x, y, reduction="none") + 1,
        F.mse_loss(x.double(), y.double()) * 2,
    )


def spread(x):
    """Of all of them, eager goes through the elements twice."""
    return (x * 2).var() + 1, (x - 1).std() * 2, torch.std(x * 3, (0,), correction=0) + 1


def looked_at(x):
    found = []
    for _ in range(3):
        x = x * 1.01
        found.append((x + x).sum().item())
        if (x * x).mean() > 0.5:
            x = x - x.mean()
    return found, x


def truths(x):
    y = x * 2
    return (
        torch.isnan(y).any(),
        (y > x).all() | (x.numel() < 5),
        torch.allclose(x, x + 1e-9),
        torch._is_all_true(y > x),
        torch._is_any_true(y > x) & torch._is_all_true(y < 1e9),
        (y <= 50).all().item(),
        (y > 1).any(-1),
        y.bool().all(),
        ((y > 1) & (x < 4)).any(dim=0, keepdim=True),
    )


def counts(x):
    labels = (x * 2).long()
    right = labels == (x * 2.01).long()
    return (
        right.sum(),
        right.sum().item() / x.numel(),
        labels.sum() - labels.abs().sum(),
        (labels * (1 << 62)).sum(),
        (x > 0).sum(-1),
        (x > 0).sum(dtype=torch.float32),
        right.int().sum() * 2,
        (x > 1).sum(0, keepdim=True),
    )


def in_the_midst(x):
    """What is reduced is also kept, written to, or made with what lies otherwise."""
    y = x + 1
    total = y.sum()
    z = y * 3
    most = z.amax()
    y += 1
    z.mul_(0.5)
    column = torch.arange(x.shape[-1], dtype=x.dtype) if x.dim() else x
    return (
        total,
        most + total,
        y,
        z,
        (x * column + 1).mean(),
        (y - total).abs().sum(),
        x.sin().sum(),
        torch.sigmoid(x).mean(),
        (x * most).sum() * total,
    )


def waiting(x):
    """Some of them are reduced, and elements wait for that, in an order that a kernel may not take."""
    m, some = x.mean(), (x > 0).any()
    y = x - m
    n = (x > 0).sum()
    z = torch.where((x > -9).all(), x, x * 2)
    return y, some, m, (x / n).amax(), z.sum(), n


FUNCTIONS = (of_all, and_back, losses, spread, looked_at, truths, counts, in_the_midst, waiting)
EACH = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)


def numbers(dtype=torch.float32):
    torch.manual_seed(7)
    return [torch.randn(n, dtype=dtype) * 3 for n in SIZES]


@program(given=numbers)
@EACH
def test_any_number_of_elements(numbers, function):
    torch.set_num_threads(2)
    return [function(x) for x in numbers]


@program(given=lambda: numbers(torch.float64))
@EACH
def test_doubles_on_one_thread(numbers, function):
    torch.set_num_threads(1)
    return [function(x) for x in numbers]


@program(given=lambda: [torch.randn(n) for n in (3, 40_000, 3, 100_003, 32_767, 40_000, 3)])
@EACH
def test_sizes_and_threads_that_change_at_the_same_lines(numbers, function):
    found = []
    for at, x in enumerate(numbers):
        torch.set_num_threads(1 + at % 3)
        found.append(function(x))
    return found


def special():
    torch.manual_seed(4)
    values = torch.tensor([0.0, -0.0, float("inf"), float("nan"), 1e-40, 3e38, -3e38, 1.0])
    return [values[torch.randint(n, (45,))] for n in (2, 3, 4, 8)]


@program(given=special)
@EACH
def test_zeros_infinities_and_missing_values(special, function):
    return [function(x) for x in special]


def layouts():
    torch.manual_seed(5)
    x = torch.randn(6, 4, 32)
    return [
        x,
        x.mT,
        x.transpose(0, 2),
        x[:, :, ::2],
        x[:1].expand(5, 4, 32),
        x[:, 1],
        x[..., :1],
        x[0, 0],
        x,
        torch.randn(300, 150),
        torch.randn(300, 150).T,
        torch.randn(2, 300, 150).transpose(0, 1),
        torch.randn(300, 300)[:, :150],
        torch.randn(300, 150),
    ]


@program(given=layouts)
@EACH
def test_layouts_that_change_at_the_same_lines(layouts, function):
    return [function(x) for x in layouts]


@program(given=lambda: (torch.randn(16, 8), torch.randn(16, 8), torch.randn(8, 8)))
def test_a_step_of_training(x, y, w):
    w.requires_grad_()
    found = []
    for loss_of in (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.mse_loss):
        loss = loss_of(x @ w, y) + 0.1 * (w * w).sum()
        loss.backward()
        found.append((loss.item(), w.grad.clone()))
        with torch.no_grad():
            w -= 0.1 * w.grad / w.grad.norm()
        w.grad = None
    return found, w


def close(x, y):
    """What compares is recorded as the ops that it is made of; it raises at its own line, as they do."""
    found = []
    for other in (y, y + 1e-9, y.double(), y[:1], y[:-1], y.to(torch.int64), y / 0):
        for settings in (
            {},
            {"rtol": 0, "atol": 0},
            {"equal_nan": True},
            {"atol": 2.5},
            {"rtol": -1.0},
        ):
            try:
                found.append(torch.allclose(x, other, **settings))
                found.append(torch.isclose(x * 2, other * 2, **settings).sum().item())
            except RuntimeError as error:
                found.append(str(error))
    return found


@program(given=lambda: (torch.randn(40), torch.randn(40)))
def test_comparing_two_tensors(x, y):
    missing = x.clone()
    missing[3] = torch.nan
    return close(x, x), close(x, y), close(missing, missing), close(x * 0, y * 0)


def groups_of(function, *given):
    import torchy

    for _ in range(4):
        with torchy.lazy(compile="always") as session:
            kept = function(*given)
            torchy.flush()
        del kept
    return [(group.kind, len(group.ops)) for group in session.report.traces[-1].groups]


def doubled(x):
    return (x + x).sum()


def squares(x):
    return ((x - 1) ** 2).mean() * 0.5


def normed(x):
    return x / (x * x).sum().sqrt()


def loss(x):
    return F.mse_loss(x, x + 1)


def loss_alone(x):
    return F.mse_loss(x, x)


@pytest.mark.parametrize(
    ("function", "ops"), [(doubled, 2), (squares, 4), (normed, 4), (loss, 2), (loss_alone, 1)]
)
def test_all_of_it_is_one_kernel(function, ops):
    assert groups_of(function, torch.randn(9, 64)) == [("fused", ops)]


@pytest.mark.parametrize("n", [40_000, 300_000])
def test_what_waits_for_all_elements_is_another_kernel(n):
    import torchy

    x = torch.randn(n)
    w = torch.randn(n, 1)

    def groups_of(function):
        with torchy.lazy(compile="always") as session:
            kept = function()
        groups = [(trace, group) for trace in session.report.traces for group in trace.groups]
        assert not any(group.refused for _, group in groups), (groups, kept)
        return [[trace.ops[op].short for op in group.ops] for trace, group in groups]

    def waits():
        m, some = x.mean(), (x > 0).any()
        return x - m, some, m

    def counts():
        n = (x > 0).sum()
        return (x / n).amax(), n

    assert groups_of(waits) == [["mean", "gt", "any"], ["sub"]]
    assert groups_of(counts) == [["gt", "sum"], ["div", "amax"]]
    assert groups_of(lambda: ((x * 2).sum() + 1, (x - 1).amin())) == [
        ["mul", "sum", "add", "sub", "amin"]
    ]
    # what is broadcast is no one run
    assert groups_of(lambda: (w * x[:4]).sum()) == [["mul"], ["sum"]]
    # torch is as fast
    assert groups_of(lambda: (x.sum(), x.amax())) == [["sum", "amax"]]
