"""Rules 1, 2 and 6 under what surrounds a program: anomaly mode, profilers, warnings, limits, contexts, environment."""

import faulthandler
import os
import subprocess
import sys
import tempfile
import threading
import tracemalloc
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from sameness import program
from tiers import COMPILED, TIERS
from torch.utils.checkpoint import checkpoint

ROOT = Path(__file__).parents[2]


class Fails(torch.autograd.Function):
    """Raises, or gives a NaN, in its backward."""

    @staticmethod
    def forward(context, x, how):
        context.how = how
        return x * 2

    @staticmethod
    def backward(context, gradient):
        if context.how == "raises":
            raise ValueError("broken")
        return gradient * float("nan"), None


@program
@pytest.mark.parametrize("how", ["raises", "nan", "square root", "division"])
@pytest.mark.parametrize("check_nan", [True, False])
def test_anomaly_mode_tells_the_forward_line(how, check_nan, kept):
    w = torch.zeros(3, requires_grad=True)
    kept.append(w)
    with torch.autograd.detect_anomaly(check_nan=check_nan):
        x = w * 1.5
        x = {
            "raises": lambda: Fails.apply(x, how),
            "nan": lambda: Fails.apply(x, how),
            "square root": lambda: x.sqrt() * 0,
            "division": lambda: (x / x) * x,
        }[how]()
        kept.append(x)
        y = (x + 1).sum()
        y.backward()
    return y


@program
def test_anomaly_mode_where_nothing_is_wrong(kept):
    w = torch.linspace(0.5, 1, 4).requires_grad_()
    for _ in range(3):
        with torch.autograd.detect_anomaly():
            y = (w * 1.5).log() @ (w + 1)
            y.backward()
        kept.append(y.grad_fn.metadata.get("parent_") is None)
        kept.append("traceback_" in y.grad_fn.metadata)
    return w, y


def names_of(profile):
    """Return what a profiler saw of the program's own regions, and how often."""
    return sorted(
        {(event.key, event.count) for event in profile.key_averages() if event.key[:3] == "my "}
    )


PROFILERS = {
    "cpu": lambda: torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]),
    "shapes": lambda: torch.profiler.profile(
        record_shapes=True, profile_memory=True, with_flops=True
    ),
    "stack": lambda: torch.profiler.profile(with_stack=True, with_modules=True),
    "autograd": lambda: torch.autograd.profiler.profile(),
    "legacy": lambda: torch.autograd.profiler.profile(use_kineto=False, record_shapes=True),
}


@program(slow=("never",))
@pytest.mark.parametrize("profiler", PROFILERS)
def test_profilers_see_regions_and_change_nothing(profiler):
    w = torch.linspace(0, 1, 20).reshape(4, 5).requires_grad_()
    early = w.detach() * 2
    for _ in range(
        2
    ):  # torch keeps bare pointers to the names of frames: the first round's imports leave some dangling
        with PROFILERS[profiler]() as profile:
            for i in range(3):
                with torch.profiler.record_function("my step"):
                    y = (early @ w.t() * 0.1).tanh()
                    with torch.profiler.record_function("my loss"):
                        loss = y.sum() + i
                    loss.backward()
            looked = loss.item()
    late = y * 2
    return w, early, late, looked, names_of(profile), len(profile.key_averages().table()) > 100


@TIERS
def test_a_profiler_sees_the_work_that_was_deferred(compile):
    import torchy

    x = torch.linspace(0, 1, 400).reshape(20, 20)
    for _ in range(3):
        with torchy.lazy(compile=compile), torch.autograd.profiler.profile() as profile:
            y = (x @ x) @ x
            y[0, 0].item()
        counts = {event.key: event.count for event in profile.key_averages()}
        assert counts["aten::mm"] >= 2


@program
def test_profiler_steps_schedules_and_traces():
    ready = []
    schedule = torch.profiler.schedule(wait=1, warmup=1, active=2, repeat=1)
    x = torch.ones(5)
    with torch.profiler.profile(
        schedule=schedule, on_trace_ready=lambda p: ready.append(p.step_num), acc_events=True
    ) as profile:
        for _ in range(6):
            x = x * 1.5 + 1
            profile.step()
    with (
        tempfile.NamedTemporaryFile(suffix=".json") as file,
        torch.profiler.profile(acc_events=True) as other,
    ):
        y = x * 2
        other.stop()
        other.export_chrome_trace(file.name)
        written = os.path.getsize(file.name) > 100
        other.start()
    return x, y, ready, written


@program
def test_observers_of_execution():
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        observer = torch.profiler.ExecutionTraceObserver()
        observer.register_callback(file.name)
        observer.start()
        x = torch.arange(4.0) * 2
        y = x @ x + x
        observer.stop()
        observer.unregister_callback()
    return x, y


@program
def test_torch_s_forks_of_pending_tensors():
    def task(t, k):
        y = t * k
        y.add_(1)
        inner = torch.jit.fork(lambda u: u.exp() + t, y)
        return y, torch.jit.wait(inner)

    x = torch.linspace(0, 1, 4) * 2
    futures = [torch.jit.fork(task, x * i, i) for i in range(5)]
    x.mul_(3)
    first = [torch.jit.wait(future) for future in futures]
    scripted = torch.jit.script(waits)
    return first, scripted(x + 1), x


def waits(x: torch.Tensor) -> torch.Tensor:
    """Fork within a script."""
    future = torch.jit.fork(torch.sigmoid, x * 2)
    other = torch.jit.fork(torch.tanh, x + 1)
    return torch.jit.wait(future) + torch.jit.wait(other) * x


class Reenters(torch.autograd.Function):
    """Runs backward within its backward, so many levels deep."""

    @staticmethod
    def forward(context, x, depth):
        context.depth = depth
        context.save_for_backward(x.detach())
        return x * 1.0

    @staticmethod
    def backward(context, gradient):
        if context.depth == 0:
            return gradient * 1.25, None
        with torch.enable_grad():
            (x,) = context.saved_tensors
            inner = (x * 0.5).requires_grad_()
            Reenters.apply(inner * 1.5, context.depth - 1).sum().backward()
        return gradient + inner.grad * 0.01, None


@program
@pytest.mark.parametrize("depth", [3, 60, 250])
def test_backward_within_backward_many_levels_deep(depth):
    x = torch.linspace(0, 1, 3).requires_grad_()
    y = Reenters.apply(x * 2, depth)
    y.sum().backward()
    return x, y


@program
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("inner", [True, False])
def test_checkpoints_within_checkpoints(reentrant, inner):
    w = torch.linspace(-1, 1, 16).reshape(4, 4).requires_grad_()

    def innermost(x):
        return F.dropout((x @ w).tanh(), 0.3) * 2

    def middle(x):
        return checkpoint(innermost, x * 0.5, use_reentrant=inner) + x

    def outer(x):
        x = checkpoint(middle, x + 1, use_reentrant=reentrant)
        return checkpoint(middle, x.exp(), use_reentrant=inner)

    x = torch.linspace(0, 1, 8).reshape(2, 4).requires_grad_()
    y = checkpoint(outer, x * 1.5, use_reentrant=reentrant)
    y.sum().backward()
    return x, w, y


@program
def test_backward_from_several_threads_on_one_graph():
    w = torch.linspace(-1, 1, 8).requires_grad_()
    shared = (w * 2).sin()
    losses = [(shared * 2**i).sum() for i in range(4)]  # sums of these are exact in any order
    results = [None] * 4

    def run(i):
        results[i] = torch.autograd.grad(losses[i], shared, retain_graph=True)[0] * 2

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.stack(losses).sum().backward()
    return results, w, shared


@program
def test_warnings_as_errors_of_what_is_deferred(kept):
    x = torch.arange(4.0) + 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for make in (
            lambda: x * 2 + 1,
            lambda: torch.add(x, 1, out=torch.zeros(2)),
            lambda: x.reshape(2, 2, 1).T,
            lambda: F.mse_loss(x, torch.ones(4, 1)),
            lambda: torch.floor_divide(x, 2).tolist(),
            lambda: torch.std(x[:1]) * 2,
        ):
            try:
                kept.append(make())
            except UserWarning as error:
                kept.append(str(error))
    return x


@program
@pytest.mark.parametrize("always", [True, False])
def test_warnings_once_and_always(always):
    torch.set_warn_always(always)
    results = []
    for _ in range(3):
        x = torch.arange(4.0) + 1
        results += [torch.add(x, 1, out=torch.zeros(2)), torch.std(x[:1] * 2)]
    torch.set_warn_always(True)
    return results


@program
def test_tracers_of_memory_and_of_faults():
    with open(os.devnull, "w") as nowhere:
        faulthandler.enable(nowhere)
        tracemalloc.start(5)
        x = torch.linspace(0, 1, 9) * 2
        faulthandler.dump_traceback(nowhere)
        y = (x @ x) + x
        taken = tracemalloc.take_snapshot()
        z = y.exp() - len(taken.traces[:0])
        tracemalloc.stop()
        faulthandler.enable(sys.__stderr__)
    return x, y, z


@program
def test_factories_under_a_default_device():
    x = torch.arange(4.0) * 2
    results = []
    for device in ("cpu", "meta", None, "cpu"):
        torch.set_default_device(device)
        y = torch.ones(4) * 2
        results += [y.device.type, y, x * 3, torch.get_default_device().type]
        try:
            results.append(x + y)
        except RuntimeError as error:
            results.append(str(error))
        results.append((x * 0.5).sum().item())
    torch.set_default_device(None)
    return results


@program
def test_forked_random_states():
    x = torch.rand(3) * 2
    results = []
    for seed in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            results += [torch.rand(3) + x, F.dropout(x * 2, 0.5), torch.get_rng_state()[:9]]
        results.append(torch.rand(2) * 2)
    return results


@program
def test_options_of_printing_hold_at_the_print():
    x = torch.linspace(0, 2, 12).reshape(3, 4) / 3
    y = x * 1e5
    torch.set_printoptions(precision=2, sci_mode=True, threshold=4, edgeitems=1, linewidth=40)
    texts = [str(y), repr(x + y)]
    torch.set_printoptions(profile="default")
    texts += [str(y), f"{x.sum():.3f}", format(x.mean())]
    torch.set_printoptions(precision=3)
    z = x * 3
    print(z, x)
    torch.set_printoptions(profile="default")
    return texts


class Tagged(torch.Tensor):
    """A subclass that counts the functions it passes through."""

    calls = 0

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        cls.calls += 1
        return super().__torch_function__(function, types, args, kwargs or {})


class Other:
    """No tensor, but taken for one by torch's functions."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
        return torch.overrides.resolve_name(function), [t * 2 for t in tensors]


@program
def test_overrides_of_torch_s_functions():
    x = torch.arange(4.0) * 2
    Tagged.calls = 0
    tagged = x.as_subclass(Tagged) + 1
    results = [torch.add(x, Other()), torch.exp(tagged) * x, Tagged.calls > 0]
    results += [torch.overrides.has_torch_function((x, tagged)), torch.overrides.is_tensor_like(x)]
    with torch._C.DisableTorchFunctionSubclass():
        results.append(tagged * 2)
    with torch._C.DisableTorchFunction():
        results.append((x * 2).sum().item())
    return results, x, torch.overrides.is_tensor_method_or_property(torch.Tensor.add)


@program
def test_the_environment_changes_in_the_midst():
    before = dict(os.environ)
    results = [torch.linspace(0, 1, 5) * 2]
    changes = {"OMP_NUM_THREADS": "1", "TORCHY_DEBUG": "0", "MKL_NUM_THREADS": "1", "HOME": "/"}
    for name, value in {**changes, "TORCH_SHOW_CPP_STACKTRACES": "0", "TMPDIR": "/x"}.items():
        os.environ[name] = value
        results += [(results[-1] * 1.5).tanh(), torch.get_num_threads()][:1]
    os.environ.clear()
    results.append(results[-1] @ results[-1])
    os.environ.update(before)
    return results, results[0] * results[-1]


@program
def test_deterministic_fill_of_what_is_empty():
    results = []
    torch.use_deterministic_algorithms(True, warn_only=True)
    for fill in (True, False, True):
        torch.utils.deterministic.fill_uninitialized_memory = fill
        x = torch.arange(4.0) * 2
        if fill:
            results += [
                torch.empty(3),
                torch.empty_like(x) + 1,
                x.new_empty(2, 2),
                x.clone().resize_(6),
            ]
        results += [x.new_zeros(2) + x[:2], torch.empty(4).copy_(x) * 2]
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(False)
    return results


def python(code):
    """Run a program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=50,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@COMPILED
@pytest.mark.parametrize("when", ["before", "after"])
def test_exit_handlers_find_what_is_pending(compile, when):
    code = f"""if True:
        import atexit, threading, weakref
        import torch
        if {when!r} == "after":
            import torchy
        kept = []
        def last():
            print("sum", kept[0].sum().item(), (kept[1] * 2).tolist(), len(kept))
            kept[0].add_(1)
            print("again", kept[0].tolist())
        atexit.register(last)
        if {when!r} == "before":
            import torchy
        torchy.enable(compile={compile!r})
        if {when!r} == "after":
            atexit.register(last)
        x = torch.arange(4.0) * 2
        kept += [x, x[1:] + 1]
        weakref.finalize(x, print, "final")
        threading.Thread(target=lambda: kept.append(x * 2)).start()
        print("end")
    """
    result = python(code)
    once = "sum {} [{}, {}, {}] 3\nagain {}\n"
    first = once.format(12.0, 6.0, 10.0, 14.0, [1.0, 3.0, 5.0, 7.0])
    second = once.format(16.0, 6.0, 10.0, 14.0, [2.0, 4.0, 6.0, 8.0])
    assert result.stderr == ""
    expected = "end\n" + first + (second if when == "after" else "")
    assert result.stdout.replace("final\n", "") == expected
    assert result.returncode == 0


def test_processes_end_while_kernels_are_compiled_in_the_background():
    code = """if True:
        import torch, torchy
        x = torch.ones(1000)
        with torchy.lazy():
            for _ in range(3):
                torch.tanh(x * 2).sum().item()
    """
    for _ in range(3):
        result = python(code)
        assert (result.returncode, result.stderr) == (0, "")
