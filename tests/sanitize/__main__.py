"""The walker compiled with a sanitizer, and the tests run that exercise it; fails if there is any report.

Python and torch are not compiled with it. So its runtime is loaded before them, and sees what they allocate, free and
lock, but their own accesses to memory only where they go through C's functions. Python takes its objects from malloc.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SEMANTICS = "tests/semantics"
COMMON = ("-O1", "-g", "-fno-omit-frame-pointer", "-D_GLIBCXX_ASSERTIONS")


@dataclasses.dataclass(frozen=True)
class Sanitizer:
    """How the walker is compiled, what is loaded before Python, and what is run.

    Parameters
    ----------
    flags
        Of the compiler.
    runtime
        The library that is loaded first.
    variable, options
        The environment variable that it reads, and what is in it.
    tests
        Files of tests/semantics, all if empty.
    left_out
        Beginnings of names of tests in those files, with the reason.
    programs
        How many random programs are run.
    """

    flags: tuple[str, ...]
    runtime: str
    variable: str
    options: dict[str, object]
    tests: tuple[str, ...]
    left_out: dict[str, str]
    programs: int


MEMORY = "bounds the memory of the process; freed memory is kept for a while here"
FORKED = "starts threads in a child of a process that has some: the runtime does not support it"
SANITIZERS = {
    "address": Sanitizer(
        flags=("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
        runtime="libasan.so",
        variable="ASAN_OPTIONS",
        options={
            "detect_leaks": 0,  # Python and torch keep much until the process ends
            "allocator_may_return_null": 1,  # as malloc does: some tests ask for far too much
            "detect_stack_use_after_return": 1,
        },
        tests=(),
        left_out={
            "test_same_bounds.py::test_a_loop_of_100_000_ops_that_never_looks": MEMORY,
            "test_same_bounds.py::test_a_loop_in_place_that_never_looks": MEMORY,
            "test_same_bounds.py::test_a_training_loop_that_never_looks": MEMORY,
            "test_same_bounds.py::test_views_of_a_pending_tensor_that_are_dropped": MEMORY,
            "test_same_bounds.py::test_the_report_of_many_long_traces": MEMORY,
            "test_same_evictions.py::test_kernels_take_little_memory": MEMORY,
            "test_same_evictions.py::test_tensors_whose_memory_was_seen_outside": MEMORY,
            "test_same_state_surroundings.py::test_profilers_see_regions_and_change_nothing[stack":
                "torch's profiler reads names of code objects that Python has freed",
        },
        programs=1000,
    ),
    "thread": Sanitizer(
        flags=("-fsanitize=thread",),
        runtime="libtsan.so",
        variable="TSAN_OPTIONS",
        options={
            "suppressions": HERE / "thread.supp",
            "ignore_noninstrumented_modules": 1,  # torch and OpenMP synchronise unseen
            "allocator_may_return_null": 1,
            "atexit_sleep_ms": 0,
        },
        tests=(
            "corners", "expected", "interrupts", "modes", "outside_memory", "repeats", "sessions",
            "state_callbacks", "state_native", "state_threads", "threads", "unseen_writers",
            "watched_training", "whole_threads",
        ),
        left_out={
            "test_same_threads.py::test_tensors_sent_through_queues_of_processes": FORKED,
            "test_same_threads.py::test_data_loader_workers": FORKED,
        },
        programs=0,
    ),
}  # fmt: skip


def check(sanitizer: Sanitizer, reports: Path, arguments: list[str]) -> bool:
    """Build the walker and run the tests; tell whether they pass and nothing is reported."""
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    flags = " ".join((*COMMON, *sanitizer.flags))
    environment = os.environ | {"CXX": "g++", "TORCHY_CXXFLAGS": flags, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "torchy", "build"], env=environment, check=True)
    options = sanitizer.options | {"log_path": reports / "report"}
    environment |= {
        # libstdc++ with it: in a program without C++ the runtime would not find how to throw
        "LD_PRELOAD": " ".join(map(library, (sanitizer.runtime, "libstdc++.so.6"))),
        sanitizer.variable: ":".join(f"{name}={value}" for name, value in options.items()),
        "UBSAN_OPTIONS": "print_stacktrace=1",  # of undefined behaviour a test dies, and prints it
        "PYTHONMALLOC": "malloc",
    }
    files = [f"{SEMANTICS}/test_same_{name}.py" for name in sanitizer.tests]
    tests = [f"--deselect={SEMANTICS}/{name}" for name in sanitizer.left_out]
    pytest = ["-m", "pytest", "-q", "-m", "not slow", *tests]
    commands = [[*pytest, *(arguments or files or [SEMANTICS])]]
    if sanitizer.programs and not arguments:
        commands += [["tests/fuzz", "--programs", str(sanitizer.programs), "--batch", "100"]]
    passed = [
        subprocess.run([sys.executable, *command], env=environment, cwd=ROOT).returncode == 0
        for command in commands
    ]
    return tell(reports) and all(passed)


def library(name: str) -> str:
    """Return where a library of the compiler's is."""
    command = ["g++", f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def tell(reports: Path) -> bool:
    """Print one report of each kind; return True if there are none."""
    kinds = defaultdict(list)
    for file in sorted(reports.iterdir()):
        for report in file.read_text(errors="replace").split("=" * 18 + "\n"):
            lines = [line for line in report.splitlines() if line.startswith("SUMMARY: ")]
            if lines or " CHECK failed: " in report:
                kinds[lines[-1] if lines else report].append(report)
    for kind, same in kinds.items():
        print(same[0], f"{len(same)} times: {kind.splitlines()[0]}", "", sep="\n")
    print(f"{len(kinds)} kinds of reports; all are in {reports}")
    return not kinds


def main() -> int:
    """Run what is asked for; return 1 if anything is reported or fails."""
    parser = argparse.ArgumentParser(prog="make sanitize", description=__doc__.splitlines()[0])
    parser.add_argument("sanitizers", nargs="+", choices=SANITIZERS)
    parser.add_argument(
        "--pytest", nargs=argparse.REMAINDER, default=[], help="what to run instead of all"
    )
    arguments = parser.parse_args()
    clean = [
        check(SANITIZERS[name], ROOT / "build" / f"sanitize-{name}", arguments.pytest)
        for name in arguments.sanitizers
    ]
    return not all(clean)


if __name__ == "__main__":
    sys.exit(main())
