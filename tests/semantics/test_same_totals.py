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


FUNCTIONS = (of_all, and_back, losses, spread, looked_at)
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
