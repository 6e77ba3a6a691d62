"""Programs in which a NaN or an infinity is born on the line that says so; and some in which none is."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

NAN, INF = float("nan"), float("inf")
BORN: list[tuple[Callable[[], object], str, str, int | None]] = []
NONE: list[Callable[[], object]] = []

X = torch.linspace(-2, 2, 3000)
POSITIVE = X.abs() + 1


def born(op: str, kind: str, iteration: int | None = 0):
    """Note a program, the op that gives birth, to what, and in which turn (None: it runs as eager)."""

    def note(function):
        BORN.append((function, op, kind, iteration))
        return function

    return note


def none(function):
    """Note a program without."""
    NONE.append(function)
    return function


def line_of(function) -> int:
    """Return the line that is marked."""
    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, line in enumerate(lines) if "# born" in line)


@born("log", "NaN")
def log_of_negative():
    y = X * 2
    z = y.log()  # born
    return (z + 1).sum().item()


@born("log", "NaN")
def masked_away():
    y = X * 2
    z = y.log()  # born
    return torch.where(y > 0, z, torch.zeros(())).sum().item()


@born("log", "inf")
def infinite_and_masked_away():
    y = X.relu()
    z = y.log()  # born
    return z.exp().sum().item()


@born("div", "NaN")
def zero_by_zero():
    a = POSITIVE - POSITIVE
    b = a / a  # born
    return (b * 2).max().item()


@born("div_", "inf")
def in_place():
    a = POSITIVE * 1
    b = POSITIVE - POSITIVE
    a.div_(b)  # born
    return a.sum().item()


@born("sqrt", "NaN")
def not_computed_again():
    y = (X + 1.5).sqrt()  # born
    y = y * 0 + 1
    return y.isnan().sum().item()


@born("mul", "inf", 38)
def in_a_loop_with_looks():
    x = POSITIVE
    for _ in range(60):
        x = x * 10  # born
        x[0].item()
    return x


@born("mul", "inf", 38)
def in_a_loop_without():
    x = POSITIVE
    for _ in range(60):
        x = x * 10  # born
    return x.sum().item()


@born("sub", "NaN")
def infinity_less_infinity():
    x = torch.full((100,), INF) * 1  # it is given so
    y = x - x  # born
    return y.sum().item()


@born("_softmax", "NaN")
def a_row_that_is_all_masked():
    scores = torch.sin(torch.arange(64.0)).view(8, 8)
    mask = torch.arange(8)[:, None] < torch.arange(8)[None] - 100
    mask[3] = True
    masked = scores.masked_fill(mask, -INF)
    weights = masked.softmax(-1)  # born
    return weights.sum().item()


@born("exp", "inf")
def softmax_by_hand():
    x = torch.linspace(-100, 100, 2048).view(32, 64)
    e = (x * 2).exp()  # born
    return (e / e.sum(-1, keepdim=True)).sum().item()


@born("rsqrt", "NaN")
def a_norm_by_hand():
    x = torch.sin(torch.arange(2048.0)).view(32, 64)
    variance = (x * x).mean(-1, keepdim=True) - 1
    scale = variance.rsqrt()  # born
    return (x * scale).sum().item()


@born("sum", "inf")
def a_sum_that_overflows():
    x = torch.full((64, 64), 3e37) * 1
    y = x.sum(-1)  # born
    return (1 / y).sum().item()


@born("pow", "inf")
def of_bfloat16():
    x = (POSITIVE * 1e20).to(torch.bfloat16)
    y = x.pow(2)  # born
    return (1 / y.float()).sum().item()


@born("mm", "inf")
def a_product():
    a = (torch.ones(20, 20) * 1e30).add(1)
    b = a @ a  # born
    return (1 / b).sum().item()


@born("linalg_inv_ex", "NaN", None)
def that_runs_as_eager():
    a = torch.zeros(4, 4) + 0
    b = torch.linalg.inv_ex(a)[0]  # born
    return b


@born("div", "inf", 12)
def in_training():
    torch.manual_seed(0)
    x, y = torch.randn(64, 5), torch.randn(64, 1)
    model = nn.Linear(5, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    scale = torch.full((1,), 12.0)
    for _ in range(20):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        weighted = loss / scale  # born
        weighted.backward()
        optimizer.step()
        scale = scale - 1
        loss.item()
    return loss


@born("log", "inf", 5)
def in_a_loss():
    p = torch.linspace(0.05, 0.95, 500).view(50, 10)
    total = 0.0
    for turn in range(8):
        q = p - (turn == 5) * p.min()
        loss = -(q.log()).mean()  # born
        total += loss.item()
    return total


@born("acos", "NaN")
def of_double():
    x = torch.linspace(0, 1.0001, 4096, dtype=torch.float64)
    y = x.acos()  # born
    return torch.nan_to_num(y).sum().item()


@born("addcdiv_", "NaN")
def in_an_optimizer_by_hand():
    w, g, v = POSITIVE * 1, POSITIVE * 0, POSITIVE * 0
    m = g * 0.9
    w.addcdiv_(m, v.sqrt(), value=-0.1)  # born
    return w.sum().item()


@born("mul", "NaN")
def in_a_column():
    x = torch.ones(40, 48)
    x[:, 7] = INF
    y = (x - 0.0) * torch.zeros(48)  # born
    return y.sum(0).isnan().sum().item()


@born("log", "inf", None)
def of_a_single_number():
    x = torch.tensor(0.0)
    y = (x * 2).log()  # born
    return y.clamp(min=-3).item()


@born("log", "inf")
def where_another_operand_has_a_nan():
    x = POSITIVE.clone()
    x[5] = 0
    z = POSITIVE.clone()
    z[5] = NAN
    y = (x * 1).log()  # born
    return (y + z).nan_to_num().sum().item()


@born("reciprocal", "inf")
def of_what_was_filled():
    o = POSITIVE.clone()
    o.fill_(0)
    y = 1 / o  # born
    return y.clamp(max=1).sum().item()


@born("exp", "inf")
def beside_a_mask():
    x = torch.linspace(0, 60, 2000)
    masked = (x * 2).masked_fill(x < 10, -INF)
    y = masked.exp()  # born
    return (1 / (1 + y)).sum().item()


@born("log", "inf")
def beside_a_nan_in_the_data():
    x = POSITIVE.clone()
    x[3], x[9] = NAN, 0
    y = (x * 1).log()  # born
    return y.nan_to_num().sum().item()


@born("div", "inf")
def before_one_that_runs_as_eager():
    y = POSITIVE / (POSITIVE - POSITIVE)  # born
    torch.linalg.inv_ex(torch.zeros(4, 4))
    return y.sum().item()


@born("linalg_inv_ex", "NaN", None)
def that_runs_as_eager_before_another():
    inverse = torch.linalg.inv_ex(torch.zeros(4, 4))[0]  # born
    y = POSITIVE / (POSITIVE - POSITIVE)
    return y.sum().item(), inverse


@none
def data_has_nans():
    x = POSITIVE.clone()
    x[5] = NAN
    for _ in range(10):
        y = (x * 2 + 1).sin()
        y.sum().item()


@none
def data_has_nans_in_rows():
    x = POSITIVE.clone().view(30, 100)
    x[5, 5] = NAN
    for _ in range(10):
        y = F.layer_norm(x * 2, (100,)) + x.sum(-1, keepdim=True)
        y.sum().item()


@none
def attention_masks():
    mask = torch.full((16, 16), -INF).triu(1)
    q = torch.sin(torch.arange(16 * 8.0)).view(16, 8)
    for _ in range(5):
        weights = (q @ q.t() + mask).softmax(-1)
        weights = torch.tril(weights).masked_fill(mask < 0, 0)
        (weights @ q).sum().item()


@none
def filled_with_infinities():
    x = POSITIVE.masked_fill(POSITIVE > 2, INF)
    y = torch.where(x > 1e9, torch.full((), INF), x)
    return (1 / y).sum().item()


@none
def uninitialized_memory():
    x = torch.empty(1000)
    x.copy_(X[:1000])
    return (x * 2).sum().item()


@none
def a_running_minimum():
    best = torch.full((100,), INF)
    for turn in range(5):
        best = torch.minimum(best, POSITIVE[turn : turn + 100] * 2)
        best.sum().item()


@none
def training():
    torch.manual_seed(0)
    x, y = torch.randn(64, 5), torch.randint(0, 3, (64,))
    model = nn.Sequential(nn.Linear(5, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(10):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()
