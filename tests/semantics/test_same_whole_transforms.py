"""Rules 1 and 3 for whole programs of ``torch.func``: transforms, ensembles and solvers in loops."""

import pytest
import torch
import torch.nn.functional as F
from sameness import program
from torch import nn
from torch.func import (
    functional_call,
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    stack_module_state,
    vjp,
    vmap,
)


@program(times=2, recorded=True)
def test_an_ensemble_is_trained_under_vmap():
    models = [nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 1)) for _ in range(3)]
    parameters, buffers = stack_module_state(models)
    x, y = torch.randn(3, 8, 2), torch.randn(3, 8, 1)
    optimizer = torch.optim.Adam(list(parameters.values()), 0.02)

    def loss(p, b, x, y):
        return F.mse_loss(functional_call(models[0], (p, b), (x,)), y)

    history = []
    for _ in range(4):
        losses = vmap(loss)(parameters, buffers, x, y)
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
        history.append(losses.detach())
    single = [
        functional_call(models[0], {k: p[i] for k, p in parameters.items()}, x[0]) for i in range(3)
    ]
    return parameters, history, single


@program(times=2, recorded=True)
def test_an_ensemble_is_trained_without_autograd_above():
    models = [nn.Linear(2, 1) for _ in range(3)]
    parameters = {k: p.detach() for k, p in stack_module_state(models)[0].items()}
    x, y = torch.randn(8, 2), torch.randn(8, 1)
    slope = vmap(
        grad_and_value(lambda p, x: F.mse_loss(functional_call(models[0], p, x), y)), (0, None)
    )
    for step in range(5):
        gradients, losses = slope(parameters, x + step * 0.1)
        parameters = {k: p - 0.1 * gradients[k] for k, p in parameters.items()}
        print(losses)
    return parameters, losses


@program(times=2, recorded=True)
def test_private_gradients_are_clipped_per_sample_in_training():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.Flatten(), nn.Linear(8, 3))
    x, y = torch.randn(6, 1, 4, 4), torch.randint(3, (6,))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def loss(parameters, a, b):
        return F.cross_entropy(functional_call(model, parameters, (a[None],)), b[None])

    for _ in range(3):
        detached = {k: p.detach() for k, p in model.named_parameters()}
        each = vmap(grad(loss), (None, 0, 0))(detached, x, y)
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in each.values()], 1).norm(dim=1)
        factors = (1.0 / (norms + 1e-6)).clamp(max=1)
        for name, parameter in model.named_parameters():
            total = torch.einsum("n,n...->...", factors, each[name])
            parameter.grad = total + 0.1 * torch.randn_like(total)
        optimizer.step()
    return model, norms, each


@program(times=2, recorded=True)
def test_newtons_method_with_a_hessian():
    target = torch.randn(3)

    def f(x):
        return ((x - target) ** 2).sum() + (x[0] * x[1]).sin() + x.exp().sum() * 0.1

    x = torch.zeros(3)
    for _ in range(4):
        x = x - torch.linalg.solve(hessian(f)(x) + 0.1 * torch.eye(3), grad(f)(x))
        print(f(x).item())
    return x, jacfwd(jacrev(f))(x), jacrev(jacrev(f))(x)


@program(times=2, recorded=True)
def test_forward_mode_drives_gauss_newton():
    t = torch.linspace(0, 1, 7)
    y = 2 * torch.exp(-3 * t)

    def residual(p):
        return p[0] * torch.exp(-p[1] * t) - y

    p = torch.tensor([1.0, 1.0])
    for _ in range(5):
        jacobian = jacfwd(residual)(p)
        p = p - torch.linalg.lstsq(jacobian, residual(p)[:, None]).solution[:, 0]
    value, directional = jvp(residual, (p,), (torch.ones(2),))
    same, forward = linearize(residual, p)
    return p, value, directional, same, forward(torch.ones(2) * 2)


@program(times=2, recorded=True)
def test_conjugate_gradients_on_products_with_a_hessian():
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    x, y = torch.randn(6, 2), torch.randn(6, 1)
    names = [k for k, _ in model.named_parameters()]
    start = tuple(p.detach() for p in model.parameters())

    def loss(*parameters):
        return F.mse_loss(functional_call(model, dict(zip(names, parameters, strict=True)), x), y)

    def product(vectors):
        return jvp(grad(loss, tuple(range(4))), start, vectors)[1]

    def dot(a, b):
        return sum((p * q).sum() for p, q in zip(a, b, strict=True))

    r = grad(loss, tuple(range(4)))(*start)
    d, s = r, tuple(torch.zeros_like(p) for p in start)
    for _ in range(4):
        h = tuple(p + 0.1 * q for p, q in zip(product(d), d, strict=True))
        step = dot(r, r) / dot(d, h)
        s = tuple(a + step * b for a, b in zip(s, d, strict=True))
        after = tuple(a - step * b for a, b in zip(r, h, strict=True))
        ratio = dot(after, after) / dot(r, r)
        r, d = after, tuple(a + ratio * b for a, b in zip(after, d, strict=True))
        if dot(r, r) < 1e-10:
            break
    return s, r, step


class Cube(torch.autograd.Function):
    """A custom function with rules for vmap and forward mode."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**3, x * 2

    @staticmethod
    def setup_context(context, given, results):
        context.save_for_backward(given[0], results[1])
        context.save_for_forward(given[0])

    @staticmethod
    def backward(context, first, second):
        x, doubled = context.saved_tensors
        return first * 3 * x * doubled / 2 + second * 2

    @staticmethod
    def jvp(context, tangent):
        (x,) = context.saved_tensors
        return 3 * x * x * tangent, tangent * 2


@program(times=2, recorded=True)
def test_custom_functions_under_transforms():
    x = torch.linspace(-1, 1, 5) * 1.5

    def f(t):
        return sum(part.sum() for part in Cube.apply(t * 2))

    return (
        grad(f)(x),
        vmap(grad(f))(x[:, None] + x),
        jvp(f, (x,), (x + 1,)),
        vjp(f, x)[1](torch.tensor(3.0)),
        vmap(lambda t: Cube.apply(t)[0])(x),
    )


@program(times=2, recorded=True)
def test_a_neural_field_with_derivatives_in_its_loss():
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    points, losses = torch.rand(10, 2), []
    for _ in range(3):
        parameters = dict(model.named_parameters())

        def field(point, parameters=parameters):
            return functional_call(model, parameters, point).squeeze()

        curvature = vmap(hessian(field))(points)
        flow = vmap(grad(field))(points)
        loss = (flow[:, 0] - 0.1 * curvature[:, 1, 1]).square().mean()
        loss = loss + vmap(field)(points).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, losses, curvature.detach()


@program(times=2, recorded=True)
@pytest.mark.parametrize("randomness", ["different", "same"])
def test_randomness_in_a_simulation_under_vmap(randomness):
    def walk(start):
        position = start
        for _ in range(4):
            position = position + 0.1 * torch.randn(2) - 0.05 * F.dropout(position, 0.3)
        return position

    ends = vmap(walk, randomness=randomness)(torch.zeros(5, 2) + 1)
    return ends, ends.var(0), torch.rand(2)


@program(times=2, recorded=True)
def test_chunked_vmap_and_in_place_ops():
    x = torch.arange(12.0).reshape(6, 2) * 0.5

    def body(row):
        row = row.clone()
        row[0] = row[0] * 2
        row.add_(row.sum())
        return row.cumsum(0), row.max()

    chunked = vmap(body, chunk_size=4)(x)
    jacobian = jacrev(lambda t: body(t)[0], chunk_size=1)(x[0])
    return chunked, jacobian, vmap(body, in_dims=1, out_dims=(1, 0))(x)


@program(times=2, recorded=True)
def test_forward_mode_of_autograd_itself():
    import torch.autograd.forward_ad as forward

    model = nn.Sequential(nn.Linear(3, 4), nn.Softplus(), nn.Linear(4, 1))
    x, weight = torch.randn(5, 3), torch.randn(4, 3)
    for _ in range(3):
        with forward.dual_level():
            direction = {k: torch.randn_like(p) for k, p in model.named_parameters()}
            duals = {k: forward.make_dual(p, direction[k]) for k, p in model.named_parameters()}
            loss = functional_call(model, duals, x).square().mean()
            slope = forward.unpack_dual(loss).tangent
            fresh = forward.make_dual(weight, weight * 2)
            fresh = forward.unpack_dual((fresh @ x.t()).relu().sum())
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter -= 0.05 * slope * direction[name]
    return model, slope, fresh.primal, fresh.tangent


@program(times=2, recorded=True)
def test_control_flow_and_scans_of_higher_order():
    from torch._higher_order_ops import cond, while_loop

    x = torch.arange(4.0) * 2
    chosen = cond(x.sum() > 3, lambda t: t.sin() + 1, lambda t: t.cos(), (x,))
    looped = while_loop(
        lambda i, t: i < 3, lambda i, t: (i + 1, t * 0.5 + i), (torch.tensor(0) + 0, x)
    )
    return chosen, looped, x
