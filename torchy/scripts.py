"""Runs a script under Torchy, and writes down what it did."""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from time import perf_counter
from types import ModuleType, TracebackType

from torchy.face import lazy
from torchy.report import Report

INTERRUPTED = 130  # the exit status of a program that Ctrl-C has ended
PAGES = "torchy.pages"  # the group of entry points that write pages, by suffix

# path, report, the script, seconds that it took, what it has raised
Writer = Callable[[Path, Report, Path, float, BaseException | None], None]


class NoWriter(ValueError):
    """Nothing that is installed writes such a file; the message says what does."""


def writer_of(path: Path) -> Writer:
    """Return what writes a file of this suffix.

    Raises
    ------
    NoWriter
        If nothing does, or there is no such folder.
    """
    if not path.absolute().parent.is_dir():
        raise NoWriter(f"cannot write {path}: there is no folder {path.parent}")
    if path.suffix == ".json":
        return lambda path, report, *_: report.to_chrome_trace(path)
    found = entry_points(group=PAGES)
    for entry in found:
        if f".{entry.name}" == path.suffix:
            writer: Writer = entry.load()
            return writer
    suffixes = ", ".join([".json", *(f".{entry.name}" for entry in found)])
    hint = (
        "" if found else "; pages need torchy_jupyter to be installed: pip install torchy-jupyter"
    )
    raise NoWriter(f"cannot write {path}: its suffix is none of {suffixes}{hint}")


def run_script(script: Path, arguments: Sequence[str], output: Path | None) -> int:
    """Run a script as ``python SCRIPT`` does, recorded; tell what it did, and return its exit status.

    Parameters
    ----------
    script
        The file.
    arguments
        Its ``sys.argv`` from 1 on.
    output
        Where to write what happened, also if the script fails: ``.html`` (the explorer's page) or ``.json`` (a time line for
        Perfetto).

    Raises
    ------
    NoWriter
        If ``output`` cannot be written; before the script is run.
    """
    write = None if output is None else writer_of(output)
    process, given = os.getpid(), str(script)
    script, output = script.absolute(), output and output.absolute()  # it may go elsewhere
    raised: BaseException | None = None
    status = 0
    begin = perf_counter()
    with lazy() as session:
        try:
            _execute(script, [given, *arguments])
        except BaseException as error:
            if os.getpid() != process:  # a child that the script has forked
                raise
            if isinstance(error, SystemExit):
                status = _status(error)
            else:  # told as Python would; what was recorded is told, too
                raised, status = error, INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
                error.__traceback__ = _of_script(error)
                sys.excepthook(type(error), error, error.__traceback__)
    if os.getpid() != process:
        return status
    seconds = perf_counter() - begin
    report = session.report
    if write is None or output is None:
        print(report.summary(), file=sys.stderr)
        return status
    write(output, report, script, seconds, raised)
    print(f"Torchy: wrote {output}", file=sys.stderr)
    return status


def _execute(script: Path, arguments: list[str]) -> None:
    """Run a file as the main module, which it stays: for what is pickled, for threads, and at exit."""
    main = ModuleType("__main__")
    main.__dict__.update(__file__=str(script), __builtins__=builtins, __package__=None)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main  # what multiprocessing calls it
    sys.argv[:] = arguments
    sys.path[0] = str(script.resolve().parent)
    exec(compile(script.read_bytes(), str(script), "exec"), main.__dict__)


def _status(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1


def _of_script(error: BaseException) -> TracebackType | None:
    """Return the traceback without the frames that run the script."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    return frames
