"""torch's op database: forward, backward, in place, ``out=``; passed through, carrying the bit, and recorded."""

import concurrent.futures
import queue
from pathlib import Path

import pytest
from database import Tally

FILE = str(Path(__file__).with_name("database.py"))
PASS_THROUGH = [{"mode": "pass_through"}, {"mode": "carry"}]
RECORD = [{"compile": "always"}, {"compile": "never"}]
TITLES = ["samples", "agreed", "unsteady", "deferred", "fused", "called", "run now"]
BATCH = 12  # ops for one process; where it dies, each gets its own


def all_names(servers):
    """Return the names of the database's entries."""
    kind, value, log = servers[0].call(FILE, "names", {}, 120)
    assert kind == "passed", f"{value}\n{log}"
    return value


def drive(servers, function, names, seconds=300, **arguments):
    """Run a check over all ops, two processes at a time; return the tallies."""
    idle: queue.Queue = queue.Queue()
    for server in servers:
        idle.put(server)

    def attempt(batch):
        server = idle.get()
        try:
            return server.call(FILE, function, {"names": batch, **arguments}, seconds)
        finally:
            idle.put(server)

    def work(batch):
        kind, value, log = attempt(batch)
        if kind == "passed":
            return value
        if len(batch) > 1:
            tallies = {}
            for name in batch:
                tallies |= work([name])
            return tallies
        return {
            batch[0]: Tally(samples=1, failures=[f"{batch[0]}: {kind}: {value}\n{log[-3000:]}"])
        }

    batches = [names[start : start + BATCH] for start in range(0, len(names), BATCH)]
    tallies = {}
    with concurrent.futures.ThreadPoolExecutor(len(servers)) as pool:
        for result in pool.map(work, batches):
            tallies |= result
    return tallies


def report(tallies):
    """Print what disagreed, and fail if anything did."""
    total = sum_of(tallies)
    print(
        f"{len(tallies)} ops, {total.samples} samples, {total.agreed} agreed, {total.unsteady} not steady in eager"
    )
    print("not steady:", *(name for name, tally in tallies.items() if tally.unsteady))
    failures = [failure for tally in tallies.values() for failure in tally.failures]
    assert total.samples > 0
    if failures:
        failing = sum(bool(tally.failures) for tally in tallies.values())
        pytest.fail(f"{failing} ops differ:\n" + "\n".join(failures), pytrace=False)
    assert total.agreed + total.unsteady == total.samples
    return total


def test_passed_through_ops_agree(conformance_servers):
    names = all_names(conformance_servers)
    arguments = {"settings": PASS_THROUGH, "forms": ["plain", "backward"], "dtypes": 2, "most": 2}
    report(drive(conformance_servers, "check", names, **arguments))


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_passed_through_ops_agree_for_all_dtypes(conformance_servers):
    names = all_names(conformance_servers)
    arguments = {
        "settings": PASS_THROUGH,
        "forms": ["plain", "backward"],
        "dtypes": None,
        "most": None,
    }
    report(drive(conformance_servers, "check", names, seconds=1800, **arguments))


def test_passed_through_sparse_ops_agree(conformance_servers):
    names = all_names(conformance_servers)
    report(drive(conformance_servers, "check_sparse", names, settings=PASS_THROUGH, most=4))


def test_recorded_ops_agree(conformance_servers):
    names = all_names(conformance_servers)
    arguments = {"settings": RECORD, "forms": ["plain", "backward", "pending", "views"]}
    tallies = drive(conformance_servers, "check", names, dtypes=1, most=2, **arguments)
    # some ops are deferred for few samples only, or fused for few dtypes: their entries are tried with all
    total = sum_of(tallies)
    rare = entries_of(never_deferred(total), names)
    more = drive(conformance_servers, "check", rare, dtypes=1, most=None, **arguments)
    rare = entries_of(never_fused(total), names)
    more |= drive(conformance_servers, "check", rare, dtypes=None, most=12, **arguments)
    for name, tally in more.items():
        tallies[name].merge(tally)
    print_table(tallies)
    assert_all_deferred(report(tallies))


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_recorded_ops_agree_for_all_dtypes(conformance_servers):
    names = all_names(conformance_servers)
    arguments = {
        "settings": RECORD,
        "forms": ["plain", "backward", "pending", "views"],
        "dtypes": None,
        "most": 12,
    }
    tallies = drive(conformance_servers, "check", names, seconds=1800, **arguments)
    print_table(tallies)
    assert_all_deferred(report(tallies))


def test_errors_agree(conformance_servers):
    names = all_names(conformance_servers)
    report(drive(conformance_servers, "check_errors", names, settings=[*RECORD, *PASS_THROUGH]))


def test_recorded_sparse_ops_agree(conformance_servers):
    names = all_names(conformance_servers)
    report(drive(conformance_servers, "check_sparse", names, settings=RECORD, most=3))


def print_table(tallies):
    """Print a line for each op of the database and one for each op that was recorded below."""
    print(f"{'entry':45s}" + "".join(f"{title:>9s}" for title in TITLES))
    for name, tally in tallies.items():
        kinds = [sum(counter.values()) for counter in (tally.deferred, tally.fused, tally.called)]
        counts = [tally.samples, tally.agreed, tally.unsteady, *kinds, tally.run_now]
        print(f"{name:45s}" + "".join(f"{count:9d}" for count in counts))
    total = sum_of(tallies)
    print(f"\n{'op':45s} deferred    fused   called")
    for name in sorted(total.deferred):
        counts = [counter[name] for counter in (total.deferred, total.fused, total.called)]
        print(f"{name:45s}" + "".join(f"{count:9d}" for count in counts))


def sum_of(tallies):
    """Return one tally of all."""
    total = Tally()
    for tally in tallies.values():
        total.merge(tally)
    return total


def entries_of(ops, names):
    """Return the database's entries that are named after ops of the table."""
    bases = [
        op.removesuffix("_backward").removesuffix("_mode").removesuffix("_tensor") for op in ops
    ]
    return [name for name in names if name.split(".")[-1] in bases or name.split(".")[0] in bases]


def never_deferred(total):
    """Return the ops of the table that have not been deferred."""
    from torchy.ir.ops import SPECS

    return [spec.name for spec in SPECS.values() if not total.deferred[spec.name]]


def never_fused(total):
    """Return the ops of the table that may be fused, and have not been."""
    from torchy.ir.ops import SPECS

    return [
        spec.name
        for spec in SPECS.values()
        if spec.kind == "pointwise"
        and not spec.stays_call
        and any(not rule.inexact for rule in spec.rules)
        and not total.fused[spec.name]
    ]


def assert_all_deferred(total):
    """Every op of the table must have been deferred at least once, and what may fuse must have been fused."""
    never = never_deferred(total)
    assert not never, f"in the op table, but never deferred: {', '.join(never)}"
    never = never_fused(total)
    assert not never, f"pointwise in the op table, but never fused: {', '.join(never)}"
