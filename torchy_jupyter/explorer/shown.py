"""What the explorer shows, as plain data that the page, the static copy and the saved file render."""

from __future__ import annotations

import traceback
from collections.abc import Container
from dataclasses import asdict, dataclass
from typing import Any

from torchy.report import RanNowRecord, Source

MOST_ERROR = 300  # characters of a message


@dataclass(frozen=True, slots=True)
class CellSource:
    """A cell as the user knows it: its name, and the text that was typed."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Raised:
    """What a cell has raised, and the innermost of its lines that it passed."""

    error: BaseException
    where: Source | None

    @classmethod
    def at(cls, error: BaseException, files: Container[str]) -> Raised:
        """Find the innermost line of some files that an exception passed."""
        found = None
        for frame, line in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename in files:
                found = Source(frame.f_code.co_filename, line)
        return cls(error, found)

    def __str__(self) -> str:
        """Return the kind of the exception and the first line of its message, shortened."""
        said = str(self.error).strip().split("\n")[0]
        text = type(self.error).__name__ + (f": {said}" if said else "")
        return text if len(text) <= MOST_ERROR else f"{text[:MOST_ERROR]}…"


@dataclass(frozen=True, slots=True)
class Note:
    """A row below a line.

    ``kind``: ``flush``, ``eager``, ``nan``, ``finding`` or ``error``; ``flush``: the position of its flush.
    """

    kind: str
    text: str
    flush: int | None = None


@dataclass(frozen=True, slots=True)
class Birth:
    """Where the first NaN was born, in words: for the first line, and all of it."""

    short: str
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """What happened on a line.

    Parameters
    ----------
    seconds, estimated
        What its ops took; estimated, if they share a kernel with those of other lines.
    ops
        How many were recorded there.
    chips
        What ran them: the letter of a kernel, ``f`` for a call, ``~`` for what ran as eager.
    """

    number: int
    text: str
    seconds: float
    estimated: bool
    ops: int
    chips: tuple[str, ...]
    notes: tuple[Note, ...]


@dataclass(frozen=True, slots=True)
class Lines:
    """A cell, all of it, or those lines of another file where something happened."""

    file: str
    name: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class ShownOp:
    """An op, or several alike (``count``) that it stands for.

    Parameters
    ----------
    variable
        What the program calls its result; empty if that cannot be told.
    result, bytes, stored
        Type and size of its results, and whether they were written to memory.
    seconds
        What it took: its share of its kernel's time, estimated.
    eager, known
        What eager takes for it, estimated; the least that it can be, if that is not known.
    feeds
        The shown ops that read what it wrote.
    """

    index: int
    name: str
    text: str
    file: str | None
    line: int | None
    group: int | None
    dead: bool
    count: int
    variable: str
    result: str
    bytes: int
    stored: bool
    seconds: float
    eager: float
    known: bool
    feeds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ShownGroup:
    """A group, or several alike that it stands for; seconds and bytes are sums.

    ``letter`` is what a fused group is called in this cell: A, B, ... Z, AA; empty for a call. ``compiled``: it ran as a
    kernel the last time. ``moved``: the bytes of what it reads and writes. ``names`` and ``numbers``: what the program calls
    the memory that the kernel reaches, and the numbers that it is given, in the kernel's order. ``statements``: the ops that
    the kernel's statements are of.
    """

    id: int
    kind: str
    letter: str
    ops: tuple[int, ...]
    kernel: str | None
    compiled: bool
    count: int
    seconds: float
    eager: float
    moved: int
    names: tuple[str, ...]
    numbers: tuple[str, ...]
    statements: tuple[int, ...]
    why_apart: str | None
    refused: str | None


@dataclass(frozen=True, slots=True)
class ShownFlush:
    """A flush, or ``count`` of them with the same ops, lines and reason; seconds and bytes are sums.

    ``number``: that of the newest in the report. ``began``: the first of them, in seconds since the cell did. ``reason`` is
    in plain words.
    """

    number: int
    count: int
    reason: str
    file: str | None
    line: int | None
    place: str
    began: float
    seconds: float
    bytes_saved: int
    op_count: int
    ops: tuple[ShownOp, ...]
    groups: tuple[ShownGroup, ...]


@dataclass(frozen=True, slots=True)
class Account:
    """Where a cell's time went; the parts add up to ``cell``.

    Parameters
    ----------
    kernels, interpreted, calls
        In flushes: fused groups that were compiled, those whose ops torch ran one by one, ops that torch runs anyway.
    eager
        What was not recorded.
    prepared
        Planning and compiling, as far as the cell waited for it.
    hidden
        Flushes that are only counted.
    watching
        Keeping values, looking for NaNs, running eager for comparison.
    outside
        Python, recording, and all that is none of the others.
    unplaced
        Of the ops among those, what is on no line: it is not known where the program called them.
    eager_cell
        What the cell would have taken without Torchy; estimated, unless it is ``measured``.
    """

    cell: float
    kernels: float
    interpreted: float
    calls: float
    eager: float
    prepared: float
    hidden: float
    watching: float
    outside: float
    unplaced: float
    eager_cell: float
    measured: bool


@dataclass(frozen=True, slots=True)
class Counts:
    """How often what happened in a cell: launches of kernels, calls, and ops of groups that had no kernel yet."""

    ops: int
    kernels: int
    calls: int
    one_by_one: int
    eager: int
    flushes: int
    bytes_saved: int


@dataclass(frozen=True, slots=True)
class ShownKernel:
    """A kernel; ``levels`` by name, from the most readable one down. Texts that are not asked for yet are empty."""

    id: str
    compile_seconds: float | None
    levels: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is shown of one cell's report."""

    title: str
    counts: Counts
    account: Account
    asleep: str  # since when, and why; empty: it is not
    error: str  # what the cell raised
    birth: Birth | None  # of the first NaN
    equal: bool | None  # whether all bits are eager's; None: they were not compared
    keeps: bool  # whether values can be asked for
    findings: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    sources: tuple[Lines, ...]
    flushes: tuple[ShownFlush, ...]
    ran_now: tuple[RanNowRecord, ...]
    kernels: tuple[ShownKernel, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types (tuples for lists)."""
        return asdict(self) | {"ran_now": [record.to_dict() for record in self.ran_now]}
