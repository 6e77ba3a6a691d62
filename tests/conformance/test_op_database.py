"""A fixed share of torch's op database, carrying the bit and recorded; all of it: ``make conformance``."""

import zlib

import pytest
import torch
from allocator import ALLOCATOR, M_MMAP_THRESHOLD
from database import Tally, compare, forward
from sweep import (
    AUTO,
    FILE,
    FORMS,
    PASS_THROUGH,
    RECORD,
    all_names,
    failures_of,
    sum_of,
    summary,
    sweep,
    table,
)

CARRY = PASS_THROUGH[1:]
COMPILED = RECORD[:1]
ALL_FORMS = 4  # one op in so many is called in all ways on "auto"


def report(tallies):
    """Print what was checked, and fail if anything disagreed."""
    print(summary(tallies))
    total, failures = sum_of(tallies), failures_of(tallies)
    assert total.samples > 0
    if failures:
        failing = sum(bool(tally.failures) for tally in tallies.values())
        pytest.fail(f"{failing} ops differ:\n" + "\n".join(failures), pytrace=False)
    assert total.agreed + total.unsteady == total.samples
    return total


def test_operands_that_are_to_be_pending_are(conformance_servers):
    kind, kinds, log = conformance_servers.call(FILE, "pending_kinds", {}, 60)
    assert kind == "passed", f"{kinds}\n{log}"
    assert {"torch.float32", "torch.int64", "torch.bool", "torch.complex64"} <= kinds


def test_unwritten_memory_that_happens_to_be_the_same_is_told():
    import torchy

    ALLOCATOR.mallopt(M_MMAP_THRESHOLD, 1 << 16)  # large blocks are fresh pages, which are zero

    def told_apart(t):
        """Differ under Torchy, but not from one eager run to the next."""
        return torch.empty(1 << 17) + torchy.is_pending(t * 2)

    tally = Tally()
    compare("unwritten", forward, told_apart, (torch.ones(3),), {}, COMPILED, tally)
    assert (tally.samples, tally.agreed, tally.unsteady, tally.failures) == (1, 0, 1, [])


def test_passed_through_ops_agree(conformance_servers):
    names = all_names(conformance_servers)
    arguments = {"settings": CARRY, "forms": ["plain"], "dtypes": 1, "most": 1}
    report(sweep(conformance_servers, "check", names, **arguments))


def test_passed_through_sparse_ops_agree(conformance_servers):
    names = all_names(conformance_servers)
    report(sweep(conformance_servers, "check_sparse", names, settings=CARRY, most=4))


def test_recorded_ops_agree(conformance_servers):
    names, tallies = all_names(conformance_servers), {}

    def check(names, **arguments):
        for name, tally in sweep(conformance_servers, "check", names, **arguments).items():
            tallies.setdefault(name, Tally()).merge(tally)

    check(names, settings=COMPILED, forms=["plain", "views"], dtypes=1, most=2)
    check(names, settings=RECORD[1:], forms=["strided"], dtypes=1, most=1)
    # some ops are deferred when they come again, or for few samples only; some are fused for few dtypes
    check(names, settings=RECORD, forms=["backward"], dtypes=1, most=1)
    rare = entries_of(never_deferred(sum_of(tallies)), names)
    check(rare, settings=RECORD, forms=["backward", "views"], dtypes=1, most=None)
    rare = entries_of(never_fused(sum_of(tallies)), names)
    check(rare, settings=COMPILED, forms=["plain", "backward", "views"], dtypes=None, most=12)
    print(table(tallies))
    assert_all_deferred(report(tallies))


def test_ops_compiled_in_the_background_agree(conformance_servers):
    names = all_names(conformance_servers)
    one = {"settings": AUTO, "dtypes": 1, "most": 1}
    report(sweep(conformance_servers, "check", names, forms=["views"], **one))
    share = [name for name in names if zlib.crc32(name.encode()) % ALL_FORMS == 0]
    total = report(sweep(conformance_servers, "check", share, forms=FORMS, **one))
    assert total.compiled > total.samples / 4


def test_errors_agree(conformance_servers):
    names = all_names(conformance_servers)
    report(sweep(conformance_servers, "check_errors", names, settings=COMPILED))


def test_recorded_sparse_ops_agree(conformance_servers):
    names = all_names(conformance_servers)
    report(sweep(conformance_servers, "check_sparse", names, settings=COMPILED, most=3))


def entries_of(ops, names):
    """Return the database's entries that are named after ops of the table."""
    bases = [
        op.replace("_scaled_dot_product_flash_attention_for_cpu", "scaled_dot_product_attention")
        for op in ops
    ]
    for ending in ("_backward", "_forward", "2d", "_mode", "_tensor"):
        bases = [op.removesuffix(ending) for op in bases]
    return [name for name in names if name.split(".")[-1] in bases or name.split(".")[0] in bases]


def never_deferred(total):
    """Return the ops of the table that have not been deferred."""
    from torchy.ir.ops import SPECS

    return [spec.name for spec in SPECS.values() if not total.deferred[spec.name]]


def never_fused(total):
    """Return the ops of the table that may be fused, and have not been."""
    from torchy.codegen.cpu.exactness import inexact
    from torchy.ir.ops import SPECS

    dtypes = {"f": torch.float32, "i": torch.int32, "b": torch.bool}
    return [
        spec.name
        for spec in SPECS.values()
        if spec.kind == "pointwise"
        and any(not inexact(spec, rule, dtypes[kind]) for rule in spec.rules for kind in rule.kinds)
        and not total.fused[spec.name]
    ]


def assert_all_deferred(total):
    """Every op of the table must have been deferred at least once, and what may fuse must have been fused."""
    never = never_deferred(total)
    assert not never, f"in the op table, but never deferred: {', '.join(never)}"
    never = never_fused(total)
    assert not never, f"pointwise in the op table, but never fused: {', '.join(never)}"
