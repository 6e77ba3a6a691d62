"""Random programs against eager, for some minutes or so many: what differs as runnable code, what was covered."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

from batch import Coverage, Failure
from drive import batches, start_servers
from tqdm import tqdm


def main() -> int:
    """Run programs until the time is up; return 1 if any differs."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long (default: 5)")
    parser.add_argument("--programs", type=int, help="how many, instead")
    parser.add_argument("--seed", type=int, help="of the first batch (default: another each time)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--batch", type=int, default=200, help="programs a process (default: 200)")
    arguments = parser.parse_args()
    seed = time.time_ns() // 1_000_000 if arguments.seed is None else arguments.seed
    seconds, most = arguments.minutes * 60, math.inf
    if arguments.programs is not None:
        seconds, most = math.inf, math.ceil(arguments.programs / arguments.batch)
    total, failures = Coverage(), []
    servers = start_servers(arguments.jobs)
    try:
        steps = round(seconds) if arguments.programs is None else arguments.programs
        unit = "s" if arguments.programs is None else " programs"
        with tqdm(total=steps, unit=unit, unit_scale=True, desc=f"seed {seed}") as bar:
            found = batches(servers, seed, arguments.batch, True, seconds, most)
            for coverage, failure in found:
                total.merge(coverage)
                if failure is not None:
                    failures.append(failure)
                    tqdm.write(str(failure))
                elapsed = round(bar.format_dict["elapsed"])
                done = elapsed if arguments.programs is None else total.programs
                bar.update(min(done, bar.total) - bar.n)
                bar.set_postfix(programs=total.programs, differ=len(failures))
    finally:
        servers.close()
    print(summary(total, failures))
    return bool(failures)


def summary(total: Coverage, failures: list[Failure]) -> str:
    """Return what was run and covered, as a table."""
    from torchy.ir.ops import SPECS, lookup

    specs = {name: lookup(name) for name in total.deferred}
    deferred = {spec.name for spec in specs.values() if spec}
    fused = {spec.name for name, spec in specs.items() if spec and total.fused[name]}
    rows = [
        (
            "programs",
            f"{total.programs}, each in all tiers, six times: with other layouts and sizes",
        ),
        ("differ", str(len(failures))),
        ("not steady in eager", str(total.unsteady)),
        *((name.replace("_", " "), f"{count:,}") for name, count in total.counters.items()),
        ("ops of the table deferred", f"{len(deferred)} of {len(SPECS)}"),
        ("  fused", str(len(fused))),
        ("  never", ", ".join(sorted(SPECS.keys() - deferred)) or "none"),
    ]
    for kind in sorted(set(total.verdicts.values())):
        names = sorted(name for name, verdict in total.verdicts.items() if verdict == kind)
        shown = ", ".join(name.removeprefix("aten::") for name in names)
        rows.append((f"verdict {kind.lower().replace('_', ' ')}", f"{len(names)} ops: {shown}"))
    refused = {name: count for name, count in total.refused.items() if count}
    rows.append(("  deferrable, refused", ", ".join(f"{n} x{c}" for n, c in refused.items())))
    reasons, ops = Counter(), defaultdict(set)
    for reason, count in total.reasons.items():
        op, _, rest = reason.partition(" ")
        kind = f"(op) {rest}" if "::" in op else reason
        reasons[kind] += count
        ops[kind] |= {op} if "::" in op else set()
    for kind, count in reasons.most_common():
        rows.append(
            (f"flushed: {kind}", f"{count:,}" + (f", {len(ops[kind])} ops" if ops[kind] else ""))
        )
    return "\n".join(f"{name:40s} {text}" for name, text in rows)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    sys.exit(main())
