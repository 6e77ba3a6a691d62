"""What a kernel form means, element by element: slow, obvious, and nothing of what it checks.

Floats are rounded from exact fractions, integers wrap around, and functions like ``exp`` are eager's own, on one element.
"""

from __future__ import annotations

import ast
import math
import operator
import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy
import torch

from torchy.ir.dtypes import OF_NUMBERS, kind_of
from torchy.ir.kernel import KernelForm, Literal, Load, Result, RuntimeNumber, Statement
from torchy.ir.ops import spec_of

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
    """Round to nearest, ties to even; what is exact (integers, fractions) is rounded once."""
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
    return ROUNDS[dtype](number)


def elements(
    form: KernelForm, operands: Sequence[Sequence[Any]], numbers: Sequence[bool | int | float]
) -> list[list[Any]]:
    """Return what each store writes.

    Parameters
    ----------
    operands
        For each access, the numbers that it reads, one for each element of the space.
    """
    with numpy.errstate(all="ignore"):
        columns = [_element(form, at, numbers) for at in zip(*operands, strict=True)]
    return [list(column) for column in zip(*columns, strict=True)]


def _element(form: KernelForm, loaded: Sequence[Any], numbers: Sequence[Any]) -> list[Any]:
    results: list[Value] = []

    def value_of(value: object) -> Value | None:
        match value:
            case Load(access):
                return Value(loaded[access], form.accesses[access].dtype)
            case Result(index):
                return results[index]
            case RuntimeNumber(index):
                return Value(numbers[index], OF_NUMBERS[form.number_kinds[index]])
            case Literal(literal) if isinstance(literal, (bool, int, float)):
                return Value(literal, OF_NUMBERS[type(literal)])
        return None

    for statement in form.statements:
        results.append(
            _Formula(statement, [value_of(each) for each in statement.arguments]).value()
        )
    stored = []
    for store in form.stores:
        value = value_of(store.value)
        assert value is not None
        stored.append(value.to(form.accesses[store.access].dtype).number)
    return stored


class _Formula:
    def __init__(self, statement: Statement, given: Sequence[Value | None]) -> None:
        spec = spec_of(statement.op)
        assert spec is not None
        self.compute = statement.compute
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
        for name, argument, value in named:
            if value is not None:
                self.names[name] = value.to(torch.bool if name in spec.masks else self.compute)
                if isinstance(argument, RuntimeNumber):
                    self.numbers[name] = value

    def value(self) -> Value:
        return self.visit(self.tree).to(self.dtype)

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
