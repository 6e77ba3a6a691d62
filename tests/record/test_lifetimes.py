"""What the program drops clears its slot: nothing is computed for it, and nothing is kept that eager would let go of."""

import gc
import weakref

import pytest
import torch
from recording import begun, counters, integers, log, the_walker

import torchy

CREATED, WRITTEN, LIVE = 1, 2, 4


def use_count(tensor):
    """Tell how many tensors hold a storage."""
    storage = tensor.untyped_storage()
    return torch._C._storage_Use_Count(storage._cdata) - 1  # without this one


def flags(session):
    with begun(session) as record:
        return list(record.flags)


def test_a_result_that_is_dropped_clears_its_slot():
    x = torch.randn(4)
    with torchy.lazy(compile="never") as session:
        y, z = x * 2, x + 1
        w = z.exp()
        del y, z
        assert flags(session) == [LIVE, CREATED, CREATED, CREATED | LIVE]
    del w


def test_nothing_is_computed_for_what_is_dropped():
    x = torch.randn(4)
    with torchy.lazy(compile="never") as session:
        y = (x * 2).exp().sin()
        z = x + 1
        del y
        torchy.flush()
        (record,) = log(session)
    assert [time > 0 for time in integers(record.times)] == [False, False, False, True]
    del z


def test_what_is_dropped_is_computed_if_it_shall_be_or_is_needed():
    x = torch.randn(4)
    with torchy.lazy(compile="never", skip_dead=False) as session:
        (x * 2).exp()
        torchy.flush()
        (record,) = log(session)
    assert all(time > 0 for time in integers(record.times))
    with torchy.lazy(compile="never") as session:
        y = (x * 2).exp()
        torchy.flush()
        (record,) = log(session)
    assert all(time > 0 for time in integers(record.times))
    del y


def test_dead_ops_are_told():
    x = torch.randn(4)
    with torchy.lazy(compile="never") as session:
        y, z = x * 2, x + 1
        del y
        torchy.flush()
    (trace,) = session.report.traces
    assert [op.dead for op in trace.ops] == [True, False]
    assert session.report.totals.dead == 1
    del z


def test_a_slot_lives_as_long_as_a_view_of_it():
    x = torch.randn(4)
    for drop in (False, True):
        with torchy.lazy(compile="never") as session:
            y = x * 2
            view = y[1:].view(-1)
            del y
            if drop:
                del view
            assert flags(session) == [LIVE, CREATED | LIVE * (not drop)]


def test_a_slot_lives_as_long_as_the_graph_that_saves_it():
    w = torch.randn(4, requires_grad=True)
    with torchy.lazy(compile="never") as session:
        y = w.exp()
        z = y * 2
        del y  # exp's own gradient needs it
        assert flags(session) == [LIVE, CREATED | LIVE, CREATED | LIVE]
    z.sum().backward()
    assert torch.equal(w.grad, 2 * w.detach().exp())


def test_an_input_that_is_dropped_is_not_live_and_what_read_it_is_right():
    x = torch.arange(4.0)
    with torchy.lazy(compile="never") as session:
        y = x + 1
        reference = weakref.ref(x)
        storage = the_walker().storage(x)
        del x
        assert reference() is None
        taken = [torch.full((4,), -1.0) for _ in range(50)]  # which may lie where it lay
        assert flags(session) == [0, CREATED | LIVE]
        assert y.tolist() == [1, 2, 3, 4]
        assert storage is not None
    del taken


def test_a_write_to_an_input_that_is_dropped_is_not_made():
    x, y = torch.zeros(4), torch.zeros(4)
    with torchy.lazy(compile="never") as session:
        x.add_(1)
        y.add_(1)
        del x
        torchy.flush()
        (record,) = log(session)
    assert list(record.origin.flags) == [WRITTEN, WRITTEN | LIVE]
    assert [time > 0 for time in integers(record.times)] == [False, True]
    assert y.tolist() == [1] * 4


def test_storages_are_used_as_often_as_in_eager():
    def counts():
        x = torch.randn(4)
        y = x * 2
        view = y[1:]
        z = y.detach()
        x.add_(y)
        counted = [(use_count(t), t._version) for t in (x, y, view, z)]
        del view
        return [*counted, use_count(y)]

    eager = counts()
    with torchy.lazy(compile="never") as session:
        assert counts() == eager
        assert counters(session).recorded == 2


def test_weak_references_to_pending_tensors_die_at_once():
    x = torch.randn(4)
    with torchy.lazy(compile="never") as session:
        y = x * 2
        reference, died = weakref.ref(y), []
        weakref.finalize(y, died.append, "died")
        z = y + 1
        assert reference() is y and not died
        del y
        assert reference() is None and died == ["died"]
        assert torchy.is_pending(z) and counters(session).flushes == 0


def test_the_walker_holds_no_tensor_when_a_flush_has_ended():
    x = torch.randn(4)
    with torchy.lazy(compile="never"):
        y = x * 2
        view, z = y[1:], x.mul_(3)
        torchy.flush()
        references = [weakref.ref(tensor) for tensor in (x, y, view, z)]
        del x, y, view, z
        assert [reference() for reference in references] == [None] * 4


def test_tensors_carry_the_bit_while_they_are_pending():
    def carries(tensor):
        return torch._C._dispatch_keys(tensor).has(torch._C.DispatchKey.PrivateUse3)

    x, other = torch.zeros(4), torch.zeros(4)
    with torchy.lazy(compile="never"):
        y = x + other
        view, empty = y[1:], torch.empty_like(y)
        x.add_(1)
        assert [carries(t) for t in (x, y, view, other, empty)] == [True] * 3 + [False] * 2
        torchy.flush()
        assert not any(carries(t) for t in (x, y, view, other, empty))


def test_pending_is_what_owes_values():
    walker = the_walker()
    x, other = torch.zeros(4), torch.zeros(4)
    with torchy.lazy(compile="never") as session:
        y = x + other
        x.add_(1)
        storage = {name: walker.storage(t) for name, t in (("x", x), ("y", y), ("other", other))}
        assert [torchy.is_pending(t) for t in (x, y, y[1:], other)] == [True] * 3 + [False]
        for name, read in (("x", True), ("y", True), ("other", False)):
            assert walker.storage_owing(storage[name], written=False) == [session.id] * read
            assert walker.storage_owing(storage[name], written=True) == [session.id]
        torchy.flush()
        for name in storage:
            assert walker.storage_owing(storage[name], written=True) == []


def test_a_tensor_that_is_dropped_on_another_thread_clears_its_slot():
    from concurrent.futures import ThreadPoolExecutor

    x = torch.randn(4)
    with torchy.lazy(compile="never") as session:
        kept = [x * 2, x + 1]
        with ThreadPoolExecutor(1) as pool:
            pool.submit(kept.pop).result()
        assert flags(session) == [LIVE, CREATED | LIVE, CREATED]


@pytest.mark.parametrize("flushed", [False, True])
def test_a_session_that_nobody_holds_is_forgotten_once_it_owes_nothing(flushed):
    walker = the_walker()
    x = torch.randn(4)
    handle = walker.open(10**6, 0, 1024, 1 << 24, False, False, -1)
    walker.set(handle, 0, True, True, False, False, False)
    walker.record_into(handle)
    y = x * 2
    walker.record_no_more()
    if flushed:
        assert walker.flush(handle, "by hand") == 1
    del handle
    gc.collect()
    assert walker.library.torchy_begin(10**6) == (0 if flushed else 1)
    assert walker.library.torchy_forget(-1) == flushed  # as if there were no session
    assert torchy.is_pending(y) != flushed
