"""What flushes were given, by content, so that they can be run again: bounded in memory, and in the time that it takes.

A flush's inputs that an earlier one of the same *segment* has made are not copied: that one is run again first. A segment
begins with copies of all that its first flush reads, and ends when running it again would take long, or its copies take a
quarter of the memory that there is. When that is used up, segments go, the oldest first; of the first one the beginning
stays longest.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from torchy.ir.trace import Trace
from torchy.record.native import Walker
from torchy.report.records import format_bytes
from torchy.watch.flush import WatchedFlush
from torchy.watch.memory import copy_of
from torchy.watch.replay import Replay, written_inputs

SEGMENT_SECONDS = 0.25  # of flushes
OWN_BYTES = 4000  # of what is known of a flush, beside its words

Digest = bytes


class NotKept(LookupError):
    """A value cannot be told any more; the message says why."""


@dataclass(eq=False, slots=True)
class KeptFlush:
    """A flush that can be run again as long as it has a ``replay``.

    ``inputs`` and ``outputs`` are the contents of its buffers before and after; ``bytes``: what is known of it takes.
    """

    session: int
    number: int
    trace: Trace
    replay: Replay | None
    inputs: dict[int, Digest]
    sizes: dict[int, int]
    bytes: int
    outputs: dict[int, Digest] = field(default_factory=dict)
    ended: bool = False

    @property
    def alive(self) -> bool:
        """Whether it can be run again."""
        return self.replay is not None and self.ended

    def lose(self) -> None:
        """Forget what it takes to run it again: many small things that lie between large ones."""
        self.replay = None
        self.inputs, self.sizes, self.outputs = {}, {}, {}

    def required(self) -> Replay:
        """Return its replay.

        Raises
        ------
        NotKept
            If it has none any more.
        """
        if self.replay is None:
            raise NotKept("it was dropped")
        return self.replay


@dataclass(eq=False, slots=True)
class _Segment:
    flushes: list[KeptFlush] = field(default_factory=list)
    copies: set[Digest] = field(default_factory=set)
    made: dict[Digest, tuple[KeptFlush, int]] = field(default_factory=dict)  # flush, and its buffer
    seconds: float = 0.0
    bytes: int = 0  # of its copies, also of those that it shares


@dataclass(slots=True)
class _Copy:
    memory: torch.Tensor
    users: int = 0  # segments


class Store:
    """Keeps the inputs of flushes, for all sessions of the process."""

    def __init__(self, walker: Walker) -> None:
        self._bytes = 0
        self._walker = walker
        self.lock = threading.RLock()
        self._segments: list[_Segment] = []
        self._copies: dict[Digest, _Copy] = {}
        self._held = 0

    @property
    def bytes(self) -> int:
        """What it may take; what is more is dropped at once if that is made less."""
        return self._bytes

    @bytes.setter
    def bytes(self, count: int) -> None:
        with self.lock:
            self._bytes = count
            self._bound()

    def begin(self, flush: WatchedFlush) -> KeptFlush:
        """Keep what a flush is given, before it runs."""
        memory = flush.memory()
        sizes = {buffer: memory[buffer][1] for buffer in flush.inputs}
        digests = {buffer: self._digest(*memory[buffer]) for buffer in flush.inputs}
        own = OWN_BYTES + flush.recording.held_bytes + 8 * len(flush.trace.ops)
        kept = KeptFlush(
            flush.session, flush.number, flush.trace, flush.hold(), digests, sizes, own
        )
        with self.lock:
            segment = self._segment()
            segment.flushes.append(kept)
            segment.bytes += own
            self._held += own
            for buffer, digest in digests.items():
                if digest in segment.copies or digest in segment.made:
                    continue
                if digest not in self._copies:
                    self._copies[digest] = _Copy(copy_of(*memory[buffer]))
                    self._held += sizes[buffer]
                self._copies[digest].users += 1
                segment.copies.add(digest)
                segment.bytes += sizes[buffer]
            self._bound()
        return kept

    def end(self, kept: KeptFlush, flush: WatchedFlush) -> None:
        """Note what a flush has made, once it has run."""
        made = flush.made()
        kept.outputs = {buffer: self._digest(*at) for buffer, at in made.items()}
        kept.sizes |= {buffer: count for buffer, (_, count) in made.items()}
        with self.lock:
            kept.ended = kept.replay is not None
            segment = next((s for s in reversed(self._segments) if kept in s.flushes[-1:]), None)
            if segment is None:  # dropped meanwhile, or another thread has gone on
                return
            segment.seconds += flush.seconds
            for buffer, digest in kept.outputs.items():
                segment.made[digest] = (kept, buffer)

    def _digest(self, address: int, count: int) -> Digest:
        return self._walker.hash(address, count)

    def _segment(self) -> _Segment:
        """Return the segment that the next flush belongs to."""
        last = self._segments[-1] if self._segments else None
        if last is None or last.seconds > SEGMENT_SECONDS or last.bytes > self.bytes / 4:
            last = _Segment()
            self._segments.append(last)
        return last

    def _bound(self) -> None:
        """Drop segments until the rest takes no more than it may."""
        while self._held > self.bytes and self._segments:
            first = self._segments[0]
            if len(self._segments) > 1 and len(first.flushes) > 1:
                self._shrink(first)
            elif len(self._segments) > 2:
                self._drop(self._segments.pop(1))
            else:
                self._drop(self._segments.pop(0))

    def _shrink(self, segment: _Segment) -> None:
        """Leave the first flush of a segment alone."""
        first, *others = segment.flushes
        for kept in others:
            self._lose(kept)
        segment.flushes = [first]
        segment.made.clear()
        needed = set(first.inputs.values())
        for digest in segment.copies - needed:
            self._let_go(digest)
        segment.copies &= needed

    def _drop(self, segment: _Segment) -> None:
        for kept in segment.flushes:
            self._lose(kept)
        for digest in segment.copies:
            self._let_go(digest)

    def _lose(self, kept: KeptFlush) -> None:
        kept.lose()
        self._held -= kept.bytes

    def _let_go(self, digest: Digest) -> None:
        copy = self._copies[digest]
        copy.users -= 1
        if copy.users == 0:
            self._held -= copy.memory.numel()
            del self._copies[digest]

    def inputs_of(self, kept: KeptFlush) -> dict[int, torch.Tensor]:
        """Return the inputs of a flush, as bytes: what earlier ones made is made again.

        What the flush only reads is not to be written to: others have it as well.

        Raises
        ------
        NotKept
            If they were dropped, or a flush that is run again makes something else than it did.
        """
        with self.lock:
            segment = next((s for s in self._segments if kept in s.flushes), None)
            if segment is None or not kept.alive:
                raise NotKept(
                    f"what it was made of was dropped for keep={format_bytes(self.bytes)}"
                )
            return self._inputs(segment, kept)

    def _inputs(self, segment: _Segment, kept: KeptFlush) -> dict[int, torch.Tensor]:
        """Make again what the flush was given, going back to copies."""
        order = {flush: position for position, flush in enumerate(segment.flushes)}
        needed: dict[KeptFlush, set[Digest]] = {}  # flushes to run, and what of theirs is wanted
        todo = [kept]
        while todo:
            flush = todo.pop()
            for digest in flush.inputs.values():
                if digest in segment.copies:
                    continue
                maker, _ = self._maker(segment, digest, order[flush], order)
                if maker not in needed:
                    needed[maker] = set()
                    todo.append(maker)
                needed[maker].add(digest)
        made: dict[Digest, torch.Tensor] = {}
        for flush in sorted(needed, key=lambda flush: order[flush]):
            made |= self.run_again(flush, self._given(segment, flush, made), needed[flush])
        return self._given(segment, kept, made)

    def _maker(
        self, segment: _Segment, digest: Digest, before: int, order: Mapping[KeptFlush, int]
    ) -> tuple[KeptFlush, int]:
        """Return the flush before another one that has made some content, and in which buffer."""
        found = segment.made.get(digest)
        if found is not None and order[found[0]] < before:
            return found
        for flush in reversed(segment.flushes[:before]):  # it was made again later
            for buffer, content in flush.outputs.items():
                if content == digest:
                    return flush, buffer
        raise NotKept("what it was made of is not known")

    def _given(
        self, segment: _Segment, kept: KeptFlush, made: Mapping[Digest, torch.Tensor]
    ) -> dict[int, torch.Tensor]:
        written = written_inputs(kept.trace)
        given = {}
        for buffer, digest in kept.inputs.items():
            memory = self._copies[digest].memory if digest in segment.copies else made[digest]
            own = buffer in written
            given[buffer] = copy_of(memory.data_ptr(), memory.numel()) if own else memory
        return given

    def run_again(
        self, kept: KeptFlush, inputs: dict[int, torch.Tensor], wanted: set[Digest]
    ) -> dict[Digest, torch.Tensor]:
        """Run a flush again; return some of what it makes, by content.

        Raises
        ------
        NotKept
            If it makes something else than it did.
        """
        replay = kept.required()
        replay.give(inputs)
        try:
            for _ in replay.run(keep=tuple(kept.outputs)):
                pass
            self.require_same(kept)
            memory, found = replay.memory(), {}
            for buffer, digest in kept.outputs.items():
                if digest in wanted and digest not in found:
                    found[digest] = copy_of(memory[buffer], kept.sizes[buffer])
            return found
        finally:
            replay.drop()

    def require_same(self, kept: KeptFlush) -> None:
        """Raise :class:`NotKept` if a flush that has been run again has made something else than it did."""
        memory = kept.required().memory()
        for buffer, digest in kept.outputs.items():
            if self._digest(memory[buffer], kept.sizes[buffer]) != digest:
                op = max(
                    op.index
                    for op in kept.trace.ops
                    for view in op.writes
                    if kept.trace.buffer_of(view) == buffer
                )
                source = kept.trace.ops[op].source
                raise NotKept(
                    f"{kept.trace.ops[op].name}, recorded at {source}, gives other bits when it runs again"
                )
