"""What a kernel form means, element by element: slow, obvious, and nothing of what it checks.

Floats are rounded from exact fractions, integers wrap around, and functions like ``exp`` are eager's own, on one element.
"""

from __future__ import annotations

import ast
import functools
import math
import operator
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy
import torch

from torchy.ir.dtypes import OF_NUMBERS, computed_in, kind_of
from torchy.ir.kernel import (
    ColumnOrder,
    KernelForm,
    Literal,
    Load,
    Order,
    Reduction,
    Result,
    RowLength,
    RuntimeNumber,
    Statement,
)
from torchy.ir.ops import spec_of
from torchy.ir.trace import Mode

ROUNDS = {torch.float32: numpy.float32, torch.float64: numpy.float64}
ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
BITWISE = {ast.BitAnd: operator.and_, ast.BitOr: operator.or_, ast.BitXor: operator.xor}
COMPARE = {ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
           ast.Eq: operator.eq, ast.NotEq: operator.ne}  # fmt: skip
NAMED = {"nan": math.nan, "inf": math.inf, "pi": math.pi}
WHOLE = {
    "floor": numpy.floor,
    "ceil": numpy.ceil,
    "trunc": numpy.trunc,
    "rint": numpy.rint,
    "sqrt": numpy.sqrt,
}


class Value:
    """A number with its dtype; floats are numpy's, so that each operation rounds."""

    def __init__(self, number: Any, dtype: torch.dtype) -> None:
        self.dtype, self.kind = dtype, kind_of(dtype)
        if self.kind == "f":
            self.number = nearest(number, dtype)
        elif self.kind == "b":
            self.number = bool(number)
        else:
            bits = 8 * dtype.itemsize
            self.number = (int(number) + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)

    def to(self, dtype: torch.dtype) -> Value:
        """Convert as C does on x86: what does not fit into an integer, NaN included, becomes the least one."""
        if self.kind == "f" and kind_of(dtype) == "i":
            least = -(1 << 8 * dtype.itemsize - 1)
            fits = math.isfinite(self.number) and least <= int(self.number) < -least
            return Value(int(self.number) if fits else least, dtype)
        return Value(self.number != 0 if dtype is torch.bool else self.number, dtype)


def nearest(number: Any, dtype: torch.dtype) -> Any:
    """Round to nearest, ties to even; what is exact (integers, fractions) is rounded once, to 16 bits by way of 32."""
    if dtype is torch.bfloat16 and number == number:
        single = torch.tensor(float(nearest(number, torch.float32)), dtype=torch.float32)
        return numpy.float32(single.bfloat16().item())
    if isinstance(number, (bool, int, Fraction)):
        exact = Fraction(number)
        try:
            double = float(exact)
        except OverflowError:
            double = math.copysign(math.inf, exact)
        if dtype is torch.float64 or math.isinf(double) or Fraction(double) == exact:
            return ROUNDS[dtype](double)
        # to odd first: so the second rounding does not see a tie that is none
        if struct.unpack("<q", struct.pack("<d", double))[0] % 2 == 0:
            double = math.nextafter(double, math.inf if exact > Fraction(double) else -math.inf)
        return ROUNDS[dtype](double)
    return ROUNDS[computed_in(dtype)](number)


def elements(
    form: KernelForm, operands: Sequence[Sequence[Any]], numbers: Sequence[bool | int | float]
) -> list[list[Any]]:
    """Return what each store writes.

    Parameters
    ----------
    operands
        For each access, the numbers that it reads: one for each element of the space. If the form has rows: one list of
        numbers for each row (or column), or one number if the access has one for each.
    """
    spots = list(zip(*operands, strict=True))
    with numpy.errstate(all="ignore"):
        columns = [_stored(form, spot, numbers, at, len(spots)) for at, spot in enumerate(spots)]
    return [list(column) for column in zip(*columns, strict=True)]


def _stored(
    form: KernelForm, loaded: Sequence[Any], numbers: Sequence[Any], at: int, count: int
) -> list[Any]:
    """Return what is stored for one element, or for one row of so many: a number, or a list of them."""
    results: list[Any] = []
    length = next((len(each) for each in loaded if isinstance(each, list)), 0)

    def value_of(value: object) -> Any:
        match value:
            case Load(access):
                dtype, given = form.accesses[access].dtype, loaded[access]
                if isinstance(given, list):
                    return [Value(number, dtype) for number in given]
                return Value(given, dtype)
            case Result(index):
                return results[index]
            case RuntimeNumber(index):
                return Value(numbers[index], OF_NUMBERS[form.number_kinds[index]])
            case RowLength():
                return Value(length, torch.int64)
            case Literal(literal) if isinstance(literal, (bool, int, float)):
                return Value(literal, OF_NUMBERS[type(literal)])
        return None

    for statement in form.statements:
        if isinstance(statement, Reduction):
            argument = value_of(statement.argument)
            each = argument if isinstance(argument, list) else [argument] * length
            row = [value.to(statement.given).number for value in each]
            order = statement.order
            if isinstance(order, ColumnOrder):
                order = order.whole if at < count // order.block * order.block else order.rest
            result = reduced(statement.operator, order, statement.dtype, row)
            results.append(Value(result, statement.dtype))
            continue
        given = [value_of(each) for each in statement.arguments]
        if any(isinstance(value, list) for value in given):
            of_elements = [
                value if isinstance(value, list) else [value] * length for value in given
            ]
            results.append(
                [_Formula(statement, spot).value() for spot in zip(*of_elements, strict=True)]
            )
        else:
            results.append(_Formula(statement, given).value())
    stored = []
    for store in form.stores:
        value, access = value_of(store.value), form.accesses[store.access]
        if form.has_rows and access.mode is not Mode.ROW and not isinstance(value, list):
            value = [value] * length
        if isinstance(value, list):
            stored.append([each.to(access.dtype).number for each in value])
        else:
            stored.append(value.to(access.dtype).number)
    return stored


def reduced(operator: str, order: Order, dtype: torch.dtype, row: list[Any]) -> Any:
    """Combine the elements of a row in an order: numpy's numbers, so that each step rounds."""
    if operator.startswith(("first_", "where_")):
        at = first(row, operator.endswith("max"))
        return at if operator.startswith("where_") else row[at]
    if operator == "deviations":
        return deviations([numpy.float64(number) for number in row])
    if operator in ("all", "any"):
        return all(row) if operator == "all" else any(row)
    if dtype is torch.int64:
        return sum(map(int, row))
    if operator in ("mean", "squares"):
        return moments(row, order.lanes, dtype)[operator == "squares"]
    kind = ROUNDS[dtype]
    together, singly = COMBINE[operator]
    lanes, count = order.lanes, order.accumulators
    if order.start == "zeros" and len(row) < lanes:
        lanes = 1
    block = lanes * count
    blocks = len(row) // block
    power = max(4, math.ceil(math.log2(max(blocks, 2))) // order.levels)
    zeros = [[kind(0)] * block for _ in range(order.levels)]
    sums, begin = zeros, 0
    if order.start == "first" and blocks:
        sums[0], begin = row[:block], 1
    for at in range(begin, blocks):
        given = row[at * block : (at + 1) * block]
        sums[0] = [together(a, b) for a, b in zip(sums[0], given, strict=True)]
        for level in range(1, order.levels):
            if (at + 1) % 2 ** (level * power):
                break
            sums[level] = [
                together(a, b) for a, b in zip(sums[level], sums[level - 1], strict=True)
            ]
            sums[level - 1] = [kind(0)] * block
    total = sums[0]
    for level in sums[1:]:
        total = [together(a, b) for a, b in zip(total, level, strict=True)]
    rest = row[blocks * block :]
    if order.rest == "accumulator":
        while len(rest) >= lanes:
            total[:lanes] = [together(a, b) for a, b in zip(total, rest[:lanes], strict=False)]
            rest = rest[lanes:]
    vectors = [total[k * lanes : (k + 1) * lanes] for k in range(count)]
    while len(vectors) > 1:
        left = vectors[::2] if order.join == "pairs" else vectors[:1]
        right = vectors[1::2] if order.join == "pairs" else vectors[1:2]
        joined = [
            [together(a, b) for a, b in zip(*pair, strict=True)]
            for pair in zip(left, right, strict=True)
        ]
        vectors = joined if order.join == "pairs" else joined + vectors[2:]
    if order.tail == "lanes":
        if not blocks:
            return functools.reduce(together, row)
        lane = vectors[0]
        lane[: len(rest)] = [together(a, b) for a, b in zip(lane, rest, strict=False)]
        if order.across == "sequence":
            return functools.reduce(together, lane)
        while len(lane) > 1:
            half = len(lane) // 2
            lane = [together(a, b) for a, b in zip(lane[:half], lane[half:], strict=True)]
        return lane[0]
    if order.tail == "first":
        return functools.reduce(singly, [*rest, *vectors[0]], kind(0))
    start = [IDENTITY[operator]]
    if blocks or order.start == "zeros":
        start.append(functools.reduce(singly, vectors[0]))
    return functools.reduce(singly, [*map(kind, start), *rest])


def first(row: list[Any], greatest: bool) -> int:
    """Return where the first NaN is, or else the first of the greatest or the least numbers."""
    missing = [at for at, number in enumerate(row) if number != number]
    extreme = max(row) if greatest else min(row)
    return missing[0] if missing else row.index(extreme)


def deviations(row: list[Any]) -> Any:
    """Sum the squares of deviations from the mean, as Welford does."""
    mean = squares = numpy.float64(0)
    for count, element in enumerate(row, 1):
        off = element - mean
        mean += off / numpy.float64(count)
        squares += off * (element - mean)
    return squares


def moments(row: list[Any], lanes: int, dtype: torch.dtype) -> tuple[Any, Any]:
    """Gather the mean, and the squares of what is off it: parts of 16 vectors, on a stack, then what fills no vector."""
    kind, vectors = ROUNDS[dtype], len(row) // lanes
    zero, parts = kind(0), math.ceil(vectors / 16)
    depth = max(1, math.ceil(math.log2(max(parts, 1))))
    levels = [(0, [zero] * lanes, [zero] * lanes) for _ in range(depth)]

    def join(level: int, count: int, means: list[Any], sums: list[Any]) -> None:
        had, old, old_sums = levels[level]
        both = had + count
        share = kind(count) / kind(both) if both else zero
        off = [mean - before for mean, before in zip(means, old, strict=True)]
        new = [before + share * o for before, o in zip(old, off, strict=True)]
        total = [
            fma(o * kind(had), share * o, before + more, dtype)
            for o, before, more in zip(off, old_sums, sums, strict=True)
        ]
        levels[level] = both, new, total

    def rise(level: int) -> None:
        join(level, *levels[level - 1])
        levels[level - 1] = 0, [zero] * lanes, [zero] * lanes

    for part in range(parts):
        count = min(16, vectors - 16 * part)
        means, sums = [zero] * lanes, [zero] * lanes
        for vector in range(count):
            begin = (16 * part + vector) * lanes
            share = kind(1) / kind(vector + 1)
            for lane, element in enumerate(row[begin : begin + lanes]):
                off = element - means[lane]
                means[lane] = fma(share, off, means[lane], dtype)
                sums[lane] = fma(off, element - means[lane], sums[lane], dtype)
        join(0, count, means, sums)
        level, bits = 1, part + 1
        while level < depth and bits % 2 == 0:
            rise(level)
            level, bits = level + 1, bits // 2
    for level in range(1, depth):
        join(0, *levels[level])
    mean = squares = zero
    rest = row[vectors * lanes :]
    for count, element in enumerate(rest, 1):
        off = element - mean
        mean = mean + off / kind(count)
        squares = squares + off * (element - mean)
    have = len(rest)
    for lane_mean, lane_sum in zip(*levels[0][1:], strict=True):
        both = have + vectors
        share = kind(vectors) / kind(both) if both else zero
        off = lane_mean - mean
        mean = fma(share, off, mean, dtype)
        squares = squares + fma(off * off * share, kind(have), lane_sum, dtype)
        have = both
    return mean, squares


def fma(x: Any, y: Any, z: Any, dtype: torch.dtype = torch.float64) -> Any:
    """Multiply and add, rounded once."""
    if all(map(math.isfinite, (x, y, z))) and (
        exact := Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
    ):
        return nearest(exact, dtype)
    return ROUNDS[dtype](float(x) * float(y) + float(z))


def _extreme(better: Callable[[Any, Any], bool], of_two_alike: int) -> Callable[[Any, Any], Any]:
    """Combine two numbers; of two that are alike, zeros of either sign, take the first or the second."""

    def combine(a: Any, b: Any) -> Any:
        if a != a or b != b:
            return type(a)(math.nan)
        return a if better(a, b) else b if better(b, a) else (a, b)[of_two_alike]

    return combine


# of vectors, and of single numbers
COMBINE = {
    "sum": (operator.add, operator.add),
    "max": (_extreme(operator.gt, 1), _extreme(operator.gt, 0)),
    "min": (_extreme(operator.lt, 1), _extreme(operator.lt, 0)),
}
IDENTITY = {"sum": 0.0, "max": -math.inf, "min": math.inf}


class _Formula:
    def __init__(self, statement: Statement, given: Sequence[Value | None]) -> None:
        spec = spec_of(statement.op)
        assert spec is not None
        self.compute, self.rounded = computed_in(statement.compute), statement.compute
        self.dtype = statement.dtype
        literals = {
            name: argument.value
            for name, argument in zip(spec.parameters, statement.arguments, strict=True)
            if isinstance(argument, Literal)
        }
        rule = spec.rule(statement.compute, literals)
        assert rule is not None
        self.tree = rule.tree
        named = zip(spec.parameters, statement.arguments, given, strict=True)
        self.names: dict[str, Value] = {}
        self.numbers: dict[str, Value] = {}  # those that Python has handed in, as what they are
        for name, argument, given_value in named:
            value = given_value
            if value is not None:
                if name in spec.masks:
                    self.names[name] = value.to(torch.bool)
                    continue
                if name not in spec.unrounded:
                    value = value.to(statement.compute)
                self.names[name] = value.to(self.compute)
                if isinstance(argument, RuntimeNumber):
                    self.numbers[name] = given_value

    def value(self) -> Value:
        found = self.visit(self.tree)
        return (found if found.kind == "b" else found.to(self.rounded)).to(self.dtype)

    def visit(self, tree: ast.expr) -> Value:
        match tree:
            case ast.Constant(value=bool(flag)):
                return Value(flag, torch.bool)
            case ast.Constant(value=number):
                return Value(number, self.compute)
            case ast.Name(id="bits"):
                return Value(8 * self.compute.itemsize, self.compute)
            case ast.Name(id=name):
                return self.names[name] if name in self.names else Value(NAMED[name], self.compute)
            case ast.NamedExpr(target=ast.Name(id=name), value=value):
                self.names[name] = self.visit(value)
                self.numbers.pop(name, None)
                return self.names[name]
            case ast.Tuple(elts=parts):
                return [self.visit(part) for part in parts][-1]
            case ast.UnaryOp(op=ast.USub(), operand=ast.Name(id=name)) if name in self.numbers:
                # ATen negates the number itself: an integer's zero has no sign
                number = self.numbers[name]
                return Value(-number.number, number.dtype).to(self.compute)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                value = self.visit(operand)
                return Value(-value.number, value.dtype)
            case ast.UnaryOp(op=ast.Invert(), operand=operand):
                value = self.visit(operand)
                inverse = not value.number if value.kind == "b" else ~value.number
                return Value(inverse, value.dtype)
            case ast.BinOp(left=left, op=sign, right=right):
                return self.binary(type(sign), self.visit(left), self.visit(right))
            case ast.Compare(left=left, ops=[sign], comparators=[right]):
                a, b = self.visit(left), self.visit(right)
                return Value(COMPARE[type(sign)](a.number, b.number), torch.bool)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                chosen, a, b = self.visit(test), self.visit(body), self.visit(orelse)
                return a if chosen.number else b
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return self.call(name, [self.visit(argument) for argument in arguments])
        raise AssertionError(ast.unparse(tree))

    def binary(self, sign: type, a: Value, b: Value) -> Value:
        if sign in BITWISE:
            return Value(BITWISE[sign](a.number, b.number), a.dtype)
        if sign is ast.LShift:
            return Value(a.number << b.number if 0 <= b.number < 64 else 0, a.dtype)
        if sign is ast.RShift:
            return Value(a.number >> b.number if 0 <= b.number < 64 else 0, a.dtype)
        return Value(ARITHMETIC[sign](a.number, b.number), a.dtype)

    def call(self, name: str, values: list[Value]) -> Value:
        first, dtype = values[0], values[0].dtype
        if name == "fma":
            return self.fma(*values)
        if name == "isnan":
            return Value(first.number != first.number, torch.bool)
        if name == "abs":
            return Value(
                numpy.fabs(first.number) if first.kind == "f" else abs(first.number), dtype
            )
        if name == "copysign":
            return Value(numpy.copysign(first.number, values[1].number), dtype)
        if name in WHOLE:
            return Value(WHOLE[name](first.number), dtype)
        if name == "cast":
            return first.to(self.compute)
        function = getattr(torch, "sqrt" if name == "root" else name)
        tensors = [torch.tensor([value.number], dtype=dtype) for value in values]
        return Value(function(*tensors).numpy()[0], dtype)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        if a.kind == "i":
            return Value(a.number * b.number + c.number, a.dtype)
        x, y, z = (float(value.number) for value in (a, b, c))
        if all(map(math.isfinite, (x, y, z))):
            exact = Fraction(x) * Fraction(y) + Fraction(z)
            if exact:
                return Value(exact, a.dtype)
        return Value(numpy.float64(x) * numpy.float64(y) + numpy.float64(z), a.dtype)
