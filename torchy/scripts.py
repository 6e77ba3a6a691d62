"""Runs a script under Torchy, and writes down what it did."""

from __future__ import annotations

import runpy
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from time import perf_counter
from types import TracebackType

from torchy.face import lazy
from torchy.report import Report

RUNPY = "<frozen runpy>"  # what its frames say
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
        If nothing does.
    """
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
        If ``output`` has another suffix; before the script is run.
    """
    write = None if output is None else writer_of(output)
    sys.argv[:] = [str(script), *arguments]
    sys.path[0] = str(script.resolve().parent)
    raised: BaseException | None = None
    status = 0
    begin = perf_counter()
    with lazy() as session:
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as end:
            status = _status(end)
        except BaseException as error:  # told as Python would; what was recorded is told, too
            raised, status = error, 1
            traceback.print_exception(error.with_traceback(_of_script(error)))
    seconds = perf_counter() - begin
    report = session.report
    if write is None or output is None:
        print(report.summary(), file=sys.stderr)
        return status
    write(output, report, script, seconds, raised)
    print(f"Torchy: wrote {output}", file=sys.stderr)
    return status


def _status(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1


def _of_script(error: BaseException) -> TracebackType | None:
    """Return the traceback without the frames that run the script."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename in (
        __file__,
        runpy.__file__,
        RUNPY,
    ):
        frames = frames.tb_next
    return frames
