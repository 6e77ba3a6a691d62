"""Calling recorded ops anew, from Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from torchy.ir.trace import Argument, Constant, Number, Op, Operand


def prepared_call(
    op: Op, operand: Callable[[int], torch.Tensor], number: Callable[[Number], bool | int | float]
) -> tuple[Any, list[Any], dict[str, Any]]:
    """Return torch's function for an op, and its arguments by position and by name.

    Parameters
    ----------
    operand, number
        Give the tensor of a view, and the value of a number.
    """
    base, _, overload = op.name.partition("::")[2].partition(".")
    namespace = getattr(torch.ops, op.name.partition("::")[0])
    function: Any = getattr(getattr(namespace, base), overload or "default")

    def value(argument: Argument) -> Any:
        match argument:
            case Operand(view):
                return operand(view)
            case Number():
                return number(argument)
            case Constant(constant):
                return constant
            case _:
                return [value(item) for item in argument]

    positional: list[Any] = []
    named: dict[str, Any] = {}
    for parameter, given in zip(function._schema.arguments, op.arguments, strict=True):
        if parameter.kwarg_only:
            named[parameter.name] = value(given)
        else:
            positional.append(value(given))
    return function, positional, named


def results_of(returned: object) -> Sequence[object]:
    """Return what an op has returned as a sequence."""
    return returned if isinstance(returned, (tuple, list)) else (returned,)
