"""What the op table says about one op, and how its lines are written.

A line names the op, its parameters, and its formulas, of which the first that fits holds::

    pointwise(
        "add",
        "self other alpha!!",
        on("fi", "self + other", alpha=1),
        on("b", "self | alpha & other"),
        on("fi", "fma(other, alpha, self)"),
    )

A parameter has the name that the schema gives it. What is marked is no plain value:

======= =================== ===================================
mark    in type promotion   its value
======= =================== ===================================
``x``   takes part          known at run time: a tensor, a number
``x&``  takes part          part of the code: a number
``x!``  does not            known at run time: a number
``x!!`` does not            the same, but being one makes it another place
``x?``  does not            part of the code: a number, a text, None
``x%``  does not            known at run time: a mask, bool whatever the others are
======= =================== ===================================

A formula is a Python expression over the parameters. ``x if c else y`` selects, without branching; ``(a := ..., b)`` names
a part; functions are the primitives of ``codegen/loops.py``. ``on`` tells for which kinds of dtype it is, float (``f``),
integer (``i``) and bool (``b``), and for which values of parameters that are part of the code; a formula without it is for
floats. Whether a backend computes it with eager's very bits is not said here: it is the backend's to know.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from torchy.ir.dtypes import kind_of

Promotion = Literal["common", "float", "self", "result", "mode"]
Numerics = Literal["exact", "fast"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A formula and when it holds.

    Parameters
    ----------
    formula
        See above.
    kinds
        Kinds of the dtype computed in: any of ``f``, ``i``, ``b``.
    literals
        Values of literal parameters that it is for.

    Attributes
    ----------
    tree
        The formula, parsed. Kernels are compiled on threads, and in Python 3.11 ``ast.parse`` on two threads at a time
        raises SystemError, be the other one the notebook's: so it is done when the table is made.
    """

    formula: str
    kinds: str = "f"
    literals: Mapping[str, object] = field(default_factory=dict)
    tree: ast.expr = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tree", ast.parse(self.formula, mode="eval").body)

    def names(self) -> set[str]:
        """Return the names that the formula uses: parameters and primitives."""
        return {node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name)}


@dataclass(frozen=True, slots=True)
class Indices:
    """An argument whose elements are indices: eager raises if one is out of range, so they are looked at each time.

    Parameters
    ----------
    argument
        A tensor.
    into
        Another one: what is indexed.
    dimension
        Which dimension of that, or the argument that tells it.
    ignored
        The argument that tells which value may stand for none; empty if there is none.
    """

    argument: str
    into: str
    dimension: int | str
    ignored: str = ""


@dataclass(frozen=True, slots=True)
class OpSpec:
    """One line of the op table.

    Parameters
    ----------
    name
        The functional base: ``add`` for ``aten::add_.Tensor``, ``aten::add.out`` and so on.
    kind
        ``pointwise`` ops work element by element: those with a formula can be fused, where a backend has eager's bits;
        ``call`` ops are deferred, and run by torch.
    parameters
        The schema's argument names, in the order of the formula. Empty for calls.
    runtime
        Scalar parameters whose value is known at run time only: not part of a place's key.
    unless_one
        Those of them whose being one is part of it: there the formula is another.
    rules
        Formulas; the first that fits holds. Empty for calls and for pointwise ops that always stay calls.
    promoted
        Parameters that take part in type promotion.
    masks
        Parameters that are bools whatever the others are.
    literals
        Parameters that are part of the code.
    promotion
        The dtype computed in: ``common`` (promoted), ``float`` (promoted; the default dtype if that is not floating),
        ``self`` (the first tensor parameter's), ``result`` (the first result's) or ``mode`` (``float`` if the literal
        ``rounding_mode`` is None, else ``common``).
    ignored
        Schema arguments that the formula does without: they shape the result, or are only written.
    raises_on_data
        May raise, or kill the process, for values that only its run can see: must not be deferred for the dtype kinds
        listed (``i``: integers).
    hidden_writes
        Arguments written to without the schema saying so.
    indices
        What may raise for data that can be looked at while it is recorded.
    unrounded
        Parameters that are not rounded to 16 bits where the others have so many: what is computed in takes them as they are.
    overloads
        Of a call: those that are deferred.
    minds_precision
        Its kernel asks how precise products of float32 must be, so its bits depend on what is set for that.
    """

    name: str
    kind: Literal["pointwise", "call"]
    parameters: tuple[str, ...] = ()
    runtime: frozenset[str] = frozenset()
    unless_one: frozenset[str] = frozenset()
    rules: tuple[Rule, ...] = ()
    promoted: frozenset[str] = frozenset()
    masks: frozenset[str] = frozenset()
    literals: frozenset[str] = frozenset()
    promotion: Promotion = "common"
    ignored: frozenset[str] = frozenset()
    raises_on_data: str = ""
    hidden_writes: tuple[str, ...] = ()
    indices: Indices | None = None
    unrounded: frozenset[str] = frozenset()
    minds_precision: bool = False
    overloads: frozenset[str] = frozenset()

    def rule(self, compute: torch.dtype, literals: Mapping[str, object]) -> Rule | None:
        """Return the rule for this dtype and these literals, None if there is none."""
        kind = kind_of(compute)
        for rule in self.rules:
            if kind in rule.kinds and all(
                name in literals and _same_literal(literals[name], value)
                for name, value in rule.literals.items()
            ):
                return rule
        return None


def _same_literal(given: object, wanted: object) -> bool:
    """Tell if a literal argument has this value; numbers compare by value, as ``Scalar::equal`` does."""
    if isinstance(given, (bool, int, float)) and isinstance(wanted, (bool, int, float)):
        return given == wanted
    return type(given) is type(wanted) and given == wanted


def on(kinds: str, formula: str, **literals: object) -> Rule:
    """Write a formula for some kinds of dtypes, and values of parameters that are part of the code."""
    return Rule(formula, kinds, literals)


def pointwise(
    name: str,
    parameters: str,
    *formulas: str | Rule,
    promotion: Promotion = "common",
    ignored: str = "",
    unrounded: str = "",
    raises_on_data: str = "",
) -> OpSpec:
    """Write one line of the table: see the top of this file, and :class:`OpSpec`."""
    sets: dict[str, set[str]] = {mark: set() for mark in ("", "!", "!!", "?", "&", "%")}
    names = []
    for word in parameters.split():
        bare = word.rstrip("!?&%")
        names.append(bare)
        sets[word[len(bare) :]].add(bare)
    return OpSpec(
        name=name,
        kind="pointwise",
        parameters=tuple(names),
        runtime=frozenset(sets["!"] | sets["!!"] | sets[""]),
        unless_one=frozenset(sets["!!"]),
        rules=tuple(Rule(each) if isinstance(each, str) else each for each in formulas),
        promoted=frozenset(sets[""] | sets["&"]),
        masks=frozenset(sets["%"]),
        literals=frozenset(sets["?"] | sets["&"]),
        promotion=promotion,
        ignored=frozenset(ignored.split()),
        unrounded=frozenset(unrounded.split()),
        raises_on_data=raises_on_data,
    )
