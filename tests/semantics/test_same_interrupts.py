"""Rule 7, nothing is lost: after exceptions, interrupts and failed flushes everything is there that eager would have."""

import signal
import sys
import threading

import pytest
import torch
from sameness import program
from tiers import COMPILED, TIERS


@program
def test_an_exception_leaves_everything_computed(kept):
    x = torch.arange(4.0)
    kept += [x, x * 2, (x + 1).exp()]
    x.add_(10)
    kept[1].mul_(3)
    raise RuntimeError("the program's own")


@program
def test_a_keyboard_interrupt_in_mid_cell(kept):
    x = torch.arange(4.0)
    kept += [x, x * 2]
    x[1:].add_(1)
    signal.raise_signal(signal.SIGINT)
    for _ in range(100):
        x.add_(1)


@program
def test_system_exit_and_generator_exit(kept):
    def steps(x):
        try:
            while True:
                x = x * 2
                yield x
        finally:
            kept.append(x + 1)

    source = steps(torch.ones(3))
    kept += [next(source), next(source)]
    source.close()
    raise SystemExit(3)


@program
def test_an_error_in_the_midst_of_a_chain_of_handlers(kept):
    x = torch.ones(3)
    for i in range(5):
        try:
            x = x + i
            if i % 2:
                x = x + torch.ones(4 + i)
        except RuntimeError as error:
            kept.append(str(error))
            x = x * 2
        finally:
            kept.append(x + 0)
    return x


@program
def test_an_exception_with_its_context_and_cause(kept):
    x = torch.ones(3) * 2
    try:
        x @ torch.ones(4, 4)
    except RuntimeError as error:
        kept.append(x + 1)
        raise ValueError("shape") from error


@program
def test_finalizers_and_context_managers_look_at_values(kept):
    class Manager:
        def __enter__(self):
            self.x = torch.ones(3) * 2
            return self.x

        def __exit__(self, *error):
            kept.append(self.x.sum().item())
            self.x.zero_()
            return True

    with Manager() as x:
        x.add_(1)
        y = x * 2
        raise KeyError
    return x, y


@TIERS
def test_work_goes_on_after_an_exception_left_the_session(compile):
    import torchy

    x = torch.arange(5.0)
    with pytest.raises(ZeroDivisionError), torchy.lazy(compile=compile):  # noqa: PT012
        y = x * 2
        z = y + 1
        y.add_(1)
        1 / 0  # noqa: B018
    assert not any(map(torchy.is_pending, (x, y, z)))
    assert y.tolist() == [1, 3, 5, 7, 9]
    assert z.tolist() == [1, 3, 5, 7, 9]
    with torchy.lazy(compile=compile):
        y.add_(z)
    assert y.tolist() == [2, 6, 10, 14, 18]


class Alarm(Exception):  # noqa: N818
    """Raised by a signal handler."""


@COMPILED
@pytest.mark.parametrize("look", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_interrupts_at_any_time_leave_a_state_that_eager_could_have(compile, look, seed):
    """Whatever op or flush a signal falls into, the count and the values agree to within one step."""
    import random

    import torchy

    def ring(number, frame):
        raise Alarm

    swallowed = []  # Python drops what is raised within a finalizer, such as LLVM's
    sys.unraisablehook = lambda lost: swallowed.append(lost.exc_type)
    generator = random.Random(seed)
    signal.signal(signal.SIGALRM, ring)
    for _ in range(16):
        x, count = torch.zeros(2000, dtype=torch.float64), 0
        total = x + 0
        try:
            with torchy.lazy(compile=compile):
                signal.setitimer(signal.ITIMER_REAL, generator.uniform(1e-4, 0.02))
                while count < 20_000:
                    x.add_(1)
                    total = total + x
                    count += 1
                    if look and count % 7 == 0:
                        assert total[0].item() == count * (count + 1) / 2
            assert swallowed.pop() is Alarm, "the interrupt was lost"
        except Alarm:
            pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        steps = int(x[0].item())
        assert (x == steps).all()
        assert steps in (count, count + 1)
        done = {n * (n + 1) / 2 for n in (count, count + 1)}
        assert total[0].item() in done
        assert (total == total[0]).all()
    with torchy.lazy(compile=compile):
        assert (torch.ones(3) * 2).tolist() == [2, 2, 2]


@COMPILED
def test_an_interrupt_during_a_long_flush(compile):
    import torchy

    def ring(number, frame):
        raise Alarm

    signal.signal(signal.SIGALRM, ring)
    x = torch.linspace(0, 1, 3_000_000)
    for delay in [0.002, 0.01, 0.03, 0.1]:
        results = []
        try:
            with torchy.lazy(compile=compile):
                y = x
                for _ in range(20):
                    y = (y * 1.5 + 0.1).tanh()
                    results.append(y)
                signal.setitimer(signal.ITIMER_REAL, delay)
                results[-1].sum().item()
                signal.pause()
        except Alarm:
            pass
        y = x
        for i in range(20):
            y = (y * 1.5 + 0.1).tanh()
            assert torch.equal(results[i], y)


@program
def test_signal_handlers_that_run_torch_code():
    seen = []

    def ring(number, frame):
        seen.append((torch.ones(3) * 2).sum().item())

    signal.signal(signal.SIGUSR1, ring)
    x = torch.zeros(4)
    for i in range(20):
        x.add_(1)
        if i % 5 == 0:
            signal.raise_signal(signal.SIGUSR1)
            y = x * 2
    return x, y, seen


@TIERS
def test_signals_that_fall_into_flushes(compile):
    import torchy

    counts, busy = [], []
    x = torch.zeros(500)

    def ring(number, frame):
        if not busy:  # handlers nest
            busy.append(number)
            counts.append(float((torch.ones(10) * len(counts)).sum()))
            busy.clear()

    signal.signal(signal.SIGALRM, ring)
    with torchy.lazy(compile=compile):
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        for i in range(300):
            x.add_(1)
            y = (x * 2).tanh()
            if i % 10 == 0:
                assert y[3].item() == torch.tensor(2.0 * (i + 1)).tanh().item()
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert (x == 300).all()
    assert counts == [10.0 * i for i in range(len(counts))]


@program
def test_recursion_errors():
    def deep(x, n):
        return deep(x * 1.0001, n + 1) if n < 10_000 else x

    x = torch.ones(3) * 2
    try:
        deep(x, 0)
    except RecursionError:
        y = x + 1
    return x, y


@program
def test_memory_errors():
    x = torch.ones(3) * 2
    try:
        torch.ones(2**45).add(1)
    except RuntimeError as error:
        seen = type(error).__name__
    return x + 1, seen


@program
def test_threads_that_fail():
    x, seen = torch.ones(3) * 2, []

    def work():
        try:
            (x + 1) @ torch.ones(4, 4)
        except RuntimeError as error:
            seen.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return x, seen
