"""A flush under way, for those who watch it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import torch

from torchy.ir.trace import Op, Source, Trace
from torchy.record import slots
from torchy.record.native import Record, Walker
from torchy.session.script import Recording, Script
from torchy.watch.memory import window
from torchy.watch.replay import Replay


class WatchedFlush:
    """A flush that has begun, and has not run; or the walker has run it, but not ended it.

    Parameters
    ----------
    session
        Its number.
    running
        The flush, as the walker tells it.
    keeps_inputs
        Whether it is to be run again before it ends: see :meth:`rerun`.

    Attributes
    ----------
    number
        That of its record in the session's report.
    seconds
        What running it took, once it has run; ``times`` are those of its steps.
    """

    def __init__(
        self,
        walker: Walker,
        session: int,
        running: Record,
        recording: Recording,
        script: Script,
        keeps_inputs: bool,
    ) -> None:
        self._walker = walker
        self.session = session
        self.number = running.serial - 1
        self.serial = running.serial
        self.recording = recording
        self.script = script
        self.outputs = slots.live(running.flags)
        self.seconds = 0.0
        self.times = b""
        self._held: Replay | None = None
        if keeps_inputs:
            walker.keep_inputs(session, running.serial)
            self._held = self.hold()

    def hold(self) -> Replay:
        """Return what runs it again, by itself."""
        return Replay(self._walker, self.session, self.serial, self.recording)

    @property
    def replay(self) -> Replay:
        """What runs it again before it ends: see :meth:`rerun`."""
        if self._held is None:
            self._held = self.hold()
        return self._held

    @property
    def trace(self) -> Trace:
        """What was recorded."""
        return self.recording.trace

    @property
    def where(self) -> Source | None:
        """The line that made it flush."""
        return self.script.where

    def memory(self) -> list[tuple[int, int]]:
        """Return for each buffer where its memory is now (0: nowhere), and how many bytes of it ops can reach.

        Torch may have reserved more, where nobody knows what there is.
        """
        words = memoryview(self._walker.memory(self.session, self.serial)).cast("q").tolist()
        return list(zip(words, self._reach, strict=False))  # buffers of checks come last

    @cached_property
    def _reach(self) -> list[int]:
        return self.recording.buffer_bytes()

    @cached_property
    def inputs(self) -> tuple[int, ...]:
        """The buffers that were there before."""
        return tuple(buffer.index for buffer in self.trace.buffers if buffer.creator is None)

    def rerun(self, keep: Sequence[int] = ()) -> Iterator[tuple[int, float]]:
        """Run it again on its inputs as they were, if they are kept: see :meth:`Replay.run`."""
        self.replay.give_all()
        return self.replay.run(keep)

    def is_suspect(self) -> bool:
        """Tell, once it has run, if it has given birth to what is not finite: see :mod:`torchy.plan.checks`."""
        return bool(self._walker.suspects(self.session, self.serial))

    def made(self) -> Mapping[int, tuple[int, int]]:
        """Return where the buffers are that it has made or written, once it has run, and their bytes."""
        memory = self.memory()
        return {buffer: memory[buffer] for buffer in sorted(self.outputs)}

    def windows(self) -> list[tuple[Op, int, torch.Tensor]]:
        """Return what it has left to the program, once it has run: each view that it wrote, with the op that did so last."""
        made, layouts, trace = self.made(), self.recording.layouts(), self.trace
        last = {view: op for op in trace.ops for view in op.writes}
        return [
            (op, view, window(made[buffer][0], trace.views[view].dtype, layouts[view]))
            for view, op in last.items()
            if (buffer := trace.buffer_of(view)) in made
        ]

    def let_go(self) -> None:
        """Let go of all of its memory, before it ends."""
        if self._held is not None:
            self._held.drop()
            self._held.let_go()
        self._walker.forget_inputs(self.session, self.serial)
