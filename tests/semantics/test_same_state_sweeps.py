"""Rules 1 and 3 under process state that changes: at every place of a program, there and back.

One program, and for each setting: it is changed at each position in turn, so that each place is also visited under the
other setting. What was made under one must not be used under the other, and the settings must be as eager leaves them.
"""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from sameness import program

LARGE = torch.linspace(-3, 3, 70_001)  # large enough that torch sums it on several threads


@contextlib.contextmanager
def changed(get, set, value):
    """Change a setting, and back to what it was."""
    before = get()
    set(value)
    try:
        yield
    finally:
        set(before)


@contextlib.contextmanager
def attribute(owner, name, value):
    """The same for an attribute."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def deterministic(warn_only=False, fill=True):
    """Deterministic algorithms."""
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    torch.utils.deterministic.fill_uninitialized_memory = fill
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = True


mkldnn = torch.backends.mkldnn
SETTINGS = {
    "one thread": lambda: changed(torch.get_num_threads, torch.set_num_threads, 1),
    "three threads": lambda: changed(torch.get_num_threads, torch.set_num_threads, 3),
    "default dtype": lambda: changed(
        torch.get_default_dtype, torch.set_default_dtype, torch.float64
    ),
    "default half": lambda: changed(
        torch.get_default_dtype, torch.set_default_dtype, torch.float16
    ),
    "medium": lambda: changed(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"
    ),
    "matmul bf16": lambda: attribute(mkldnn.matmul, "fp32_precision", "bf16"),
    "conv bf16": lambda: attribute(mkldnn.conv, "fp32_precision", "bf16"),
    "mkldnn bf16": lambda: attribute(mkldnn, "fp32_precision", "bf16"),
    "generic tf32": lambda: attribute(torch.backends, "fp32_precision", "tf32"),
    "generic bf16": lambda: attribute(torch.backends, "fp32_precision", "bf16"),
    "generic ieee": lambda: attribute(torch.backends, "fp32_precision", "ieee"),
    "no mkldnn": lambda: mkldnn.flags(enabled=False),
    "mkldnn deterministic": lambda: mkldnn.flags(enabled=True, deterministic=True),
    "deterministic": deterministic,
    "warn only": lambda: deterministic(warn_only=True),
    "unfilled": lambda: deterministic(fill=False),
    "denormals": lambda: changed(bool, torch.set_flush_denormal, True),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast half": lambda: torch.autocast("cpu", torch.float16),
    "autocast uncached": lambda: torch.autocast("cpu", torch.bfloat16, cache_enabled=False),
    "no grad": torch.no_grad,
    "inference": torch.inference_mode,
    "no flash": lambda: torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    "no nnpack": lambda: torch.backends.nnpack.flags(False),
}


def state_of_the_process():
    """Return all that the settings above change."""
    state = [
        torch.get_num_threads(),
        torch.get_num_interop_threads(),
        torch.get_default_dtype(),
        torch.backends.fp32_precision,
        *(part.fp32_precision for part in (mkldnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn)),
        mkldnn.enabled,
        mkldnn.deterministic,
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        torch.is_autocast_cache_enabled(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        (torch.tensor([1e-39]) * 1).item(),
    ]
    return [str(item) for item in state]


def image(v):
    return F.conv2d(v["matrix"].reshape(1, 4, 8, 32), v["kernel"], padding=1).flatten()


# Each adds to what is there; none needs the one before, so that any may run under the other setting.
STEPS = [
    lambda v: v["large"] * 0.5 + 1,
    lambda v: (v["large"] * 1.1).exp().sum(),
    lambda v: v["whole"] / 3,
    lambda v: v["matrix"] * 1.1 + 0.1,
    lambda v: v["matrix"] @ v["matrix"],
    lambda v: torch.ones(3) * 2 + torch.arange(3),
    lambda v: v["tiny"] * 0.5,
    lambda v: F.linear(v["matrix"], v["weight"]).relu(),
    image,
    lambda v: torch.zeros(5).index_add_(0, v["whole"] % 5, v["whole"] * torch.ones(9)),
    lambda v: v["last"] * 2 if v["last"].dim() else v["last"] + 1,
    lambda v: v["matrix"].softmax(-1).t() * v["matrix"],
    lambda v: F.scaled_dot_product_attention(*[v["matrix"].reshape(1, 2, 32, 16)] * 3),
    lambda v: (
        torch.empty(3)
        if torch.are_deterministic_algorithms_enabled()
        and torch.utils.deterministic.fill_uninitialized_memory
        else torch.zeros(3)
    ),
]


def inputs():
    matrix = torch.linspace(-1, 1, 1024).reshape(32, 32)
    return {
        "large": LARGE * 1,
        "whole": torch.arange(9),
        "matrix": matrix * 1.3,
        "weight": (matrix * 0.7).requires_grad_(),
        "kernel": torch.linspace(0, 1, 4 * 4 * 9).reshape(4, 4, 3, 3) * 1.7,
        "tiny": torch.full((40,), 3e-39) + 0,
    }


def run_with_a_change(setting, first, last):
    """Run the steps; the setting holds from one of them to another."""
    values = inputs() | {"last": torch.ones(2)}
    results = []
    with contextlib.ExitStack() as stack:
        for position, step in enumerate(STEPS):
            if position == first:
                stack.enter_context(SETTINGS[setting]())
            if position == last:
                stack.close()
            values["last"] = step(values)
            results.append(values["last"])
    return results


@program(recorded=True, times=2, slow=("always",))
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_is_changed_for_good_at_each_position(setting):
    results = [run_with_a_change(setting, i, None) for i in range(len(STEPS))]
    return results, state_of_the_process()


@program(recorded=True, times=2, slow=("always", "never"))
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_holds_for_each_op_in_turn(setting):
    results = []
    for i in range(len(STEPS)):
        results += [run_with_a_change(setting, i, i + 1), state_of_the_process()]
    return results


@program(recorded=True, times=2, slow=("never",))
@pytest.mark.parametrize("setting", SETTINGS)
def test_each_op_is_looked_at_under_the_other_setting(setting):
    results = []
    for step in STEPS:
        for _ in range(2):
            values = inputs() | {"last": torch.ones(2)}
            early = step(values)
            with SETTINGS[setting]():
                results += [
                    state_of_the_process(),
                    early.flatten()[0].item(),
                    early,
                    state_of_the_process(),
                ]
                late = step(values)
            results += [late.flatten()[0].item(), late, state_of_the_process()]
    return results


@program(recorded=True, times=2, slow=("never",))
@pytest.mark.parametrize("setting", SETTINGS)
def test_whole_programs_alternate_between_the_settings(setting):
    results = []
    for turn in range(6):
        with SETTINGS[setting]() if turn % 2 else contextlib.nullcontext():
            values = inputs() | {"last": torch.ones(2)}
            results += [step(values) for step in STEPS]
            results.append([t.sum().item() for t in results[-4:-1]])
        results.append(state_of_the_process())
    return results


PARTS = {"all": torch.backends, "mkldnn": mkldnn, "matmul": mkldnn.matmul}


@program(recorded=True)
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("now", ["bf16", "ieee"])
@pytest.mark.parametrize("later", ["bf16", "ieee", "none"])
def test_products_are_computed_with_the_precision_that_held(part, now, later):
    x = torch.randn(256, 256)  # from here on the precision tells, on processors that have bfloat16
    plain = x @ x
    PARTS[part].fp32_precision = now
    results = [plain[0, :2].tolist(), state_of_the_process()]
    under = x @ x
    PARTS[part].fp32_precision = later
    results += [under[0, :2].tolist(), state_of_the_process()]
    for other in PARTS.values():  # what was set at one level only shows when another level changes
        for value in ("bf16", "none"):
            other.fp32_precision = value
            results.append(state_of_the_process())
    return results, x @ x
