"""What was recorded, read back from the walker: counters, traces, raw records.

The walker of the process is got here, and nowhere else in this folder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch

import torchy
from torchy.face import _process
from torchy.ir.trace import Trace
from torchy.record.native import Counters, Record, Repeat, Walker
from torchy.record.places import Places
from torchy.session.session import Session


def the_walker() -> Walker:
    """Return the walker of this process."""
    return _process.get().walker


def forget_places_beyond(count: int) -> None:
    """Have all places forgotten once there are more."""
    _process.get().upkeep.most_places = count


def nothing_compiled() -> contextlib.AbstractContextManager[object]:
    """Have no kernel compiled in the background meanwhile: that thread waits for this one."""
    return _process.get().kernels.compiling


def counters(session: Session) -> Counters:
    """Return what a session has done so far."""
    return the_walker().counters(session.handle)


def did(session: Session, body: Callable[[], object]) -> Counters:
    """Return what a session does for a body, in numbers; what the body returns is alive meanwhile."""
    before = counters(session)
    kept = body()
    after = counters(session)
    del kept
    return Counters(*(b - a for a, b in zip(before, after, strict=True)))


def turn(session: Session, body: Callable[[], object]) -> Counters:
    """Flush, at the same line for all turns, so that the body begins a trace there; return what it did."""
    pending = torch.ones(2) * 2
    torchy.flush()
    del pending
    return did(session, body)


def log(session: Session) -> list[Repeat]:
    """Take the raw records of a session that the report has not read."""
    records, _, _ = the_walker().take_log(session.handle)
    return records


def trace_of(path: list[int]) -> Trace:
    """Return what the walker knows of a path of nodes."""
    return Places(the_walker()).trace(path)


@contextlib.contextmanager
def begun(session: Session) -> Iterator[Record]:
    """Begin a session's flush and tell what is to be run; then leave it as if it had failed."""
    walker = the_walker()
    assert walker.library.torchy_begin(session.id) == 1
    record = walker.running(session.id)
    assert record is not None
    try:
        yield record
    finally:
        walker.library.torchy_leave(session.id)


def recorded(body: Callable[[], object], **settings: object) -> tuple[Trace, Record]:
    """Record a body; return the trace, and the raw record of the flush as it begins."""
    with torchy.lazy(**{"compile": "never"} | settings) as session:
        kept = body()
        with begun(session) as record:
            del kept
    return trace_of(record.path), record


def integers(raw: bytes) -> list[int]:
    """Return raw words as integers."""
    return memoryview(raw).cast("q").tolist()
