"""Rules 4, 6 and 7 for whole programs of several processes: pending tensors cross their borders in both directions."""

import os
import pickle
import signal
import threading
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
import torch.multiprocessing as mp
from sameness import program
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

FORK = mp.get_context("fork")


def in_child(function):
    """Run a function in a forked child; return what it returned, pickled and unpickled."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with os.fdopen(write, "wb") as stream:
                stream.write(pickle.dumps(function()))
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        said = stream.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    return pickle.loads(said)


def trained(model, optimizer, x, count):
    """Train for some steps; return the losses."""
    losses = []
    for _ in range(count):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


@program(times=2, recorded=True)
def test_a_forked_child_goes_on_training_where_its_parent_was():
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), torch.randn(5, 3) * 2
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    trained(model, optimizer, x, 2)
    y = model(x) * 3

    def child():
        seen = [y.sum().item(), trained(model, optimizer, x, 3), y.tolist()]
        return seen, list(model.parameters()), in_child(lambda: model(x) + torch.rand(1))

    theirs = in_child(child)
    losses = trained(model, optimizer, x, 3)
    return theirs, losses, model, optimizer, y


@program(times=2, recorded=True)
def test_children_are_forked_while_gradients_are_pending():
    w = torch.randn(4, requires_grad=True)
    results = []
    for _ in range(3):
        loss = (w * 2).sin().sum()
        results.append(in_child(lambda loss=loss: torch.autograd.grad(loss, w)[0]))
        loss.backward()
        with torch.no_grad():
            w.sub_(w.grad, alpha=0.1)
        results.append(in_child(lambda: (w.grad + w).detach()))
        w.grad = None
    return w, results


def serve(requests, answers):
    """Answer with tensors that are pending when they are sent."""
    while (request := requests.get()) is not None:
        name, tensor = request
        answers.put((name, tensor * 2 + 1, [tensor.sum(), {"view": (tensor - 1)[1:]}]))
        tensor.add_(100)
        answers.put(("written", None, None))
        del request, tensor


@program(times=2, recorded=True)
def test_a_server_process_is_sent_pending_tensors_and_sends_some_back():
    requests, answers = FORK.Queue(), FORK.Queue()
    server = FORK.Process(target=serve, args=(requests, answers))
    server.start()
    seen = []
    for step in range(3):
        x = torch.arange(5.0) * step
        requests.put((f"step {step}", x))
        name, y, (total, more) = answers.get()
        answers.get()
        seen.append((name, y * 1, total * 1, more["view"] * 1, x * 1))
        x.sub_(1)
        seen.append(x + 0)
        del y, total, more
    requests.put(None)
    server.join()
    return seen, server.exitcode


def power(pair):
    """Work of a pool's process."""
    tensor, exponent = pair
    return tensor.pow(exponent).cumsum(0) + torch.ones(1)


@program(times=2, recorded=True)
def test_pools_of_processes_map_over_pending_tensors():
    x = torch.linspace(-1, 1, 6) * 3
    pairs = [(x[i:] + i, i) for i in range(4)]
    with FORK.Pool(2) as pool:
        first = [y * 1 for y in pool.map(power, pairs)]
    with ProcessPoolExecutor(2, mp_context=FORK) as executor:
        futures = [executor.submit(power, pair) for pair in pairs]
        second = [future.result() * 2 for future in futures]
    return x, first, second


def lean(model, x, queue):
    """Train a model whose parameters are shared."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    queue.put(float(sum(trained(model, optimizer, x, 2))))


@program(times=2, recorded=True)
def test_processes_train_one_shared_model_in_turn():
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), torch.randn(5, 3) * 2
    trained(model, torch.optim.SGD(model.parameters(), 0.1), x, 1)
    model.share_memory()
    queue, sums = FORK.SimpleQueue(), []
    for turn in range(2):
        worker = FORK.Process(target=lean, args=(model, x + turn, queue))
        worker.start()
        sums.append(queue.get())
        worker.join()
        sums.append(model[0].weight.detach() + 0)
        trained(model, torch.optim.SGD(model.parameters(), 0.1), x, 1)
    return model, sums


class Pictures(Dataset):
    """Makes its items with ops, in the workers."""

    def __init__(self, base):
        self.base = base

    def __len__(self):
        return len(self.base)

    def __getitem__(self, index):
        noise = torch.rand(3) * 0.1
        return {
            "x": self.base[index] * 2 + noise,
            "index": index,
            "sum": self.base[index].sum().item(),
        }


@program(times=2, recorded=True)
@pytest.mark.parametrize("persistent", [False, True])
def test_data_loader_workers_make_their_items_with_ops(persistent):
    data = Pictures(torch.arange(18.0).reshape(6, 3) / 7)
    loader = DataLoader(
        data,
        batch_size=2,
        shuffle=True,
        num_workers=2,
        persistent_workers=persistent,
        generator=torch.Generator().manual_seed(3),
        collate_fn=None,
    )
    seen = []
    for _ in range(2):
        for batch in loader:
            x = batch["x"]
            seen.append((x.is_shared(), x * 2 + 1, batch["index"] + 0, batch["sum"] * 3))
            x.mul_(0)
            seen.append(x.sum() + 1)
    return seen, data.base


class Stream(IterableDataset):
    """Each worker has a part of a stream."""

    def __init__(self, base):
        self.base = base

    def __iter__(self):
        worker = get_worker_info()
        state = torch.zeros(2) + worker.id
        for row in self.base[worker.id :: worker.num_workers]:
            state = state * 0.5 + row
            yield state, torch.initial_seed() - worker.seed


def collated(items):
    """Stack states by hand, as a view of something larger."""
    whole = torch.stack([state for state, _ in items] * 2) + 1
    return whole[: len(items)], [seed for _, seed in items]


@program(times=2, recorded=True)
def test_a_stream_from_workers_is_pinned_as_far_as_the_machine_can():
    base = torch.arange(20.0).reshape(10, 2) * 0.3
    loader = DataLoader(
        Stream(base),
        batch_size=2,
        num_workers=2,
        collate_fn=collated,
        prefetch_factor=3,
        pin_memory=True,
    )
    return [(states * 2, seeds) for states, seeds in loader], base


class Failing(Dataset):
    """Raises for one item."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        x = torch.ones(2) * index
        if x.sum() > 4:
            raise ValueError(f"no item {x.sum().item()}")
        return x


@program(times=2)
def test_an_error_in_a_worker_arrives_in_the_program():
    seen = []
    try:
        for batch in DataLoader(Failing(), batch_size=1, num_workers=1):
            seen.append(batch * 2)
    except ValueError as error:
        seen.append(str(error).strip().split("\n")[-1])
    return seen


@program(times=2, recorded=True)
def test_a_region_is_opened_and_closed_in_a_child():
    import torchy

    x = torch.arange(4.0) * 2

    def child():
        with torchy.lazy(compile="never"):
            y = x * 3
            z = y + x
        torchy.flush()
        return z, torch.ones(2) * 2

    return in_child(child), x


@program(times=1, recorded=True)
@pytest.mark.slow
@pytest.mark.seconds(180)
def test_a_spawned_process_has_a_region_of_its_own():
    context = mp.get_context("spawn")
    x, results, done = torch.arange(4.0) * 2, context.Queue(), context.Event()
    process = context.Process(target=spawned, args=(x, results, done))
    process.start()
    y, total = results.get()
    seen = y * 1, total * 1, results.get(), x * 1
    del y, total
    done.set()
    process.join()
    return seen, process.exitcode


def spawned(x, results, done):
    """Work of a spawned process: a fresh interpreter switches Torchy on by itself."""
    import torchy

    with torchy.lazy(compile="never") as session:
        y = (x * 2).cumsum(0)
        x.add_(1)
        results.put((y, x.sum()))
        results.put(session.counters["recorded"] > 0)
        done.wait()


@pytest.mark.seconds(20)
def test_a_child_that_is_forked_in_the_midst_of_compiling_compiles_too():
    import torchy
    from torchy.codegen.cpu.kernel import Compiler

    compiling, forking, compile_kernel = threading.Event(), threading.Event(), Compiler.compile

    def slowly(compiler, *form):
        with compiler.verifier.lock:
            compiling.set()
            assert forking.wait(10)
            return compile_kernel(compiler, *form)

    def child():
        Compiler.compile = compile_kernel
        with torchy.lazy(compile="always") as session:
            values = (torch.ones(3) * 2).exp().tolist()
        return values, session.counters["kernels_compiled"] > 0

    Compiler.compile = slowly
    with torchy.lazy(compile="auto"):
        for _ in range(3):
            (torch.arange(4.0) + 1).sin().tolist()
        assert compiling.wait(10)
        os.register_at_fork(before=forking.set)  # what is registered last comes first
        assert in_child(child) == ((torch.ones(3) * 2).exp().tolist(), True)


@pytest.mark.seconds(120)
@pytest.mark.parametrize("compile", ["always", "auto", "never"])
def test_children_are_forked_while_another_thread_records_and_flushes(compile):
    import torchy

    begun, stop, theirs = threading.Event(), threading.Event(), []

    def work():
        w = torch.randn(50, requires_grad=True)
        with torchy.lazy(compile=compile):
            while not stop.is_set():
                loss = (w * 2).sin().exp().sum()
                loss.backward()  # from C++, without the interpreter's lock
                theirs[:] = [loss.detach() * 2, w.grad]
                begun.set()
                w.grad = None
                loss.item()

    def child():
        signal.alarm(20)  # instead of hanging
        with torchy.lazy(compile=compile):
            x = torch.ones(3) * 2
            sums = [y.sum().item() for y in theirs]  # it looks at the other thread's, too
            return (x + 1).tolist(), [sum == sum for sum in sums]

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert begun.wait(20)
        with torchy.lazy(compile=compile):
            for i in range(40):
                y = torch.ones(3) * i + 1
                assert in_child(child) == ([3.0, 3.0, 3.0], [True, True])
                assert y.tolist() == [i + 1.0] * 3
    finally:
        stop.set()
        thread.join()
