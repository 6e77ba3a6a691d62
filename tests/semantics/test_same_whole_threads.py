"""Rules 4, 6 and 7 for whole programs of several threads: pending tensors go through queues, futures and events."""

import asyncio
import contextlib
import queue
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed

import pytest
import torch
import torch.nn.functional as F
from sameness import program
from torch import nn


def region(own):
    """Return a session of this thread's own, or nothing; nothing too where the program runs eagerly."""
    import torchy

    return torchy.lazy(compile="never") if own and RECORDED.is_set() else contextlib.nullcontext()


RECORDED = threading.Event()


@contextlib.contextmanager
def noticed():
    """Let the threads of a program know whether it runs under Torchy."""
    import torchy

    if torchy.current_session() is not None:
        RECORDED.set()
    try:
        yield
    finally:
        RECORDED.clear()


def started(*functions):
    """Start a thread for each function."""
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    return threads


OWN = pytest.mark.parametrize("own", [False, True])


@program(times=2, recorded=True)
@OWN
def test_a_pipeline_of_threads_hands_on_pending_tensors(own):
    first, second, third = queue.Queue(), queue.Queue(), queue.Queue()
    weight = torch.randn(4, 4) * 0.5

    def stage(source, sink, function):
        def work():
            with region(own):
                while (item := source.get()) is not None:
                    sink.put(function(item))
                sink.put(None)

        return work

    with noticed():
        threads = started(
            stage(first, second, lambda x: x @ weight + 1),
            stage(second, third, lambda x: (x.relu(), x.mul_(0.5))),
        )
        for step in range(5):
            first.put(torch.arange(8.0).reshape(2, 4) * step)
        first.put(None)
        seen = []
        while (pair := third.get()) is not None:
            seen.append((pair[0] * 2, pair[1]))
        for thread in threads:
            thread.join()
    return seen, weight


@program(times=2, recorded=True)
@OWN
def test_two_threads_write_one_tensor_in_turns(own):
    x = torch.zeros(6) + 1
    view, turns, seen = x[2:], [threading.Event() for _ in range(7)], [None] * 6

    def player(offset):
        def work():
            with region(own):
                for turn in range(offset, 6, 2):
                    turns[turn].wait()
                    target = view if turn % 3 else x
                    target.mul_(0.5).add_(turn)
                    seen[turn] = x * 10
                    turns[turn + 1].set()

        return work

    with noticed():
        threads = started(player(0), player(1))
        y = x * 3
        turns[0].set()
        turns[6].wait()
        for thread in threads:
            thread.join()
        x.sub_(1)
    return x, view, y, seen


@program(times=2, recorded=True)
@OWN
def test_futures_hold_pending_tensors_and_errors(own):
    x = torch.linspace(-1, 1, 6) * 2

    def task(i):
        with region(own):
            if i == 3:
                raise ValueError("no third task")
            y = (x * i).tanh()
            return y.view(2, 3), y.sum()

    with noticed(), ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(task, i) for i in range(5)]
        done = {futures.index(future): future for future in as_completed(futures)}
        results = []
        for i in range(5):
            try:
                y, total = done[i].result()
                results.append((y.add_(1), total))
            except ValueError as error:
                results.append(str(error))
        chained = pool.submit(lambda: results[0][0] * 2).result()
    return x, results, chained


@program(times=2, recorded=True)
@OWN
def test_workers_compute_gradients_for_one_model(own):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    tasks, results = queue.Queue(), [queue.Queue() for _ in range(2)]
    parts = torch.randn(2, 5, 3) * 2
    wishes = parts.sum(-1, keepdim=True).sin()

    def worker(index):
        with region(own):
            while tasks.get():
                loss = F.mse_loss(model(parts[index]), wishes[index])
                gradients = torch.autograd.grad(loss, list(model.parameters()))
                results[index].put((loss.detach(), gradients))
                barrier.wait()

    barrier, losses = threading.Barrier(3), []
    with noticed():
        threads = started(lambda: worker(0), lambda: worker(1))
        for _ in range(3):
            tasks.put(True)
            tasks.put(True)
            (first, a), (second, b) = (result.get() for result in results)
            for parameter, left, right in zip(model.parameters(), a, b, strict=True):
                parameter.grad = (left + right) / 2
            optimizer.step()
            losses.append(first + second)
            barrier.wait()
        tasks.put(None)
        tasks.put(None)
        for thread in threads:
            thread.join()
    return model, losses, optimizer


@program(times=2, recorded=True)
@OWN
def test_a_thread_prefetches_while_the_program_trains(own):
    ready, model, losses = queue.Queue(maxsize=2), nn.Linear(4, 2), []
    generator = torch.Generator().manual_seed(3)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)

    def load():
        with region(own):
            for step in range(6):
                x = torch.randn(5, 4, generator=generator) * (step + 1)
                ready.put((x - x.mean(), torch.arange(5) % 2))
            ready.put(None)

    with noticed():
        (thread,) = started(load)
        while (batch := ready.get()) is not None:
            loss = F.cross_entropy(model(batch[0]), batch[1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        thread.join()
    return model, losses


@program(times=2, recorded=True)
def test_tasks_of_asyncio_share_a_region_and_use_threads():
    async def produce(channel):
        for i in range(4):
            await channel.put(torch.arange(3.0) * i)
            await asyncio.sleep(0)
        await channel.put(None)

    async def consume(channel, seen):
        loop = asyncio.get_running_loop()
        while (x := await channel.get()) is not None:
            y = await loop.run_in_executor(None, lambda x=x: (x * 2).exp())
            x.add_(1)
            seen.append((y + x, x.sum()))

    async def main():
        channel, seen = asyncio.Queue(), []
        await asyncio.gather(produce(channel), consume(channel, seen))
        return seen

    return asyncio.run(main())


@program(times=2, recorded=True)
def test_thread_local_tensors_and_timers():
    local, seen, done = threading.local(), {}, threading.Event()
    local.x = torch.ones(3) * 2

    def late():
        local.x = torch.zeros(2) + 5
        seen["timer"] = local.x * base
        done.set()

    base = torch.ones(2) * 3
    timer = threading.Timer(0.01, late)
    timer.start()
    done.wait()
    timer.join()
    return local.x, seen, base


@program(times=2, recorded=True)
def test_generators_are_advanced_by_several_threads():
    def numbers():
        state = torch.ones(2)
        for i in range(6):
            state = state * 1.5 + i
            yield state

    source, seen = numbers(), []
    for _ in range(3):
        seen.append(next(source) * 2)
        (thread,) = started(lambda: seen.append(next(source) * 3))
        thread.join()
    return seen
