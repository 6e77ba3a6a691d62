"""What the op table says about one op, and how its lines are written."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Literal

import torch

from torchy.ir.dtypes import IN_KERNELS, kind_of

Promotion = Literal["common", "float", "self", "result", "mode"]
Numerics = Literal["exact", "fast"]

POSITION: Final = "eager's result depends on the element's position (vector body or scalar tail)"
ZEROS: Final = (
    "of zeros with different signs, eager's vector body and scalar tail pick different ones"
)
NAN_POSITION: Final = "eager's vector body and scalar tail treat NaN differently"
NO_VECTOR: Final = "no vector form of eager's function is known"
SIGNALLING: Final = "eager calls the C library, for which a signalling NaN is no missing value"
SCALAR_LIBM: Final = "eager calls the C library, one element at a time"


@dataclass(frozen=True, slots=True)
class Rule:
    """A formula and when it holds.

    Parameters
    ----------
    formula
        A Python expression over the op's parameters. ``x if c else y`` selects, without branching; functions are
        the primitives of ``codegen/loops.py``.
    kinds
        Kinds of the dtype computed in: any of ``f`` (float), ``i`` (integer), ``b`` (bool).
    literals
        Values of literal parameters that it is for.
    inexact
        Why it is not bit-identical with eager; empty if it is. Such a rule is for fast mode only.
    moving
        A parameter whose elements must differ along the inner dimension, if it computes in floating point: where they do
        not, eager's compiler takes a product out of the loop, and rounds it there, but not in all parts of the loop.

    Attributes
    ----------
    tree
        The formula, parsed. Kernels are compiled on threads, and in Python 3.11 ``ast.parse`` on two threads at a time
        raises SystemError, be the other one the notebook's: so it is done when the table is made.
    """

    formula: str
    kinds: str = "fi"
    literals: Mapping[str, object] = field(default_factory=dict)
    inexact: str = ""
    moving: str = ""
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
        ``pointwise`` ops have formulas and can be fused, where :func:`fusable` says so; ``call`` ops are deferred, and
        run by torch.
    parameters
        The schema's argument names, in the order of the formula. Empty for calls.
    runtime
        Scalar parameters whose value is known at run time only: not part of a place's key.
    unless_one
        Those of them whose being one is part of it: there the formula is another.
    kernel
        ATen's kernel, for reference.
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
    stays_call
        Why a pointwise op never becomes a kernel; empty if it may.
    raises_on_data
        May raise, or kill the process, for values that only its run can see: must not be deferred for the dtype kinds
        listed (``i``: integers).
    hidden_writes
        Arguments written to without the schema saying so.
    indices
        What may raise for data that can be looked at while it is recorded.
    minds_precision
        Its kernel asks how precise products of float32 must be, so its bits depend on what is set for that.
    """

    name: str
    kind: Literal["pointwise", "call"]
    parameters: tuple[str, ...] = ()
    runtime: frozenset[str] = frozenset()
    unless_one: frozenset[str] = frozenset()
    kernel: str = ""
    rules: tuple[Rule, ...] = ()
    promoted: frozenset[str] = frozenset()
    masks: frozenset[str] = frozenset()
    literals: frozenset[str] = frozenset()
    promotion: Promotion = "common"
    ignored: frozenset[str] = frozenset()
    stays_call: str = ""
    raises_on_data: str = ""
    hidden_writes: tuple[str, ...] = ()
    indices: Indices | None = None
    minds_precision: bool = False
    overloads: frozenset[str] = frozenset()

    def rule(
        self, compute: torch.dtype, literals: Mapping[str, object], numerics: Numerics = "exact"
    ) -> Rule | None:
        """Return the rule for this dtype and these literals, None if there is none."""
        kind = kind_of(compute)
        for rule in self.rules:
            if kind in rule.kinds and all(
                name in literals and _same_literal(literals[name], value)
                for name, value in rule.literals.items()
            ):
                return rule if numerics == "fast" or not rule.inexact else None
        return None


def _same_literal(given: object, wanted: object) -> bool:
    """Tell if a literal argument has this value; numbers compare by value, as ``Scalar::equal`` does."""
    if isinstance(given, (bool, int, float)) and isinstance(wanted, (bool, int, float)):
        return given == wanted
    return type(given) is type(wanted) and given == wanted


def pointwise(
    name: str,
    parameters: str,
    formula: str | None = None,
    *,
    f: str | None = None,
    i: str | None = None,
    b: str | None = None,
    when: Mapping[str, Mapping[str, object]] = MappingProxyType({}),
    kinds: str = "f",
    kinds_of: Mapping[str, str] = MappingProxyType({}),
    fast: str = "",
    promotion: Promotion = "common",
    ignored: str = "",
    inexact: str = "",
    inexact_f: str = "",
    inexact_of: Mapping[str, str] = MappingProxyType({}),
    moving: str = "",
    stays_call: str = "",
    raises_on_data: str = "",
    kernel: str = "",
) -> OpSpec:
    """Write one line of the table.

    Parameters
    ----------
    parameters
        Names, separated by blanks. A plain name is a value that takes part in type promotion; ``name!`` is a scalar that
        does not, and ``name!!`` one that is a literal where it is one; ``name?`` is a literal, and ``name&`` one that takes
        part in promotion; ``name%`` a mask (bool).
    formula
        For the kinds in ``kinds``.
    f, i, b
        Formulas for floats, integers and bools, where they differ.
    when
        Formulas for particular literals, tried first; for the kinds in ``kinds`` or, by formula, ``kinds_of``.
    fast
        A last formula, for fast mode only; ``inexact`` is about this one, if there is one, and else about all.
    inexact_of
        By formula: why it is not exact, where the others are.
    moving
        Of the formulas that are not in ``when``: see :class:`Rule`.
    inexact_f
        Why the formulas are not exact for floats, where they are for other kinds.
    """
    sets: dict[str, set[str]] = {mark: set() for mark in ("", "!", "!!", "?", "&", "%")}
    names = []
    for word in parameters.split():
        bare = word.rstrip("!?&%")
        names.append(bare)
        sets[word[len(bare) :]].add(bare)
    promoted = sets[""] | sets["&"]
    exactness = "" if fast else inexact
    rules = [
        Rule(text, kinds_of.get(text, kinds), dict(match), inexact_of.get(text, exactness))
        for text, match in when.items()
    ]
    texts = [("b", b), ("i", i), ("f", f), (kinds, formula)]
    rules += [Rule(text, kind, {}, exactness, moving) for kind, text in texts if text is not None]
    if fast:
        rules.append(Rule(fast, "f", {}, inexact))
    if inexact_f:
        rules = [
            part
            for rule in rules
            for part in (
                replace(rule, kinds=rule.kinds.replace("f", "")),
                replace(rule, kinds="f" if "f" in rule.kinds else "", inexact=inexact_f),
            )
            if part.kinds
        ]
    return OpSpec(
        name=name,
        kind="pointwise",
        parameters=tuple(names),
        runtime=frozenset(sets["!"] | sets["!!"] | sets[""]),
        unless_one=frozenset(sets["!!"]),
        kernel=kernel or f"{name}_kernel",
        rules=tuple(rules),
        promoted=frozenset(promoted),
        masks=frozenset(sets["%"]),
        literals=frozenset(sets["?"] | sets["&"]),
        promotion=promotion,
        ignored=frozenset(ignored.split()),
        stays_call=stays_call,
        raises_on_data=raises_on_data,
    )


def fusable(
    spec: OpSpec,
    compute: torch.dtype,
    result_dtypes: tuple[torch.dtype, ...],
    operand_dtypes: tuple[torch.dtype, ...],
    numerics: Numerics = "exact",
    *,
    literals: Mapping[str, object] = MappingProxyType({}),
    agrees: Callable[[OpSpec, torch.dtype, Mapping[str, object]], bool] | None = None,
) -> bool:
    """Tell if codegen can make a kernel for an op; in exact mode: one with eager's very bits.

    Parameters
    ----------
    compute
        What :func:`compute_dtype` says.
    literals
        Values of the op's literal parameters (``exponent``, ``rounding_mode``, ``min`` is None ...), by name; see
        :func:`literal_arguments`. Without them, an op whose formula depends on them is not fusable.
    agrees
        Asked last: has this op been seen to agree with eager on this machine (``codegen.cpu.Verifier.agrees``)?
    """
    if spec.kind != "pointwise" or spec.stays_call or len(result_dtypes) != 1:
        return False
    if not IN_KERNELS.issuperset((compute, *result_dtypes, *operand_dtypes)):
        return False
    if spec.rule(compute, literals, numerics) is None:
        return False
    return agrees is None or numerics == "fast" or agrees(spec, compute, literals)
