"""Runs inside the demo's kernels: a clock around each cell, and the facts of what a cell left behind.

The clock stops before anything that is shown after a cell (figures, the explorer), and after the flush that ends it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy
import torch
from IPython.core.getipython import get_ipython


class Clock:
    """Seconds that the last cell took. Its hooks must be the first, so that they are called before all others."""

    def __init__(self) -> None:
        self.started = self.seconds = 0.0

    def start(self, *_: object) -> None:
        """Note that a cell begins."""
        self.started = time.perf_counter()

    def stop(self, *_: object) -> None:
        """Note that its code has ended."""
        self.seconds = time.perf_counter() - self.started


CLOCK = Clock()
SHELL: Any = get_ipython()


def install() -> None:
    """Put the clock around every cell that this kernel runs from now on; seed torch, so that kernels agree."""
    torch.manual_seed(0)
    events = SHELL.events
    events.register("pre_run_cell", CLOCK.start)
    events.register("post_run_cell", CLOCK.stop)


def print_seconds() -> None:
    """Print what the last cell took."""
    print(CLOCK.seconds)


def print_facts() -> None:
    """Print the facts of the notebook's own variables, and the next random number, as JSON."""
    own = {
        name: value
        for name, value in SHELL.user_ns.items()
        if name not in SHELL.user_ns_hidden and not name.startswith("_")
    }
    found = dict(facts(own))
    copied = torch.default_generator.clone_state()
    found["the next random number"] = repr(torch.rand((), generator=copied).item())
    print(json.dumps(found))


def print_counts() -> None:
    """Print what the last ``%%torchy`` cell's report counts, as JSON."""
    import torchy_jupyter

    explorer = torchy_jupyter.last_explorer()
    assert explorer is not None, "no %%torchy cell has run"
    report = explorer.report
    groups = [group for trace in report.traces for group in trace.groups]
    counts = {
        "ops": report.totals.ops,
        "groups": sum(group.kind == "fused" for group in groups),
        "kernels": len(report.kernels),
        "flushes": report.totals.traces,
    }
    print(json.dumps(counts))


def facts(variables: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield for each value below some variables its path, and what tells it from any other value, bit by bit."""
    seen: dict[int, str] = {}
    for name, value in variables.items():
        yield from _facts(name, value, seen)


def digest(tensor: torch.Tensor) -> str:
    """Return dtype, layout and a hash of a tensor's elements. Zeros differ by sign; any NaN equals any NaN."""
    values = tensor.detach()
    if values.is_floating_point() or values.is_complex():
        values = torch.where(values.isnan(), torch.full_like(values, torch.nan), values)
    data = values.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    layout = (tensor.dtype, tuple(tensor.shape), tensor.stride(), tensor.requires_grad)
    return f"{layout} {hashlib.sha256(data).hexdigest()}"


def _facts(path: str, value: Any, seen: dict[int, str]) -> Iterator[tuple[str, str]]:
    if value is None or isinstance(value, bool | int | str | bytes):
        yield path, repr(value)
        return
    if isinstance(value, float):
        yield path, "nan" if value != value else value.hex()
        return
    if id(value) in seen:
        yield path, f"is {seen[id(value)]}"
        return
    seen[id(value)] = path
    yield path, type(value).__qualname__
    match value:
        case torch.Tensor():
            yield f"{path} (values)", digest(value)
            if value.is_leaf and value.grad is not None:
                yield from _facts(f"{path}.grad", value.grad, seen)
        case numpy.ndarray() if value.dtype != object:
            layout = (value.dtype.str, value.shape, value.strides)
            yield f"{path} (values)", f"{layout} {hashlib.sha256(value.tobytes()).hexdigest()}"
        case torch.nn.Module():
            for name, parameter in value.named_parameters():
                yield from _facts(f"{path}.{name}", parameter, seen)
            for name, buffer in value.named_buffers():
                yield from _facts(f"{path}.{name}", buffer, seen)
        case torch.optim.Optimizer():
            yield from _facts(f"{path}.state", list(value.state.values()), seen)
        case Mapping():
            for key, item in value.items():
                yield from _facts(f"{path}[{key!r}]", item, seen)
        case list() | tuple():
            for index, item in enumerate(value):
                yield from _facts(f"{path}[{index}]", item, seen)
        case _:
            pass
