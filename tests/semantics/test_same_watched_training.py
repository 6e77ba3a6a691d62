"""Rules 4 and 6, training that others look at and write to meanwhile: each sees what eager would have shown it then."""

import os
import queue
import threading

import pytest
import torch
from sameness import program
from tiers import TIERS
from torch import nn

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "sgd_fused": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
    "sgd_foreach": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, foreach=False),
    "adam_foreach": lambda p: torch.optim.Adam(p, lr=0.1, foreach=True),
    "adamw_fused": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
}
EACH = pytest.mark.parametrize("optimizer", OPTIMIZERS)


class Helper:
    """A thread, older than the ops, that runs what it is given; each call waits for it."""

    def __init__(self):
        self.tasks, self.results = queue.Queue(), queue.Queue()
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self):
        while (task := self.tasks.get()) is not None:
            self.results.put(task())

    def __call__(self, task):
        self.tasks.put(task)
        return self.results.get()

    def end(self):
        self.tasks.put(None)
        self.thread.join()


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2))


def batch(step):
    return torch.linspace(-1, 1, 24).reshape(4, 6) * (step + 1)


@program(slow=("never",))
@EACH
def test_a_thread_reads_all_parameters_after_each_step(optimizer):
    model, helper, seen = network(), Helper(), []
    stepper = OPTIMIZERS[optimizer](model.parameters())
    for step in range(4):
        stepper.zero_grad()
        model(batch(step)).square().mean().backward()
        seen.append(helper(lambda: [p.grad.tolist() for p in model.parameters()]))
        stepper.step()
        seen.append(helper(lambda: [p.tolist() for p in model.parameters()]))
    helper.end()
    return seen, model, stepper


@program(slow=("never",))
@EACH
def test_a_thread_writes_gradients_between_backward_and_step(optimizer):
    model, helper = network(), Helper()
    stepper = OPTIMIZERS[optimizer](model.parameters())

    def clip():
        with torch.no_grad():
            for p in model.parameters():
                p.grad.clamp_(-0.01, 0.01)

    for step in range(4):
        stepper.zero_grad(set_to_none=False)
        model(batch(step)).square().mean().backward()
        helper(clip)
        stepper.step()
    helper.end()
    return model, stepper


@program(slow=("never",))
@EACH
def test_a_thread_writes_parameters_between_steps(optimizer):
    model, helper = network(), Helper()
    stepper = OPTIMIZERS[optimizer](model.parameters())
    first = {name: value.clone() for name, value in model.state_dict().items()}

    def blend():
        with torch.no_grad():
            for name, value in model.state_dict().items():
                if value.is_floating_point():
                    value.lerp_(first[name], 0.5)

    for step in range(4):
        stepper.zero_grad()
        model(batch(step)).square().mean().backward()
        stepper.step()
        helper(blend)
    helper.end()
    return model, first, stepper


@program(slow=("never",))
@EACH
def test_numpy_views_of_parameters_see_each_step(optimizer):
    model = network()
    stepper = OPTIMIZERS[optimizer](model.parameters())
    views = [p.detach().numpy() for p in model.parameters()]
    seen = []
    for step in range(3):
        stepper.zero_grad()
        model(batch(step)).square().mean().backward()
        stepper.step()
        seen.append([view.copy() for view in views])
        views[0][0] = step
    return seen, model


@program(slow=("never",))
@EACH
def test_forked_children_read_a_shared_model_after_each_step(optimizer):
    model = network().share_memory()
    stepper = OPTIMIZERS[optimizer](model.parameters())
    seen = []
    for step in range(3):
        stepper.zero_grad()
        model(batch(step)).square().mean().backward()
        stepper.step()
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(write, repr(model[0].weight.tolist()).encode())
                with torch.no_grad():
                    model[3].bias.add_(1)
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read) as stream:
            seen.append(stream.read())
        os.waitpid(child, 0)
    return seen, [p.detach() + 0 for p in model.parameters()]


@program
def test_a_thread_reads_running_statistics_and_averaged_weights():
    model, helper, seen = network(), Helper(), []
    averaged = torch.optim.swa_utils.AveragedModel(model)
    stepper = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(4):
        stepper.zero_grad()
        model(batch(step)).square().mean().backward()
        stepper.step()
        averaged.update_parameters(model)
        seen.append(helper(lambda: [b.tolist() for b in model.buffers()]))
        seen.append(helper(lambda: [p.sum().item() for p in averaged.parameters()]))
    helper.end()
    return seen, model, averaged


@TIERS
@EACH
def test_a_thread_that_reads_all_the_time_sees_whole_steps_only(optimizer, compile):
    """A lock keeps eager's reads whole, too: no step is under way while the thread reads."""
    import torchy

    steps, size = 25, 30_000

    def train(session, watching):
        parameter = torch.ones(size, requires_grad=True)
        stepper = OPTIMIZERS[optimizer]([parameter])
        lock, done, values = threading.Lock(), threading.Event(), []

        def watch():
            while not done.is_set():
                with lock:
                    least, most = parameter.amin().item(), parameter.amax().item()
                assert least == most
                values.append(least)

        thread = threading.Thread(target=watch)
        kept = []
        if watching:
            thread.start()
        try:
            with session:
                for _ in range(steps):
                    with lock:
                        parameter.grad = torch.ones(size) * 0.5
                        stepper.step()
                        if not watching:
                            kept.append(parameter[0].item())
        finally:
            done.set()
            if watching:
                thread.join()
        return kept, values, parameter[7].item()

    expected, _, last = train(torch.enable_grad(), watching=False)
    _, values, reached = train(torchy.lazy(compile=compile), watching=True)
    assert reached == last
    order = [1.0, *expected]
    places = [order.index(value) for value in values]  # a value that no step left raises
    assert places == sorted(places)
