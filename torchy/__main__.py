"""``python -m torchy build`` compiles the walker ahead of its first use."""

from __future__ import annotations

import argparse
import sys
import time

from torchy.record import native


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m torchy", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="compile the walker for the installed torch")
    build.add_argument("--cache-dir", help="where to keep it")
    arguments = parser.parse_args()
    begin = time.perf_counter()
    try:
        library = native.build(arguments.cache_dir)
    except native.WalkerUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{library} ({time.perf_counter() - begin:.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
