"""Sessions and contexts that are entered and left in every order, nested or not: rules 1 to 3, and a clean thread."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from facts import differences, facts_of
from tiers import TIERS
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


class Counting(TorchDispatchMode):
    """Counts the ops that it sees."""

    def __init__(self, log):
        super().__init__()
        self.log = log

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.log.append(str(function))
        return function(*args, **(kwargs or {}))


class Calling(TorchFunctionMode):
    """Counts the functions that it sees."""

    def __init__(self, log):
        super().__init__()
        self.log = log

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.log.append(getattr(function, "__name__", str(function)))
        return function(*args, **(kwargs or {}))


class GradSet:
    """``set_grad_enabled`` as a function, not as a context."""

    def __enter__(self):
        torch.set_grad_enabled(False)

    def __exit__(self, *error):
        torch.set_grad_enabled(True)


def profiler(log):
    return torch.autograd.profiler.profile(use_kineto=False)


def hooks(log):
    return torch.autograd.graph.saved_tensors_hooks(lambda t: t * 2, lambda t: t / 2)


CONTEXTS = {
    "inference": lambda log: torch.inference_mode(),
    "no inference": lambda log: torch.inference_mode(False),
    "no grad": lambda log: torch.no_grad(),
    "enable grad": lambda log: torch.enable_grad(),
    "grad set": lambda log: GradSet(),
    "autocast": lambda log: torch.autocast("cpu", torch.bfloat16),
    "device": lambda log: torch.device("cpu"),
    "anomaly": lambda log: torch.autograd.detect_anomaly(check_nan=False),
    "profiler": profiler,
    "hooks": hooks,
    "dispatch mode": Counting,
    "function mode": Calling,
}
NESTED = (  # eager itself fails unless these are left in order
    {"device", "function mode"},
    {"inference", "dispatch mode"},
    {"no inference", "dispatch mode"},
)
SESSION = "session"


def orders(names):
    """Yield every order in which contexts can be entered (+) and left (-)."""
    events = [(sign, name) for name in names for sign in "+-"]
    for order in itertools.permutations(events):
        at = {event: index for index, event in enumerate(order)}
        if any(at["+", name] > at["-", name] for name in names):
            continue
        crossing = any(
            {a, b} in NESTED and at["+", a] < at["+", b] < at["-", a] < at["-", b]
            for a, b in itertools.permutations(names, 2)
        )
        if not crossing:
            yield order


def work(w, results):
    """Run a few ops, and backward."""
    y = torch.ones(2, 2) * 1.5 + 0.5
    z = (y @ w).exp()
    results += [y, z]
    if z.requires_grad:
        z.sum().backward()
        results.append(w.grad.clone())


def play(order, lazily, settings):
    """Enter and leave in an order, with work in between; return what a program can tell of it."""
    import torchy

    log, results = [], []
    entered = {}
    w = torch.linspace(-1, 1, 4).reshape(2, 2).requires_grad_()
    for sign, name in order:
        if name == SESSION:
            if lazily:
                (torchy.enable(**settings) if sign == "+" else torchy.disable())
        elif sign == "+":
            entered[name] = CONTEXTS[name](log)
            entered[name].__enter__()
        else:
            entered.pop(name).__exit__(None, None, None)
        results += [torch.is_grad_enabled(), torch.is_inference_mode_enabled()]
        results.append(torch.is_autocast_enabled("cpu"))
        try:
            work(w, results)
        except RuntimeError as error:  # torch's own, where modes were left out of order
            results.append(str(error))
    results.append(log)
    w.grad = None
    before = facts_of(results, look=False)
    assert not torchy.is_pending(torch.ones(3) * 2)
    if lazily:
        assert torchy.current_session() is None
        assert "PrivateUse3" not in str(torch._C._dispatch_tls_local_include_set())
        assert "PrivateUse3" not in str(torch._C._dispatch_keys(torch.ones(3) * 2))
    return before, facts_of(results, look=True)


def on_a_new_thread(function, *arguments):
    """Run on a thread of its own: what is left out of order in eager, too, ends with the thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


def same_in_every_order(names, compile):
    """Compare with eager for each order of the contexts and a session."""
    for order in orders([SESSION, *names]):
        eager = on_a_new_thread(play, order, False, {})
        for _ in range(2):
            lazily = on_a_new_thread(play, order, True, {"compile": compile})
            found = differences(eager[0], lazily[0]) + differences(eager[1], lazily[1])
            assert not found, f"{order}: {found[:6]}"


@TIERS
@pytest.mark.parametrize("name", CONTEXTS)
def test_a_context_and_a_session_in_every_order(compile, name):
    same_in_every_order([name], compile)


ENTANGLED = {"inference", "no inference", "no grad", "enable grad"}  # the others only on demand
PAIRS = [
    pytest.param(f"{a}-{b}", marks=[] if {a, b} <= ENTANGLED else pytest.mark.slow)
    for a, b in itertools.combinations(CONTEXTS, 2)
]


@pytest.mark.parametrize("pair", PAIRS)
def test_two_contexts_and_a_session_in_every_order(pair):
    same_in_every_order(pair.split("-"), "never")
