"""Flushes that Python has seen: the walker repeats them by itself, and nobody can tell but by the clock."""

import threading

import pytest
import torch
from tiers import COMPILED, SETTLED, TIERS


def step(x, factor):
    y = (x * factor + 1).relu()
    total = y.sum() * 0.5
    return total.item(), y


@SETTLED
def test_repeated_flushes_give_the_same_values_and_tell_the_report(compile):
    import torchy

    def run():
        results = []
        for i in range(150):
            results.append(
                step(torch.arange(float(4 + i % 3)), 0.5 + i)
            )  # three sizes, new numbers
        return results

    eager = run()
    with torchy.lazy(compile=compile) as session:
        lazily = run()
        half = len(session.report.traces)
        assert session.counters["repeated"] > 100
        assert half == session.counters["flushes"]
    for (a, x), (b, y) in zip(eager, lazily, strict=True):
        assert a == b
        assert x.tolist() == y.tolist()
    traces = session.report.traces
    assert len(traces) >= half
    assert {trace.reason for trace in traces} <= {"item()", "end of the region"}
    for i, trace in enumerate(traces[3:150], 3):
        assert trace.where.line == step.__code__.co_firstlineno + 3
        assert trace.tier == {"always": "compiled", "never": "interpreted"}[compile]
        assert trace.ops[0].results[0].sizes == (4 + i % 3,)
        assert str(0.5 + i) in trace.ops[0].text


@SETTLED
def test_what_a_repeated_flush_raises_names_the_op(compile):
    import torchy

    def big(size):
        x = torch.ones(1)
        return (x * 2).expand(size) + 1  # the sum needs memory

    def program():
        with torchy.lazy(compile=compile, max_bytes=2**62) as session:
            for _ in range(20):
                big(4)[0].item()
            assert session.counters["repeated"] > 10
            big(2**50)[0].item()

    with pytest.raises(RuntimeError, match="memory") as raised:
        program()
    assert any("add" in note and "recorded at" in note for note in raised.value.__notes__)


@SETTLED
def test_settings_that_change_are_not_overlooked(compile):
    import torchy

    def run():
        return [step(torch.ones(5), i)[0] for i in range(20)]

    eager = run()
    with torchy.lazy(compile=compile) as session:
        assert run() == eager
        with torchy.lazy(compile="never" if compile == "always" else "always"):
            assert run() == eager
            inner = session.report.traces[-1].tier
        assert run() == eager
    outer = session.report.traces[-1].tier
    assert {inner, outer} == {"compiled", "interpreted"}


@TIERS
def test_what_is_live_at_a_repeated_flush_counts(compile):
    import torchy

    def run():
        kept, seen = [], []
        for i in range(60):
            y = torch.full((7,), float(i)) * 2
            z = y + 1
            if i % 3 == 0:
                kept.append(y)
            if i % 4 == 0:
                del y
            seen.append(z.sum().item())
        return seen, [y.tolist() for y in kept]

    eager = run()
    with torchy.lazy(compile=compile):
        assert run() == eager


@TIERS
def test_threads_that_repeat_the_same_flush(compile):
    import torchy

    expected = [step(torch.arange(6.0), i)[0] for i in range(300)]
    results = {}

    def work(name):
        with torchy.lazy(compile=compile):
            results[name] = [step(torch.arange(6.0), i)[0] for i in range(300)]

    work("first")
    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(result == expected for result in results.values())


@COMPILED
def test_a_signal_in_a_long_repeated_flush_is_handled_soon(compile):
    import signal
    import time

    import torchy

    x = torch.rand(600, 600)

    def long(rounds):
        y = x
        for _ in range(rounds):
            y = y @ x * 1e-3
        return y.sum().item()

    with torchy.lazy(compile=compile, max_ops=10_000, max_bytes=2**40):
        for _ in range(4):
            expected = long(120)
        struck = []
        signal.signal(signal.SIGALRM, lambda *_: struck.append(time.perf_counter()))
        y = x
        for _ in range(120):
            y = y @ x * 1e-3
        begin = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, 0.03)
        assert y.sum().item() == expected
        took = time.perf_counter() - begin
    assert struck
    assert struck[0] - begin < max(0.6 * took, 0.1)
