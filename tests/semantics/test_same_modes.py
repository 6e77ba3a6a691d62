"""Process and thread state that changes in the midst of a program."""

import os

import torch
from sameness import program
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


@program
def test_the_default_dtype_changes():
    x = torch.arange(3) * 1
    a = x / 2
    torch.set_default_dtype(torch.float64)
    b = x / 2
    c = torch.ones(2) * 2
    d = x.float() * 2.5
    torch.set_default_dtype(torch.float32)
    return a, b, c, d, x / 2, torch.ones(2) + c


@program
def test_the_number_of_threads_changes():
    x = torch.randn(200_000)
    a = (x * 2 + 1).sum()
    torch.set_num_threads(1)
    b = (x * 2 + 1).sum()
    y = (x * 3).exp()
    torch.set_num_threads(2)
    return a, b, y, (x * 2 + 1).sum(), torch.get_num_threads()


@program
def test_matmul_precision_and_mkldnn_settings_change():
    x = torch.randn(16, 16) * 2
    a = x @ x
    torch.set_float32_matmul_precision("medium")
    b = x @ x
    with torch.backends.mkldnn.flags(enabled=False):
        c = x @ x
        d = torch.nn.functional.conv1d(x[None], torch.ones(4, 16, 3) * 0.1)
    torch.set_float32_matmul_precision("highest")
    return a, b, c, d, torch.nn.functional.conv1d(x[None], torch.ones(4, 16, 3) * 0.1)


@program
def test_deterministic_algorithms_are_switched_on():
    x = torch.zeros(5) + 1
    x.index_add_(0, torch.tensor([0, 0, 1]), torch.ones(3) * 2)
    torch.use_deterministic_algorithms(True)
    y = torch.empty(3)  # filled with NaN then
    z = x.clone().index_put_((torch.tensor([0, 0]),), torch.ones(2) * 3, accumulate=True)
    w = (x * 2).resize_(7)
    torch.use_deterministic_algorithms(False)
    return x, y, z, w


@program
def test_denormals_are_flushed_where_the_program_says_so():
    tiny = torch.full((20,), 1e-39)
    a = tiny * 1
    b = tiny * 0.5 + 0
    supported = torch.set_flush_denormal(True)
    c = tiny * 1
    d = (tiny + 0) * 0.5
    torch.set_flush_denormal(False)
    return a, b, c, d, supported, tiny * 0.5


@program
def test_inference_mode_within_a_session():
    x = torch.ones(3) * 2
    with torch.inference_mode():
        y = x * 3
        y.add_(1)
        z = y[1:]
        z.mul_(2)
        x.add_(1)
    w = x * y
    return x, y, z, w, y.is_inference(), w.is_inference()


@program
def test_an_inference_tensor_in_autograd_raises():
    with torch.inference_mode():
        x = torch.ones(3) * 2
    w = torch.ones(3, requires_grad=True)
    y = x + 1
    return y, w * x


@program
def test_an_inference_tensor_written_outside_raises(kept):
    with torch.inference_mode():
        x = torch.ones(3) * 2
    kept.append(x + 1)
    x.add_(1)


@program
def test_clones_of_inference_tensors_count_a_version():
    with torch.inference_mode():
        x = torch.ones(3) * 2
        y = x.clone()
    z = x.clone()
    z.add_(1)
    return x, y, z, x.double(), x.contiguous(), x[1:].clone(), torch.cat([x, x])


@program
def test_grad_modes_interleave():
    x = torch.ones(3, requires_grad=True)
    results = []
    with torch.no_grad():
        results.append(x * 2)
        with torch.inference_mode(False), torch.enable_grad():
            results.append(x * 3)
        with torch.inference_mode():
            results.append(x * 4)
        results.append(x * 5)
    results.append(x * 6)
    return results


def test_sessions_and_inference_mode_in_odd_orders():
    import torchy

    x = torch.arange(3.0)
    mode = torch.inference_mode()
    mode.__enter__()
    torchy.enable()
    a = x + 1
    mode.__exit__(None, None, None)
    b = x + 2
    mode = torch.inference_mode()
    mode.__enter__()
    c = x + 3
    torchy.disable()
    d = x + 4
    assert not torchy.is_pending(d)
    mode.__exit__(None, None, None)
    e = x + 5
    assert not torchy.is_pending(e)
    assert torchy.current_session() is None
    for i, t in enumerate([a, b, c, d, e]):
        assert t.tolist() == [1.0 + i, 2.0 + i, 3.0 + i]
    assert [t.is_inference() for t in (a, b, c, d, e)] == [True, False, True, True, False]


def test_enable_within_no_grad_and_disable_outside():
    import torchy

    with torch.no_grad():
        torchy.enable()
        a = torch.ones(2, requires_grad=True) * 2
    b = torch.ones(2, requires_grad=True) * 3
    torchy.disable()
    assert not a.requires_grad
    assert b.requires_grad
    b.sum().backward()
    assert a.tolist() == [2, 2]


@program
def test_autocast_is_entered_and_left_between_ops():
    x = torch.randn(4, 4) * 2
    results = [x @ x]
    with torch.autocast("cpu", torch.bfloat16):
        results += [x @ x, (x * 2) @ x, (x @ x) + x]
        with torch.autocast("cpu", enabled=False):
            results.append(x @ x)
    return [*results, x @ x]


@program
def test_the_environment_and_the_current_folder_do_not_matter():
    before = os.getcwd()
    x = torch.ones(3) * 2
    os.chdir("/")
    y = x + 1
    print(y)
    os.chdir(before)
    return x, y


@program
def test_errors_of_floating_point_are_not_raised():
    x = torch.tensor([0.0, -1.0, 1e38]) * 1
    return 1 / x, x.log(), x * 1e38, x.sqrt(), (x * 0).long() // 1, x.exp()


@program
def test_modes_see_the_program_s_ops_alone():
    log = []

    class Dispatched(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            log.append(str(function))
            return function(*args, **(kwargs or {}))

    class Called(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            log.append(function.__name__)
            return function(*args, **(kwargs or {}))

    x = torch.arange(5.0)
    for mode in (Dispatched(), Called()):
        with mode:
            y = x * 2 + 1  # new places
            log.append(y.tolist())
            log.append((y @ y).item())
            for _ in range(4):
                log.append((x * 3 + 1).tolist())
    return log


@program
def test_a_trace_is_flushed_under_modes_that_change_what_factories_make():
    x = torch.linspace(0.1, 2, 9)
    a = (x * 2).sin() + x.cumsum(0)
    with torch.device("meta"):
        first = a.tolist()
    b = (x * 3).cos() + x.softmax(0)
    with torch.device("meta"):
        second, shape = b.numpy().copy(), torch.ones(3) * 2
    c = (x * 4).exp() * x.amax()
    with FakeTensorMode():
        third = c.tolist()
    return a, first, second, b, c, third, shape.device.type
