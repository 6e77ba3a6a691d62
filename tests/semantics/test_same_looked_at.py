"""A program that is watched (values kept, NaNs hunted, eager run beside) is the same program."""

import numpy
import torch
import torch.nn.functional as F
from sameness import program

WATCHED = {"nan": True, "keep": "64MiB", "compare": True}


@program(**WATCHED)
def test_writes_through_views(kept):
    x = torch.linspace(-1, 1, 60).view(6, 10)
    y = x.t()
    for turn in range(4):
        x[turn].mul_(2)
        y[:, turn] += x.sum(0)[turn]
        kept.append(x[0, 0].item())
    return x, y, x._version, y.stride()


@program(nan=True)
def test_nans_are_only_looked_for(kept):
    x = torch.linspace(-1, 1, 200)
    for turn in range(4):
        y = (x - turn).log()
        z = torch.where(y > 0, y, x / (x - x))
        x = x * 1.5
        kept.append(z.isnan().sum().item())
    return x, y, z


@program(**WATCHED)
def test_memory_that_numpy_shares(kept):
    array = numpy.linspace(0, 1, 50, dtype=numpy.float32)
    x = torch.from_numpy(array)
    for _ in range(3):
        y = x * 2 + 1
        array += 1
        kept.append(y.sum().item())
        x.mul_(0.5)
        kept.append(float(array[3]))
    return x, y


@program(**WATCHED)
def test_gradients_and_an_optimizer(kept):
    torch.manual_seed(0)
    w = torch.randn(5, 3, requires_grad=True)
    optimizer = torch.optim.Adam([w], lr=0.1)
    x = torch.randn(20, 5)
    for _ in range(4):
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ w, torch.arange(20) % 3)
        loss.backward()
        optimizer.step()
        kept.append(loss.item())
    return w, w.grad, w._version


@program(**WATCHED)
def test_an_error_in_the_midst(kept):
    x = torch.ones(4, 3)
    for turn in range(3):
        x = x * 2 + turn
        kept.append(x.sum().item())
    kept.append((x + 1).mean())
    return x @ x


@program(**WATCHED)
def test_tensors_that_are_dropped_and_resized(kept):
    x = torch.arange(24.0)
    for _ in range(3):
        y = x * 2
        z = y + 1
        del y
        z.resize_(4, 6)
        kept.append(z[1].sum().item())
        x = z.flatten() * 0.5
    return x, x.shape


@program(**WATCHED)
def test_random_numbers(kept):
    torch.manual_seed(3)
    x = torch.ones(100)
    for _ in range(3):
        x = F.dropout(x * 1.1, 0.2) + torch.randn(100) * 0.1
        kept.append(x.max().item())
    return x, torch.rand(3)


@program(**WATCHED)
def test_several_dtypes_and_no_elements(kept):
    x = torch.linspace(-3, 3, 40)
    half, whole = x.to(torch.bfloat16), x.to(torch.int32)
    for _ in range(3):
        half = half * 1.5 + x.sigmoid().to(torch.bfloat16)
        whole = (whole << 1) ^ 5
        kept.append((half > 0).sum().item())
    return half, whole, (x[:0] * 2).log(), torch.tensor(2.0).log() * x.double()
