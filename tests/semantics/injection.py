"""Raises at the n-th line that Torchy's own Python runs, for every n; each time in a process of its own."""

from __future__ import annotations

import ast
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
HANGS = 30  # seconds


def _out_of_reach(file: Path) -> set[int]:
    """Return the lines of a file before which nothing is raised.

    Leaving a block comes back to its ``with``, where no signal can come in, nor at a ``try:``, which does nothing (what is
    raised there is not even seen by the block around it). One that comes in before the ``try`` of an
    ``__exit__`` leaves the block open, as it does any other context manager that is written in Python.
    """
    lines: set[int] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.With):
            lines.update(range(node.lineno, node.body[0].lineno))
        if isinstance(node, ast.Try):
            lines.add(node.lineno)
        if isinstance(node, ast.FunctionDef) and node.name == "__exit__":
            begun = [each.body[0].lineno for each in node.body if isinstance(each, ast.Try)]
            lines.update(range(node.lineno, min(begun, default=node.body[0].lineno + 1)))
    return lines


class Tracer:
    """Counts the lines that Torchy runs on this thread, and raises before the one at a position.

    Parameters
    ----------
    position
        Counted from one; 0: never.
    raises
        The exception.

    Attributes
    ----------
    firsts, lasts
        The positions at which each line of the source was run first, and last.
    where
        The line before which it has raised.
    """

    def __init__(self, position: int = 0, raises: type[BaseException] = KeyboardInterrupt) -> None:
        self.count = 0
        self.firsts: dict[tuple[str, int], int] = {}
        self.lasts: dict[tuple[str, int], int] = {}
        self.where: str | None = None
        self._position = position
        self._raises = raises
        self._skipped: dict[str, set[int] | None] = {}

    def __enter__(self) -> Tracer:
        sys.settrace(self._enter)
        return self

    def __exit__(self, *error: object) -> None:
        sys.settrace(None)

    def _enter(self, frame, event, argument):
        file = frame.f_code.co_filename
        if file not in self._skipped:
            ours = Path(file).is_relative_to(ROOT / "torchy")
            self._skipped[file] = _out_of_reach(Path(file)) if ours else None
        return self._line if self._skipped[file] is not None else None

    def _line(self, frame, event, argument):
        if event == "line" and frame.f_lineno not in self._skipped[frame.f_code.co_filename]:
            self.count += 1
            line = frame.f_code.co_filename, frame.f_lineno
            self.firsts.setdefault(line, self.count)
            self.lasts[line] = self.count
            if self.count == self._position:
                file = Path(frame.f_code.co_filename).relative_to(ROOT)
                self.where = f"{file}:{frame.f_lineno}"
                sys.settrace(None)
                raise self._raises
        return self._line


def in_a_child(work: Callable[[], object]) -> object:
    """Return what a function returns in a forked process; raise AssertionError if that fails, hangs or dies."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(HANGS)
        try:
            answer: tuple[bool, object] = (True, work())
        except BaseException:  # noqa: BLE001 - whatever it is, the parent shall see it
            answer = (False, traceback.format_exc())
        with os.fdopen(write, "wb") as pipe:
            pipe.write(pickle.dumps(answer))
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answered = pipe.read()
    _, status = os.waitpid(child, 0)
    assert answered, f"died: {os.waitstatus_to_exitcode(status)}"
    fine, value = pickle.loads(answered)
    assert fine, value
    return value


def failures(work: Callable[[Tracer], object], positions: Iterable[int], **options) -> list[str]:
    """Call ``work(tracer)`` for each position, each in a process of its own; return what went wrong.

    ``work`` raises if anything is not as it should be.
    """
    found = []
    for position in positions:
        tracer = Tracer(position, **options)

        def one(tracer: Tracer = tracer) -> str | None:
            try:
                work(tracer)
            except BaseException:  # noqa: BLE001 - as above
                return f"{tracer.where}: {traceback.format_exc()}"
            return None

        try:
            answer = in_a_child(one)
        except AssertionError as error:
            answer = error
        if answer is not None:
            found.append(f"position {position}: {answer}")
    return found


def require_off() -> None:
    """Fail if anything of a session is left on this thread."""
    import torchy

    assert torchy.current_session() is None, "a session is left open"
    assert "PrivateUse3" not in str(torch._C._dispatch_tls_local_include_set()), "the bit is on"
    assert not torchy.is_pending(torch.ones(3) * 2), "ops are recorded"


def in_a_thread(work: Callable[[], object], seconds: float = 10) -> object:
    """Return what a function returns on another thread."""
    seen: list[object] = []
    thread = threading.Thread(target=lambda: seen.append(work()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "another thread waits forever"
    assert seen, "another thread's look failed"
    return seen[0]
