"""What a valid trace is, as a table of rules: checked by tests, and at flushes where ``TORCHY_DEBUG=1``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torchy.ir.trace import Layout, Mode, Op, Trace

TraceRule = Callable[[Trace], Iterator[str]]
OpRule = Callable[[Op, Trace], Iterator[str]]
LayoutRule = Callable[[Trace, Sequence[Layout]], Iterator[str]]


class InvalidTraceError(ValueError):
    """A trace breaks a rule; the message names all that it breaks."""


def check_trace(trace: Trace, layouts: Sequence[Layout] | None = None) -> list[str]:
    """Return what is wrong with a trace, a line each; empty if nothing is.

    Parameters
    ----------
    layouts
        By view, those of one recording: what the trace says of its operands must be true of them.
    """
    problems = [f"{text} ({name})" for name, rule in TRACE_RULES for text in rule(trace)]
    if problems:
        return problems  # the rules below look things up by index
    problems = [
        f"op {op.index}, {op.name}: {text} ({name})"
        for name, rule in OP_RULES
        for op in trace.ops
        for text in rule(op, trace)
    ]
    if layouts is not None:
        problems += [
            f"{text} ({name})" for name, rule in LAYOUT_RULES for text in rule(trace, layouts)
        ]
    return problems


def require_valid(trace: Trace, layouts: Sequence[Layout] | None = None) -> None:
    """Raise InvalidTraceError if a trace breaks a rule."""
    problems = check_trace(trace, layouts)
    if problems:
        raise InvalidTraceError("\n".join(problems))


def _all_numbered(trace: Trace) -> Iterator[str]:
    numbered = {
        "buffer": [buffer.index for buffer in trace.buffers],
        "view": [view.index for view in trace.views],
        "op": [op.index for op in trace.ops],
    }
    for name, indices in numbered.items():
        for place, index in enumerate(indices):
            if index != place:
                yield f"{name} {place} calls itself {index}"


def _names_exist(trace: Trace) -> Iterator[str]:
    for view in trace.views:
        if not 0 <= view.buffer < len(trace.buffers):
            yield f"view {view.index} looks at buffer {view.buffer}, which is not there"
    for buffer in trace.buffers:
        if buffer.creator is not None and not 0 <= buffer.creator < len(trace.ops):
            yield f"buffer {buffer.index} is created by op {buffer.creator}, which is not there"
    for op in trace.ops:
        results = tuple(result for result in op.results if result is not None)
        for named in op.reads + op.writes + results:
            if not 0 <= named < len(trace.views):
                yield f"op {op.index} names view {named}, which is not there"
        for number in op.numbers():
            if not 0 <= number.index < len(trace.number_kinds):
                yield f"op {op.index} names number {number.index}, which is not there"


def _creators_write(trace: Trace) -> Iterator[str]:
    for buffer in trace.buffers:
        if buffer.creator is not None and 0 <= buffer.creator < len(trace.ops):
            op = trace.ops[buffer.creator]
            views = (view for view in trace.views if view.buffer == buffer.index)
            if not any(view.index in op.writes for view in views):
                yield f"op {op.index} ({op.name}) creates buffer {buffer.index} and does not write it"


def _nothing_before_creation(op: Op, trace: Trace) -> Iterator[str]:
    for views, first, verb in ((op.reads, op.index - 1, "reads"), (op.writes, op.index, "writes")):
        for view in views:
            creator = trace.buffers[trace.buffer_of(view)].creator
            if creator is not None and creator > first:
                yield f"{verb} view {view} of a buffer that op {creator} creates"


def _results_are_written(op: Op, trace: Trace) -> Iterator[str]:
    for view in op.results:
        if view is not None and view not in op.writes:
            yield f"returns view {view} without writing it"


def _written_is_fresh_or_given(op: Op, trace: Trace) -> Iterator[str]:
    for view in op.writes:
        fresh = trace.buffers[trace.buffer_of(view)].creator == op.index
        if not fresh and view not in op.reads:
            yield f"writes view {view}, which is neither fresh nor an argument"


def _numbers_have_kinds(op: Op, trace: Trace) -> Iterator[str]:
    for number in op.numbers():
        if number.kind not in (bool, int, float):
            yield f"has a number of kind {number.kind.__name__}"
        elif trace.number_kinds[number.index] is not number.kind:
            known = trace.number_kinds[number.index].__name__
            yield f"calls number {number.index} a {number.kind.__name__}; it is a {known}"


def _modes_where_pointwise(op: Op, trace: Trace) -> Iterator[str]:
    has_space = op.result_mode is not None
    for operand in op.operands():
        if (operand.mode is not None) != has_space:
            yield f"has a result mode {op.result_mode} and an operand mode {operand.mode}"
        if operand.same_sizes and not has_space:
            yield f"is not pointwise; view {operand.view} cannot have its sizes"
    if has_space and (not op.results or op.results[0] is None):
        yield "is pointwise and has no first result"


def _modes_agree(op: Op, trace: Trace) -> Iterator[str]:
    if op.result_mode is None or not op.results or op.results[0] is None:
        return
    seen = {op.results[0]: op.result_mode}
    rank = trace.views[op.results[0]].rank
    for operand in op.operands():
        view = operand.view
        if operand.mode is not None and seen.setdefault(view, operand.mode) is not operand.mode:
            yield f"reaches view {view} as {operand.mode} and as {seen[view]}"
        if operand.mode is Mode.LINEAR and not (
            operand.same_sizes and op.result_mode is Mode.LINEAR
        ):
            yield f"reaches view {view} linearly, but sizes or density differ"
        if operand.same_sizes and trace.views[view].rank != rank:
            yield f"has rank {rank}, view {view} with the same sizes has {trace.views[view].rank}"
        if view == op.results[0] and not operand.same_sizes:
            yield f"writes view {view}, whose sizes are not its own"


def _layouts_fit(trace: Trace, layouts: Sequence[Layout]) -> Iterator[str]:
    if len(layouts) != len(trace.views):
        yield f"{len(layouts)} layouts for {len(trace.views)} views"
        return
    for view, layout in zip(trace.views, layouts, strict=True):
        if not view.rank == len(layout.sizes) == len(layout.strides):
            yield f"view {view.index} has rank {view.rank} and {layout}"
            return
    for op in trace.ops:
        if op.result_mode is None or op.results[0] is None:
            continue
        space = layouts[op.results[0]]
        if op.result_mode is Mode.LINEAR and not is_dense(space):
            yield f"op {op.index} ({op.name}): the result is not dense: {space}"
        for operand in op.operands():
            layout = layouts[operand.view]
            where = f"op {op.index} ({op.name}), view {operand.view}: {layout} in {space}"
            if operand.same_sizes and layout.sizes != space.sizes:
                yield f"{where} has other sizes"
            if operand.mode is not None and not mode_is_true(operand.mode, layout, space):
                yield f"{where} is not {operand.mode.value}"


def is_dense(layout: Layout) -> bool:
    """Tell whether a view's elements fill a stretch of memory, each once."""
    step = 1
    moving = [
        (stride, size)
        for stride, size in zip(layout.strides, layout.sizes, strict=True)
        if size != 1
    ]
    if any(size == 0 for _, size in moving):
        return True
    for stride, size in sorted(moving):
        if stride != step:
            return False
        step *= size
    return True


def steps_in(layout: Layout, space: Layout) -> tuple[int, ...]:
    """Return by how much an operand moves in each dimension of a space that it is broadcast to."""
    missing = len(space.sizes) - len(layout.sizes)
    own = zip(layout.sizes, layout.strides, strict=True)
    return (0,) * missing + tuple(0 if size == 1 else stride for size, stride in own)


def mode_is_true(mode: Mode, layout: Layout, space: Layout) -> bool:
    """Tell whether a mode describes how an operand moves while a space is walked in memory order."""
    if len(layout.sizes) > len(space.sizes):
        return False
    if 0 in space.sizes or mode is Mode.STRIDED:
        return True
    if mode is Mode.LINEAR:
        moving = [dim for dim, size in enumerate(space.sizes) if size != 1]
        return (
            layout.sizes == space.sizes
            and is_dense(space)
            and all(layout.strides[dim] == space.strides[dim] for dim in moving)
        )
    steps = steps_in(layout, space)
    moving = [dim for dim, size in enumerate(space.sizes) if size > 1]
    if mode is Mode.SCALAR:
        return not any(steps[dim] for dim in moving)
    closest = min((space.strides[dim] for dim in moving), default=0)
    wanted = 1 if mode is Mode.UNIT else 0
    return not moving or any(
        steps[dim] == wanted for dim in moving if space.strides[dim] == closest
    )


# The rules of TRACE_RULES run first, all of them, on whatever trace; the others on one that keeps them.
TRACE_RULES: tuple[tuple[str, TraceRule], ...] = (
    ("buffers, views and ops know their own place", _all_numbered),
    ("what is named by index is there", _names_exist),
    ("a buffer is written by the op that creates it", _creators_write),
)

OP_RULES: tuple[tuple[str, OpRule], ...] = (
    ("nothing touches a buffer before it is created", _nothing_before_creation),
    ("results are fresh buffers or arguments written to", _results_are_written),
    ("an op writes what it creates and what it was given", _written_is_fresh_or_given),
    ("a number is a bool, an int or a float, the same everywhere", _numbers_have_kinds),
    ("operands have modes where the op is pointwise", _modes_where_pointwise),
    ("modes, sizes and ranks do not contradict each other", _modes_agree),
)

LAYOUT_RULES: tuple[tuple[str, LayoutRule], ...] = (
    ("what a trace says of its operands is true", _layouts_fit),
)
