"""What recording and flushing cost against running the ops at once: prints a line of JSON.

One thread, small operands, eager and Torchy by turns; places are known, flushes are repeated. Ratios are medians of the
rounds' own ratios, so that a noisy moment hits both sides.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F

import torchy
from benchmarks.chains import chain, look, operands

Body = Callable[[], object]

OPS = 50  # in one trace
ROUNDS = 61
SMALL = 16  # elements

# what is done over and over in a loop of its own; `c` is what the last op gave
SCHEMAS: Mapping[str, str] = {
    "c + b": "c = c + b",
    "c - b": "c = c - b",
    "c * b": "c = c * b",
    "c / b": "c = c / b",
    "maximum": "c = torch.maximum(c, b)",
    "tanh": "c = c.tanh()",
    "exp": "c = torch.exp(c)",
    "relu": "c = c.relu()",
    "neg": "c = -c",
    "sigmoid": "c = c.sigmoid()",
    "c * 2.0": "c = c * 2.0",
    "c + 1": "c = c + 1",
    "c ** 2": "c = c ** 2",
    "c < b": "d = c < b",
    "where": "c = torch.where(m, c, b)",
    "sum": "d = b.sum()",
    "mean(0)": "d = q.mean(0)",
    "addmm": "d = torch.addmm(b4, q, q)",
    "mm": "d = q @ q",
    "c.add_(b)": "e.add_(b)",
    "c.mul_(2.0)": "e.mul_(0.5)",
    "copy_": "e.copy_(b)",
    "fill_": "e.fill_(2.0)",
    "a view: q.t() + q": "d = q.t() + q",
    "grad: w * b": "d = w * b",
    "grad: c * w": "c = c * w",
    "grad: tanh": "c = (c * w).tanh()",
}


def body_of(statement: str) -> Body:
    """Return a function that runs a statement so many times on small tensors, and drops all but the last result."""
    lines = (
        f"def run():\n    c = a\n    for _ in range({OPS}):\n        {statement}\n    return c\n"
    )
    names: dict[str, Any] = {
        "torch": torch,
        "a": torch.rand(SMALL),
        "b": torch.rand(SMALL),
        "e": torch.rand(SMALL),
        "w": torch.rand(SMALL, requires_grad=True),
        "q": torch.rand(4, 4),
        "b4": torch.rand(4),
        "m": torch.rand(SMALL) > 0.5,
    }
    exec(compile(lines, f"<{statement}>", "exec"), names)
    run: Body = names["run"]
    return run


def foreach_bodies() -> dict[str, Body]:
    """Return what runs one op on a list of tensors."""
    left, right = ([torch.rand(SMALL) for _ in range(OPS)] for _ in range(2))
    return {
        "_foreach_mul, a number": lambda: torch._foreach_mul(left, 2.0),
        "_foreach_add, a list": lambda: torch._foreach_add(left, right),
        "_foreach_add_": lambda: torch._foreach_add_(left, right),
    }


def awake() -> AbstractContextManager[Any]:
    """Return a region that records whether that pays or not."""
    return torchy.lazy(compile="always")


def timed(body: Body) -> float:
    """Return the seconds that one call takes."""
    start = time.perf_counter()
    body()
    return time.perf_counter() - start


def recorded(body: Body) -> float:
    """Return the seconds that recording takes, flush left out."""
    with awake():
        seconds = timed(body)
        torchy.flush()
    return seconds


def with_flush(body: Body) -> float:
    """Return the seconds that recording and flushing take."""
    with awake():
        start = time.perf_counter()
        kept = body()
        torchy.flush()
        seconds = time.perf_counter() - start
        del kept
    return seconds


def settle(body: Body) -> None:
    """Run until flushes are repeated: planned once it pays, by kernels compiled in the background."""
    for _ in range(2000):
        with awake() as session:
            for _ in range(5):
                body()
            if session.counters["repeated"] >= 5:
                return
        time.sleep(0.001)
    raise RuntimeError("Its flushes are not repeated.")


def against(eager: Callable[[], float], torchy_: Callable[[], float], per: int) -> dict[str, float]:
    """Time two ways by turns; nanoseconds ``per`` op, and Torchy's share of eager's time."""
    for _ in range(8):
        eager()
        torchy_()
    pairs = [(eager(), torchy_()) for _ in range(ROUNDS)]
    return {
        "eager_ns": 1e9 * median(e for e, _ in pairs) / per,
        "torchy_ns": 1e9 * median(t for _, t in pairs) / per,
        "share": median(t / e for e, t in pairs),
    }


def schemas() -> dict[str, dict[str, float]]:
    """Return what recording an op costs, by schema."""
    bodies = {name: body_of(statement) for name, statement in SCHEMAS.items()} | foreach_bodies()
    found = {}
    for name, body in bodies.items():
        ops = 2 * OPS if "tanh" in name and "grad" in name else OPS
        found[name] = against(lambda b=body: timed(b), lambda b=body: recorded(b), ops)  # type: ignore[misc]
    return found


def traces() -> dict[str, dict[str, float]]:
    """Return what recording and a repeated flush cost together, per op."""
    a, b = torch.rand(SMALL), torch.rand(SMALL)

    def chained(count: int) -> torch.Tensor:
        c = a
        for _ in range(count):
            c = c + b
        return c

    def alive(count: int) -> list[torch.Tensor]:
        return [a + b for _ in range(count)]

    bodies: dict[str, tuple[Body, int]] = {
        "20 ops, one result": (lambda: chained(20), 20),
        "20 ops, all live": (lambda: alive(20), 20),
        "100 ops, one result": (lambda: chained(100), 100),
        "2 ops, one result": (lambda: chained(2), 2),
    }
    found = {}
    for name, (body, ops) in bodies.items():
        settle(lambda b=body: with_flush(b))  # type: ignore[misc]
        found[name] = against(lambda b=body: timed(b), lambda b=body: with_flush(b), ops)  # type: ignore[misc]
    for length in (8, 16, 32):
        run, inputs = chain(length), operands(100)
        call = lambda: look(run(*inputs))  # noqa: B023, E731

        def lazily(body: Body = call) -> float:
            with awake():
                return sum(timed(body) for _ in range(5))

        settle(call)
        lazily()
        found[f"chain of {length}, 100 x 100, item()"] = against(
            lambda c=call: sum(timed(c) for _ in range(5)),  # type: ignore[misc]
            lazily,
            5 * length,
        )
    return found


def sessions() -> dict[str, float]:
    """Return what regions and empty flushes take, in microseconds."""
    a = torch.rand(SMALL)

    def enter_and_leave() -> None:
        with torchy.lazy():
            pass

    def item() -> float:
        return (a + a).sum().item()

    def each(body: Body, calls: int) -> float:
        for _ in range(calls):
            body()
        rounds = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            for _ in range(calls):
                body()
            rounds.append((time.perf_counter() - start) / calls)
        return 1e6 * median(rounds)

    found = {"enter and leave": each(enter_and_leave, 100)}
    with torchy.lazy():
        found["flush of nothing"] = each(torchy.flush, 1000)
    found["eager: (a + a).sum().item()"] = each(item, 200)
    with awake():
        found["(a + a).sum().item()"] = each(item, 200)
    return found


def printed(result: torch.Tensor) -> None:
    """Print a tensor to nowhere."""
    with contextlib.redirect_stdout(io.StringIO()):
        print(result)


LOOKS: Mapping[str, Callable[[torch.Tensor], object]] = {
    "item()": lambda t: t.view(-1)[-1].item(),
    "numpy()": lambda t: t.numpy(),
    "print": printed,
    "data_ptr()": lambda t: t.data_ptr(),
    "flush()": lambda _: torchy.flush(),
    "end of the region": lambda _: None,
}


def large() -> dict[str, Callable[[], torch.Tensor]]:
    """Return computations on 16 MiB."""
    x, y = torch.rand(8192, 512), torch.rand(8192, 512)

    def chained() -> torch.Tensor:
        return (x * y + 1.0).relu() * 0.5 - y

    return {
        "softmax": lambda: (x * 0.125).softmax(-1),
        "gelu": lambda: F.gelu(x),
        "chain": chained,
        "stack": lambda: torch.stack([x, y]),
    }


def looks(rounds: int = 15) -> list[dict[str, Any]]:
    """Return, for each large computation and each way to look at it, Torchy's speed and page faults a step."""
    found = []
    for name, compute in large().items():
        for way, observe in LOOKS.items():

            def step(
                region: AbstractContextManager[object],
                compute: Body = compute,
                observe: Callable[..., object] = observe,
            ) -> float:
                start = time.perf_counter()
                with region:
                    result = compute()
                    observe(result)
                del result
                return time.perf_counter() - start

            for _ in range(6):
                step(contextlib.nullcontext())
                step(torchy.lazy())
            faults, pairs = 0, []
            for _ in range(rounds):
                eager = step(contextlib.nullcontext())
                before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
                pairs.append((eager, step(torchy.lazy())))
                faults += resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
            found.append(
                {
                    "compute": name,
                    "look": way,
                    "eager_ms": 1e3 * median(e for e, _ in pairs),
                    "torchy_ms": 1e3 * median(t for _, t in pairs),
                    "speed": median(e / t for e, t in pairs),
                    "faults": faults / rounds,
                }
            )
    return found


def measure(sections: Sequence[str] = ("schemas", "traces", "sessions", "looks")) -> dict[str, Any]:
    """Return all figures; the first three sections on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run: dict[str, Callable[[], Any]] = {
        "schemas": schemas,
        "traces": traces,
        "sessions": sessions,
        "looks": looks,
    }
    found = {}
    for name in sections:
        if name == "looks":
            torch.set_num_threads(threads)
        found[name] = run[name]()
    return found


if __name__ == "__main__":
    import sys

    print(json.dumps(measure(sys.argv[1:] or ("schemas", "traces", "sessions", "looks"))))
