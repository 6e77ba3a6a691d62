"""torch.func, torch.jit, torch.compile, dispatch modes and other layers that sit above or below the walker."""

import torch
import torch.nn.functional as F
from sameness import program, quiet
from torch.func import (
    functional_call,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    stack_module_state,
    vjp,
    vmap,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


@program
def test_vmap():
    x, y = torch.randn(4, 5) * 2, torch.randn(5) + 1
    f = vmap(lambda a: (a * y).sin().sum() + a[0])
    g = vmap(lambda a, b: a @ b, in_dims=(0, None))
    h = vmap(vmap(torch.dot, (0, None)), (None, 0))
    return (
        f(x),
        g(x, y),
        h(x, x),
        vmap(lambda a: a.add_(1))(x.clone()),
        vmap(torch.relu, out_dims=1)(x),
    )


@program
def test_gradients_of_functions():
    x = torch.randn(4) * 2

    def f(t):
        return (t * t.sin()).sum()

    value, pull = vjp(f, x)
    return (
        grad(f)(x),
        grad(lambda t: grad(f)(t).sum())(x),
        value,
        pull(torch.tensor(2.0)),
        jvp(f, (x,), (x * 2,)),
    )


@program
def test_jacobians():
    x = torch.randn(3) + 1

    def f(t):
        return t.exp() * t.sum()

    return (
        jacrev(f)(x),
        jacfwd(f)(x),
        hessian(lambda t: f(t).sum())(x),
        vmap(grad(lambda t: f(t).sum()))(torch.ones(2, 3) * x),
    )


@program
def test_per_sample_gradients_of_a_module():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    parameters = {name: p.detach() * 1 for name, p in model.named_parameters()}
    x, y = torch.randn(5, 3), torch.randn(5)

    def loss(parameters, a, b):
        return F.mse_loss(functional_call(model, parameters, (a[None],)).squeeze(), b)

    return vmap(grad(loss), (None, 0, 0))(parameters, x * 1, y * 1), functional_call(
        model, parameters, x
    )


@program
def test_ensembles():
    models = [torch.nn.Linear(3, 2) for _ in range(3)]
    parameters, buffers = stack_module_state(models)
    x = torch.randn(4, 3) * 2
    return vmap(lambda p, b: functional_call(models[0], (p, b), x))(parameters, buffers)


@program
def test_randomness_in_vmap():
    x = torch.zeros(3, 4) + 1
    return vmap(lambda t: F.dropout(t, 0.5), randomness="different")(x), vmap(
        lambda t: t + torch.rand(4), randomness="same"
    )(x)


@program
def test_functionalization():
    def f(x):
        y = x[1:]
        y.mul_(2)
        return x + 1

    return torch.func.functionalize(f)(torch.arange(4.0) * 1), torch.func.functionalize(vmap(f))(
        torch.ones(2, 3) * 2
    )


@program
def test_graphs_of_pending_operands():
    with quiet():
        from torch.fx.experimental.proxy_tensor import make_fx

        x = torch.arange(3.0) * 2
        graph = make_fx(lambda t: (t * 2 + 1).exp())(x)
        traced = torch.jit.trace(lambda t: t * 2 + 1, (x,))
        scripted = torch.jit.script(doubled)
        symbolic = torch.fx.symbolic_trace(doubled)
        x += 1
    return graph(x), traced(x), scripted(x), symbolic(x), graph.code, x


def doubled(x):
    """Return twice the operand, plus one."""
    return x * 2 + 1


@program(times=2)
def test_compiled_functions():
    seen = []

    def backend(module, given):
        seen.append(len(given))
        return module.forward

    torch._dynamo.reset()
    f = torch.compile(lambda t: (t * 2).sin() + 1, backend=backend)
    x = torch.arange(4.0) * 3
    results = [f(x), f(x * 2), f(torch.arange(4.0)), f(f(x))]
    g = torch.compile(lambda t: (t * 2).sin() + 1, backend="aot_eager")
    y = torch.ones(3, requires_grad=True)
    g(y * 2).sum().backward()
    return results, len(seen), y, g(x)


class Doubling(TorchDispatchMode):
    """Notes ops, and doubles what ``add`` returns."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.seen.append(str(function))
        result = function(*arguments, **(keywords or {}))
        return result * 2 if "add" in str(function) else result


@program
def test_dispatch_modes_see_what_they_see_in_eager():
    x = torch.ones(3) * 2
    with Doubling() as mode:
        y = x + 1
        z = y.exp()
        w = (x * 2).sum().item()
    return x, y, z, w, mode.seen


class Noting(TorchFunctionMode):
    """Notes functions."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        self.seen.append(getattr(function, "__name__", str(function)))
        return function(*arguments, **(keywords or {}))


@program
def test_function_modes_see_what_they_see_in_eager():
    x = torch.ones(3) * 2
    with Noting() as mode:
        y = torch.relu(x + 1)
        y += 1
        z = y.sum().item()
    return y, z, mode.seen


@program
def test_profilers_see_a_program():
    from torch.utils.flop_counter import FlopCounterMode

    x = torch.randn(4, 5) * 2
    with FlopCounterMode(display=False) as counter:
        y = (x @ x.t()).relu()
    with torch.profiler.profile() as profile:
        z = y.exp() + 1
    return y, z, counter.get_total_flops(), len(profile.events()) > 0


@program
def test_default_devices_and_device_contexts():
    with torch.device("meta"):
        m = torch.ones(3) * 2
    torch.set_default_device("cpu")
    x = torch.ones(3) * 2
    torch.set_default_device(None)
    return tuple(m.shape), m.device.type, x


@program
def test_wrapper_subclasses_around_pending_tensors():
    from torch.testing._internal.two_tensor import TwoTensor

    x, y = torch.ones(3) * 2, torch.zeros(3) + 1
    pair = TwoTensor(x, y)
    result = pair * 3 + x
    x.add_(1)
    return result.a, result.b, pair.a, pair.b


@program
def test_masked_and_named_tensors():
    with quiet():
        named = torch.ones(2, 3, names=("row", "column")) * 2
        total = named.sum("row")
    return named.names, total.names, total.rename(None), named.rename(None) + 1


@program
def test_quantized_and_fake_quantized():
    with quiet():
        x = torch.linspace(-1, 1, 9) * 3
        q = torch.quantize_per_tensor(x, 0.1, 3, torch.quint8)
        channel = torch.quantize_per_channel(
            x.reshape(3, 3), torch.ones(3) * 0.1, torch.zeros(3), 0, torch.qint8
        )
        fake = torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -128, 127)
    return q, q.dequantize() + 1, channel, fake, (q.int_repr() + 1)


@program
def test_signal_processing_and_linear_algebra():
    x = torch.randn(8, 8) * 2
    window = torch.hann_window(8) * 1
    spectrum = torch.stft(x.flatten(), 8, window=window, return_complex=True)
    q, r = torch.linalg.qr(x + torch.eye(8))
    return (spectrum, torch.istft(spectrum, 8, window=window), q, r, torch.linalg.solve(x, window), torch.linalg.inv(x),
            torch.linalg.det(x * 2), torch.fft.rfft2(x), torch.cdist(x, x + 1), torch.matrix_exp(x * 0.1))  # fmt: skip
