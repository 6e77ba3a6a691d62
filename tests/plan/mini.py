"""A tiny world for the plan's tests: traces by hand, five ops on integers, and two ways to run them.

The ops do not commute (``mix`` weighs its operands differently), so that any two of them in the wrong
order give another number.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from torchy.ir.kernel import Literal, Load, Result, RuntimeNumber, Value
from torchy.ir.trace import (
    Argument,
    Buffer,
    Constant,
    Layout,
    Mode,
    Number,
    Op,
    Operand,
    Trace,
    View,
)
from torchy.plan.plan import Call, FusedGroup, Plan
from torchy.plan.roles import Role, call_role, pointwise_role

PRIME = 1_000_003
GARBAGE = -777_777

FORMULAS = {
    "mix": lambda one, other: (3 * one + 5 * other + 1) % PRIME,
    "step": lambda one: (7 * one + 2) % PRIME,
    "copy": lambda one: one,
}


def contiguous(sizes: Sequence[int]) -> tuple[int, ...]:
    strides = []
    step = 1
    for size in reversed(sizes):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def is_dense(layout: Layout) -> bool:
    step = 1
    pairs = zip(layout.strides, layout.sizes, strict=True)
    for stride, size in sorted(pair for pair in pairs if pair[1] != 1):
        if stride != step:
            return False
        step *= size
    return True


def expanded(layout: Layout, sizes: Sequence[int]) -> tuple[int, ...]:
    """Strides of a layout that is broadcast to the given sizes."""
    missing = len(sizes) - len(layout.sizes)
    strides = [0] * missing
    for size, stride in zip(layout.sizes, layout.strides, strict=True):
        strides.append(0 if size == 1 else stride)
    return tuple(strides)


def mode_of(space: Layout, operand: Layout) -> Mode:
    if operand.sizes == space.sizes and operand.strides == space.strides and is_dense(space):
        return Mode.LINEAR
    steps = expanded(operand, space.sizes)
    moving = [(stride, dim) for dim, stride in enumerate(space.strides) if space.sizes[dim] > 1]
    if not any(steps[dim] for _, dim in moving):
        return Mode.SCALAR
    inner = min(moving)[1]
    return {1: Mode.UNIT, 0: Mode.REPEAT}.get(steps[inner], Mode.STRIDED)


def positions(layout: Layout, sizes: Sequence[int]) -> Iterator[int]:
    """Where the elements of a (broadcast) view are, in the order of the indices."""
    strides = expanded(layout, sizes)
    for index in itertools.product(*(range(size) for size in sizes)):
        yield layout.offset + sum(i * s for i, s in zip(index, strides, strict=True))


@dataclass
class Program:
    """Builds a trace op by op, with the layouts of one recording of it."""

    buffers: list[Buffer] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    layouts: list[Layout] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)  # of buffers, in elements

    @property
    def trace(self) -> Trace:
        kinds = tuple(type(number) for number in self.numbers)
        return Trace(tuple(self.buffers), tuple(self.views), tuple(self.ops), kinds)

    def buffer_of(self, view: int) -> int:
        return self.views[view].buffer

    def input(self, *sizes: int, dtype: torch.dtype = torch.int64) -> int:
        """Add an input; return its view."""
        return self._buffer(None, sizes, contiguous(sizes), dtype)

    def view(
        self,
        of: int,
        sizes: Sequence[int],
        strides: Sequence[int] | None = None,
        offset: int = 0,
        dtype: torch.dtype | None = None,
    ) -> int:
        """Add another view of the same buffer."""
        layout = Layout(tuple(sizes), tuple(strides or contiguous(sizes)), offset)
        return self._view(self.buffer_of(of), layout, dtype or self.views[of].dtype)

    def op(self, name: str, *arguments: int | Constant | Number | None, out: int | None = None):
        """Add an op; return the view of its result.

        ``mix``, ``step`` are functional, with ``out`` an ``out=`` form; ``mix_``, ``step_``, ``copy_``
        write their first argument; ``call`` and ``call_`` are the same for an op that cannot be fused.
        """
        views = [argument for argument in arguments if isinstance(argument, int)]
        inplace = name.endswith("_")
        if inplace:
            result = views[0]
        elif out is not None:
            result = out
        else:
            shape = torch.broadcast_shapes(*(self.layouts[view].sizes for view in views))
            like = next((v for v in views if self.layouts[v].sizes == tuple(shape)), None)
            strides = contiguous(shape)
            if like is not None and is_dense(self.layouts[like]):
                strides = self.layouts[like].strides
            result = self._buffer(len(self.ops), tuple(shape), strides, self.views[views[0]].dtype)
        space = self.layouts[result]
        pointwise = not name.startswith("call")

        def operand(view: int) -> Operand:
            if not pointwise:
                return Operand(view)
            layout = self.layouts[view]
            return Operand(view, mode_of(space, layout), layout.sizes == space.sizes)

        made: list[Argument] = [
            operand(argument) if isinstance(argument, int) else argument for argument in arguments
        ]
        if out is not None:
            made.append(operand(out))
        op = Op(
            len(self.ops),
            f"mini::{name}",
            tuple(made),
            (result,),
            mode_of(space, space) if pointwise else None,
            (result,),
        )
        self.ops.append(op)
        return result

    def number(self, value: int) -> Number:
        self.numbers.append(value)
        return Number(len(self.numbers) - 1, int)

    def _buffer(self, creator, sizes, strides, dtype) -> int:
        self.buffers.append(Buffer(len(self.buffers), creator))
        layout = Layout(tuple(sizes), tuple(strides), 0)
        self.sizes.append(1 + max(positions(layout, layout.sizes), default=-1))
        return self._view(len(self.buffers) - 1, layout, dtype)

    def _view(self, buffer: int, layout: Layout, dtype: torch.dtype) -> int:
        self.views.append(View(len(self.views), buffer, dtype, len(layout.sizes)))
        self.layouts.append(layout)
        return len(self.views) - 1


def role_of(op: Op, trace: Trace) -> Role:
    """Give the roles of the tiny ops, as ``roles.classify`` does for real ones."""
    name = op.name.removeprefix("mini::")
    if name.startswith("call"):
        return call_role(op)
    base = name.rstrip("_")
    arguments = op.arguments
    if base == "copy":
        arguments = arguments[1:]
    elif not name.endswith("_") and len(arguments) > {"mix": 2, "step": 1}[base]:
        arguments = arguments[:-1]  # out=
    return pointwise_role(op, trace, base, arguments, torch.int64)


Memory = dict[int, list[int]]


def start(program: Program) -> Memory:
    return {
        buffer.index: [100 * buffer.index + i for i in range(program.sizes[buffer.index])]
        for buffer in program.buffers
        if buffer.creator is None
    }


def run_op(program: Program, memory: Memory, op: Op) -> None:
    """Run one op as torch would: read everything, then write."""
    name = op.name.removeprefix("mini::").rstrip("_")
    (result,) = op.results
    layout = program.layouts[result]
    columns = []
    for argument in op.arguments:
        if isinstance(argument, Operand):
            source = memory[program.buffer_of(argument.view)]
            where = positions(program.layouts[argument.view], layout.sizes)
            columns.append([source[position] for position in where])
        elif isinstance(argument, Number):
            columns.append(
                [program.numbers[argument.index]] * len(list(positions(layout, layout.sizes)))
            )
        else:
            columns.append([argument.value] * len(list(positions(layout, layout.sizes))))
    buffer = program.buffer_of(result)
    if program.buffers[buffer].creator == op.index and buffer not in memory:
        memory[buffer] = [GARBAGE] * program.sizes[buffer]
    values: list[int]
    if name == "call":  # mixes across elements, as a reduction or a matrix product would
        total = 0
        values = []
        for row in zip(*columns, strict=True):
            for item in row:
                total = (total * 11 + item + 1) % PRIME
            values.append(total)
    else:
        if name == "copy":
            columns = columns[1:]
        formula = FORMULAS[name]
        arity = {"mix": 2, "step": 1, "copy": 1}[name]
        values = [formula(*row[:arity]) for row in zip(*columns, strict=True)]
    for position, value in zip(positions(layout, layout.sizes), values, strict=True):
        memory[buffer][position] = value


def run_trace(program: Program) -> Memory:
    """Run a trace op by op: what is right."""
    memory = start(program)
    for op in program.ops:
        run_op(program, memory, op)
    return memory


WAYS = ("by element", "by array", "by op")


def run_plan(program: Program, plan: Plan, way: str) -> Memory:
    """Run a plan; memory that it does not allocate does not exist.

    The kernels of groups work element by element, or on whole arrays; "by op", groups have no kernels
    and run as the ops that they are.
    """
    memory = start(program)
    for index, step in enumerate(plan.steps):
        for buffer in plan.allocate[index]:
            assert buffer not in memory, f"buffer {buffer} is allocated twice"
            memory[buffer] = [GARBAGE] * program.sizes[buffer]
        if isinstance(step, Call):
            run_op(program, memory, program.ops[step.op])
        elif way == "by op":
            for op in step.ops:
                run_op(program, memory, program.ops[op])
            for buffer in program.buffers:
                if buffer.creator in step.ops and buffer.index not in plan.allocate[index]:
                    del memory[buffer.index]
        else:
            _run_group(program, memory, step, by_element=way == "by element")
        for buffer in plan.release[index]:
            del memory[buffer]
    return memory


def _run_group(program: Program, memory: Memory, group: FusedGroup, *, by_element: bool) -> None:
    sizes = program.layouts[group.space].sizes
    where = [list(positions(program.layouts[view], sizes)) for view in group.accesses]
    held = [memory[program.buffer_of(view)] for view in group.accesses]
    count = len(list(itertools.product(*(range(size) for size in sizes))))
    if by_element:
        for i in range(count):
            loads = [held[a][where[a][i]] for a in range(len(held))]
            results = _statements(program, group, loads)
            for store in group.form.stores:
                held[store.access][where[store.access][i]] = _value(
                    program, group, store.value, loads, results
                )
        return
    rows = [[held[a][where[a][i]] for a in range(len(held))] for i in range(count)]
    for i, loads in enumerate(rows):
        results = _statements(program, group, loads)
        for store in group.form.stores:
            held[store.access][where[store.access][i]] = _value(
                program, group, store.value, loads, results
            )


def _statements(program: Program, group: FusedGroup, loads: list[int]) -> list[int]:
    results: list[int] = []
    for statement in group.form.statements:
        arguments = (_value(program, group, v, loads, results) for v in statement.arguments)
        results.append(FORMULAS[statement.op](*arguments))
    return results


def _value(
    program: Program, group: FusedGroup, value: Value, loads: list[int], results: list[int]
) -> int:
    match value:
        case Load(access):
            return loads[access]
        case Result(statement):
            return results[statement]
        case RuntimeNumber(index):
            return program.numbers[group.numbers[index]]
        case Literal(literal):
            assert isinstance(literal, int)
            return literal
