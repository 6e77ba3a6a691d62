"""What a valid plan is, as a table of rules: checked by tests, and at each flush where ``TORCHY_DEBUG=1``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torchy.ir.check_form import check_form
from torchy.ir.kernel import Load, RuntimeNumber, arguments_of
from torchy.ir.trace import Trace
from torchy.plan.memory import touched
from torchy.plan.plan import Call, FusedGroup, Plan, ops_of
from torchy.plan.roles import Classify, Role, classify

Rule = Callable[[Plan, Trace, Sequence[Role]], Iterator[str]]


def check_plan(plan: Plan, trace: Trace, role_of: Classify = classify) -> list[str]:
    """Return what is wrong with a plan, a line each; empty if nothing is."""
    roles = [role_of(op, trace) for op in trace.ops]
    return [f"{text} ({name})" for name, rule in RULES for text in rule(plan, trace, roles)]


def require_valid_plan(plan: Plan, trace: Trace) -> None:
    """Raise ValueError if a plan breaks a rule; the message names all that it breaks."""
    problems = check_plan(plan, trace)
    if problems:
        raise ValueError("\n".join(problems))


def _each_op_once(plan: Plan, trace: Trace, roles: Sequence[Role]) -> Iterator[str]:
    planned = sorted([*plan.dead, *(op for step in plan.steps for op in ops_of(step))])
    if planned != list(range(len(trace.ops))):
        yield f"steps and dead ops are {planned}, the trace has {len(trace.ops)} ops"


def _hazards_kept(plan: Plan, trace: Trace, roles: Sequence[Role]) -> Iterator[str]:
    place = {op: index for index, step in enumerate(plan.steps) for op in ops_of(step)}
    touching: dict[int, list[tuple[int, bool]]] = {}
    for op in trace.ops:
        if op.index not in place:
            continue
        role = roles[op.index]
        written = {trace.buffer_of(view) for view in role.writes}
        for buffer in {trace.buffer_of(view) for view in role.reads} | written:
            for earlier, wrote in touching.get(buffer, ()):
                if (wrote or buffer in written) and place[earlier] > place[op.index]:
                    yield f"op {op.index} runs before op {earlier}: both touch buffer {buffer}"
            touching.setdefault(buffer, []).append((op.index, buffer in written))


def _groups_in_order(plan: Plan, trace: Trace, roles: Sequence[Role]) -> Iterator[str]:
    for step in plan.steps:
        if isinstance(step, FusedGroup):
            if list(step.ops) != sorted(step.ops):
                yield f"group {step.ops} is not in order"
            if len(step.statements) != len(step.form.statements):
                yield f"group {step.ops} has {len(step.form.statements)} statements, of ops {step.statements}"
            if tuple(dict.fromkeys(step.statements)) != step.ops:
                yield f"group {step.ops} has statements of ops {step.statements}"


def _forms_fit(plan: Plan, trace: Trace, roles: Sequence[Role]) -> Iterator[str]:
    for step in plan.steps:
        if not isinstance(step, FusedGroup):
            continue
        form = step.form
        yield from (f"group {step.ops}: {problem}" for problem in check_form(form))
        if [access.dtype for access in form.accesses] != [
            trace.views[view].dtype for view in step.accesses
        ]:
            yield f"group {step.ops}: accesses and their views differ in dtype"
        if [trace.number_kinds[number] for number in step.numbers] != list(form.number_kinds):
            yield f"group {step.ops}: numbers and their kinds differ"
        loads, numbers = [], []
        for statement in form.statements:
            for value in arguments_of(statement):
                if isinstance(value, Load):
                    loads.append(value.access)
                elif isinstance(value, RuntimeNumber):
                    numbers.append(value.index)
        used = list(dict.fromkeys([*loads, *(store.access for store in form.stores)]))
        if used != list(range(len(form.accesses))) or len(step.accesses) != len(form.accesses):
            yield f"group {step.ops}: accesses are used in the order {used}"
        if list(dict.fromkeys(numbers)) != list(range(len(form.number_kinds))):
            yield f"group {step.ops}: numbers are used in the order {numbers}"


def _stores_alone(plan: Plan, trace: Trace, roles: Sequence[Role]) -> Iterator[str]:
    for step in plan.steps:
        if not isinstance(step, FusedGroup):
            continue
        stored = [step.accesses[store.access] for store in step.form.stores]
        for view in stored:
            buffer = trace.buffer_of(view)
            through = {other for other in step.accesses if trace.buffer_of(other) == buffer}
            through |= {
                view
                for op in step.ops
                for view in trace.ops[op].writes
                if trace.buffer_of(view) == buffer
            }
            if len(through) > 1 or stored.count(view) > 1:
                yield f"group {step.ops} writes buffer {buffer} through views {sorted(through)}"


def _memory_is_there(plan: Plan, trace: Trace, roles: Sequence[Role]) -> Iterator[str]:
    if not len(plan.steps) == len(plan.allocate) == len(plan.release):
        yield "allocate and release do not match the steps"
        return
    present = {buffer.index for buffer in trace.buffers if buffer.creator is None}
    for index, step in enumerate(plan.steps):
        for buffer in plan.allocate[index]:
            if buffer in present:
                yield f"step {index} allocates buffer {buffer}, which is there"
            present.add(buffer)
        if isinstance(step, Call):
            created = {trace.buffer_of(view) for view in trace.ops[step.op].writes}
            present |= {b for b in created if trace.buffers[b].creator == step.op}
        for buffer in touched(trace, step) - present:
            yield f"step {index} touches buffer {buffer}, which has no memory"
        for buffer in plan.release[index]:
            if buffer not in present:
                yield f"step {index} releases buffer {buffer}, which is not there"
            present.discard(buffer)


RULES: tuple[tuple[str, Rule], ...] = (
    ("every op is in one step, or dead", _each_op_once),
    ("ops that touch one buffer, one of them writing, run in their order", _hazards_kept),
    ("a group's ops are in the order of the trace", _groups_in_order),
    ("a form's accesses and numbers are its group's, numbered by first use", _forms_fit),
    ("a kernel reaches a buffer that it writes through one view only", _stores_alone),
    ("what a step touches is in memory", _memory_is_there),
)
