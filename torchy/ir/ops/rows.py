"""The op table: ops that work on rows. Which overloads of them are deferred is in ``calls.py``.

A line names the op, its parameters, and its steps, each of which makes one value for each row, or one for each element::

    rows(
        "_softmax",
        "self",
        "top := max(self)",
        "e := exp(self - top)",
        "all := sum(e)",
        "e * (1 / all)",
    )

A step that calls an operator of :class:`torchy.ir.kernel.Reduction` makes one value of each row; every other is a formula,
as in :mod:`torchy.ir.ops.spec`, of elements if anything in it is, and ``length`` is how many elements a row has. The first
parameter is what has the rows. A formula may come with another one that holds for a value of a number. In which order eager
combines the elements of a row is not said here: it is a backend's to know, for each op and dtype.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch

from torchy.ir.kernel import (
    ColumnOrder,
    Functions,
    Order,
    Reduction,
    Result,
    RowLength,
    Statement,
    Value,
)
from torchy.ir.ops.spec import OpSpec, Rule, on

OPERATORS: Final = frozenset(
    "sum max min all any deviations mean squares first_max first_min where_max where_min".split()
)
LENGTH: Final = "length"


class RowStep(NamedTuple):
    """One value that an op makes on its way.

    Parameters
    ----------
    name
        Of the value.
    operator
        Of a reduction, whose argument is the only one; empty: a formula.
    arguments
        Names of parameters and earlier values.
    formula
        If it is one, with these arguments as its parameters.
    """

    name: str
    operator: str
    arguments: tuple[str, ...]
    formula: OpSpec | None = None


@dataclass(frozen=True, slots=True)
class RowSpec:
    """One line of the table.

    Parameters
    ----------
    name
        As :class:`OpSpec` has it.
    parameters
        The schema's argument names that are operands or numbers of the formulas, the first of which has the rows.
    steps
        In order.
    results, indices
        Which of them make the op's results, and which of these are of int64, whatever the operands are.
    over
        The schema's argument that names the dimensions of a row: all of them, if it names none, or there is none.
    along
        Operands that have one element for each of a row, the same for all rows.
    numbers
        Parameters that may be numbers, which are part of the code, and what they are if none is given.
    only
        Values that the schema's other arguments must have, for this to be what the op does.
    last
        Eager does it so along the last dimension only, and in the order of dimensions: not in that of memory.
    functions
        Those that its formulas call.
    double
        It computes in float64 whatever it is given; else in the dtype of its operands.
    integers
        Of integers and truths, it computes in int64.
    """

    name: str
    parameters: tuple[str, ...]
    steps: tuple[RowStep, ...]
    results: tuple[str, ...]
    indices: frozenset[str]
    along: frozenset[str]
    over: str
    numbers: Mapping[str, float]
    only: Mapping[str, object]
    last: bool
    functions: Functions
    double: bool
    integers: bool

    @property
    def operators(self) -> tuple[str, ...]:
        """Those of its reductions."""
        return tuple(step.operator for step in self.steps if step.operator)

    @property
    def operands(self) -> tuple[str, ...]:
        """The parameters that are, or may be, tensors."""
        return tuple(n for n in self.parameters if n not in self.numbers or n in self.along)

    @property
    def of_elements(self) -> tuple[bool, ...]:
        """Whether a result has an element for each of the operand's, or one for each row; by result."""
        found = set(self.operands)
        for step in self.steps:
            if step.operator or found.isdisjoint(step.arguments):
                found.discard(step.name)
            else:
                found.add(step.name)
        return tuple(name in found for name in self.results)

    @property
    def one_pass(self) -> bool:
        """Whether no element waits for what is made of its row."""
        elements = set(self.operands)
        of_rows: set[str] = set()
        for step in self.steps:
            met = elements.intersection(step.arguments)
            if step.operator or not met:
                of_rows.add(step.name)
            elif of_rows.isdisjoint(step.arguments):
                elements.add(step.name)
            else:
                return False
        return not any(self.of_elements)

    def statements(
        self,
        values: Mapping[str, Value],
        dtype: torch.dtype,
        orders: Mapping[str, Order | ColumnOrder],
        first: int = 0,
    ) -> tuple[list[Statement | Reduction], list[Result]]:
        """Return what a kernel form does for this op, and the op's results.

        Parameters
        ----------
        values
            By parameter.
        dtype
            Of the operands and the result.
        orders
            By operator.
        first
            How many statements come before.
        """
        named = {LENGTH: RowLength(), **values}
        compute = torch.float64 if self.double else dtype
        made_of: dict[str, Result] = {}
        found: list[Statement | Reduction] = []
        for step in self.steps:
            given = tuple(named[name] for name in step.arguments)
            if step.formula is None:
                order = orders[step.operator]
                made = torch.int64 if step.name in self.indices else compute
                found.append(Reduction(self.name, step.operator, given[0], dtype, made, order))
            else:
                made = dtype if step.name in self.results else compute
                op = step.formula.name
                found.append(Statement(op, given, compute, made, self.functions))
            named[step.name] = made_of[step.name] = Result(first + len(found) - 1)
        return found, [made_of[name] for name in self.results]


def rows(
    name: str,
    parameters: str,
    *steps: str | tuple[str, Rule],
    results: str = "",
    indices: str = "",
    along: str = "",
    over: str = "dim",
    numbers: Mapping[str, float] | None = None,
    only: Mapping[str, object] | None = None,
    last: bool = False,
    functions: Functions = Functions.VECTORS,
    double: bool = False,
    integers: bool = False,
) -> RowSpec:
    """Write one line of the table: see the top of this file, and :class:`RowSpec`."""
    found: list[RowStep] = []
    for at, given in enumerate(steps):
        text, *others = (given,) if isinstance(given, str) else given
        tree = ast.parse(f"({text})", mode="eval").body
        step = f"{name}.{at}"
        if isinstance(tree, ast.NamedExpr):
            step, tree = tree.target.id, tree.value
        match tree:
            case ast.Call(func=ast.Name(id=operator), args=[ast.Name(id=value)]) if (
                operator in OPERATORS
            ):
                found.append(RowStep(step, operator, (value,)))
                continue
        formula = ast.unparse(tree)
        known = [*parameters.split(), LENGTH, *(earlier.name for earlier in found)]
        names = Rule(formula).names()
        used = tuple(each for each in known if each in names)
        spec = OpSpec(f"{name}.{at}", "pointwise", used, rules=(*others, Rule(formula)))
        found.append(RowStep(step, "", used, spec))
    return RowSpec(
        name,
        tuple(parameters.split()),
        tuple(found),
        results=tuple(results.split()) or (found[-1].name,),
        indices=frozenset(indices.split()),
        along=frozenset(along.split()),
        over=over,
        numbers=numbers or {},
        only=only or {},
        last=last,
        functions=functions,
        double=double,
        integers=integers,
    )


_VARIANCE: Final = "squares / (length - correction if length > correction else 0)"
ROWS: Final[Mapping[str, RowSpec]] = {
    spec.name: spec
    for spec in (
        rows("sum", "self", "sum(self)", integers=True),
        rows("mean", "self", "total := sum(self)", "total / length"),
        rows(
            "mse_loss",
            "self target",
            "d := self - target",
            "square := d * d",
            "total := sum(square)",
            "total / length",
            over="",
            only={"reduction": 1},
        ),
        rows("all", "self", "all(self)"),
        rows("any", "self", "any(self)"),
        rows("amax", "self", "max(self)"),
        rows("amin", "self", "min(self)"),
        *(
            rows(
                name,
                "self",
                f"value := first_{name}(self)",
                f"which := where_{name}(self)",
                results="value which",
                indices="which",
            )
            for name in ("max", "min")
        ),
        *(
            rows(
                f"arg{name}",
                "self",
                f"which := where_{name}(self)",
                results="which",
                indices="which",
            )
            for name in ("max", "min")
        ),
        *(
            rows(
                name,
                "self correction",
                "squares := deviations(self)",
                formula,
                numbers={"correction": 1},
                double=True,
            )
            for name, formula in (("var", _VARIANCE), ("std", f"sqrt({_VARIANCE})"))
        ),
        rows(
            "native_layer_norm",
            "input weight bias eps",
            "average := mean(input)",
            "off := squares(input)",
            "scale := 1 / sqrt(off / length + eps)",
            (
                "y := fma((input - average) * scale, weight, bias)",
                on("f", "fma(input - average, scale, bias)", weight=1),
            ),
            results="y average scale",
            along="weight bias",
            over="normalized_shape",
            numbers={"weight": 1, "bias": 0, "eps": 1e-5},
            last=True,
        ),
        rows(
            "_softmax",
            "self",
            "top := max(self)",
            "e := exp(self - top)",
            "all := sum(e)",
            "e * (1 / all)",
            only={"half_to_float": False},
            last=True,
        ),
        rows(
            "_log_softmax",
            "self",
            "top := max(self)",
            "d := self - top",
            "e := exp(d)",
            "all := sum(e)",
            "d - log(all)",
            only={"half_to_float": False},
            last=True,
        ),
        rows(
            "logsumexp",
            "self",
            "highest := max(self)",
            "top := 0 if abs(highest) == inf else highest",
            "e := exp(self - top)",
            "all := sum(e)",
            "log(all) + top",
            functions=Functions.ARRAYS,
        ),
        rows(
            "_log_softmax_backward_data",
            "grad_output output",
            "all := sum(grad_output)",
            "fma(-exp(output), all, grad_output)",
            last=True,
        ),
    )
}
STEPS: Final[Mapping[str, OpSpec]] = {
    step.formula.name: step.formula
    for spec in ROWS.values()
    for step in spec.steps
    if step.formula is not None
}
