"""Gathers the ops of a trace into steps: groups that run as one kernel, and calls.

One pass over the trace. Each fusable op joins the group with which it has most in common among the
latest few that walk memory in the same way, unless a hazard stands between; else it opens a group of
its own. An op may so run earlier or later than it was recorded, past ops that do not concern it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torchy.ir.listing import short_op
from torchy.ir.trace import Mode, Op, Trace
from torchy.plan.hazards import LastUses, StepGraph, Wait
from torchy.plan.roles import Formula, Role, RowFormula
from torchy.plan.spaces import Spaces
from torchy.plan.touch import Touch

MAX_OPS = 64  # in one group: bounds what one kernel costs to compile
MAX_ACCESSES = 32  # of one kernel: addresses that it walks at once
CANDIDATES = 8  # groups of one space that an op looks at: keeps the pass linear

# Why two steps are apart, in words for the explorer.
DIFFERENT_SIZES = "different sizes"
DIFFERENT_LAYOUT = "same sizes, but another layout in memory"
OVERLAPPING = "overlapping views"
OTHER_WALK = "one view, walked in two ways"
OTHER_ROWS = "other dimensions are reduced"
BY_POSITION = "eager's result depends on the element's position, and the group is no single run"
STORED = "what is reduced is stored in any case, and torch reads it as fast"
ONE_PASS = "what is reduced to one value is gone through once, as one run"
FULL = "group is full"
IN_BETWEEN = "needs a step that itself needs the group"
HOLDS_MEMORY = "joined, they would hold memory longer than eager"

ONE_RUN = frozenset((Mode.LINEAR, Mode.SCALAR))
SEVERAL = -1  # views


@dataclass(slots=True)
class Group:
    """A step while ops are still joining it; a call is a group of one that nothing joins."""

    step: int
    layout: int | None = None  # class of the views that it walks; None for a call
    by_position: bool = False  # it must be one run: something depends on where elements stand
    reduced: tuple[int, ...] = ()  # the dimensions that make up a row, once it has one
    columns: bool | None = None  # whether rows stand side by side in memory, once it has some
    whole: bool = False  # all elements are one row, which is gone through once
    # classes of the views that have one element for each row
    rows: set[int] = field(default_factory=set)
    ops: list[int] = field(default_factory=list)
    views: dict[int, int] = field(default_factory=dict)  # by buffer: the view touched, or SEVERAL
    touches: dict[int, int] = field(default_factory=dict)  # by buffer: how many ops touch it
    written: dict[int, int] = field(default_factory=dict)  # by buffer: the view written
    exposed: set[int] = field(default_factory=set)  # of those: stored if nothing more joins
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
    trace, roles, touches
        The trace, and the role of each of its ops and what it touches.
    dead
        Ops that need not run.
    live
        Buffers that are seen after the flush.
    """

    def __init__(
        self,
        trace: Trace,
        roles: Sequence[Role],
        touches: Sequence[Touch],
        dead: frozenset[int],
        live: frozenset[int],
    ) -> None:
        self._trace = trace
        self._roles = roles
        self._touches = touches
        self._live = live
        self._needed = [op for op in trace.ops if op.index not in dead]
        self._spaces = Spaces(trace, roles)
        self._graph = StepGraph()
        self._uses = LastUses()
        self._groups: list[Group] = []
        # by layout class, and by those of its rows' values; latest last
        self._open: dict[int, list[Group]] = {}
        self._refused: dict[tuple[int, int], str] = {}  # (op, step): why it did not join
        self._count: dict[int, int] = {}  # by buffer: how many needed ops touch it
        self._last_touch: dict[int, int] = {}  # by buffer: the last needed op that touches it
        # buffers that are live, or touched by calls or in several spaces: stored, unless what is of rows joins
        self._escapes: set[int] = set()
        self._survey()

    def run(self) -> Fusion:
        """Gather all needed ops."""
        for op in self._needed:
            touch = self._touches[op.index]
            needs = self._uses.needs(touch)
            group = self._choose(op, touch, needs)
            if group is None:
                group = self._open_group(op, needs)
            else:
                self._graph.order(needs, group.step)
            self._join(group, op, touch)
            self._uses.record(touch, group.step)
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
        return buffer in self._live or self._count[buffer] > group.touches.get(buffer, 0) + joining

    def _is_fusable(self, op: Op) -> bool:
        return self._roles[op.index].formula is not None

    def _layout(self, op: Op) -> int:
        return self._spaces.layout[self._roles[op.index].space]

    def _survey(self) -> None:
        """Note for each buffer who touches it, and whether it must be stored whatever joins."""
        space_of: dict[int, int] = {}
        for op in self._needed:
            fusable = self._is_fusable(op)
            space = self._layout(op) if fusable else -1
            for buffer in self._touches[op.index].buffers:
                self._count[buffer] = self._count.get(buffer, 0) + 1
                self._last_touch[buffer] = op.index
                if not fusable or space_of.setdefault(buffer, space) != space:
                    self._escapes.add(buffer)
        self._escapes |= self._live

    def _open_group(self, op: Op, needs: set[int]) -> Group:
        group = Group(self._graph.add(needs))
        self._groups.append(group)
        if self._is_fusable(op):
            group.layout = self._layout(op)
            self._open.setdefault(group.layout, []).append(group)
        return group

    def _choose(self, op: Op, touch: Touch, needs: set[int]) -> Group | None:
        """Return the group that an op joins, or None."""
        if not self._is_fusable(op):
            return None
        best: Group | None = None
        most = -1
        wait, can_join = self._graph.wait(needs), self._graph.can_join
        for group in reversed(self._open.get(self._layout(op), [])[-CANDIDATES:]):
            if can_join(wait, group.step):
                why_not = self._walks_otherwise(group, op, touch)
                why_not = why_not or self._why_not(group, op, touch, wait)
            else:  # most often
                why_not = IN_BETWEEN
            if why_not:
                self._refused[op.index, group.step] = why_not
                continue
            shared = 0
            for view, buffer in touch.reads:
                shared += 2 if group.written.get(buffer) == view else view in group.loads
            if shared > most:
                best, most = group, shared
        return best

    def _walks_otherwise(self, group: Group, op: Op, touch: Touch) -> str:
        """Return why a group cannot walk memory as an op does, empty if it can."""
        formula = self._roles[op.index].formula
        if isinstance(formula, RowFormula):
            columns, reduced = formula.columns, formula.op.dimensions
            others = (None, columns)
            if group.reduced not in ((), reduced) or group.columns not in others:
                return OTHER_ROWS
            made = self._trace.buffer_of(formula.op.rows)
            if columns and made in group.written and made in self._escapes:
                return STORED
        of_rows = self._is_of_rows(group, op)
        if of_rows and isinstance(formula, RowFormula):
            return OTHER_ROWS
        if of_rows and not {mode for _, mode in touch.walks} <= {Mode.LINEAR, Mode.SCALAR}:
            return DIFFERENT_LAYOUT
        walks = self._walks(group, op, touch)
        for view, mode in walks:
            if group.modes.get(view, mode) is not mode:
                return OTHER_WALK
        if group.whole or (isinstance(formula, RowFormula) and formula.whole):
            modes = {mode for _, mode in walks}
            waits = Mode.ROW in modes and not of_rows and not isinstance(formula, RowFormula)
            if waits or not modes.union(group.modes.values()) - {Mode.ROW} <= ONE_RUN:
                return ONE_PASS
        has_rows = group.columns is not None or isinstance(formula, RowFormula)
        if group.by_position or (isinstance(formula, Formula) and formula.by_position):
            modes = {mode for _, mode in walks}.union(group.modes.values())
            if has_rows or not modes <= ONE_RUN:
                return BY_POSITION
        return ""

    def _is_of_rows(self, group: Group, op: Op) -> bool:
        """Tell whether an op works on what a group has one of for each row."""
        layout = self._layout(op)
        return layout in group.rows and layout != group.layout

    def _walks(self, group: Group, op: Op, touch: Touch) -> list[tuple[int, Mode]]:
        """Return the views that an op touches with the way in which the group would walk them."""
        if self._is_of_rows(group, op):
            return [(v, Mode.ROW if mode is Mode.LINEAR else mode) for v, mode in touch.walks]
        rank = self._trace.views[self._roles[op.index].space].rank
        # An operand that is broadcast along what is reduced (REPEAT in rows, UNIT in columns) and is a value of this group's
        # rows is walked as such, if its dimensions line up: all are there (keepdim), or those that are gone came first, as
        # in x - x.mean(0).
        of_rows = Mode.UNIT if group.columns else Mode.REPEAT
        walks = []
        one_row = len(group.reduced) == rank
        for view, mode in touch.walks:
            if one_row and mode is Mode.SCALAR and group.modes.get(view) is Mode.ROW:
                mode = Mode.ROW
            if mode is of_rows and group.modes.get(view) is Mode.ROW:
                own, reduced = self._trace.views[view].rank, group.reduced
                leading = bool(group.columns) and reduced == tuple(range(len(reduced)))
                if own == rank or (leading and own == rank - len(reduced)):
                    mode = Mode.ROW
            walks.append((view, mode))
        return walks

    def _why_not(self, group: Group, op: Op, touch: Touch, wait: Wait) -> str:
        """Return why else an op cannot join a group of its own layout, empty if it can."""
        for view, buffer in touch.reads:
            if group.written.get(buffer, view) != view:
                return OVERLAPPING
        for view, buffer in touch.writes:
            if group.views.get(buffer, view) != view:
                return OVERLAPPING
        if len(group.ops) >= MAX_OPS or self._accesses(group, touch) > MAX_ACCESSES:
            return FULL
        if self._holds_memory(group, op, touch, wait):
            return HOLDS_MEMORY
        return ""

    def _accesses(self, group: Group, touch: Touch) -> int:
        """Count the accesses of the group's kernel if an op that touches this were the last to join it.

        If even the bound that is quick to see is below what is allowed, return that.
        """
        bound = len(group.loads) + len(group.exposed) + len(touch.reads) + len(touch.writes)
        if bound <= MAX_ACCESSES:
            return bound
        views = {group.written[buffer] for buffer in group.exposed - touch.buffers}
        written = group.written | {buffer: view for view, buffer in touch.writes}
        views.update(
            written[buffer]
            for buffer in touch.buffers
            if buffer in written and self._is_stored(group, buffer, joining=1)
        )
        views.update(group.loads)
        views.update(view for view, buffer in touch.reads if buffer not in group.written)
        return len(views)

    def _holds_memory(self, group: Group, op: Op, touch: Touch, wait: Wait) -> bool:
        """Tell whether eager, running the ops in their order, would have freed memory between.

        Joining runs the op as early as the group: its result would then exist beside results of the
        group that eager has freed by now. Or it makes the group wait for a step: what the group reads
        is then held longer, which is no loss where results that would be held instead come later.
        """
        if (
            group.first_dead is not None
            and group.first_dead < op.index
            and not self._is_of_rows(group, op)  # so little that it does not count
            and any(self._is_fresh(op, buffer) for buffer in touch.buffers & self._escapes)
        ):
            return True
        if self._graph.is_ordered(wait, group.step):
            return False
        held = sum(
            self._is_temporary(self._trace.buffer_of(view))
            and group.modes[view] not in (Mode.SCALAR, Mode.REPEAT, Mode.ROW)
            and self._last_touch[self._trace.buffer_of(view)] < op.index
            for view in group.loads
        )
        instead = sum(self._last_touch[buffer] >= op.index for buffer in group.written)
        return held > instead

    def _is_temporary(self, buffer: int) -> bool:
        return self._trace.buffers[buffer].creator is not None and buffer not in self._live

    def _is_fresh(self, op: Op, buffer: int) -> bool:
        return self._trace.buffers[buffer].creator == op.index

    def _join(self, group: Group, op: Op, touch: Touch) -> None:
        group.ops.append(op.index)
        if group.layout is None:
            return  # nothing joins a call
        walks = dict(self._walks(group, op, touch))
        for view, buffer in touch.reads:
            if group.views.setdefault(buffer, view) != view:
                group.views[buffer] = SEVERAL
            if buffer not in group.written:
                group.loads[view] = None
        for view, buffer in touch.writes:
            if group.views.setdefault(buffer, view) != view:
                group.views[buffer] = SEVERAL
            group.written[buffer] = view
            dies = buffer in self._escapes and buffer not in self._live
            if dies and self._is_fresh(op, buffer) and walks[view] is not Mode.ROW:
                last = self._last_touch[buffer]
                group.first_dead = last if group.first_dead is None else min(last, group.first_dead)
        for buffer in touch.buffers:
            group.touches[buffer] = group.touches.get(buffer, 0) + 1
            if buffer in group.written:
                if self._is_stored(group, buffer):
                    group.exposed.add(buffer)
                else:
                    group.exposed.discard(buffer)
        formula = self._roles[op.index].formula
        if isinstance(formula, RowFormula):
            group.reduced = formula.op.dimensions
            group.columns = formula.columns
            group.whole |= formula.whole
            for view, mode in touch.walks:
                made = self._spaces.layout[view]
                if mode is Mode.ROW and made not in group.rows:
                    group.rows.add(made)
                    self._open.setdefault(made, []).append(group)
        elif formula is not None and formula.by_position:
            group.by_position = True
        group.modes.update(walks)

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
        one, other = (self._roles[group.ops[0]].space for group in (earlier, later))
        same_sizes = self._spaces.sizes[one] == self._spaces.sizes[other]
        return DIFFERENT_LAYOUT if same_sizes else DIFFERENT_SIZES
