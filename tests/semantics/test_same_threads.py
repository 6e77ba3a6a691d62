"""Several threads, with and without sessions, on the same pending tensors; processes too."""

import gc
import multiprocessing
import os
import queue
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from sameness import program
from tiers import TIERS


def in_threads(*functions):
    """Run functions at the same time; return their results in order, or raise the first error."""
    results: list = [None] * len(functions)
    errors = []

    def call(index, function):
        try:
            results[index] = function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=call, args=pair) for pair in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


@program
def test_a_pending_tensor_is_handed_to_a_thread_that_runs_already():
    tasks, results = queue.Queue(), queue.Queue()

    def work():
        while (task := tasks.get()) is not None:
            results.put(task * 2 + 1)

    thread = threading.Thread(target=work)
    thread.start()
    (torch.ones(2) + 1).sum().item()
    seen = []
    for i in range(5):
        tasks.put(torch.arange(4.0) * i)
        seen.append(results.get() + 0.5)
    tasks.put(None)
    thread.join()
    return seen


@program
def test_a_pool_that_was_started_before():
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda i: torch.ones(2) * i, range(4)))
        x = torch.arange(6.0) * 3
        y = list(pool.map(lambda i: (x[i] * 2).item(), range(6)))
        z = list(pool.map(lambda i: x[i:] + i, range(6)))
        pool.submit(x.add_, 1).result()
        w = x * 2
    return x, y, z, w


@program
def test_threads_write_what_the_session_reads():
    x = torch.zeros(6) + 1
    views = [x[:2], x[2:4], x[4:]]

    def write(view, value):
        return lambda: view.add_(value).mul_(2)

    in_threads(*(write(view, i) for i, view in enumerate(views)))
    y = x * 10
    views[0].sub_(1)
    in_threads(lambda: x.numpy().sum(), lambda: y[0].item())
    return x, views, y


@program
def test_a_thread_writes_to_what_a_pending_op_reads():
    x = torch.arange(4.0)
    y = x * 2
    in_threads(lambda: x.add_(100))
    z = x * 2
    in_threads(lambda: x.numpy().fill(7), lambda: None)
    return x, y, z


@program
def test_many_readers_of_one_pending_tensor():
    x = torch.arange(1000.0) * 2
    y = (x + 1).exp().log()
    sums = in_threads(*[lambda: (y * 1).sum().item()] * 6)
    return sums, x, y


@program
def test_backward_in_threads():
    w = torch.randn(4, requires_grad=True)
    loss = ((w * 2).exp() + w).sum()
    in_threads(loss.backward)
    return w, loss


@program
def test_functions_on_the_backward_thread():
    seen = []

    class Looking(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x * 2

        @staticmethod
        def backward(context, gradient):
            seen.append(gradient.sum().item())
            return gradient * 2

    x = torch.randn(3, requires_grad=True)
    Looking.apply(x + 1).exp().sum().backward()
    return x, seen


@program
def test_torch_forks_and_waits():
    x = torch.arange(3.0) * 2
    futures = [torch.jit.fork(lambda t, i: t * i + 1, x, i) for i in range(4)]
    x2 = x + 1
    return [torch.jit.wait(future) for future in futures], x2


@program
def test_data_loaders_with_threads_and_pinned_order():
    from torch.utils.data import DataLoader, TensorDataset

    data = TensorDataset(torch.arange(12.0).reshape(6, 2) * 2, torch.arange(6) + 1)
    loader = DataLoader(
        data, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(2)
    )
    return [(x * 2, y - 1) for x, y in loader], torch.rand(2)


@TIERS
def test_sessions_in_several_threads(compile):
    import torchy

    def work(k):
        def run():
            x = torch.arange(100.0) * k
            with torchy.lazy(compile=compile):
                for _ in range(50):
                    x = x * 0.5 + k
                    if x[3].item() < 0:
                        raise AssertionError
            return x

        return run

    expected = [work(k) for k in range(4)]
    results = in_threads(*expected)
    for k, result in enumerate(results):
        x = torch.arange(100.0) * k
        for _ in range(50):
            x = x * 0.5 + k
        assert torch.equal(x, result)


@TIERS
def test_two_sessions_on_one_tensor(compile):
    import torchy

    x = torch.zeros(50)
    barrier = threading.Barrier(2)

    def add(value):
        def run():
            with torchy.lazy(compile=compile):
                for step in range(40):
                    barrier.wait()
                    if step % 2 == value:
                        x.add_(1)
                        y = x * 2
                    barrier.wait()
                    if step % 2 != value:
                        assert (x == step + 1).all()
                        assert (x * 2).sum().item() == 100 * (step + 1)
                return y.sum().item()

        return run

    assert in_threads(add(0), add(1)) == [100.0 * 39, 100.0 * 40]
    assert (x == 40).all()


@TIERS
def test_a_pending_tensor_outlives_the_thread_of_its_session(compile):
    import torchy

    def work():
        torchy.enable(compile=compile)
        return torch.arange(4.0) * 3 + 1

    (x,) = in_threads(work)
    assert x.tolist() == [1, 4, 7, 10]
    assert torchy.current_session() is None


@TIERS
def test_threads_hammer_shared_pending_tensors(compile):
    import torchy

    tensors = [torch.zeros(64) for _ in range(4)]
    locks = [threading.Lock() for _ in range(4)]

    def work(seed, lazily):
        def run():
            import random

            generator = random.Random(seed)
            for _ in range(150):
                i, j = generator.sample(range(4), 2)
                first, second = sorted((i, j))
                with locks[first], locks[second]:
                    tensors[i].add_(1)
                    other = tensors[j] * 2
                    if generator.random() < 0.2:
                        assert (other == 2 * tensors[j][0].item()).all()
            return None

        def session():
            with torchy.lazy(compile=compile):
                run()

        return session if lazily else run

    in_threads(*(work(seed, seed % 3 != 0) for seed in range(6)))
    assert sum(t[0].item() for t in tensors) == 6 * 150
    assert all((t == t[0]).all() for t in tensors)


@TIERS
def test_a_thread_waits_for_the_gil_while_another_flushes(compile):
    import torchy

    stop = threading.Event()

    def churn():
        count = 0
        while not stop.is_set():
            count += (torch.ones(100) * 2).sum().item() == 200
        return count

    def work():
        with torchy.lazy(compile=compile):
            x = torch.ones(200_000)
            for _ in range(60):
                x = (x * 1.01).tanh() + 0.5
                x.sum().item()
        stop.set()
        return x

    x, count = in_threads(work, churn)
    assert count > 0
    y = torch.ones(200_000)
    for _ in range(60):
        y = (y * 1.01).tanh() + 0.5
    assert torch.equal(x, y)


@program
def test_a_fork_sees_what_was_pending():
    x = torch.arange(4.0) * 2
    view = x[1:]
    y = view + 1
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            text = f"{x.tolist()} {y.tolist()} {(y * 2 + view).sum().item()}"
            os.write(write, text.encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        said = stream.read()
    _, status = os.waitpid(child, 0)
    x.add_(1)
    return x, y, said, status


def double_into(shared, results):
    """Work of another process."""
    shared.mul_(2)
    results.put(float(shared.sum()))


@program(times=2)
@pytest.mark.parametrize(
    "method", ["fork", pytest.param("spawn", marks=[pytest.mark.slow, pytest.mark.seconds(120)])]
)
def test_processes_share_a_pending_tensor(method):
    context = multiprocessing.get_context(method)
    x = torch.arange(4.0) + 1
    x.share_memory_()
    x.add_(1)
    results = context.SimpleQueue()
    process = context.Process(target=double_into, args=(x, results))
    process.start()
    total = results.get()
    process.join()
    return x + 0, total, process.exitcode


@program(times=2)
def test_data_loader_workers():
    from torch.utils.data import DataLoader, TensorDataset

    data = TensorDataset(torch.arange(12.0).reshape(6, 2) * 2)
    return [batch[0] + 1 for batch in DataLoader(data, batch_size=2, num_workers=2)]


@program(times=2)
def test_tensors_sent_through_queues_of_processes():
    import torch.multiprocessing as mp

    context = mp.get_context("fork")
    x, there, back = torch.arange(3.0) * 2, context.Queue(), context.Queue()

    def work():
        back.put((there.get() + 1).tolist())

    process = context.Process(target=work)
    process.start()
    there.put(x * 3)
    seen = back.get()
    process.join()
    return x, seen


@TIERS
def test_a_session_ends_while_another_thread_flushes_it(compile):
    import torchy

    sys.setswitchinterval(1e-6)
    for turn in range(150):
        there = queue.Queue()
        with ThreadPoolExecutor(2) as pool:
            looks = [pool.submit(lambda given: (given.get() + 1).tolist(), there) for _ in range(2)]
            with torchy.lazy(compile=compile):
                x = torch.full((3,), float(turn)) * 2
                there.put(x)
                there.put(x)
            for look in looks:
                assert look.result() == [2.0 * turn + 1] * 3


def test_a_finalizer_looks_at_what_another_thread_flushes_while_both_want_to_compile():
    import torchy
    from torchy.face import _process
    from torchy.run.tiers import Kernels

    ready, inside, shared, seen = threading.Event(), threading.Event(), {}, []
    compile_kernel = Kernels._compile

    class Holder:
        def __init__(self, tensor):
            self.tensor, self.itself = tensor, self

        def __del__(self):
            seen.append(self.tensor.sum().item())

    def collecting(kernels, *what):
        if threading.current_thread().name == "first" and shared:
            inside.set()
            while not flushing():
                pass
            shared.clear()
            gc.collect()  # as may happen anywhere
        return compile_kernel(kernels, *what)

    def flushing():
        return other and _process.runtime.walker.running(other[0].id) is not None

    def first():
        assert ready.wait(20)
        with torchy.lazy(compile="always"):
            seen.append((torch.ones(1000) * 2 + 1).sin().sum().item())

    def second():
        with torchy.lazy(compile="always") as session:
            other.append(session)
            x = (torch.ones(1000) * 3 - 1).cos() * 5
            shared["holder"] = Holder(x)
            ready.set()
            assert inside.wait(20)
            torchy.flush()
            seen.append(x.sum().item())

    other = []
    Kernels._compile = collecting
    threads = [threading.Thread(target=f, name=f.__name__) for f in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    x, y = (torch.ones(1000) * 3 - 1).cos() * 5, (torch.ones(1000) * 2 + 1).sin()
    assert sorted(seen) == sorted([x.sum().item()] * 2 + [y.sum().item()])
