"""Rules 1 and 3 where threads have process state of their own: thread counts, denormals, precision, default dtypes."""

import queue
import threading

import pytest
import torch
from sameness import program
from tiers import TIERS


class Worker:
    """A thread that runs functions one after another, and keeps what it has set."""

    def __init__(self):
        self.tasks, self.results = queue.SimpleQueue(), queue.SimpleQueue()
        threading.Thread(target=self.work, daemon=True).start()

    def work(self):
        while True:
            self.results.put(self.tasks.get()())

    def __call__(self, function):
        self.tasks.put(function)
        return self.results.get()


def in_new_thread(function):
    """Return what a function gives on a thread that begins with what the process hands to new ones."""
    return Worker()(function)


def everywhere(worker):
    """Return the number of threads here, on a thread that is there already, and on a new one."""
    counts = [get() for get in (torch.get_num_threads,)]
    return [*counts, worker(torch.get_num_threads), in_new_thread(torch.get_num_threads)]


def summed(x, factor):
    return (x * factor).exp().sum() + x.softmax(0).sum()


@program
@pytest.mark.parametrize("looks", ["here", "worker", "new"])
@pytest.mark.parametrize("sets", ["here", "worker"])
def test_the_number_of_threads_is_each_thread_s_own(looks, sets):
    x = torch.linspace(-3, 3, 70_001)
    worker = Worker()
    run = {"here": lambda f: f(), "worker": worker, "new": in_new_thread}
    log = [everywhere(worker)]
    for turn, number in enumerate((1, 3, 2, 1)):
        early = summed(x, 1 + turn)
        run[sets](lambda n=number: torch.set_num_threads(n))
        late = summed(x, 1.5 + turn)
        log.append(everywhere(worker))
        log.append(run[looks](late.item))
        log.append(everywhere(worker))
        log.append(run[looks](early.item))
        log.append(everywhere(worker))
    return log


@program
def test_a_session_s_thread_sees_the_default_dtype_that_another_set():
    worker, x = Worker(), torch.arange(5)
    results = []
    for dtype in (torch.float64, torch.float32, torch.float16, torch.float32):
        early = x / 2
        worker(lambda d=dtype: torch.set_default_dtype(d))
        results += [early, x / 3, torch.ones(2) * 2, worker(lambda t=early: (t + x / 2).sum())]
    return results


@program
@pytest.mark.parametrize("setter", ["here", "worker"])
def test_denormals_are_flushed_on_the_thread_that_asked(setter):
    # one thread: which elements another one of the pool gets is not the program's business
    torch.set_num_threads(1)
    worker, tiny = Worker(), torch.linspace(1, 9, 300) * 1e-39
    worker(lambda: torch.set_num_threads(1))
    run = {"here": lambda f: f(), "worker": worker}[setter]
    results = []
    for on in (True, False, True, False):
        early = tiny * 0.5
        run(lambda on=on: torch.set_flush_denormal(on))
        late = tiny * 0.25 + 0
        results += [worker(lambda t=late: t * 1), worker(lambda t=early: t.sum().item())]
        results += [late * 1, early, late, worker(lambda: tiny * 0.5)]
    return results


@program
def test_a_worker_s_modes_are_its_own():
    worker, w = Worker(), torch.ones(3, requires_grad=True)
    results = []
    x = torch.arange(6.0).reshape(2, 3) * 2
    with torch.no_grad():
        results += [w * 2, worker(lambda: w * x), x @ w]
    with torch.inference_mode():
        y = x * 3
        results += [y, worker(lambda: (x * w).sum())]
        results.append(worker(lambda: (y * 2).is_inference()))
    with torch.autocast("cpu", torch.bfloat16):
        results += [x @ w, worker(lambda: x @ w), worker(lambda: torch.is_autocast_enabled("cpu"))]
    return results


@program
def test_deterministic_flags_and_precision_set_elsewhere():
    worker, x = Worker(), torch.randn(256, 256)
    results = []
    for on in (True, False) * 2:
        early = x @ x
        worker(lambda on=on: torch.use_deterministic_algorithms(on, warn_only=on))
        worker(lambda on=on: torch.set_float32_matmul_precision("medium" if on else "highest"))
        worker(lambda on=on: torch._C._set_mkldnn_enabled(not on))
        late = x @ x
        results += [worker(lambda t=early: t[0].clone()), worker(lambda t=late: t[1] * 2), early]
        results += [torch.get_float32_matmul_precision(), torch._C._get_mkldnn_enabled()]
        results.append(torch.is_deterministic_algorithms_warn_only_enabled())
    torch._C._set_mkldnn_enabled(True)
    return results


SETTERS = {
    "default dtype": lambda on: torch.set_default_dtype(torch.float64 if on else torch.float32),
    "deterministic": lambda on: torch.use_deterministic_algorithms(on),
    "fill memory": lambda on: setattr(
        torch.utils.deterministic, "fill_uninitialized_memory", not on
    ),
    "mkldnn": lambda on: torch.backends.mkldnn.set_flags(not on),
    "mkldnn deterministic": lambda on: torch._C._set_mkldnn_deterministic(on),
    "nnpack": lambda on: torch.backends.nnpack.set_flags(not on),
    "precision": lambda on: torch.set_float32_matmul_precision("medium" if on else "highest"),
    "precision of products": lambda on: setattr(
        torch.backends.mkldnn.matmul, "fp32_precision", "bf16" if on else "none"
    ),
}


@TIERS
@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("setter", SETTERS)
def test_what_is_pending_is_computed_before_the_process_computes_otherwise(
    setter, elsewhere, compile
):
    import torchy

    # a flush that brings back what held when its ops were recorded would do so to all threads
    worker, x = Worker(), torch.randn(40, 40)
    with torchy.lazy(compile=compile):
        for on in (True, False):
            y = (x @ x) * 2
            assert torchy.is_pending(y)
            set_it = lambda on=on: SETTERS[setter](on)  # noqa: E731
            worker(set_it) if elsewhere else set_it()
            assert not torchy.is_pending(y)
