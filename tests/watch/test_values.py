"""Values of the past have eager's bits: what a dispatch mode sees while eager runs is what recomputing gives."""

from __future__ import annotations

import contextlib
import random
import threading

import pytest
import torch
from remembered import PROGRAMS
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import torchy

KEEP = "256MiB"


class Log(TorchDispatchMode):
    """Notes what each op gives, in order."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        values = [
            leaf.detach().clone() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)
        ]
        self.seen.append((str(func), values))
        return result


def same_bits(one, other):
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and one.contiguous()
        .view(-1)
        .view(torch.uint8)
        .equal(other.contiguous().view(-1).view(torch.uint8))
    )


def run_kept(program, **settings):
    with torchy.lazy(keep=KEEP, **settings) as session:
        program()
    assert not [event for event in session.report.events if "failed" in event.kind]
    return session


def values_in_order(session):
    """Yield the names and values of all ops that were recorded, in the order of the program."""
    executions = {}
    for record in session.report.traces:
        key = tuple((op.name, op.file, op.line) for op in record.ops)
        step = executions.get(key, 0)
        executions[key] = step + 1
        for op in record.ops:
            yield op.name, session.value(op.index, step, record.number)


@pytest.mark.parametrize(
    "compile", ["always", "auto", pytest.param("never", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_every_op_gives_what_eager_gave(program, compile):
    with Log() as log:
        program()
    session = run_kept(program, compile=compile)
    eager = iter(log.seen)
    compared = 0
    for name, value in values_in_order(session):
        wanted = name.replace("::", ".", 1)
        if "." not in wanted.partition(".")[2]:
            wanted += ".default"
        seen = next((values for other, values in eager if other == wanted), None)
        assert seen is not None, f"{name} is not in eager's log, after {compared} ops"
        assert any(same_bits(value, each) for each in seen), (name, compared)
        compared += 1
    assert compared >= 4


def test_a_value_that_was_fused_away_dead_and_overwritten():
    x = torch.linspace(0, 1, 100)
    with torchy.lazy(keep=KEEP) as session:
        y = x + 1
        z = y * 2
        y.mul_(0)
        w = z.exp() + y
        del z, y
        w.sum().item()
        x.zero_()
    names = [op.short for op in session.report.traces[0].ops]
    value = session.value(names.index("mul"), trace=0)
    assert same_bits(value, (torch.linspace(0, 1, 100) + 1) * 2)
    assert same_bits(session.value("%0", trace=0), torch.linspace(0, 1, 100))
    assert same_bits(session.value(names.index("mul_"), trace=0), torch.zeros(100))


def test_questions_that_have_no_answer_or_several():
    x = torch.ones(10)
    with torchy.lazy(keep=KEEP) as session:
        for _ in range(3):
            x.mul_(2).mul_(3)
            x.sum().item()
        (x + 1).max().item()
    steps = [r.number for r in session.report.traces]
    with pytest.raises(ValueError, match=r"%0 is in 2 traces; say which: trace=0"):
        session.value("%0")
    with pytest.raises(
        ValueError, match=r"%0 is written by several ops; say which, by its index: 0 \(mul_"
    ):
        session.value("%0", trace=1)
    with pytest.raises(ValueError, match=r"op 0 was computed 3 times: say which, step=0 to step=2"):
        session.value(0, trace=1)
    with pytest.raises(ValueError, match=r"there is no 3, numbers are 0 to 2"):
        session.value(0, 3, trace=1)
    with pytest.raises(ValueError, match=r"there is no '%77'"):
        session.value("%77", 0, trace=1)
    with pytest.raises(ValueError, match=r"there is no trace 99: kept are traces 0 to 3"):
        session.value(0, 0, trace=99)
    with pytest.raises(TypeError, match="a name as in the listing"):
        session.value(1.5, 0, trace=0)
    assert steps == [0, 1, 2, 3]
    assert session.value(1, 2, trace=1).tolist() == [6.0**3] * 10
    with torchy.lazy() as other:
        (x + 1).sum().item()
    with pytest.raises(RuntimeError, match="no value was kept: record with"):
        other.value(0)


def test_what_is_dropped_is_told_and_what_is_kept_is_right():
    x = torch.zeros(1 << 18)  # a MiB
    with torchy.lazy(keep="8MiB") as session:
        for step in range(40):
            y = torch.full((1 << 18,), float(step)) * 2  # full runs now: data that is new each time
            x = x + y
            x[0].item()
    traces = session.report.traces
    number = traces[10].number
    *_, last = [step for step in range(40) if _answers(session, number, step)]
    assert last >= 30 and _answers(session, number, last - 1)
    with pytest.raises(torchy.NotKept, match=r"step 9: .*dropped for keep=8.0 MiB; kept are steps"):
        session.value(0, 9, number)


def _answers(session, trace, step):
    try:
        value = session.value(0, step, trace)
    except (torchy.NotKept, ValueError):
        return False
    numbers = {float(value[0]), float(value[-1])}
    assert len(numbers) == 1 and numbers.pop() % 2 == 0
    return True


def test_checkpoints_bound_how_much_runs_again():
    random.seed(0)
    x = torch.ones(1000)
    with torchy.lazy(keep="64MiB") as session:
        for _ in range(300):
            x = x * 1.001 + 0.5
            x[0].item()
    traces = session.report.traces
    expected = torch.ones(1000)
    values = []
    for _ in range(300):
        expected = expected * 1.001
        values.append(expected)
        expected = expected + 0.5
    number = traces[200].number
    ops = [op.short for op in traces[200].ops]
    offset = 300 - sum(len(t.ops) == len(ops) for t in traces)
    for step in (0, 17, 150, 290):
        assert same_bits(session.value(ops.index("mul"), step, number), values[step + offset])


def test_a_replay_that_differs_answers_nothing(monkeypatch):
    x = torch.linspace(0, 1, 50)
    with torchy.lazy(keep=KEEP) as session:
        y = x.exp() * 2
        y.sum().item()
    store = session.watch._store
    digest = store._digest
    monkeypatch.setattr(store, "_digest", lambda *at: digest(*at)[::-1])
    with pytest.raises(torchy.NotKept, match="gives other bits when it runs again"):
        session.value(0)


def test_fast_numerics_tell_that_they_are_not_eagers():
    x = torch.linspace(0, 1, 4096).view(64, 64)
    with torchy.lazy(keep=KEEP, numerics="fast", compile="always") as session:
        y = torch.softmax(x * 3, 0).log()
        y.sum().item()
    with contextlib.suppress(torchy.NotKept):  # the bits may be eager's
        assert same_bits(session.value(0), x * 3)


def test_nothing_is_kept_where_it_was_not_asked_for():
    x = torch.ones(4)
    with torchy.lazy() as session:
        (x + 1).sum().item()
        with torchy.lazy(keep="1MiB"):
            (x + 2).sum().item()
        (x + 3).sum().item()
    numbers = [r.number for r in session.report.traces if _answers_with(session, r.number)]
    assert len(numbers) == 1


def _answers_with(session, trace):
    try:
        return session.value(0, 0, trace).tolist() == [3.0] * 4
    except ValueError:
        return False


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("256MiB", 256 << 20),
        ("1.5 GB", 1_500_000_000),
        ("64M", 64 << 20),
        ("10kB", 10_000),
        ("7", 7),
        (12, 12),
    ],
)
def test_sizes_are_read(text, count):
    assert torchy.Settings.of(keep=text).keep == count


@pytest.mark.parametrize("size", ["lots", "-3", -3, 1.5, True, "3 MiBs", ""])
def test_what_is_no_size_is_told(size):
    with pytest.raises(ValueError, match="a size is a number of bytes"):
        torchy.Settings.of(keep=size)


def test_memory_is_bounded_over_many_flushes():
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    with torchy.lazy(keep="16MiB") as session:
        x = torch.randn(100_000)
        sizes = []
        for turn in range(700):
            x = (x * 1.0001).sin() + torch.randn(100_000)
            x.sum().item()
            if turn in (100, 699):
                sizes.append(resident())
    assert sizes[1] - sizes[0] < 100 << 20  # 600 inputs of 0.4 MB would be 240
    kept = [flush for flush in session.watch.keeper.flushes if flush.alive]
    assert 0 < len(kept) < 60


def test_less_to_keep_is_kept_less_at_once():
    x = torch.ones(1 << 18)
    with torchy.lazy(keep="64MiB") as session:
        for turn in range(20):
            (x + torch.full((1 << 18,), float(turn))).sum().item()
    before = sum(flush.alive for flush in session.watch.keeper.flushes)
    with torchy.lazy(keep="4MiB"):
        (x + 1).sum().item()
    assert sum(flush.alive for flush in session.watch.keeper.flushes) < before


def test_values_are_told_to_several_threads():
    with torchy.lazy(keep=KEEP) as session:
        x = torch.linspace(0, 1, 1000)
        for _ in range(10):
            x = (x * 1.5).sin()
            x.sum().item()
    number = session.report.traces[-1].number
    steps = sum(r.listing.count("sin") for r in session.report.traces)
    expected = [session.value(1, step, number) for step in range(5)]
    found = {}

    def ask(step):
        found[step] = session.value(1, step % 5, number)

    threads = [threading.Thread(target=ask, args=(step,)) for step in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert steps >= 10
    assert all(same_bits(found[step], expected[step % 5]) for step in range(20))
