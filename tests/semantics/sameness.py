"""The same program, eagerly and under Torchy: everything that it can tell must be equal.

A test is a program, with ``@program`` on it. It runs eagerly once, then under Torchy several times (places unknown,
places known, kernels compiled), for each ``compile`` setting. What it returned, printed, raised, warned of and left
behind is turned into plain facts, and the facts are compared.

With ``compile="auto"`` the first flush at a place is interpreted by the walker, the second is planned, and its kernels
are compiled in the background: when they take over depends on time. So a third visit waits for half of them, and the
last, one more, for all. Sessions that do not pay may fall asleep, but only after some flushes: the first has recorded then.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import io
import random
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import pytest
import torch
from facts import Facts, differences, facts_of

TIERS = ("always", "never", "auto")
VISITS = ("first sight", "second visit", "third visit")
WITH_KERNELS = "with kernels"  # one more, on "auto"
READY = {"third visit": 0.5, WITH_KERNELS: 1.0}  # the share of the kernels that is waited for
HARNESS = {str(Path(__file__)), str(Path(__file__).with_name("facts.py"))}


@dataclasses.dataclass
class Outcome:
    """All that one run of a program did."""

    before_look: Facts  # nothing was looked at that the program had not looked at itself
    after: Facts
    counters: dict[str, int] = dataclasses.field(default_factory=dict)


def program(
    body: Callable | None = None,
    *,
    given: Callable | None = None,
    slow: tuple[str, ...] = (),
    **options: object,
):
    """Turn a program into a test that runs it on all tiers.

    Parameters
    ----------
    body
        The program. What it returns is compared. If it has a parameter ``kept``, it gets a list, compared too, also
        after an exception. Parametrized ones are pytest's (``@program`` stands above ``parametrize``).
    given
        Makes the other arguments, eagerly and outside the session; they are compared too.
    slow
        Tiers on which the test is one of the slow ones; any of them, and it is so on "auto". Of the other tests on
        "auto", the slow ones are all but a share (see conftest.py).
    options
        ``times`` (3), ``recorded`` (None; True: something must have been recorded), and settings for ``torchy.lazy``.
    """
    if body is None:
        return functools.partial(program, given=given, slow=slow, **options)
    marks = getattr(body, "pytestmark", [])
    names = {
        name.strip()
        for mark in marks
        if mark.name == "parametrize"
        for name in mark.args[0].split(",")
    }
    own = [p for p in inspect.signature(body).parameters.values() if p.name in names]

    marks_of = {tier: [pytest.mark.slow] if tier in slow else [] for tier in TIERS}
    marks_of["auto"] = [pytest.mark.slow if slow else pytest.mark.shared]

    @pytest.mark.parametrize("compile", [pytest.param(t, marks=marks_of[t]) for t in TIERS])
    def test(compile: str, **arguments: object) -> None:
        same(body, given=given, arguments=arguments, compile=compile, **options)

    keyword = inspect.Parameter("compile", inspect.Parameter.KEYWORD_ONLY)
    own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    test.__signature__ = inspect.Signature([*own, keyword])
    test.__name__ = test.__qualname__ = body.__name__
    test.__doc__ = body.__doc__
    test.__module__ = body.__module__
    test.pytestmark = [*marks, *test.pytestmark]
    return test


def same(
    body: Callable,
    *,
    given: Callable | None = None,
    arguments: dict[str, object] | None = None,
    times: int = 3,
    recorded: bool | None = None,
    **settings: object,
) -> list[Outcome]:
    """Run a program eagerly and under ``torchy.lazy(**settings)``; fail where it can tell the difference."""
    import torchy

    outcomes: list[Outcome] = []
    visits = ["eager", *VISITS[:times]]
    auto = settings.get("compile") == "auto"
    if auto and times > 1:
        visits.append(WITH_KERNELS)
    for visit in visits:
        if auto and visit in READY:
            wait_for_kernels(READY[visit])
        session = torchy.lazy(**settings) if outcomes else contextlib.nullcontext()
        outcomes.append(run(body, given, arguments or {}, session))
        eager, lazily = outcomes[0], outcomes[-1]
        found = differences(eager.before_look, lazily.before_look)
        found += [f"after the session: {x}" for x in differences(eager.after, lazily.after)]
        if found:
            raise AssertionError(f"{visit}, {settings}: \n  " + "\n  ".join(found[:20]))
        first_visits = visits[1:2] if auto else visits[1:]
        if recorded is not None and visit in first_visits:
            assert bool(lazily.counters.get("recorded")) == recorded, lazily.counters
    return outcomes


def run(body: Callable, given: Callable | None, arguments: dict, session: object) -> Outcome:
    """Run a program within a session (or none) and note everything down."""
    reset()
    made = as_tuple(given()) if given else ()
    kept: list[object] = []
    if "kept" in inspect.signature(body).parameters:
        arguments = arguments | {"kept": kept}
    printed, result, error, counters = io.StringIO(), None, None, {}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            with session as entered:
                try:
                    result = body(*made, **arguments)
                except BaseException as raised:  # noqa: BLE001 - KeyboardInterrupt is one that is tested
                    error = raised
                reached = (result, made, kept)
                before = facts_of(reached, look=False) | {"error": describe(error)}
            if entered is not None:
                counters = dict(entered.counters)
                assert not (failed := failures(entered)), failed
    after = facts_of(reached, look=True)
    after["printed"] = printed.getvalue()
    after["error"] = describe(error)
    after["warnings"] = [
        (
            w.category.__name__,
            str(w.message).split(" (Triggered internally")[0],
            w.filename,
            w.lineno,
        )
        for w in warned
        if not w.filename.endswith(
            "torch/jit/_script.py"
        )  # once, when torch loads a part of itself
    ]
    after["state"] = process_state()
    return Outcome(before, after, counters)


def failures(session: object) -> list[str]:
    """Return what a session could not plan or compile, though its values are right: ops that are interpreted for good."""
    events = session.builder.report().events
    kinds = ("planning failed", "kernel failed to compile", "watching failed")
    return [f"{event.kind}: {event.text}" for event in events if event.kind in kinds]


def wait_for_kernels(share: float = 1.0) -> None:
    """Wait until this share of what is left to compile in the background is compiled."""
    from torchy.face import _process

    kernels = _process.runtime.kernels
    left = int(len(kernels._wanted) * (1 - share))
    while len(kernels._wanted) > left and kernels._worker is not None and kernels._worker.is_alive:
        time.sleep(0.001)


def as_tuple(value: object) -> tuple:
    """Return a tuple of a function's results."""
    return value if isinstance(value, tuple) else (value,)


def describe(error: BaseException | None) -> object:
    """Return an exception as plain data: type, message, arguments and the program's lines."""
    if error is None:
        return None
    frames = [
        (frame.filename, frame.lineno, frame.name)
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in HARNESS and "/torchy/" not in frame.filename
    ]
    return (
        type(error).__name__,
        str(error).split("Exception raised from")[0],
        tuple(frames),
        describe(error.__cause__),
        describe(error.__context__),
    )


def reset() -> None:
    """Bring the process into one state before each run."""
    torch.set_warn_always(True)
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(2)
    torch.set_grad_enabled(True)
    torch.set_deterministic_debug_mode("default")
    torch.set_float32_matmul_precision("highest")
    torch.default_generator.manual_seed(1)  # torch.manual_seed formats a traceback for each device
    numpy.random.seed(1)
    random.seed(1)


def process_state() -> tuple:
    """Return what a program may have changed in the process."""
    return (
        torch.get_rng_state().numpy().tobytes(),
        numpy.random.get_state()[1].tobytes(),
        random.getstate(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let warnings pass unseen."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
