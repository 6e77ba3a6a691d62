"""Rules 1 and 6 for two processes that work together: they train, exchange tensors, and call each other's functions."""

import contextlib
import pickle

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from facts import differences, facts_of
from replicas import replicas
from sameness import quiet
from tiers import COMPILED
from torch import nn
from torch.distributed import rpc


def in_group(rank, store, settings, function, *arguments):
    """Return what a function returns in a group of two processes, under Torchy if there are settings."""
    if settings is not None:
        import torchy

        torchy.enable(**settings)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    # What the function has made is gone before the group is. Were a model the last to let go of it, that would wait for
    # the group's threads with the GIL held, and one of those may want it: torch's own deadlock, without Torchy too.
    result = pickle.dumps(function(rank, store, *arguments))
    dist.barrier()
    dist.destroy_process_group()
    if settings is not None:
        torchy.disable()
    return pickle.loads(result)


def unlike_eager(compile, function, *arguments):
    """Return how what a function returns in two processes under Torchy differs from what it returns in eager ones."""
    expected = replicas(in_group, None, function, *arguments)
    found = replicas(in_group, {"compile": compile}, function, *arguments)
    return differences(facts_of(expected, look=True), facts_of(found, look=True))


class Net(nn.Module):
    """A network with statistics of its batches, and a layer that is used now and then."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(4, 8), nn.BatchNorm1d(8)
        self.sometimes, self.last = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x, more):
        x = self.norm(self.first(x)).relu()
        if more:
            x = x + self.sometimes(x)
        return self.last(x)


def data_parallel(rank, store, hook):
    """Train one replica of two; return what it has then."""
    torch.manual_seed(5)
    bare = Net()
    with quiet():
        model = nn.parallel.DistributedDataParallel(
            bare, find_unused_parameters=True, bucket_cap_mb=0.0002
        )
    if hook:
        from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

        model.register_comm_hook(None, default_hooks.fp16_compress_hook)
    optimizer, losses = torch.optim.AdamW(model.parameters(), 0.01), []
    torch.manual_seed(10 + rank)
    for step in range(6):
        with model.no_sync() if step % 2 == 0 else contextlib.nullcontext():
            x, y = torch.randn(6, 4) * 2, torch.randint(2, (6,))
            loss = F.cross_entropy(model(x, more=step != 3), y)
            loss.backward()
        if step % 2:
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()
            mean = loss.detach().clone()
            dist.all_reduce(mean, dist.ReduceOp.SUM)
            losses.append((loss.detach(), mean, norm))
    both = [torch.empty(8, 4) for _ in range(2)]
    dist.all_gather(both, bare.first.weight.detach())
    assert torch.equal(*both)
    return losses, bare.state_dict()


@COMPILED
@pytest.mark.parametrize("hook", [False, True])
def test_data_parallel_training_of_two_processes(compile, hook):
    assert not unlike_eager(compile, data_parallel, hook)


def sharded(rank, store):
    """Train a model of which each process holds a half, and compute with a tensor of that kind."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2,))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    fully_shard(model, mesh=mesh)
    optimizer, losses = torch.optim.AdamW(model.parameters(), 0.01), []
    torch.manual_seed(rank)
    for _ in range(3):
        loss = model(torch.randn(6, 8)).pow(2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    a = distribute_tensor(torch.arange(24.0).reshape(6, 4) * 0.1, mesh, [Shard(0)])
    b = distribute_tensor(torch.arange(12.0).reshape(4, 3) * 0.2, mesh, [Replicate()])
    c = (a @ b).sin() * 2
    whole = c.redistribute(mesh, [Replicate()])
    parameters = [parameter.full_tensor().detach() for parameter in model.parameters()]
    return losses, parameters, c.to_local(), whole.to_local(), (c + 1).sum(0).full_tensor()


@COMPILED
def test_training_of_a_model_in_two_halves(compile):
    assert not unlike_eager(compile, sharded)


def exchanges(rank, store):
    """Return what comes of all kinds of exchanges of pending tensors."""
    x, other = torch.arange(6.0) * (rank + 1), 1 - rank
    largest, first, gathered = x * 2, x * 3, [torch.empty(6) for _ in range(2)]
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    dist.broadcast(first, 0)
    dist.all_gather(gathered, x + 5)
    everything, objects = [None, None], [{"pending": x * 7}]
    dist.all_gather_object(everything, x * 8)
    dist.broadcast_object_list(objects, 0)
    half, received = torch.ones(3) * 2, torch.ones(6) + 1
    dist.scatter(half, [x[:3] * 2, x[3:] + 1] if rank == 0 else None, src=0)
    sending, receiving = dist.isend(x.cos(), other), dist.irecv(received, other)
    sending.wait()
    receiving.wait()
    later = dist.all_reduce(received, async_op=True)
    meanwhile = (x * 2 + 1).sum()
    later.wait()
    return largest + 1, first * 1, gathered, everything, objects, half + 0, received * meanwhile


@COMPILED
def test_exchanges_of_pending_tensors(compile):
    assert not unlike_eager(compile, exchanges)


HELD = []  # by the first process, for the second


def double(x):
    return x * 2


def take_held():
    return HELD[0]


def ask_for_held():
    return rpc.rpc_sync("0", take_held) + 1


@torch.jit.script
def tripled(x):
    return x * 3


def begin_calls(rank, store):
    """Let the processes call each other, until ``rpc.shutdown()``."""
    options = rpc.TensorPipeRpcBackendOptions(
        init_method=f"file://{store}.rpc", num_worker_threads=4
    )
    rpc.init_rpc(str(rank), rank=rank, world_size=2, rpc_backend_options=options)


def remote_calls(rank, store):
    """Return what comes of calls in another process, whose arguments are pending."""
    begin_calls(rank, store)
    found = []
    if rank == 0:
        for i in range(3):
            x = torch.linspace(0, 1, 6).reshape(2, 3) + i
            found.append(rpc.rpc_sync("1", torch.add, args=(x * 2, 1)))
            found.append(rpc.rpc_sync("1", double, args=((x * 3)[:, 1:],)))
            found.append(rpc.rpc_sync("1", tripled, args=(x * 4,)))
            promised = rpc.rpc_async("1", double, args=(x * 5,))
            far = [rpc.remote("1", f, args=(x * 6,)) for f in (double, torch.neg, tripled)]
            found += [promised.wait(), *(reference.to_here() for reference in far)]
            found.append(rpc.rpc_sync("0", double, args=(x * 7,)))
            HELD[:] = [x * 8]
            found.append(rpc.rpc_sync("1", ask_for_held))
    rpc.shutdown()
    return found


@COMPILED
def test_calls_in_another_process(compile):
    assert not unlike_eager(compile, remote_calls)


def gradients_across_processes(rank, store):
    """Return the gradients of a computation that goes through another process."""
    begin_calls(rank, store)
    found = []
    if rank == 0:
        w = torch.ones(3, requires_grad=True)
        for i in range(3):
            with dist.autograd.context() as context:
                there = rpc.rpc_sync("1", torch.add, args=(w * i, 1))
                back = rpc.rpc_sync("1", double, args=(there.sin(),))
                dist.autograd.backward(context, [back.sum()])
                found.append(dist.autograd.get_gradients(context)[w])
    rpc.shutdown()
    return found


@COMPILED
def test_gradients_of_calls_in_another_process(compile):
    assert not unlike_eager(compile, gradients_across_processes)
