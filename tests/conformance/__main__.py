"""All of torch's op database against eager: a progress bar, and a table of ops in build/conformance.txt."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from database import UNINITIALISED, Tally
from sweep import (
    AUTO,
    FORMS,
    PASS_THROUGH,
    PASSED_FORMS,
    RECORD,
    all_names,
    failures_of,
    start_servers,
    summary,
    sweep,
    table,
)
from tqdm import tqdm

TABLE = Path(__file__).parents[2] / "build" / "conformance.txt"
# What is checked: a title, a function of database.py, and its arguments.
CHECKS = (
    ("recorded", "check", {"settings": RECORD, "forms": FORMS}),
    ("compiled in the background", "check", {"settings": AUTO, "forms": FORMS}),
    ("passed through", "check", {"settings": PASS_THROUGH, "forms": PASSED_FORMS}),
    ("sparse", "check_sparse", {"settings": [*AUTO, *RECORD, *PASS_THROUGH]}),
    ("erroneous", "check_errors", {"settings": [*AUTO, *RECORD, *PASS_THROUGH]}),
)


def main() -> int:
    """Check all ops; return 1 if any differs."""
    parser = argparse.ArgumentParser(prog="make conformance", description=__doc__)
    parser.add_argument("--samples", type=int, help="of an op and dtype at most (default: all)")
    parser.add_argument("--dtypes", type=int, help="of an op at most (default: all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument(
        "--only", choices=[title for title, _, _ in CHECKS], help="one of the checks"
    )
    parser.add_argument("--form", choices=FORMS, help="one of the ways to call (default: all)")
    parser.add_argument("ops", nargs="*", help="names of the database's entries (default: all)")
    arguments = parser.parse_args()
    servers = start_servers(arguments.jobs)
    texts, failures = [], []
    try:
        names = arguments.ops or all_names(servers)
        for title, function, what in CHECKS:
            if arguments.only not in (None, title):
                continue
            what = dict(what)
            if function != "check_errors":
                what["most"] = arguments.samples
            if function == "check":
                what["dtypes"] = arguments.dtypes
                if arguments.form is not None:
                    what["forms"] = [arguments.form]
            with tqdm(total=len(names), unit=" ops", desc=title) as bar:
                # small batches: the samples of a few ops take minutes, and the last batch should be short
                tallies = sweep(servers, function, names, 7200, bar.update, batch=12, **what)
            failures += failures_of(tallies)
            texts += section(title, tallies)
            TABLE.parent.mkdir(exist_ok=True)
            TABLE.write_text("\n".join([*texts, "", *failures, ""]))
    finally:
        servers.close()
    print(*(text for text in texts if text.startswith("#")), *failures, sep="\n")
    print("Not compared, since eager reads what nobody has written:")
    print(*(f"  {name}: {why}" for name, why in UNINITIALISED.items()), sep="\n")
    print(f"The table is in {os.path.relpath(TABLE)}")
    return bool(failures)


def section(title: str, tallies: dict[str, Tally]) -> list[str]:
    """Return the lines of one check: a summary, and the table."""
    return [f"# {title}: {summary(tallies)}", "", table(tallies), ""]


if __name__ == "__main__":
    sys.exit(main())
