"""Rule 9, bounded: programs of many kinds peak no higher than eagerly, but for 5 % or 16 MiB.

Sizes are such that one large tensor too many breaks the bound.
"""

import numpy
import pytest
import torch
import torch.nn.functional as F
from bounds import MIB, bounded
from torch import nn
from torch.utils.checkpoint import checkpoint

LARGE = 6 * MIB  # elements of 4 bytes: 24 MiB


@bounded
def test_a_loop_with_large_tensors_that_never_looks():
    x, y = torch.ones(LARGE), torch.ones(LARGE)
    for i in range(8):
        x = x * 0.5 + y
        y = y - x / (i + 1)
    return x, y


@bounded
def test_a_list_that_a_loop_lets_grow():
    kept = []
    for i in range(24):
        kept.append((torch.full((MIB,), float(i)) * 2 + 1).sqrt())
    return sum(kept)


@bounded
def test_large_temporaries_within_one_expression():
    x = torch.linspace(0, 1, LARGE)
    return ((x * 2 + 1).sin() * (x - 3).exp() / (x + 1).sqrt()).sum().item()


@bounded
def test_large_broadcast_temporaries():
    column, row = torch.linspace(0, 1, 4096)[:, None], torch.linspace(1, 2, 4096)
    near = (column - row).abs() < 0.25  # 64 MiB before they are compared
    far = ((column + row) ** 2).sqrt()
    return far.masked_fill(near, 0.0).amax(1)


@bounded
def test_reductions_of_large_temporaries():
    x, y = torch.linspace(0, 1, LARGE), torch.linspace(1, 2, LARGE)
    sums = [((x - i) * y).sum() for i in range(6)]
    return torch.stack([*sums, (x * y).view(1024, -1).mean(1).amax()])


@bounded
def test_a_convolutional_network_that_infers():
    layers = [nn.Conv2d(3, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Conv2d(24, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1)).eval()
    with torch.no_grad():
        for _ in range(3):
            x = model(torch.ones(4, 3, 192, 192))  # 13.5 MiB each feature map
    return x


class Block(nn.Module):
    """A transformer's block."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        q, k, v = (y.view(shape).transpose(1, 2) for y in self.mix(self.first(x)).chunk(3, -1))
        scores = (q @ k.transpose(-1, -2) / shape[-1] ** 0.5).softmax(-1)
        x = x + self.out((scores @ v).transpose(1, 2).reshape(batch, length, width))
        return x + self.narrow(F.gelu(self.wide(self.second(x))))


@bounded
def test_a_transformer_without_gradients():
    blocks = nn.Sequential(*(Block(128, 4) for _ in range(3)))
    with torch.no_grad():
        return blocks(torch.ones(4, 768, 128))  # 36 MiB of scores each


@bounded
def test_a_transformers_forward_and_backward():
    blocks = nn.Sequential(*(Block(128, 4) for _ in range(2)))
    blocks(torch.ones(4, 512, 128)).square().mean().backward()
    return [p.grad for p in blocks.parameters()]


@bounded
def test_backward_through_a_deep_network_with_checkpoints():
    parts = [
        nn.Sequential(*(nn.Sequential(nn.Linear(256, 256), nn.Tanh()) for _ in range(4)))
        for _ in range(5)
    ]
    x = torch.ones(8192, 256, requires_grad=True)  # 8 MiB, as each of 40 activations
    y = x
    for part in parts:
        y = checkpoint(part, y, use_reentrant=False)
    y.square().mean().backward()
    return x.grad


@bounded
def test_a_graph_that_is_dropped_without_backward():
    weights = [torch.ones(LARGE // 2, requires_grad=True) for _ in range(3)]
    for _ in range(4):
        loss = sum((w * 2).exp().sin().sum() for w in weights)
    return loss.item()


@bounded
def test_an_optimizer_of_many_parameters_at_once():
    parameters = [torch.ones(MIB // 4, requires_grad=True) for _ in range(48)]
    optimizer = torch.optim.AdamW(parameters, foreach=True)
    for _ in range(3):
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, 0.1)
        optimizer.step()
        optimizer.zero_grad()
    return parameters


@pytest.mark.slow
@bounded
def test_an_optimizer_of_one_parameter_after_the_other():
    parameters = [torch.ones(LARGE // 2, requires_grad=True) for _ in range(4)]
    optimizer = torch.optim.Adam(parameters, foreach=False)
    for _ in range(3):
        sum((p * p).sum() for p in parameters).backward()
        optimizer.step()
        optimizer.zero_grad()
    return parameters


@bounded
def test_large_buffers_that_are_written_in_place():
    buffers = [torch.ones(LARGE) for _ in range(3)]
    for i in range(5):
        for buffer, other in zip(buffers, [*buffers[1:], buffers[0]], strict=True):
            buffer.mul_(0.5).add_(other, alpha=0.1)
            buffer[i * 1000 :].clamp_(max=2)
    return buffers


@bounded
def test_accumulating_with_cat():
    total = torch.zeros(0, 1024)
    for i in range(12):
        total = torch.cat([total, torch.full((1024, 1024), float(i)) * 2])
    return total.sum()


@bounded
def test_stacking_what_was_computed():
    rows = [torch.linspace(0, 1, MIB) * i + 1 for i in range(24)]
    return torch.stack(rows).tanh().mean(0)


@bounded
def test_a_growing_cache_of_keys_and_values():
    keys, values = torch.ones(1, 8, 512, 256), torch.ones(1, 8, 512, 256)
    for step in range(24):
        query = torch.full((1, 8, 1, 256), 0.01 * step)
        keys = torch.cat([keys, query * 2], 2)
        values = torch.cat([values, query + 1], 2)
        scores = (query @ keys.transpose(-1, -2) / 16).softmax(-1)
        out = scores @ values
    return out


@bounded
def test_views_of_large_tensors_whose_bases_are_dropped():
    views = []
    for i in range(5):
        base = torch.linspace(0, 1, LARGE) * i + 1
        views.append(base[:10])  # keeps all of it, eagerly too
    del base
    return [view.clone() for view in views]


@pytest.mark.slow
@bounded
def test_deleting_within_a_loop():
    total = torch.zeros(1024)
    for i in range(8):
        a = torch.full((2 * LARGE,), float(i))
        b = a * 2
        del a
        c = b.sin()
        del b
        total += c.view(1024, -1).mean(1)
        del c
    return total


@pytest.mark.slow
@bounded
def test_deleting_what_was_made_like_another():
    x, total = torch.ones(LARGE), torch.zeros(1024)
    for i in range(6):
        a = torch.full_like(x, i)
        b = a * 2
        del a
        total += b.sin().view(1024, -1).mean(1)
        del b
    return total


@bounded
def test_casts_of_large_tensors_to_double_precision():
    x = torch.linspace(0, 1, LARGE)
    mean = x.double().mean()
    spread = ((x.double() - mean) ** 2).mean().sqrt()
    return ((x.double() - mean) / spread).float(), (x.double() * 2).long().to(torch.int32)


@bounded
def test_selecting_with_masks():
    x = torch.linspace(-1, 1, LARGE)
    kept = []
    for i in range(4):
        kept.append((x * i)[(x > 0) & (x < 0.3)].sum())
        x = torch.where(x > 0, x * 0.9, x)
    return kept


@pytest.mark.slow
@bounded
def test_sorting_large_temporaries():
    x = torch.linspace(0, 50, 3 * MIB).sin()
    for _ in range(3):
        values, order = (x * 1.5 + 1).sort()
        x = (values - 0.5)[order]
    return x.sum()


@bounded
def test_a_large_array_in_chunks():
    x, out = torch.linspace(0, 1, 2 * LARGE), torch.empty(2 * LARGE)
    for here, there in zip(x.split(MIB), out.split(MIB), strict=True):
        there.copy_((here * 2 + 1).log().sigmoid())
    return out


@pytest.mark.slow
@bounded
def test_exceptions_in_a_loop_that_hold_tensors():
    errors = 0
    for i in range(8):
        try:
            x = torch.full((LARGE,), float(i)) * 2
            y = x + 1
            y @ torch.ones(3)
        except RuntimeError:
            errors += 1
    return errors


@pytest.mark.slow
@bounded
def test_closures_and_generators_that_hold_tensors():
    def scaled(x):
        return lambda k: (x * k + 1).sqrt()

    def batches():
        for i in range(8):
            yield scaled(torch.full((LARGE,), float(i)))

    total = 0.0
    for batch in batches():
        total += (batch(2) - batch(3)).sum().item()
    return total


@pytest.mark.slow
@bounded
def test_evaluating_batches_without_gradients():
    model = nn.Sequential(nn.Linear(512, 1024), nn.GELU(), nn.Linear(1024, 10))
    right = 0
    with torch.no_grad():
        for i in range(8):
            scores = model(torch.full((4096, 512), 0.01 * i))  # 16 MiB within
            right += (scores.softmax(-1).argmax(-1) == 3).sum()
    return right


@bounded
def test_numpy_and_torch_by_turns():
    x = numpy.linspace(0, 1, LARGE, dtype=numpy.float32)
    for _ in range(4):
        y = (torch.from_numpy(x) * 2 + 1).sin()
        x = numpy.sqrt(numpy.abs(y.numpy()))
    return float(x.sum())


@pytest.mark.slow
@bounded
def test_large_results_of_functions_with_two():
    x = torch.linspace(0, 1, LARGE).view(1024, -1)
    for _ in range(4):
        values, _ = (x + 1).max(1, keepdim=True)
        spread, mean = torch.std_mean(x * 2, 1, keepdim=True)
        x = (x - mean) / (spread + values)
    return x
