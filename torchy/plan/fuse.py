"""Gathers the ops of a trace into steps: groups that run as one kernel, and calls.

One pass over the trace. Each fusable op joins the group with which it has most in common among the
latest few that walk memory in the same way, unless a hazard stands between; else it opens a group of
its own. An op may so run earlier or later than it was recorded, past ops that do not concern it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torchy.ir.listing import short_op
from torchy.ir.trace import Mode, Op, Operand, Trace
from torchy.plan.hazards import LastUses, StepGraph
from torchy.plan.roles import Role
from torchy.plan.spaces import Spaces

MAX_OPS = 64  # in one group: bounds what one kernel costs to compile
MAX_ACCESSES = 32  # of one kernel: addresses that it walks at once
CANDIDATES = 8  # groups of one space that an op looks at: keeps the pass linear

# Why two steps are apart, in words for the explorer.
DIFFERENT_SIZES = "different sizes"
DIFFERENT_LAYOUT = "same sizes, but another layout in memory"
OVERLAPPING = "overlapping views"
OTHER_WALK = "one view, walked in two ways"
FULL = "group is full"
IN_BETWEEN = "needs a step that itself needs the group"
HOLDS_MEMORY = "joined, they would hold memory longer than eager"


@dataclass(slots=True)
class Group:
    """A step while ops are still joining it; a call is a group of one that nothing joins."""

    step: int
    layout: int | None = None  # class of the views that it walks; None for a call
    ops: list[int] = field(default_factory=list)
    views: dict[int, set[int]] = field(default_factory=dict)  # by buffer: views touched
    touches: dict[int, int] = field(default_factory=dict)  # by buffer: how many ops touch it
    written: dict[int, int] = field(default_factory=dict)  # by buffer: the view written
    modes: dict[int, Mode] = field(default_factory=dict)  # by view: how it is walked
    loads: dict[int, None] = field(default_factory=dict)  # views whose values come from memory
    first_dead: int | None = None  # the first op after which eager had freed a stored result


@dataclass(frozen=True, slots=True)
class Fusion:
    """Steps in an order that keeps all hazards, and for neighbours why they are apart."""

    groups: tuple[Group, ...]
    why_apart: dict[int, str]


class Fuser:
    """Makes the steps of one trace.

    Parameters
    ----------
    trace, roles
        The trace and the role of each of its ops.
    dead
        Ops that need not run.
    live
        Buffers that are seen after the flush.
    """

    def __init__(
        self, trace: Trace, roles: Sequence[Role], dead: frozenset[int], live: frozenset[int]
    ) -> None:
        self._trace = trace
        self._roles = roles
        self._live = live
        self._needed = [op for op in trace.ops if op.index not in dead]
        self._spaces = Spaces(trace)
        self._graph = StepGraph()
        self._uses = LastUses(trace)
        self._groups: list[Group] = []
        self._open: dict[int, list[Group]] = {}  # by layout class, latest last
        self._refused: dict[tuple[int, int], str] = {}  # (op, step): why it did not join
        self._touches: dict[int, int] = {}  # by buffer: how many needed ops touch it
        self._last_touch: dict[int, int] = {}  # by buffer: the last needed op that touches it
        self._escapes: set[int] = set()  # buffers that are stored in any case
        self._survey()

    def run(self) -> Fusion:
        """Gather all needed ops."""
        for op in self._needed:
            role = self._roles[op.index]
            needs = self._uses.needs(role)
            group = self._choose(op, role, needs) if role.formula is not None else None
            if group is None:
                group = self._open_group(op, role, needs)
            else:
                self._graph.order(needs, group.step)
            self._join(group, op, role)
            self._uses.record(role, group.step)
        order = self._graph.sort([group.ops[0] for group in self._groups])
        groups = tuple(self._groups[step] for step in order)
        reasons = {
            index: self._why_apart(groups[index - 1], groups[index])
            for index in range(1, len(groups))
        }
        return Fusion(groups, reasons)

    def stored(self, group: Group) -> list[int]:
        """Return the views that a group must leave in memory if nothing more joins it."""
        return [view for buffer, view in group.written.items() if self._is_stored(group, buffer)]

    def _is_stored(self, group: Group, buffer: int, joining: int = 0) -> bool:
        return (
            buffer in self._live or self._touches[buffer] > group.touches.get(buffer, 0) + joining
        )

    def _buffers(self, role: Role) -> set[int]:
        return {self._trace.buffer_of(view) for view in role.reads + role.writes}

    def _layout(self, op: Op) -> int:
        assert op.results[0] is not None  # roles.classify gives no formula otherwise
        return self._spaces.layout[op.results[0]]

    def _survey(self) -> None:
        """Note for each buffer who touches it, and whether it must be stored whatever joins."""
        space_of: dict[int, int] = {}
        for op in self._needed:
            role = self._roles[op.index]
            for buffer in self._buffers(role):
                self._touches[buffer] = self._touches.get(buffer, 0) + 1
                self._last_touch[buffer] = op.index
                if role.formula is None or space_of.setdefault(
                    buffer, self._layout(op)
                ) != self._layout(op):
                    self._escapes.add(buffer)
        self._escapes |= self._live

    def _open_group(self, op: Op, role: Role, needs: set[int]) -> Group:
        group = Group(self._graph.add(needs))
        self._groups.append(group)
        if role.formula is not None:
            group.layout = self._layout(op)
            self._open.setdefault(group.layout, []).append(group)
        return group

    def _choose(self, op: Op, role: Role, needs: set[int]) -> Group | None:
        """Return the group that an op joins, or None."""
        best: Group | None = None
        most = -1
        for group in reversed(self._open.get(self._layout(op), [])[-CANDIDATES:]):
            why_not = self._why_not(group, op, role, needs)
            if why_not:
                self._refused[op.index, group.step] = why_not
                continue
            shared = sum(
                2 if view in group.written.values() else view in group.loads for view in role.reads
            )
            if shared > most:
                best, most = group, shared
        return best

    def _why_not(self, group: Group, op: Op, role: Role, needs: set[int]) -> str:
        """Return why an op cannot join a group of its own layout, empty if it can."""
        if not self._graph.can_join(needs, group.step):
            return IN_BETWEEN
        for view in role.reads:
            if group.written.get(self._trace.buffer_of(view), view) != view:
                return OVERLAPPING
        for view in role.writes:
            if not group.views.get(self._trace.buffer_of(view), set()) <= {view}:
                return OVERLAPPING
        if any(group.modes.get(view, mode) is not mode for view, mode in walks(op, role)):
            return OTHER_WALK
        if len(group.ops) >= MAX_OPS or self._accesses(group, role) > MAX_ACCESSES:
            return FULL
        if self._holds_memory(group, op, role, needs):
            return HOLDS_MEMORY
        return ""

    def _accesses(self, group: Group, role: Role) -> int:
        """Count the accesses of the group's kernel if this op were the last to join it.

        If even the bound that is quick to see is below what is allowed, return that.
        """
        bound = len(group.loads) + len(group.written) + len(role.reads) + len(role.writes)
        if bound <= MAX_ACCESSES:
            return bound
        written = group.written | {self._trace.buffer_of(view): view for view in role.writes}
        joining = self._buffers(role)
        views = {
            view
            for buffer, view in written.items()
            if self._is_stored(group, buffer, joining=buffer in joining)
        }
        views.update(group.loads)
        views.update(
            view for view in role.reads if self._trace.buffer_of(view) not in group.written
        )
        return len(views)

    def _holds_memory(self, group: Group, op: Op, role: Role, needs: set[int]) -> bool:
        """Tell whether eager, running the ops in their order, would have freed memory between.

        Joining runs the op as early as the group: its result would then exist beside results of the
        group that eager has freed by now. Or it makes the group wait for a step: what the group reads
        is then held longer, which is no loss where results that would be held instead come later.
        """
        if (
            group.first_dead is not None
            and group.first_dead < op.index
            and any(self._is_fresh(op, buffer) for buffer in self._buffers(role) & self._escapes)
        ):
            return True
        if self._graph.is_ordered(needs, group.step):
            return False
        held = sum(
            self._is_temporary(self._trace.buffer_of(view))
            and group.modes[view] not in (Mode.SCALAR, Mode.REPEAT)
            and self._last_touch[self._trace.buffer_of(view)] < op.index
            for view in group.loads
        )
        instead = sum(self._last_touch[buffer] >= op.index for buffer in group.written)
        return held > instead

    def _is_temporary(self, buffer: int) -> bool:
        return self._trace.buffers[buffer].creator is not None and buffer not in self._live

    def _is_fresh(self, op: Op, buffer: int) -> bool:
        return self._trace.buffers[buffer].creator == op.index

    def _join(self, group: Group, op: Op, role: Role) -> None:
        group.ops.append(op.index)
        for buffer in self._buffers(role):
            group.touches[buffer] = group.touches.get(buffer, 0) + 1
        for view in role.reads:
            buffer = self._trace.buffer_of(view)
            group.views.setdefault(buffer, set()).add(view)
            if buffer not in group.written:
                group.loads[view] = None
        for view in role.writes:
            buffer = self._trace.buffer_of(view)
            group.views.setdefault(buffer, set()).add(view)
            group.written[buffer] = view
            if self._is_fresh(op, buffer) and buffer in self._escapes - self._live:
                last = self._last_touch[buffer]
                group.first_dead = last if group.first_dead is None else min(last, group.first_dead)
        if role.formula is not None:
            group.modes.update(walks(op, role))

    def _why_apart(self, earlier: Group, later: Group) -> str:
        """Return why two neighbouring steps are not one."""
        for group in (later, earlier):
            if group.layout is None:
                op = self._trace.ops[group.ops[0]]
                result = next((f"%{view} = " for view in op.results if view is not None), "")
                return f"{result}{short_op(op.name)} {self._roles[op.index].why_not}"
        for op_index in later.ops:
            if (op_index, earlier.step) in self._refused:
                return self._refused[op_index, earlier.step]
        if earlier.layout == later.layout:
            return IN_BETWEEN
        one, other = (self._trace.ops[group.ops[0]].results[0] for group in (earlier, later))
        assert one is not None
        assert other is not None
        same_sizes = self._spaces.sizes[one] == self._spaces.sizes[other]
        return DIFFERENT_LAYOUT if same_sizes else DIFFERENT_SIZES


def walks(op: Op, role: Role) -> list[tuple[int, Mode]]:
    """Return the views that a fusable op touches, each with the way in which its memory is walked."""
    assert role.formula is not None
    assert op.result_mode is not None
    result = [(view, op.result_mode) for view in role.writes]
    for item in role.formula.arguments:
        if isinstance(item, Operand):
            assert item.mode is not None  # roles.classify gives no formula otherwise
            result.append((item.view, item.mode))
    return result
