"""Kernel form -> loop nest: primitives in SSA form, cut into stages that a backend can run block by block.

An *arithmetic* stage is one vector loop whose values stay in registers. A *call* stage hands a whole block to a vector-math
function. Values that a later stage needs pass through scratch memory. Values that are the same for all elements (made
of numbers and constants only) are *uniform* and are computed once. Where an axis is reduced, a block is a row: a *reduction*
stage makes one value of it, and a *row* stage computes what each row has one of.
"""

from __future__ import annotations

import ast
import ctypes
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Literal

import torch

from torchy.codegen.errors import CompileError
from torchy.ir import kernel as ir
from torchy.ir.dtypes import OF_NUMBERS, computed_in, kind_of, short_name
from torchy.ir.ops import spec_of
from torchy.ir.trace import Mode

COMPARE: Final = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}
MATH: Final = frozenset(
    "exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf erfc erfinv"
    " lgamma root pow atan2 fmod hypot".split()
)
_FUNCTIONS: Final = frozenset("abs sqrt floor ceil trunc rint copysign fma ldexp".split())
_OPERATORS: Final[dict[type, str]] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.BitAnd: "and",
    ast.BitOr: "or",
    ast.BitXor: "xor",
    ast.LShift: "shl",
    ast.RShift: "shr",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
_NAMED: Final = {"nan": math.nan, "inf": math.inf, "pi": math.pi}


@dataclass(frozen=True, slots=True)
class Node:
    """One primitive.

    ``detail``: the access of a load, the number's index, a constant's value, a function's or an operator's name.
    """

    op: str
    inputs: tuple[int, ...]
    dtype: torch.dtype
    detail: bool | int | float | str | None = None
    order: ir.Order | ir.ColumnOrder | None = None  # of a reduction
    functions: ir.Functions = ir.Functions.ARRAYS  # of a call


@dataclass(frozen=True, slots=True)
class Stage:
    """Nodes to evaluate together. ``stores``: indices of the nest's stores.

    ``kind``: a ``loop`` over the elements of a block, a ``call`` of a vector-math function for all of it, a ``reduction`` of
    it, or what is done once for a ``row``.
    """

    kind: Literal["loop", "call", "reduction", "row"]
    nodes: tuple[int, ...]
    stores: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LoopNest:
    """A loop over a space of any size and rank; backend-neutral.

    Parameters
    ----------
    nodes
        Primitives, each after its inputs.
    uniform
        Nodes that are the same for all elements, in order.
    rows
        Nodes that each row has one of, in order; loads among them are done before all stages.
    stages
        In the order in which they run on a block, or on a row.
    stores
        ``(access, node)``.
    statements
        For each node the statement of the form that it was first made for; None: for a store.
    """

    form: ir.KernelForm
    nodes: tuple[Node, ...]
    uniform: tuple[int, ...]
    rows: tuple[int, ...]
    stages: tuple[Stage, ...]
    stores: tuple[tuple[int, int], ...]
    statements: tuple[int | None, ...] = ()

    def __str__(self) -> str:
        return _listing(self)


@dataclass(slots=True)
class _Builder:
    """Grows the nodes, each once (equal primitives of equal inputs are one node)."""

    form: ir.KernelForm
    nodes: list[Node] = field(default_factory=list)
    known: dict[Node, int] = field(default_factory=dict)
    statements: list[int | None] = field(default_factory=list)  # by node
    statement: int | None = None  # that is being lowered

    def add(
        self,
        op: str,
        dtype: torch.dtype,
        *inputs: int,
        detail: object = None,
        order: ir.Order | ir.ColumnOrder | None = None,
        functions: ir.Functions = ir.Functions.ARRAYS,
    ) -> int:
        node = Node(op, inputs, dtype, detail, order, functions)  # type: ignore[arg-type]
        key = replace(node, detail=repr(detail))  # 0.0 and -0.0, 1 and True are not the same
        if key not in self.known:
            self.known[key] = len(self.nodes)
            self.nodes.append(node)
            self.statements.append(self.statement)
        return self.known[key]

    def cast(self, value: int, dtype: torch.dtype) -> int:
        node = self.nodes[value]
        if node.dtype is dtype:
            return value
        if node.op == "const" and not isinstance(node.detail, str):
            return self.constant(node.detail, dtype)
        return self.add("cast", dtype, value)

    def constant(self, value: object, dtype: torch.dtype) -> int:
        if not isinstance(value, (bool, int, float)):
            raise CompileError(f"{value!r} is not a number")
        kind = kind_of(dtype)
        if kind == "b":
            return self.add("const", dtype, detail=bool(value))
        if kind == "f":
            short = dtype is not computed_in(dtype)
            return self.add("const", dtype, detail=rounded(float(value)) if short else float(value))
        if isinstance(value, float) and not value.is_integer():
            raise CompileError(f"{value!r} is not an integer, but the op computes in {dtype}")
        return self.add("const", dtype, detail=int(value))


def rounded(number: float) -> float:
    """Round to bfloat16: to float32 first, as ATen does; ties to even."""
    (bits,) = struct.unpack("<I", struct.pack("<f", ctypes.c_float(number).value))
    if number != number:
        return number
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    (found,) = struct.unpack("<f", struct.pack("<I", bits))
    return float(found)


# Formulas of ``x`` for functions of vectors, by name and dtype: parsed when the table is made, see ir.ops.spec.Rule
Inline = Mapping[tuple[str, torch.dtype], ast.expr]


def lower(form: ir.KernelForm, inline: Inline = MappingProxyType({})) -> LoopNest:
    """Turn a kernel form into a loop nest.

    Parameters
    ----------
    inline
        Functions of vectors that are computed in place; others are called, a block at a time.

    Raises
    ------
    CompileError
        If an op has no formula for its dtype and literals, or a store cannot be made.
    """
    builder = _Builder(form)
    results: list[int] = []

    def value_of(value: ir.Value, dtype: torch.dtype) -> int:
        match value:
            case ir.Load(access):
                found = builder.add("load", form.accesses[access].dtype, detail=access)
            case ir.Result(statement):
                found = results[statement]
            case ir.RuntimeNumber(index):
                kind = OF_NUMBERS[form.number_kinds[index]]
                found = builder.add("number", kind, detail=index)
            case ir.RowLength():
                found = builder.add("length", torch.int64)
            case ir.Literal(literal):
                return builder.constant(literal, dtype)
        return builder.cast(found, dtype)

    for number, statement in enumerate(form.statements):
        builder.statement = number
        if isinstance(statement, ir.Reduction):
            value = value_of(statement.argument, statement.given)
            reduced = builder.add(
                "reduce", statement.dtype, value, detail=statement.operator, order=statement.order
            )
            results.append(reduced)
            continue
        spec = spec_of(statement.op)
        if spec is None:
            raise CompileError(f"no op named {statement.op!r} in the op table")
        literals = {
            name: argument.value
            for name, argument in zip(spec.parameters, statement.arguments, strict=True)
            if isinstance(argument, ir.Literal)
        }
        rule = spec.rule(statement.compute, literals)
        if rule is None:
            raise CompileError(
                f"{statement.op} has no formula for {statement.compute} and {literals or 'no literals'}"
            )
        used, working = rule.names(), computed_in(statement.compute)
        names = {}
        for name, argument in zip(spec.parameters, statement.arguments, strict=True):
            if name in spec.masks and name in used:
                names[name] = value_of(argument, torch.bool)
            elif name in used:
                given = working if name in spec.unrounded else statement.compute
                names[name] = builder.cast(value_of(argument, given), working)
        value = _Formula(builder, names, working, spec.name, statement.functions, inline).visit(
            rule.tree
        )
        if builder.nodes[value].dtype is not torch.bool:
            value = builder.cast(value, statement.compute)  # eager rounds before it converts
        results.append(builder.cast(value, statement.dtype))

    builder.statement = None
    stores = []
    for store in form.stores:
        access = form.accesses[store.access]
        stores.append((store.access, value_of(store.value, access.dtype)))
    nest = _staged(form, builder.nodes, tuple(stores))
    return replace(nest, statements=tuple(builder.statements))


@dataclass(slots=True)
class _Formula:
    """Lowers one formula in one dtype."""

    builder: _Builder
    names: dict[str, int]
    compute: torch.dtype
    name: str  # of the op
    functions: ir.Functions
    inline: Inline

    def visit(self, tree: ast.expr) -> int:
        build = self.builder
        match tree:
            case ast.Constant(value=bool(flag)):
                return build.constant(flag, torch.bool)
            case ast.Constant(value=value):
                return build.constant(value, self.compute)
            case ast.Name(id=name):
                if name in self.names:
                    return self.names[name]
                if name == "bits":
                    return build.constant(8 * self.compute.itemsize, self.compute)
                if name in _NAMED:
                    return build.constant(_NAMED[name], self.compute)
            case ast.NamedExpr(target=ast.Name(id=name), value=value):
                self.names[name] = self.visit(value)
                return self.names[name]
            case ast.Tuple(elts=parts):
                return [self.visit(part) for part in parts][-1]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.unary("neg", self.visit(operand))
            case ast.UnaryOp(op=ast.Invert(), operand=operand):
                return self.unary("not", self.visit(operand))
            case ast.BinOp(left=left, op=operator, right=right):
                a, b = self.visit(left), self.visit(right)
                return build.add(_OPERATORS[type(operator)], build.nodes[a].dtype, a, b)
            case ast.Compare(left=left, ops=[operator], comparators=[right]):
                a, b = self.visit(left), self.visit(right)
                return build.add(COMPARE[_OPERATORS[type(operator)]], torch.bool, a, b)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                c, a, b = self.visit(test), self.visit(body), self.visit(orelse)
                return build.add("select", build.nodes[a].dtype, c, a, b)
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return self.call(name, [self.visit(argument) for argument in arguments])
        raise CompileError(f"{self.name}: {ast.unparse(tree)!r} is not a formula")

    def unary(self, op: str, value: int) -> int:
        build = self.builder
        node = build.nodes[value]
        if op == "neg" and node.op == "const" and isinstance(node.detail, (int, float)):
            return build.constant(-node.detail, node.dtype)
        if op == "neg" and node.op == "cast" and build.nodes[node.inputs[0]].op == "number":
            # ATen negates the number itself, as what it is: an integer's zero has no sign
            (number,) = node.inputs
            return build.cast(build.add("neg", build.nodes[number].dtype, number), node.dtype)
        return build.add(op, node.dtype, value)

    def call(self, name: str, values: list[int]) -> int:
        build, dtype = self.builder, self.builder.nodes[values[0]].dtype
        if (
            name == "fma"
            and build.nodes[values[1]].detail in (1, -1)
            and build.nodes[values[1]].op == "const"
        ):
            return build.add(
                "add" if build.nodes[values[1]].detail == 1 else "sub", dtype, values[2], values[0]
            )
        if name == "isnan":
            if kind_of(dtype) != "f":
                return build.constant(False, torch.bool)
            return build.add("ne", torch.bool, values[0], values[0])
        if name == "fma" and kind_of(dtype) == "i":
            return build.add("add", dtype, build.add("mul", dtype, *values[:2]), values[2])
        if name in _FUNCTIONS:
            return build.add(name, dtype, *values)
        if name in MATH:
            written = self.inline.get((name, dtype))
            if written is not None and self.functions is not ir.Functions.ARRAYS:
                inner = replace(self, names={"x": values[0]}, compute=dtype)
                return inner.visit(written)
            return build.add("call", dtype, *values, detail=name, functions=self.functions)
        if name == "cast":
            return build.cast(values[0], self.compute)
        raise CompileError(f"{self.name}: no primitive named {name!r}")


def _staged(
    form: ir.KernelForm, nodes: list[Node], stores: tuple[tuple[int, int], ...]
) -> LoopNest:
    """Cut the nodes into stages: a node's level is how many calls and reductions lie before it."""
    modes = [access.mode for access in form.accesses]
    stored = {access for access, _ in stores}
    if len(stored) != len(stores):
        raise CompileError("two stores to one access")
    for access in stored:
        if modes[access] in (Mode.SCALAR, Mode.REPEAT):
            raise CompileError(f"a store to access {access}, which is {modes[access].value}")
    needed = _reachable(nodes, [node for _, node in stores])
    uniform: set[int] = set()
    rows: set[int] = set()
    level: dict[int, int] = {}

    def after(index: int) -> int:
        """Return how many levels a node's value comes after its own."""
        op = nodes[index].op
        return int(op == "reduce" or (op == "call" and index not in rows))

    for index in sorted(needed):
        node = nodes[index]
        if node.op in ("number", "const", "length"):
            uniform.add(index)
            continue
        if node.op not in ("load", "call", "reduce") and uniform.issuperset(node.inputs):
            uniform.add(index)
            continue
        same = uniform.issuperset(node.inputs)
        of_row = uniform.union(rows).issuperset(node.inputs) and (form.has_rows or not same)
        if node.op == "load":
            mode = modes[int(node.detail)]  # type: ignore[arg-type]
            of_row = form.has_rows and mode in (Mode.ROW, Mode.SCALAR)
        if node.op == "reduce" or of_row:
            rows.add(index)
        level[index] = max(
            (level[i] + after(i) for i in node.inputs if i not in uniform), default=0
        )
    last = max((at + after(i) for i, at in level.items()), default=0)
    # A store waits for the value, and for the last stage that loads its access; a call does so after its level.
    loaded: dict[int, int] = {}
    for index, at in level.items():
        for i in (*nodes[index].inputs, index):
            if nodes[i].op == "load" and i not in rows:
                access = int(nodes[i].detail)  # type: ignore[arg-type]
                loaded[access] = max(loaded.get(access, 0), at + after(index))
    for access, value in stores:
        if nodes[value].op == "load":
            source = int(nodes[value].detail)  # type: ignore[arg-type]
            loaded[source] = max(loaded.get(source, 0), loaded.get(access, 0))
    when = []
    for access, value in stores:
        ready = level.get(value, 0) + after(value)
        when.append(max(ready, loaded.get(access, 0)))
    for position, (_, value) in enumerate(stores):  # a copied access must not be overwritten first
        if nodes[value].op == "load":
            source = int(nodes[value].detail)  # type: ignore[arg-type]
            for other, (access, _) in enumerate(stores):
                if access == source:
                    when[other] = max(when[other], when[position])
    stages = []
    of_rows = {s for s, (access, _) in enumerate(stores) if modes[access] is Mode.ROW}
    for at in range(last + 1):
        here = [i for i in sorted(level) if level[i] == at and nodes[i].op != "load"]
        once = [i for i in here if i in rows and nodes[i].op != "reduce"]
        writes = [s for s, stage in enumerate(when) if stage == at]
        if once or not of_rows.isdisjoint(writes):
            stages.append(Stage("row", tuple(once), tuple(s for s in writes if s in of_rows)))
        members = tuple(i for i in here if i not in rows and nodes[i].op != "call")
        of_elements = tuple(s for s in writes if s not in of_rows)
        # before calls and reductions also if it is empty: it brings what they take to where they find it
        if members or of_elements or at < last:
            stages.append(Stage("loop", members, of_elements))
        calls = [i for i in here if nodes[i].op == "call" and i not in rows]
        stages.extend(Stage("call", (call,)) for call in calls)
        stages.extend(Stage("reduction", (i,)) for i in here if nodes[i].op == "reduce")
    uniforms, of_rows_ = tuple(sorted(uniform)), tuple(sorted(rows))
    return LoopNest(form, tuple(nodes), uniforms, of_rows_, tuple(stages), stores)


def _reachable(nodes: list[Node], roots: list[int]) -> set[int]:
    seen: set[int] = set()
    todo = list(roots)
    while todo:
        index = todo.pop()
        if index not in seen:
            seen.add(index)
            todo.extend(nodes[index].inputs)
    return seen


_SYMBOLS: Final = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|", "xor": "^", "shl": "<<", "shr": ">>",
    **{name: symbol for symbol, name in COMPARE.items()},
}  # fmt: skip


def _listing(nest: LoopNest) -> str:
    """Write the nest as readable pseudo-code; behind each primitive stands the statement that it is part of."""

    def name(index: int) -> str:
        node = nest.nodes[index]
        if node.op == "load":
            return f"a{node.detail}" if index in nest.rows else f"a{node.detail}[i]"
        if node.op == "length":
            return "n"
        if node.op == "const":
            return f"{node.detail!r}"
        if node.op == "number":
            return f"number{node.detail}"
        return f"v{index}"

    def line(index: int) -> str:
        node = nest.nodes[index]
        inputs = [name(i) for i in node.inputs]
        if node.op in _SYMBOLS:
            text = f"{inputs[0]} {_SYMBOLS[node.op]} {inputs[1]}"
        elif node.op == "select":
            text = f"{inputs[1]} if {inputs[0]} else {inputs[2]}"
        elif node.op == "cast":
            text = f"{short_name(node.dtype)}({inputs[0]})"
        else:
            named = node.detail if node.op in ("call", "reduce") else node.op
            text = f"{named}({', '.join(inputs)})"
        return f"v{index}: {short_name(node.dtype)} = {text}"

    def said(index: int, more: str = "") -> str:
        number = nest.statements[index] if nest.statements else None
        if number is not None:
            statement = nest.form.statements[number]
            op = statement.operator if isinstance(statement, ir.Reduction) else statement.op
            more = f"{number}: {op}{', ' * bool(more)}{more}"
        return f"  # {more}" if more else ""

    written = dict(nest.stores)
    lines = []
    for index, access in enumerate(nest.form.accesses):
        use = "written" if index in written else "read"
        lines.append(f"a{index}: {short_name(access.dtype)}, {access.mode.value}, {use}")
    for i in nest.uniform:
        if nest.nodes[i].op not in ("const", "number"):
            lines.append(line(i) + said(i))
    blocked = nest.form.has_rows or any(stage.kind == "call" for stage in nest.stages)
    block = "row" if nest.form.has_rows else "block"
    each = f"each {block} of" + (" n" if nest.form.has_rows else "") + " elements"
    if nest.form.has_columns:
        each = "each block of columns of n elements"
    if nest.form.axes == ir.WHOLE:
        each = "each part of all n elements, block by block"
    lines.append(f"for {each}:" if blocked else "for each vector of elements i:")
    for stage in nest.stages:
        pad = "    "
        if stage.kind in ("call", "reduction"):
            how = f"the whole {block} at once"
            if stage.kind == "reduction":
                how = _order_text(nest, stage)
            lines.append(f"{pad}{line(stage.nodes[0])}{said(stage.nodes[0], how)}")
            continue
        if blocked and stage.kind == "loop":
            if not (
                stage.nodes or stage.stores
            ):  # only brings operands to where a function reads them
                continue
            where = "each row of the block" if nest.form.has_columns else f"the {block}"
            lines.append(f"    for each vector of elements i in {where}:")
            pad = "        "
        where = "" if stage.kind == "row" else "[i]"
        lines.extend(pad + line(i) + said(i) for i in stage.nodes)
        lines.extend(
            f"{pad}a{nest.stores[s][0]}{where} = {name(nest.stores[s][1])}{said(nest.stores[s][1])}"
            for s in stage.stores
        )
    return "\n".join(lines) + "\n"


def _order_text(nest: LoopNest, stage: Stage) -> str:
    order = nest.nodes[stage.nodes[0]].order
    assert order is not None  # lower gives each reduction its own
    if isinstance(order, ir.ColumnOrder):
        return f"each column, {order.block} at a time, a cascade of {order.whole.levels} levels"
    if order.accumulators == 1:
        return f"the whole row in {order.lanes} lanes"
    cascade = f", a cascade of {order.levels} levels" if order.levels > 1 else ""
    return f"the whole row in {order.accumulators} x {order.lanes} lanes{cascade}"
