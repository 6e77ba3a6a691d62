"""Runs checks of database.py over all ops, in processes that fork for every batch; sums up what they tell."""

import concurrent.futures
import sys
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "semantics")]

from database import Tally  # noqa: E402
from isolation import Servers  # noqa: E402

FOLDER = Path(__file__).parent
FILE = str(FOLDER / "database.py")
PASS_THROUGH = [{"mode": "pass_through"}, {"mode": "carry"}]
RECORD = [{"compile": "always"}, {"compile": "never"}]
AUTO = [{"compile": "auto"}]  # before RECORD, or in another process: its kernels would be there
PASSED_FORMS = ["plain", "backward"]
FORMS = [*PASSED_FORMS, "pending", "views", "strided"]
TITLES = ["samples", "agreed", "unsteady", "deferred", "fused", "called", "run now"]


def start_servers(count: int) -> Servers:
    """Start processes with the op database loaded."""
    return Servers(count, preload=("preload", "database"), folder=FOLDER)


def all_names(servers: Servers) -> list[str]:
    """Return the names of the database's entries."""
    kind, value, log = servers.call(FILE, "names", {}, 120)
    if kind != "passed":
        raise RuntimeError(f"{value}\n{log}")
    return value


def sweep(
    servers: Servers,
    function: str,
    names: list[str],
    seconds: float = 300,
    done: Callable[[int], object] = lambda ops: None,
    batch: int = 30,
    **arguments: object,
) -> dict[str, Tally]:
    """Run a check over some ops, a batch for each process at a time.

    Parameters
    ----------
    seconds
        A batch that takes longer hangs.
    done
        Called with the number of ops that have just been checked.
    batch
        Ops for one process; where it dies, each gets its own. Starting it takes longer than a few samples do.
    """

    def work(some: list[str]) -> dict[str, Tally]:
        kind, value, log = servers.call(FILE, function, {"names": some, **arguments}, seconds)
        if kind == "passed":
            return value
        if len(some) > 1:
            tallies = {}
            for name in some:
                tallies |= work([name])
            return tallies
        why = f"{some[0]}: {kind}: {value}\n{log[-3000:]}"
        return {some[0]: Tally(samples=1, failures=[why])}

    batches = [names[start : start + batch] for start in range(0, len(names), batch)]
    tallies = {}
    with concurrent.futures.ThreadPoolExecutor(len(servers)) as pool:
        for running in concurrent.futures.as_completed([pool.submit(work, b) for b in batches]):
            tallies |= running.result()
            done(len(running.result()))
    return {name: tallies[name] for name in names}


def sum_of(tallies: dict[str, Tally]) -> Tally:
    """Return one tally of all."""
    total = Tally()
    for tally in tallies.values():
        total.merge(tally)
    return total


def failures_of(tallies: dict[str, Tally]) -> list[str]:
    """Return what disagreed."""
    return [failure for tally in tallies.values() for failure in tally.failures]


def summary(tallies: dict[str, Tally]) -> str:
    """Return a line on what was checked."""
    total = sum_of(tallies)
    unsteady = [name for name, tally in tallies.items() if tally.unsteady]
    text = f"{len(tallies)} ops, {total.samples:,} samples, {total.agreed:,} agreed"
    return f"{text}, {total.unsteady} not steady in eager{': ' if unsteady else ''}{', '.join(unsteady)}"


def table(tallies: dict[str, Tally]) -> str:
    """Return a line for each op of the database and one for each op that was recorded below."""
    lines = [f"{'entry':45s}" + "".join(f"{title:>10s}" for title in TITLES)]
    for name, tally in tallies.items():
        kinds = [sum(counter.values()) for counter in (tally.deferred, tally.fused, tally.called)]
        counts = [tally.samples, tally.agreed, tally.unsteady, *kinds, tally.run_now]
        lines.append(f"{name:45s}" + "".join(f"{count:10d}" for count in counts))
    total = sum_of(tallies)
    lines += ["", f"{'op':45s}" + "".join(f"{title:>10s}" for title in TITLES[3:6])]
    for name in sorted(total.deferred):
        counts = [counter[name] for counter in (total.deferred, total.fused, total.called)]
        lines.append(f"{name:45s}" + "".join(f"{count:10d}" for count in counts))
    return "\n".join(lines)
