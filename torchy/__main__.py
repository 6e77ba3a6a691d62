"""Run a script under Torchy, tell what is installed and whether it works, compile ahead, or see what is kept on disk."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from torchy.about import describe, kept, self_test, shelves
from torchy.disk import cache_folder
from torchy.record import building
from torchy.scripts import NoWriter, run_script
from torchy.settings import switched_off


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m torchy", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="compile the walker for the installed torch")
    build.add_argument(
        "--bundle",
        type=Path,
        metavar="FOLDER",
        help="compile it into a folder of the package instead, for a wheel",
    )
    cache = commands.add_parser("cache", help="show what is kept for the processes to come")
    cache.add_argument("--clear", action="store_true", help="remove it; running processes go on")
    report = commands.add_parser(
        "report", help="tell versions and machine, and test an op of each kind"
    )
    for command in (build, cache, report):
        command.add_argument("--cache-dir", help="where it is kept")
    run = commands.add_parser("run", help="run a script under Torchy, and tell what that did")
    run.add_argument(
        "-o",
        "--output",
        type=Path,
        help="write what happened: .html (a page to click through) or .json (a time line for Perfetto)",
    )
    run.add_argument("script", type=Path, metavar="SCRIPT")
    run.add_argument("arguments", nargs=argparse.REMAINDER, help="the script's own")
    arguments = parser.parse_args()
    try:
        switched_off()
    except ValueError as error:
        print(f"python -m torchy: {error}", file=sys.stderr)
        return 2
    if arguments.command == "run":
        return _run(arguments.script, arguments.arguments, arguments.output)
    if arguments.command == "report":
        return _report(arguments.cache_dir)
    if arguments.command == "cache":
        return _cache(arguments.cache_dir, arguments.clear)
    return _build(arguments.cache_dir, arguments.bundle)


def _run(script: Path, arguments: list[str], output: Path | None) -> int:
    if not script.is_file():
        print(f"python -m torchy run: there is no file {script}", file=sys.stderr)
        return 2
    try:
        return run_script(script, arguments, output)
    except (NoWriter, building.WalkerUnavailable) as error:
        print(f"python -m torchy run: {error}", file=sys.stderr)
        return 2


def _report(cache_dir: str | None) -> int:
    for name, text in describe(cache_dir):
        print(f"{name + ':':13}{text}")
    try:
        found, well = self_test(cache_dir)
    except building.WalkerUnavailable as error:
        found, well = str(error), False
    print(f"{'self-test:':13}{found}")
    return 0 if well else 1


def _build(cache_dir: str | None, bundle: Path | None) -> int:
    begin = time.perf_counter()
    try:
        library = building.build(cache_dir) if bundle is None else building.bundle(bundle)
    except building.WalkerUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{library} ({time.perf_counter() - begin:.1f} s)")
    return 0


def _cache(cache_dir: str | None, clear: bool) -> int:
    print(cache_folder(cache_dir))
    for text in kept(cache_dir):
        print(f"  {text}")
    if clear:
        for shelf in shelves(cache_dir).values():
            shelf.clear()
        for file in cache_folder(cache_dir).glob("walker-*"):
            file.unlink(missing_ok=True)
        print("cleared: the next process compiles the walker, which takes seconds, and its kernels")
    return 0


if __name__ == "__main__":
    sys.exit(main())
