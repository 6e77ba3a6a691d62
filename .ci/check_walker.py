"""Checks the walker: clang's warnings are errors. Nothing is compiled, which takes a few seconds."""

import subprocess
import sys

from torchy.record import building

CHECKS = ("-fsyntax-only", "-Wall", "-Wextra", "-Wthread-safety", "-Werror")

if __name__ == "__main__":
    sys.exit(subprocess.run(building.compile_command("clang++", *CHECKS)).returncode)
