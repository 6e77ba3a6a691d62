"""Rules 1, 2 and 3: ops that are deferred as calls, so that they cut no trace, among ops that are fused."""

import pytest
import torch
import torch.nn.functional as F
from sameness import program
from torch import nn

ATTENTION = {
    "plain": {},
    "causal": {"is_causal": True},
    "scaled": {"scale": 0.3},
    "masked": {"attn_mask": "additive"},
    "masked by truths": {"attn_mask": "truths"},
    "rows that see nothing": {"attn_mask": "nothing"},
}


def a_mask(kind, length):
    """Return a mask of a kind, pending."""
    truths = torch.ones(length, length).tril() > 0
    if kind == "truths":
        return truths
    mask = torch.zeros(length, length).masked_fill(~truths, float("-inf")) * 1
    return (
        mask.masked_fill(torch.arange(length)[:, None] == 2, float("-inf"))
        if kind == "nothing"
        else mask
    )


@program(recorded=True)
@pytest.mark.parametrize("kind", ATTENTION)
@pytest.mark.parametrize("gradients", [False, True])
def test_attention_and_its_gradient(kind, gradients):
    options = dict(ATTENTION[kind])
    if "attn_mask" in options:
        options["attn_mask"] = a_mask(options["attn_mask"], 7)
    q, k, v = (torch.randn(2, 3, 7, 8, requires_grad=gradients) for _ in range(3))
    results = []
    for _ in range(2):
        y = F.scaled_dot_product_attention(q * 2, k + 1, v.tanh(), **options)
        z = y.transpose(1, 2).reshape(2, 7, 24) + 1
        if gradients:
            (z * z).sum().backward()
        results += [y, z]
    return results, q.grad, k.grad, v.grad


WRONG = {
    "dropout": {"dropout_p": 0.5},
    "too much dropout": {"dropout_p": 1.5},
    "other sizes": {"attn_mask": torch.ones(3, 3)},
    "another dtype": {"attn_mask": torch.ones(7, 7, dtype=torch.int64)},
    "masked and causal": {"attn_mask": torch.ones(7, 7), "is_causal": True},
}


@program
@pytest.mark.parametrize("wrong", WRONG)
def test_attention_that_eager_refuses_or_draws(wrong):
    q = torch.randn(2, 3, 7, 8) * 2
    try:
        return F.scaled_dot_product_attention(q, q + 1, q, **WRONG[wrong]) + 1
    except (RuntimeError, ValueError) as error:
        return str(error), q + 1


@program
def test_layers_that_attend():
    layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.1, batch_first=True)
    x = torch.randn(3, 5, 16)
    padding = torch.tensor([[False] * 5, [False, False, False, True, True], [True] * 5])
    losses = []
    for _ in range(2):
        loss = layer(x * 2).square().mean() + layer(x, src_key_padding_mask=padding)[:2].mean()
        loss.backward()
        losses.append(loss.item())
    layer.eval()
    with torch.no_grad():
        return losses, layer(x + 1), layer


@program(recorded=True)
def test_the_gradients_of_selections_and_slices():
    x = torch.randn(4, 6, 5, requires_grad=True)
    state = torch.zeros(4, 5)
    states = []
    for i in range(6):
        state = x[:, i] * 0.5 + state
        states.append(state[:, 1:4] + x[:, i, ::2].sum() + x[..., -2:].mean())
    torch.stack(states).square().sum().backward()
    grad = x.grad + 1
    (again,) = torch.autograd.grad((x[2] * x[:, 3:].sum(0).sum(0)).sum(), x, create_graph=False)
    return states, grad, again, again.is_contiguous()


@program
def test_members_of_pending_lists():
    words, ends = torch.arange(12).view(3, 4) * 2, torch.tensor([4, 7]) * 1
    found = torch.isin(words, ends)
    return (
        found,
        ~found & torch.isin(words, ends, invert=True),
        torch.isin(words + 0.5, ends),
        words[found],
    )


@program(recorded=True)
def test_copies_to_the_device_that_they_are_on():
    x = torch.arange(6.0).view(2, 3) * 2
    results = [
        x.to("cpu", torch.float64) + 1,
        x.to(device=torch.device("cpu"), dtype=torch.int64) + 1,
        x.to("cpu", copy=True).add_(1),
        x.to(torch.ones(1, dtype=torch.float64)) * 3,
        x.t().to("cpu", torch.float64, memory_format=torch.contiguous_format) + 1,
        x.to("cpu") is x,
    ]
    return *results, x, [r.device for r in results[:-1]], [r.stride() for r in results[:-1]]


@program(recorded=True)
def test_the_gradient_of_many_grouped_filters():
    layer = nn.Conv2d(130, 130, 3, groups=130, bias=False)
    x = torch.randn(2, 130, 5, 5)
    y = layer(x * 2).relu()
    y.sum().backward()
    return y, layer.weight.grad * 2


@program
@pytest.mark.parametrize("dim", [-1, 1, 0])
def test_a_softmax_of_rows_that_are_masked_out(dim):
    x = torch.randn(3, 4, 5) * 2
    x[0, 1] = float("-inf")
    x[:, 2, 2] = float("-inf")
    x[1] = float("-inf")
    y = torch._safe_softmax(x + 0, dim)
    return (
        y,
        y * 2,
        torch._safe_softmax(x.double() * 1, dim),
        torch._safe_softmax(x.bfloat16() * 1, dim),
    )


MASKED = {
    "a number": lambda x, m: x.__setitem__(m, 0.5),
    "an int": lambda x, m: x.__setitem__(m, -3),
    "infinity": lambda x, m: x.__setitem__(m, float("-inf")),
    "a truth": lambda x, m: x.__setitem__(m, True),
    "a tensor of one element": lambda x, m: x.__setitem__(m, torch.tensor([2.5])),
    "a pending value": lambda x, m: x.__setitem__(m, x.sum() * 0.5),
    "a double": lambda x, m: x.__setitem__(m, torch.tensor(1 / 3, dtype=x.dtype)),
    "the first of a row's": lambda x, m: x.__setitem__((m[:, 0],), 7.0),
    "columns": lambda x, m: x.__setitem__((slice(None), m[0]), 7.0),
    "two masks": lambda x, m: x.__setitem__((m[:, 0], m[0]), 7.0),
    "a mask and a place": lambda x, m: x.__setitem__((m[:, 0], 1), 7.0),
    "as many values": lambda x, m: x.__setitem__(m, torch.arange(float(m.sum()))),
    "accumulated": lambda x, m: x.index_put_((m,), torch.tensor(2.0), accumulate=True),
    "not in place": lambda x, m: x.copy_(x.index_put((m,), torch.tensor(2.0))),
    "bytes": lambda x, m: x.__setitem__(m.to(torch.uint8), 1.0),
    "of other sizes": lambda x, m: x.__setitem__(m[:2], 1.0),
    "of other columns": lambda x, m: x.__setitem__(m[:, :2], 1.0),
    "of a view": lambda x, m: x[1:].__setitem__(m[1:], 1.0),
    "transposed": lambda x, m: x.t().__setitem__(m.t(), 1.0),
    "of what overlaps": lambda x, m: x[:1].expand(3, 4).__setitem__(m, 1.0),
    "by its own sign": lambda x, m: x.__setitem__(x < 0, 0.0),
    "by its own truths": lambda x, m: m.__setitem__(m, False),
}  # fmt: skip


@program
@pytest.mark.parametrize("how", MASKED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bfloat16])
def test_writes_where_a_mask_says(how, dtype, kept):
    x = (torch.arange(-6.0, 6.0).view(3, 4) * 2).to(dtype)
    mask = (x > 3) | (x == -4)
    before = x + 1
    kept += [x, mask, before]
    MASKED[how](x, mask)
    return x * 2, x._version, mask._version


@program(recorded=True)
def test_the_gradient_of_what_a_mask_overwrites():
    w = torch.randn(4, 5, requires_grad=True)
    x = w * 2
    x[x > 1] = 0.25
    y = x.exp()
    y[y < torch.topk(y, 2).values[:, [-1]]] = 0.0
    (y * y).sum().backward()
    return x, y, w.grad


@program(never=("index_put",))
def test_masks_that_are_left_to_eager():
    x = torch.arange(12.0) * 2
    x[x > 5] = 1.0
    return x + 1
