"""Rule 3 and 1 for gradients: backward in all its forms."""

import pytest
import torch
import torch.nn.functional as F
from sameness import program
from torch.utils.checkpoint import checkpoint


@program
def test_backward_of_a_small_network():
    x, w, b = (
        torch.randn(5, 3),
        torch.randn(3, 2, requires_grad=True),
        torch.zeros(2, requires_grad=True),
    )
    loss = F.cross_entropy(torch.tanh(x @ w + b), torch.tensor([0, 1, 0, 1, 1]))
    loss.backward()
    return loss, w, b


@program
def test_gradients_accumulate():
    w = torch.randn(4, requires_grad=True)
    seen = []
    for i in range(4):
        (w * i).exp().sum().backward()
        seen.append(w.grad.clone())
        first = w.grad
    w.grad.zero_()
    (w * 2).sum().backward()
    again = w.grad is first
    w.grad = None
    (w * 3).sum().backward()
    return w, seen, again


@program
def test_double_backward():
    x = torch.randn(5, requires_grad=True)
    y = (x.sin() * x).sum()
    (first,) = torch.autograd.grad(y, x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
    (second**2).sum().backward()
    return x, first, second


@program
def test_retain_graph():
    x = torch.randn(5, requires_grad=True)
    y = (x * x).exp().sum()
    y.backward(retain_graph=True)
    y.backward()
    return x, y


@program
def test_gradients_with_respect_to_inner_results():
    x = torch.randn(4, requires_grad=True)
    y = x * 2
    z = y.exp()
    y.retain_grad()
    z.sum().backward()
    unused = torch.autograd.grad(
        (x * 2).sum(), [x, torch.ones(1, requires_grad=True)], allow_unused=True
    )
    return x, y, z, unused, torch.autograd.grad(x * 3, x, torch.arange(4.0) * 2)


@program
def test_hooks_see_and_change_gradients():
    seen = []
    x = torch.randn(4, requires_grad=True)
    y = x * 2
    y.register_hook(lambda g: seen.append(g.clone()))
    y.register_hook(lambda g: g * 3)
    x.register_hook(lambda g: seen.append(g.sum().item()))
    x.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad + 1))
    node = y.grad_fn
    node.register_prehook(lambda grads: tuple(g + 1 for g in grads))
    (y * y).sum().backward()
    return x, y, seen


@program
def test_module_hooks():
    seen = []
    layer = torch.nn.Linear(3, 2)
    layer.register_forward_hook(lambda module, given, result: result * 2)
    layer.register_forward_pre_hook(lambda module, given: (given[0] + 1,))
    layer.register_full_backward_hook(
        lambda module, given, result: seen.append((given[0], result[0]))
    )
    x = torch.randn(4, 3, requires_grad=True)
    y = layer(x * 2)
    y.sum().backward()
    return layer, x, y, seen


class Scaled(torch.autograd.Function):
    """Exponential with a wrong gradient, on purpose."""

    @staticmethod
    def forward(context, x, factor):
        y = x.exp()
        context.save_for_backward(x, y)
        context.factor = factor
        return y * factor

    @staticmethod
    def backward(context, gradient):
        x, y = context.saved_tensors
        return gradient * y * context.factor + x, None


class InPlace(torch.autograd.Function):
    """Writes to its operand."""

    @staticmethod
    def forward(context, x):
        context.mark_dirty(x)
        return x.mul_(3)

    @staticmethod
    def backward(context, gradient):
        return gradient * 3


@program
def test_custom_functions():
    x = torch.randn(4, requires_grad=True)
    y = Scaled.apply(x * 2, 1.5)
    z = InPlace.apply(y + 1)
    z.sum().backward()
    return x, y, z


@program
def test_saved_tensor_hooks():
    packed = []

    def pack(t):
        packed.append(t.detach() * 1)
        return t.detach().numpy().copy() if not t.requires_grad else t

    def unpack(t):
        return t if isinstance(t, torch.Tensor) else torch.from_numpy(t)

    x = torch.randn(4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        y = (x * 2).exp() * torch.arange(4.0)
    y.sum().backward()
    with torch.autograd.graph.save_on_cpu():
        z = (x * 3).sin().sum()
    z.backward()
    return x, y, z, packed


@program
def test_checkpoints():
    w = torch.randn(4, 4, requires_grad=True)

    def block(x):
        return F.dropout(torch.tanh(x @ w) * 2, 0.5)

    x = torch.randn(3, 4, requires_grad=True)
    y = checkpoint(block, x * 1, use_reentrant=False)
    z = checkpoint(block, y + 1, use_reentrant=True)
    z.sum().backward()
    return x, w, y, z


@program
def test_in_place_ops_under_autograd():
    x = torch.randn(3, 4, requires_grad=True)
    y = x * 2
    y[0].mul_(3)
    y[:, 1] = 7
    z = y.clone()
    z.t()[2].exp_()
    z.add_(y)
    z.sum().backward()
    return x, y, z


@program
def test_a_leaf_changed_under_no_grad_while_others_hold_views():
    w = torch.randn(3, 4, requires_grad=True)
    row, flat, data = w[0], w.view(-1), w.data
    with torch.no_grad():
        w.mul_(2)
        w[1] += 1
    data[2] = 0
    y = (row * 2).sum() + flat[5]
    y.backward()
    return w, row, flat, data, y


@program
def test_saved_tensors_survive_later_writes_elsewhere():
    x = torch.randn(4, requires_grad=True)
    a = x * 1
    b = a.exp()
    c = torch.randn(4)
    d = b * c
    e = c.clone()
    e.zero_()
    a_copy = a.detach().clone()
    a_copy.add_(100)
    d.sum().backward()
    return x, d, a


@program
def test_modes_of_gradient():
    x = torch.randn(3, requires_grad=True)
    results = []
    with torch.no_grad():
        results.append(x * 2)
    with torch.inference_mode():
        results.append(x * 2)
        results.append(torch.ones(2) + 1)
    with torch.set_grad_enabled(False):
        results.append(x.exp())

    @torch.no_grad()
    def quiet(t):
        return t * 3

    results += [quiet(x), (x * 2).detach().requires_grad_() * 2]
    return x, results


@program
def test_broadcast_gradients_are_summed():
    a, b = torch.randn(3, 1, requires_grad=True), torch.randn(4, requires_grad=True)
    c = torch.tensor(2.0, requires_grad=True)
    y = (a * b / c + a.expand(3, 4) - b).pow(2)
    y.mean().backward()
    return a, b, c, y


def several_results():
    """Return a leaf whose gradient comes from functions of several results."""
    x = torch.randn(4, 5, requires_grad=True)
    values, indices = (x * 2).max(1)
    low, high = torch.aminmax(x * 1)
    parts = (x + 1).split([2, 3], dim=1)
    s = torch.linalg.svd(x @ x.t() + torch.eye(4))[1]
    (values.sum() + parts[1].exp().sum() + high - low + s.log().sum()).backward()
    return x, values, indices


@program
def test_functions_of_several_results():
    x, values, indices = several_results()
    return x.detach(), x.grad.clone(), values, indices


@program
def test_versions_of_gradients_that_were_added_up():
    return several_results()[0]


@program
@pytest.mark.parametrize(
    "name",
    ["norm", "var", "std", "logsumexp", "prod", "cumsum", "amax", "softmax", "sort", "median"],
)
def test_gradients_of_reductions(name):
    x = torch.randn(4, 6, requires_grad=True)
    y = getattr(x * 2, name)(dim=1)
    y = y[0] if isinstance(y, tuple) else y
    (y * torch.arange(float(y.numel())).reshape(y.shape)).sum().backward()
    return x, y


@program
def test_jacobians_and_hessians():
    def f(x):
        return (x**2).sin().sum() * x

    x = torch.randn(3)
    return (torch.autograd.functional.jacobian(f, x), torch.autograd.functional.hessian(lambda x: f(x).sum(), x),
            torch.autograd.functional.vjp(f, x, torch.ones(3) * 2),
            torch.autograd.functional.jvp(f, x, torch.ones(3) * 2))  # fmt: skip


@program
def test_forward_mode():
    import torch.autograd.forward_ad as fwd

    x = torch.randn(4)
    with fwd.dual_level():
        dual = fwd.make_dual(x * 1, torch.ones(4) * 2)
        y = (dual * dual).exp() + dual
        y.add_(dual)
        value, tangent = fwd.unpack_dual(y)
        kept = value + 0, tangent + 0
    return kept


@program
def test_gradcheck_of_pending_functions():
    x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    first = torch.autograd.gradcheck(lambda t: (t * 2).tanh() * t, x)
    return first, torch.autograd.gradgradcheck(lambda t: t.exp() * 2, x)


@program
def test_gradients_that_alias():
    x, y = torch.randn(3, requires_grad=True), torch.randn(3, requires_grad=True)
    (x + y).backward(gradient := torch.ones(3) * 2)
    x.grad.add_(1)
    gradient.mul_(5)
    y.grad += x.grad
    return x, y, gradient


@program
def test_sparse_gradients():
    embedding = torch.nn.Embedding(6, 3, sparse=True)
    loss = (embedding(torch.tensor([1, 4, 1])) * 2).sum()
    loss.backward()
    return embedding.weight.grad.coalesce(), embedding.weight.detach() + 1


@program
def test_the_history_of_one_of_several_views_that_is_lost():
    """Eager raises when it is asked for the ``grad_fn`` of the first."""
    x = torch.ones(3, 4) * 1
    first, *rest = x[1:].split(1)
    first.cumsum_(0)
    x.requires_grad_()
    return x, first, rest
