"""Runs each test in a process of its own, so that a crash or a hang is that test's and nobody else's.

A server process imports torch once and forks for every test: a few milliseconds each. It runs nothing on threads, so
that no thread pool is inherited. The file is both: a module for the tests' side, a script for the server's.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import faulthandler
import gc
import importlib.util
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import traceback
import types
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@dataclasses.dataclass(frozen=True)
class Request:
    """Which test to run, with what, where to write its outcome, and how long it may take."""

    file: str
    name: str
    arguments: dict[str, object]
    outcome: str
    log: str
    seconds: float


class Server:
    """The tests' side: starts the server process and asks it for one run at a time."""

    def __init__(self, preload: tuple[str, ...] = ("torch",), folder: Path = HERE) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.runs = 0
        before = os.environ.get("PYTHONPATH")  # goes first: a stand-in for torchy may be there
        path = os.pathsep.join([*([before] if before else []), str(folder), str(HERE), str(ROOT)])
        self.process = subprocess.Popen(
            [sys.executable, __file__, *preload],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"OMP_WAIT_POLICY": "passive", "TORCHY_DEBUG": "1"}  # passive: cores are shared
            | os.environ
            | {"PYTHONPATH": path},
            cwd=ROOT,
        )

    def call(
        self, file: str, name: str, arguments: dict[str, object], seconds: float
    ) -> tuple[str, Any, str]:
        """Call a function in a process of its own.

        Returns
        -------
        kind
            "passed", "failed", "skipped" or "died".
        value
            What the function returned; the traceback; the reason; how it died.
        log
            What was printed.
        """
        self.runs += 1
        stem = str(Path(self.folder.name) / str(self.runs))
        request = Request(file, name, arguments, stem + ".outcome", stem + ".log", seconds)
        self.process.stdin.write(base64.b64encode(pickle.dumps(request)) + b"\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            pytest.fail(f"the test server died with {self.process.wait()}", pytrace=False)
        status = int(answer)
        log = Path(request.log).read_text(errors="replace")
        Path(request.log).unlink()
        outcome = Path(request.outcome)
        if not outcome.exists():
            reason = "timed out" if "Timeout (" in log else "died"
            how = signal.Signals(-status).name if status < 0 else f"exit code {status}"
            return "died", f"{reason} ({how})", log
        kind, value = pickle.loads(outcome.read_bytes())
        outcome.unlink()
        return kind, value, log

    def close(self) -> None:
        """End the server."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()
        self.folder.cleanup()


class Servers:
    """Some servers; whoever calls gets one that is idle."""

    def __init__(self, count: int, preload: tuple[str, ...], folder: Path = HERE) -> None:
        self.all = [Server(preload, folder) for _ in range(count)]
        self.idle: SimpleQueue[Server] = SimpleQueue()
        for server in self.all:
            self.idle.put(server)

    def __len__(self) -> int:
        return len(self.all)

    def call(self, *request: Any) -> tuple[str, Any, str]:
        """Call a function in a process of its own: see :meth:`Server.call`."""
        server = self.idle.get()
        try:
            return server.call(*request)
        finally:
            self.idle.put(server)

    def close(self) -> None:
        """End them."""
        for server in self.all:
            server.close()


def judge(kind: str, value: Any, log: str) -> str:
    """Fail or skip as a test did that ran elsewhere; return what it printed."""
    if kind == "skipped":
        pytest.skip(value)
    if kind == "failed":
        pytest.fail(value + ("\n--- output ---\n" + log if log else ""), pytrace=False)
    if kind == "died":
        pytest.fail(f"the test's process {value}; its output:\n{log}", pytrace=False)
    return log


def load(file: str) -> types.ModuleType:
    """Import a test file by its path."""
    name = Path(file).stem
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def run_here(request: Request) -> None:
    """Run the test in this process, the child, and write down its outcome."""
    os.setpgid(0, 0)
    log = os.open(request.log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    faulthandler.enable(sys.stderr, all_threads=True)
    faulthandler.dump_traceback_later(request.seconds, exit=True, file=sys.stderr)
    try:
        value = getattr(load(request.file), request.name)(**request.arguments)
        outcome = ("passed", value)
    except pytest.skip.Exception as skipped:
        outcome = ("skipped", str(skipped))
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt are failures too
        frames = traceback.format_exc() if not isinstance(error, AssertionError) else ""
        if not frames:
            steps = traceback.extract_tb(error.__traceback__)[1:]
            own = [step for step in steps if step.filename == request.file]
            frames = "".join(traceback.format_list(own)) + f"AssertionError: {error}"
        outcome = ("failed", frames)
    sys.stdout.flush()
    Path(request.outcome + ".part").write_bytes(pickle.dumps(outcome))
    os.replace(request.outcome + ".part", request.outcome)


def serve() -> None:
    """Fork for every request that comes in, until there are no more."""
    gc.collect()
    gc.freeze()
    for line in sys.stdin.buffer:
        request = pickle.loads(base64.b64decode(line))
        child = os.fork()
        if child == 0:
            try:
                run_here(request)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what the test may have left behind
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    sys.modules["isolation"] = sys.modules["__main__"]
    Request.__module__ = "isolation"
    for module in sys.argv[1:]:
        importlib.import_module(module)
    serve()
