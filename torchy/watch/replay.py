"""A flush that can be run again, op by op, as eager would have run it: the walker's own interpreter, on memory of ours."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import torch

from torchy.ir.trace import Layout, Trace
from torchy.record.native import Walker
from torchy.session.script import Recording
from torchy.watch.memory import window


class Replay:
    """One flush, without its inputs: these are given. Holds no memory until then.

    Parameters
    ----------
    session, serial
        Of the flush that is running.
    """

    def __init__(self, walker: Walker, session: int, serial: int, recording: Recording) -> None:
        self._walker = walker
        self._held = walker.hold(session, serial)
        self._given: list[torch.Tensor] = []
        self.recording = recording

    @property
    def trace(self) -> Trace:
        """What it runs."""
        return self.recording.trace

    @cached_property
    def _layouts(self) -> Sequence[Layout]:
        return self.recording.layouts()

    def give_all(self) -> None:
        """Give all inputs, as they were before the flush that is about to end."""
        self.drop()
        self._walker.replay_give_all(self._held)

    def let_go(self) -> None:
        """Let go of these."""
        self._walker.replay_let_go(self._held)

    def give(self, buffers: Mapping[int, torch.Tensor]) -> None:
        """Give memory to inputs, as tensors of bytes: written to where the trace does."""
        self._given += buffers.values()
        for buffer, memory in buffers.items():
            self._walker.replay_give(self._held, buffer, memory.data_ptr())

    def run(self, keep: Sequence[int] = ()) -> Iterator[tuple[int, float]]:
        """Run the ops in order; yield each op, with the seconds that it took below torch's dispatch, once it has run.

        What no later op needs is dropped before the op after that runs, but for the buffers to ``keep``.
        """
        last = last_uses(self.trace)
        dead: bytes = b""
        for op in self.trace.ops:
            yield op.index, self._walker.replay_run(self._held, op.index, dead) * 1e-9
            buffers = {self.trace.buffer_of(view) for view in (*op.reads, *op.writes)}
            gone = sorted(b for b in buffers if last[b] == op.index and b not in keep)
            dead = struct.pack(f"={len(gone)}q", *gone)

    def view(self, view: int) -> torch.Tensor | None:
        """Return a window on what a view has now; None if its buffer has no memory (yet, or any more)."""
        buffer = self.trace.buffer_of(view)
        address = _words(self._walker.replay_memory(self._held))[buffer]
        layout = self._layouts[view]
        if not address and 0 not in layout.sizes:
            return None
        return window(address, self.trace.views[view].dtype, layout)

    def memory(self) -> tuple[int, ...]:
        """Return where each buffer's memory is now; 0: it has none."""
        return _words(self._walker.replay_memory(self._held))

    def drop(self) -> None:
        """Drop all memory."""
        self._walker.replay_drop(self._held)
        self._given = []


def last_uses(trace: Trace) -> dict[int, int]:
    """Return for each buffer the last op that reads or writes it."""
    return {trace.buffer_of(v): op.index for op in trace.ops for v in (*op.reads, *op.writes)}


def written_inputs(trace: Trace) -> frozenset[int]:
    """Return the buffers that were there before the trace, and that it writes to."""
    written = {trace.buffer_of(view) for op in trace.ops for view in op.writes}
    return frozenset(b for b in written if trace.buffers[b].creator is None)


def _words(data: bytes) -> tuple[int, ...]:
    return tuple(memoryview(data).cast("q"))
