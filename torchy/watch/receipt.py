"""A receipt: for each flush what was run, and hashes of what it wrote, to compare runs of a program with each other."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import threading
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, TextIO

import torch

from torchy.ir.listing import listing, short_op
from torchy.ir.trace import Source, Trace
from torchy.record.native import Walker
from torchy.report.records import format_seconds
from torchy.watch.flush import WatchedFlush

VERSION = 1


class Receipt:
    """Writes a receipt, or checks one: a line of JSON for each flush, in the order in which they ended.

    Parameters
    ----------
    path
        The file. The first line tells where it was written; each flush's has the trace (its listing, in full where it is
        new), sizes, and for each op whose result the program could still reach a hash of that.
    check
        Compare with what the file has, instead of writing it.
    name
        Gives names to files of the program: ``cell 7``. Default: their last part.

    Notes
    -----
    An op that Torchy has to see run before it can defer it runs at once the first time: so a program that is run again in
    one process may be cut into other traces than when it came first. Compare runs that begin alike: fresh kernels.

    Raises
    ------
    ValueError
        If the file to check is no receipt; the message says where.
    OSError
        If the file cannot be read, or written.

    Examples
    --------
    >>> receipt = torchy.Receipt("run.jsonl")
    >>> with torchy.lazy(receipt=receipt):
    ...     train()
    >>> print(receipt.close())
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        check: bool = False,
        name: Callable[[str], str] = os.path.basename,
    ) -> None:
        self.path = Path(path)
        self._name = name
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._digests: dict[int, tuple[Trace, str]] = {}  # of traces' listings, by address
        self._written: set[str] = set()  # those that stand in the file in full
        self._expected: list[dict[str, Any]] | None = None
        self._file: TextIO | None = None
        self._seen = self._equal = 0
        self._hashing = 0.0
        self._first_difference: str | None = None
        if check:
            self._expected = _read(self.path)
        else:
            self._file = self.path.open("w", encoding="utf-8")
            self._write(
                {
                    "torchy receipt": VERSION,
                    "torch": torch.__version__,
                    "threads": torch.get_num_threads(),
                    "machine": platform.processor() or platform.machine(),
                    "capability": torch.backends.cpu.get_cpu_capability(),
                }
            )

    @property
    def checks(self) -> bool:
        """Whether it compares."""
        return self._expected is not None

    def note(self, walker: Walker, flush: WatchedFlush) -> None:
        """Write, or compare, a flush that has run."""
        if os.getpid() != self._process:  # of a forked child's the parent knows nothing
            return
        begin = perf_counter()
        with self._lock:
            line = self._line(walker, flush)
            self._hashing += perf_counter() - begin
            if self._expected is not None:
                self._compare(line)
            elif self._file is not None:
                if line["trace"] not in self._written:
                    self._written.add(line["trace"])
                    names = {
                        op.source.file: self._name(op.source.file)
                        for op in flush.trace.ops
                        if op.source
                    }
                    line["listing"] = listing(flush.trace, file_names=names).splitlines()
                self._seen += 1
                self._write(line)

    def _line(self, walker: Walker, flush: WatchedFlush) -> dict[str, Any]:
        trace, layouts = flush.trace, flush.recording.layouts()
        if id(trace) not in self._digests:
            text = listing(trace, file_names=_NoNames())
            self._digests[id(trace)] = (trace, hashlib.sha256(text.encode()).hexdigest()[:16])
        wrote = []
        for op, view, values in flush.windows():
            plain = values.contiguous()
            digest = walker.hash(plain.data_ptr(), plain.numel() * plain.element_size())
            wrote.append([f"%{view}", short_op(op.name), self._place(op.source), digest.hex()])
        return {
            "at": self._place(flush.where),
            "trace": self._digests[id(trace)][1],
            "ops": len(trace.ops),
            "sizes": [
                list(layouts[view].sizes)
                for op in trace.ops
                for view in op.results
                if view is not None
            ],
            "wrote": wrote,
        }

    def _place(self, source: Source | None) -> str:
        return f"{self._name(source.file)}, line {source.line}" if source else "?"

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def _compare(self, line: dict[str, Any]) -> None:
        expected = self._expected or []
        position, self._seen = self._seen, self._seen + 1
        if position >= len(expected):
            self._differs(f"{line['at']}: a flush that the receipt does not have")
            return
        known = expected[position]
        if known["trace"] != line["trace"]:
            self._differs(
                f"{line['at']}: other ops than the receipt has, which is at {known['at']}"
            )
        elif known["sizes"] != line["sizes"]:
            self._differs(f"{line['at']}: other sizes")
        elif [old[:2] for old in known["wrote"]] != [new[:2] for new in line["wrote"]]:
            self._differs(f"{line['at']}: other values are left to the program")
        elif differing := [
            new for old, new in zip(known["wrote"], line["wrote"], strict=True) if old[3] != new[3]
        ]:
            _, name, place, _ = differing[0]
            self._differs(f"{place}, `{name}`")
        else:
            self._equal += 1

    def _differs(self, what: str) -> None:
        if self._first_difference is None:
            self._first_difference = what

    @property
    def equal(self) -> bool:
        """Whether all that has been compared so far was as the receipt says."""
        return self._first_difference is None

    def close(self) -> str:
        """End it; return what there is to say, in a sentence."""
        with self._lock:
            cost = f"{format_seconds(self._hashing)} spent on hashing"
            if self._expected is None:
                if self._file is not None:
                    self._file.close()
                    self._file = None
                flushes = "1 flush" if self._seen == 1 else f"{self._seen:,} flushes"
                return f"{flushes} written to {self.path} ({cost})"
            missing = len(self._expected) - self._seen
            text = f"{self._equal:,} of {max(len(self._expected), self._seen):,} equal"
            if self._first_difference:
                return f"{text}; first difference: {self._first_difference} ({cost})"
            return (
                text
                + (f"; {missing:,} of the receipt were not run" if missing > 0 else "")
                + f" ({cost})"
            )


class _NoNames(dict[str, str]):
    """Gives all files one name: a listing that is the same wherever the program lies."""

    def get(self, key: str, default: object = None) -> str:
        return "-"


def _read(path: Path) -> list[dict[str, Any]]:
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: no receipt of Torchy's: {error}") from None
        lines.append(line)
    if not lines or not isinstance(lines[0], dict) or "torchy receipt" not in lines[0]:
        raise ValueError(f"{path} is no receipt: its first line should say `torchy receipt`")
    if lines[0]["torchy receipt"] != VERSION:
        raise ValueError(f"{path} is a receipt of another version: {lines[0]['torchy receipt']}")
    keys = ("at", "trace", "sizes", "wrote")
    for number, line in enumerate(lines[1:], 2):
        if not isinstance(line, dict) or any(key not in line for key in keys):
            raise ValueError(f"{path}, line {number}: it should have {', '.join(keys)}")
    return lines[1:]
