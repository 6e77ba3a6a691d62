"""One sample of torch's op database, run eagerly and under Torchy, and compared."""

from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
import functools
import itertools
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[1] / "semantics"))

from allocator import is_steady
from facts import END, Facts, differences, facts_of
from sameness import wait_for_kernels

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal import common_methods_invocations as database

DTYPES = [torch.float32, torch.float64, torch.int64, torch.bool, torch.int32, torch.bfloat16, torch.float16,
          torch.complex64, torch.int8, torch.uint8, torch.int16, torch.complex128]  # fmt: skip
# Entries whose values are not compared, with the reason: eager itself takes them from memory that nobody has written.
UNINITIALISED = {
    **dict.fromkeys(
        (
            "empty",
            "empty_like",
            "empty_strided",
            "empty_permuted",
            "new_empty",
            "new_empty_strided",
        ),
        "returns memory as it is",
    ),
    **dict.fromkeys(
        ("linalg.lstsq", "linalg.lstsq.grad_oriented"),
        "the driver gelsy reads its pivots, which torch leaves empty",
    ),
}
SPARSE = [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc]


@dataclasses.dataclass
class Tally:
    """What became of one op of the database."""

    samples: int = 0
    agreed: int = 0
    unsteady: int = 0  # eager itself gives other results each time
    deferred: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    fused: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    called: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    run_now: int = 0
    compiled: int = 0  # flushes that kernels ran
    failures: list[str] = dataclasses.field(default_factory=list)

    def merge(self, other: Tally) -> None:
        """Add another tally to this one."""
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


@functools.cache
def entries() -> dict[str, object]:
    """Return all entries by name."""
    entries = {}
    families = [database.op_db, database.foreach_unary_op_db, database.foreach_binary_op_db,
                database.foreach_pointwise_op_db, database.foreach_reduce_op_db, database.foreach_other_op_db]  # fmt: skip
    for entry in [entry for family in families for entry in family]:
        name = entry.name + ("." + entry.variant_test_name if entry.variant_test_name else "")
        while name in entries:
            name += "'"
        entries[name] = entry
    return entries


def names() -> list[str]:
    """Return the names of all entries."""
    return list(entries())


def dtypes_of(entry: object) -> list[torch.dtype]:
    """Return the dtypes that an entry supports on the CPU, the usual ones first."""
    supported = entry.supported_dtypes("cpu")
    return [dtype for dtype in DTYPES if dtype in supported]


def choose(items: list, most: int | None) -> list:
    """Return at most so many items, spread evenly."""
    if most is None or len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / max(most - 1, 1))] for i in range(most)]


@functools.cache
def samples_of(name: str, dtype: torch.dtype, most: int | None) -> list:
    """Return samples as (arguments, keywords)."""
    entry = entries()[name]
    torch.default_generator.manual_seed(0)
    with quiet():
        try:
            generated = entry.sample_inputs("cpu", dtype, requires_grad=False)
            samples = choose(list(itertools.islice(generated, most and most * 5)), most)
        except Exception:  # the database itself fails for some combinations
            return []
    return [((sample.input, *sample.args), sample.kwargs) for sample in samples]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let warnings pass unseen."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def tensors_in(value: object) -> list[torch.Tensor]:
    """Return the tensors in nested containers."""
    return [
        leaf for leaf in torch.utils._pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)
    ]


def forward(function: Callable, arguments: tuple, keywords: dict) -> object:
    """Call the op."""
    return function(*arguments, **keywords)


def backward(function: Callable, arguments: tuple, keywords: dict) -> object:
    """Call the op and differentiate all results with respect to all operands."""
    leaves = [
        t for t in tensors_in((arguments, keywords)) if t.is_floating_point() or t.is_complex()
    ]
    leaves = [t.requires_grad_() for t in leaves if t.is_leaf]
    results = function(*arguments, **keywords)
    roots = [t for t in tensors_in(results) if t.requires_grad]
    if not roots:
        return results, None
    weights = [torch.full_like(root, 0.75) for root in roots]
    return results, torch.autograd.grad(roots, leaves, weights, allow_unused=True)


def overlaps(t: torch.Tensor) -> bool:
    """Tell whether a tensor is expanded."""
    return any(stride == 0 and size > 1 for size, stride in zip(t.shape, t.stride(), strict=True))


def pend(t: torch.Tensor) -> torch.Tensor:
    """Return a copy that is written to: both are deferred, so it is pending.

    Not the tensor itself: there is more than one on the storage of what was copied by Python.
    """
    if t.layout is not torch.strided or t.is_quantized:
        return t
    if (
        overlaps(t)
        or t.dtype.itemsize == 1
        and t.dtype not in (torch.bool, torch.int8, torch.uint8)
    ):
        return t
    t = t.clone()
    return t.logical_or_(torch.zeros_like(t)) if t.dtype is torch.bool else t.mul_(1)


def pending_kinds() -> set[str]:
    """Return the dtypes of which :func:`pend` gives pending tensors, where it should."""
    import torchy

    found = set()
    for dtype in DTYPES:
        with torchy.lazy():
            operand = copy.deepcopy(torch.ones(2, 3).to(dtype))
            if torchy.is_pending(pend(operand)):
                found.add(str(dtype))
    return found


def with_pending_operands(function: Callable, arguments: tuple, keywords: dict) -> object:
    """Call the op on operands that are pending."""
    arguments, keywords = torch.utils._pytree.tree_map_only(
        torch.Tensor, pend, (arguments, keywords)
    )
    return function(*arguments, **keywords)


def with_pending_views(function: Callable, arguments: tuple, keywords: dict) -> object:
    """Call the op on views of pending operands, use the result, then write to what the views look at."""
    bases = []

    def view(t: torch.Tensor) -> torch.Tensor:
        if t.layout is not torch.strided:
            return t
        bases.append(pend(t))
        return bases[-1].view_as(bases[-1])

    arguments, keywords = torch.utils._pytree.tree_map_only(
        torch.Tensor, view, (arguments, keywords)
    )
    result = function(*arguments, **keywords)
    consumed = [
        t * 2 if t.layout is torch.strided and not t.is_quantized else None
        for t in tensors_in(result)
    ]
    for base in bases:
        if base.is_floating_point() and base.dtype.itemsize > 1 and base.is_contiguous():
            base.add_(1)
    return result, consumed, bases


def with_strided_operands(function: Callable, arguments: tuple, keywords: dict) -> object:
    """Call the op on operands of the same values that lie otherwise: transposed, or with gaps."""

    def lay(t: torch.Tensor) -> torch.Tensor:
        if t.layout is not torch.strided or t.is_quantized or t.dim() == 0 or overlaps(t):
            return t
        if t.dim() == 1:
            return t.repeat_interleave(2)[::2]
        return t.transpose(0, -1).clone(memory_format=torch.contiguous_format).transpose(0, -1)

    arguments, keywords = torch.utils._pytree.tree_map_only(
        torch.Tensor, lay, (arguments, keywords)
    )
    return function(*arguments, **keywords)


FORMS = {
    "plain": forward,
    "backward": backward,
    "pending": with_pending_operands,
    "views": with_pending_views,
    "strided": with_strided_operands,
}


def variants(entry: object) -> dict[str, Callable]:
    """Return the op's function, and its in-place and ``out=`` forms where there are any."""
    found: dict[str, Callable] = {"function": entry}
    in_place = entry.get_inplace() if hasattr(entry, "get_inplace") else None
    if in_place is not None:
        found["in place"] = in_place
    if getattr(entry, "supports_out", False):
        found["out"] = functools.partial(into_out, entry)
    return found


def into_out(entry: object, *arguments: object, **keywords: object) -> object:
    """Call the op twice: to learn what it returns, and into tensors like that."""
    out = torch.utils._pytree.tree_map_only(
        torch.Tensor, torch.zeros_like, entry(*arguments, **keywords)
    )
    return entry(*arguments, **keywords, out=tuple(out) if isinstance(out, (list, tuple)) else out)


def run(
    form: Callable, function: Callable, arguments: tuple, keywords: dict, session: object
) -> Facts:
    """Run a sample on fresh operands and return all facts about it."""
    arguments, keywords = fresh(arguments, keywords)
    torch.default_generator.manual_seed(1)
    result, error, left = None, None, None
    try:
        with quiet(), session:
            try:
                result = form(function, arguments, keywords)
            except Exception as raised:
                error = f"{type(raised).__name__}: {raised}".split("Exception raised from")[0]
    except Exception as raised:  # at the end of the session: eager has none
        left = f"{type(raised).__name__}: {raised}"
    reached = [result, tensors_in((arguments, keywords))]
    try:
        facts = facts_of(reached, look=left is None)
    except TypeError:  # results that are no tensors
        facts = facts_of(tensors_in(reached), look=left is None)
    facts["error"] = error
    facts[END] = left
    facts["random state"] = torch.get_rng_state().numpy().tobytes()
    return facts


def fresh(arguments: tuple, keywords: dict) -> tuple[tuple, dict]:
    """Return copies with the same strides and sharing; sparse ones cannot be copied so."""
    try:
        return copy.deepcopy((arguments, keywords))
    except NotImplementedError:
        return torch.utils._pytree.tree_map_only(torch.Tensor, torch.clone, (arguments, keywords))


class Watched:
    """A session whose report is added to a tally at its end."""

    def __init__(self, tally: Tally, **settings: object) -> None:
        self.tally, self.settings = tally, settings

    def __enter__(self) -> None:
        import torchy

        self.session = torchy.lazy(**self.settings)
        self.entered = self.session.__enter__()

    def __exit__(self, *error: object) -> None:
        self.session.__exit__(*error)
        report = self.entered.report
        if report is None:
            return
        for trace in report.traces:
            self.tally.compiled += trace.tier == "compiled"
            kinds = {group.id: group.kind for group in trace.groups}
            for op in trace.ops:
                base = table_name(op.name)
                self.tally.deferred[base] += 1
                kind = kinds.get(op.group)
                if kind is not None:
                    (self.tally.fused if kind == "fused" else self.tally.called)[base] += 1
        self.tally.run_now += self.entered.counters["run_now"]


def sessions(tally: Tally, settings: dict) -> Iterator[contextlib.AbstractContextManager]:
    """Yield a session for each visit of a sample; the last is watched.

    With ``compile="auto"`` there are three: at first sight it is interpreted, then planned, and once the kernels are
    ready, they run it.
    """
    import torchy

    if settings.get("compile") == "auto":
        yield torchy.lazy(**settings)
        yield torchy.lazy(**settings)
        wait_for_kernels()
    yield Watched(tally, **settings)


def table_name(name: str) -> str:
    """Return the name of an op's line in the op table."""
    from torchy.ir.ops import lookup

    spec = lookup(name)
    return spec.name if spec else name


def check(
    names: list[str], settings: list[dict], forms: list[str], dtypes: int | None, most: int | None
) -> dict[str, Tally]:
    """Run samples of some ops under each of the settings; return a tally for each op."""
    return {name: check_one(name, settings, forms, dtypes, most) for name in names}


def check_one(
    name: str, settings: list[dict], forms: list[str], dtypes: int | None, most: int | None
) -> Tally:
    """Run samples of one op."""
    print("op", name, flush=True)
    entry, tally = entries()[name], Tally()
    for position, dtype in enumerate(choose(dtypes_of(entry), dtypes)):
        for arguments, keywords in samples_of(
            name, dtype, most if position == 0 else most and max(most // 3, 1)
        ):
            for variant, function in variants(entry).items():
                for form in forms:
                    if form == "backward" and (
                        variant != "function"
                        or not dtype.is_floating_point
                        and not dtype.is_complex
                    ):
                        continue
                    what = f"{name} {variant} {form} {dtype}".replace("torch.", "")
                    compare(what, FORMS[form], function, arguments, keywords, settings, tally)
    return tally


def compare(
    what: str,
    form: Callable,
    function: Callable,
    arguments: tuple,
    keywords: dict,
    settings: list[dict],
    tally: Tally,
) -> None:
    """Compare a sample under each of the settings with eager; a visit that differs is the last."""
    eagerly = functools.partial(run, form, function, arguments, keywords, contextlib.nullcontext())
    eager = eagerly()
    if eager["error"] and form is not FORMS["plain"]:
        return  # such as an in-place form for an operand that is too small: the plain form compares errors
    for setting in settings:
        tally.samples += 1
        for session in sessions(tally, setting):
            lazily = run(form, function, arguments, keywords, session)
            found = differences(eager, lazily)
            if what.split()[0] in UNINITIALISED:
                found = [line for line in found if ".values: " not in line]
            if found:
                break
        if not found:
            tally.agreed += 1
        elif not is_steady(eagerly, differences):
            tally.unsteady += 1
        elif len(tally.failures) < 20:
            operands = [describe(t) for t in tensors_in((arguments, keywords))]
            plain = shown(arguments, keywords)
            tally.failures.append(f"{what} {setting}\n      operands {', '.join(operands)}; {plain}\n      "
                                  + "\n      ".join(found[:4]))  # fmt: skip


def describe(t: torch.Tensor) -> str:
    """Return a tensor's dtype, sizes and strides."""
    strides = (
        f" strides {tuple(t.stride())}"
        if t.layout is torch.strided and not t.is_contiguous()
        else ""
    )
    return f"{t.dtype}{list(t.shape)}{strides}".removeprefix("torch.")


def shown(arguments: tuple, keywords: dict) -> str:
    """Return the arguments that are no tensors."""
    plain = torch.utils._pytree.tree_map_only(torch.Tensor, lambda t: "·", (arguments, keywords))
    return str(plain)[:200]


def check_errors(names: list[str], settings: list[dict]) -> dict[str, Tally]:
    """Compare what the database's erroneous samples raise."""
    tallies = {}
    for name in names:
        entry, tally = entries()[name], tallies.setdefault(name, Tally())
        if getattr(entry, "error_inputs_func", None) is None:
            continue
        with quiet():
            try:
                samples = list(entry.error_inputs("cpu"))
            except Exception:
                continue
        for sample in samples:
            arguments = (sample.sample_input.input, *sample.sample_input.args)
            for form in ("plain", "pending"):
                compare(f"{name} error {form}", FORMS[form] if form == "pending" else forward, entry, arguments,
                        sample.sample_input.kwargs, settings, tally)  # fmt: skip
    return tallies


def check_sparse(names: list[str], settings: list[dict], most: int | None) -> dict[str, Tally]:
    """Compare samples with sparse operands, forward and backward."""
    tallies = {}
    for name in names:
        entry, tally = entries()[name], tallies.setdefault(name, Tally())
        for layout in SPARSE:
            try:
                with quiet():
                    if not entry.supports_sparse_layout(layout):
                        continue
                    generated = entry.sample_inputs_sparse(layout, "cpu", torch.float64)
                    samples = choose(list(itertools.islice(generated, most and most * 5)), most)
            except Exception:
                continue
            for sample in samples:
                for form in ("plain", "backward"):
                    compare(f"{name} {layout} {form}", FORMS[form], entry, (sample.input, *sample.args), sample.kwargs,
                            settings, tally)  # fmt: skip
    return tallies
