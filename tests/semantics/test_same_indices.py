"""Ops whose indices or targets eager checks: deferred while these are in range, run at once where they are not."""

import pytest
import torch
import torch.nn.functional as F
from sameness import program

import torchy

X = torch.linspace(-2, 2, 24).reshape(6, 4)
I64 = torch.tensor([3, 0, 1, 1, 2, 0])


def target(value):
    """Return targets for the rows of X, one of which is this."""
    return torch.where(torch.arange(6) == 4, value, I64)


# op, and which indices eager takes beside 0 to 3
INDEXED = {
    "nll": (lambda x, i: F.nll_loss(x.log_softmax(1), i), {-100}),
    "nll, summed": (lambda x, i: F.nll_loss(x, i, reduction="sum", ignore_index=-7), {-7}),
    "nll, each": (lambda x, i: F.nll_loss(x, i, reduction="none", ignore_index=9), {9}),
    "nll, weighted": (lambda x, i: F.nll_loss(x, i, weight=x[0] * x[0]), {-100}),
    "nll of one": (lambda x, i: F.nll_loss(x[4], i[4]), {-100}),
    "nll of maps": (
        lambda x, i: F.nll_loss(x.reshape(2, 4, 3, 1), i.reshape(2, 3, 1)),
        {-100},
    ),
    "cross entropy": (lambda x, i: F.cross_entropy(x, i, label_smoothing=0.1), {-100}),
    "embedding": (lambda x, i: F.embedding(i, x[:4]), set()),
    "embedding, more dimensions": (lambda x, i: F.embedding(i.reshape(2, 3), x[:4], 1), set()),
    "index_select": (lambda x, i: x.index_select(1, i), set()),
    "index_select, from the end": (lambda x, i: x.index_select(-1, i), set()),
    "gather": (lambda x, i: x.gather(1, i.reshape(6, 1)), set()),
    "scatter": (lambda x, i: x.scatter(1, i.reshape(6, 1), 5.0), set()),
    "scatter, tensors": (lambda x, i: x.scatter(1, i.reshape(6, 1), x + 9), set()),
    "scatter_": (lambda x, i: (x * 1).scatter_(1, i.reshape(6, 1), 5.0), set()),
    "scatter_add": (lambda x, i: x.scatter_add(1, i.reshape(6, 1), x), set()),
    "scatter_add_": (
        lambda x, i: torch.zeros(6, 4).scatter_add_(1, i.reshape(6, 1), x),
        set(),
    ),
    "index_add": (lambda x, i: x.index_add(1, i, x.repeat(1, 2)[:, :6], alpha=2), set()),
    "index_add_": (lambda x, i: (x + 1).index_add_(1, i, x.repeat(1, 2)[:, :6]), set()),
}


def outcome(op, x, indices):
    """Return what an op gives, or how it fails."""
    try:
        return op(x, indices)
    except (IndexError, RuntimeError) as error:
        return type(error), str(error)


@program(times=4)
@pytest.mark.parametrize("name", INDEXED)
def test_indices_in_range_and_out_of_it(name):
    op, _ = INDEXED[name]
    values = 0, 3, 4, -1, -100, -7, 9, 2**40
    return [outcome(op, X * 2, target(value)) for value in values]


@pytest.mark.parametrize("name", INDEXED)
def test_is_deferred_while_its_indices_are_in_range(name):
    op, more = INDEXED[name]
    for value in (2, *more):
        targets = target(value)
        with torchy.lazy(compile="never") as session:
            op(X * 2, targets)
            op(X * 2, targets)
            before = session.counters
            result = op(X * 2, targets)
            after = session.counters
            assert torchy.is_pending(result)
        assert after["run_now"] == before["run_now"]


@program(times=4)
@pytest.mark.parametrize("name", INDEXED)
def test_indices_that_are_pending(name):
    op, _ = INDEXED[name]
    return [outcome(op, X * 2, torch.where(I64 > 2, value, I64)) for value in (1, 8, -100)]


@program(times=4)
def test_indices_that_are_written_to_afterwards():
    targets, rows = I64.clone(), torch.tensor([0, 2])
    loss = F.nll_loss(X * 2, targets)
    chosen = (X + 1).index_select(0, rows)
    targets.fill_(50)
    rows += 100
    return loss, chosen, targets, rows


@program(times=4)
def test_indices_that_others_write_to_afterwards():
    targets = I64.clone()
    shared = targets.numpy()
    loss = F.nll_loss(X * 2, targets)
    shared[:] = 1
    again = F.nll_loss(X * 2, targets)
    return loss, again


@program(times=4)
def test_indices_that_are_not_contiguous():
    pairs = torch.stack([I64, I64.flip(0)], 1)
    return F.nll_loss(X * 2, pairs[:, 1]), (X * 3).gather(1, pairs.t()[:1].t())


@program(times=4)
def test_indices_of_other_dtypes():
    loss = outcome(F.nll_loss, X * 2, I64.byte())
    return loss, outcome(F.nll_loss, X * 2, I64.int()), F.embedding(I64.int(), X * 2)


@program(times=4)
def test_no_indices():
    none = torch.empty(0, dtype=torch.int64)
    return F.embedding(none, X * 2), (X + 1).index_select(0, none), F.nll_loss(X[:0] * 2, none)


@program(times=4)
def test_gradients():
    weight, table = X.clone().requires_grad_(), X.clone().requires_grad_()
    losses = []
    for _ in range(3):
        loss = F.cross_entropy(F.embedding(I64, table) * weight, I64)
        loss = loss + (weight * 2).gather(1, I64.reshape(6, 1)).sum()
        loss.backward()
        losses.append(loss.detach())
    return losses, weight.grad, table.grad


@program(times=4)
def test_losses_leave_the_room_that_eager_leaves():
    losses = [F.mse_loss(X * 2, X), F.smooth_l1_loss(X * 2, X), F.huber_loss(X * 2, X)]
    return losses, [loss.untyped_storage().nbytes() for loss in losses]


@program(times=4)
def test_lists_times_a_tensor():
    ours = [X * 2, X[0] * 3, torch.ones(())]
    torch._foreach_mul_(ours, (X.sum() * 0.5).detach())
    torch._foreach_div_(ours, torch.tensor(4.0, dtype=torch.float64))
    return ours, torch._foreach_mul(ours, torch.tensor(3))


# what is written is an operand too: eager raises; `a` is it, if it is the same
ALIASED = {
    "scatter_": lambda a, b, i: a.scatter_(0, i, b),
    "scatter_add_": lambda a, b, i: a.scatter_add_(0, i, b),
    "index_add_": lambda a, b, i: a.index_add_(0, i, b),
    "gather": lambda a, b, i: torch.gather(b, 0, i, out=a),
    "index_select": lambda a, b, i: torch.index_select(b, 0, i, out=a),
    "scatter": lambda a, b, i: torch.scatter(b.clone(), 0, i, b, out=a),
    "addmm_": lambda a, b, i: a[:1].reshape(1, 1).addmm_(b[:1].reshape(1, 1), torch.ones(1, 1)),
}


@program(times=2)
@pytest.mark.parametrize("name", ALIASED)
def test_an_operand_is_what_is_written(name):
    results = []
    for same in (False, False, True, False, True):
        a = torch.arange(3.0) * 1
        b = a if same else torch.ones(3)
        try:
            results.append(ALIASED[name](a, b, torch.tensor([1, 1, 0])))
        except RuntimeError as error:
            results.append(str(error))
        results.append(a)
    return results


@program(times=2)
def test_indices_are_what_is_written():
    results = []
    for same in (False, False, True):
        a = torch.tensor([0, 2, 1])
        try:
            a.scatter_(0, a if same else torch.tensor([1, 1, 0]), 7)
        except RuntimeError as error:
            results.append(str(error))
        results.append(a)
    return results
