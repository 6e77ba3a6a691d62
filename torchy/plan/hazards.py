"""What must stay in order: ops that touch the same buffer, if one of them writes it.

Two views of one buffer may overlap, so hazards are between buffers, whatever the views. Hazards only
ever point from an earlier op to a later one; a :class:`StepGraph` keeps them between the steps that
the ops have been gathered into.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

from torchy.plan.touch import Touch


class Wait(NamedTuple):
    """What an op waits for, as the bits of integers: the steps that it needs, and all that must run before those."""

    steps: int
    before: int


class StepGraph:
    """Steps and what must run before what, kept while ops are still joining the steps.

    ``_before[step]`` is the set of all steps that must run before it, as the bits of an integer:
    asking whether two steps are ordered is one shift.
    """

    def __init__(self) -> None:
        self._before: list[int] = []
        self._after: list[set[int]] = []  # direct successors

    def add(self, needs: set[int]) -> int:
        """Add a step that must run after those that it needs; return its index."""
        step = len(self._before)
        self._before.append(0)
        self._after.append(set())
        self.order(needs, step)
        return step

    def order(self, needs: set[int], step: int) -> None:
        """Let a step run after those that it needs (itself not counted)."""
        new = 0
        for need in needs:
            if need != step:
                self._after[need].add(step)
                new |= self._before[need] | (1 << need)
        stack = [step]
        while stack:
            current = stack.pop()
            if self._before[current] | new != self._before[current]:
                self._before[current] |= new
                stack.extend(self._after[current])

    def wait(self, needs: set[int]) -> Wait:
        """Return what an op that needs these steps waits for."""
        steps = before = 0
        for need in needs:
            steps |= 1 << need
            before |= self._before[need]
        return Wait(steps, before)

    def can_join(self, wait: Wait, step: int) -> bool:
        """Tell whether an op may become part of a step: not if what it waits for waits for that."""
        return not wait.before >> step & 1

    def is_ordered(self, wait: Wait, step: int) -> bool:
        """Tell whether a step runs after all that an op needs (or is one of them) already."""
        return not wait.steps & ~(self._before[step] | 1 << step)

    def sort(self, rank: Sequence[int]) -> list[int]:
        """Return the steps in an order that keeps all hazards, those of low rank first."""
        open_needs = [0] * len(self._after)
        for followers in self._after:
            for follower in followers:
                open_needs[follower] += 1
        ready = [(rank[step], step) for step, count in enumerate(open_needs) if count == 0]
        heapq.heapify(ready)
        result = []
        while ready:
            _, step = heapq.heappop(ready)
            result.append(step)
            for follower in self._after[step]:
                open_needs[follower] -= 1
                if open_needs[follower] == 0:
                    heapq.heappush(ready, (rank[follower], follower))
        if len(result) != len(self._after):
            raise AssertionError("steps wait for each other in a circle: a hazard was broken")
        return result


class LastUses:
    """For each buffer, which step wrote it last and which have read it since."""

    def __init__(self) -> None:
        self._writer: dict[int, int] = {}
        self._readers: dict[int, set[int]] = {}

    def needs(self, touch: Touch) -> set[int]:
        """Return the steps that an op must come after, in all three kinds of hazard."""
        result: set[int] = set()
        for _, buffer in touch.reads:  # read after write
            if buffer in self._writer:
                result.add(self._writer[buffer])
        for _, buffer in touch.writes:
            if buffer in self._writer:  # write after write
                result.add(self._writer[buffer])
            result.update(self._readers.get(buffer, ()))  # write after read
        return result

    def record(self, touch: Touch, step: int) -> None:
        """Note that an op became part of a step."""
        for _, buffer in touch.reads:
            self._readers.setdefault(buffer, set()).add(step)
        for _, buffer in touch.writes:
            self._writer[buffer] = step
            self._readers[buffer] = set()
