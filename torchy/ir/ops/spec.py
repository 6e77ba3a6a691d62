"""What the op table says about one op, and how its lines are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

import torch

FLOATS: Final = (torch.float32, torch.float64)
INTEGERS: Final = (torch.int32, torch.int64)
FUSED_DTYPES: Final = frozenset((*FLOATS, *INTEGERS, torch.bool))

Promotion = Literal["common", "float", "self", "result"]
Numerics = Literal["exact", "fast"]

POSITION: Final = "eager's result depends on the element's position (vector body or scalar tail)"
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
    """

    formula: str
    kinds: str = "fi"
    literals: Mapping[str, object] = field(default_factory=dict)
    inexact: str = ""


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
        ``self`` (the first tensor parameter's) or ``result`` (the first result's).
    stays_call
        Why a pointwise op never becomes a kernel; empty if it may.
    raises_on_data
        May raise, or kill the process, for values that only its run can see: must not be deferred for the dtype kinds
        listed (``i``: integers).
    hidden_writes
        Arguments written to without the schema saying so.
    """

    name: str
    kind: Literal["pointwise", "call"]
    parameters: tuple[str, ...] = ()
    runtime: frozenset[str] = frozenset()
    kernel: str = ""
    rules: tuple[Rule, ...] = ()
    promoted: frozenset[str] = frozenset()
    masks: frozenset[str] = frozenset()
    literals: frozenset[str] = frozenset()
    promotion: Promotion = "common"
    stays_call: str = ""
    raises_on_data: str = ""
    hidden_writes: tuple[str, ...] = ()
    overloads: frozenset[str] = frozenset()

    def rule(
        self, compute: torch.dtype, literals: Mapping[str, object], numerics: Numerics = "exact"
    ) -> Rule | None:
        """Return the rule for this dtype and these literals, None if there is none."""
        kind = dtype_kind(compute)
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


def dtype_kind(dtype: torch.dtype) -> str:
    """Return ``f``, ``i`` or ``b`` for the dtypes that kernels know, and an empty string for all others."""
    if dtype is torch.bool:
        return "b"
    if dtype in FLOATS:
        return "f"
    return "i" if dtype in INTEGERS else "-"


def pointwise(
    name: str,
    parameters: str,
    formula: str | None = None,
    *,
    f: str | None = None,
    i: str | None = None,
    b: str | None = None,
    when: Mapping[tuple[tuple[str, object], ...], str] = MappingProxyType({}),
    kinds: str = "f",
    promotion: Promotion = "common",
    inexact: str = "",
    stays_call: str = "",
    raises_on_data: str = "",
    kernel: str = "",
) -> OpSpec:
    """Write one line of the table.

    Parameters
    ----------
    parameters
        Names, separated by blanks. A plain name is a value that takes part in type promotion; ``name!`` is a scalar that
        does not; ``name?`` is a literal; ``name%`` a mask (bool).
    formula
        For the kinds in ``kinds``.
    f, i, b
        Formulas for floats, integers and bools, where they differ.
    when
        Formulas for particular literals, tried first; for the kinds in ``kinds``.
    """
    names, promoted, masks, literals, runtime = [], set(), set(), set(), set()
    for word in parameters.split():
        bare = word.rstrip("!?%")
        names.append(bare)
        mark = word[len(bare) :]
        {"": promoted, "!": runtime, "?": literals, "%": masks}[mark].add(bare)
    rules = [Rule(text, kinds, dict(match), inexact) for match, text in when.items()]
    for kind, text in (("b", b), ("i", i), ("f", f)):
        if text is not None:
            rules.append(Rule(text, kind, {}, inexact))
    if formula is not None:
        rules.append(Rule(formula, kinds, {}, inexact))
    return OpSpec(
        name=name,
        kind="pointwise",
        parameters=tuple(names),
        runtime=frozenset(runtime | promoted),
        kernel=kernel or f"{name}_kernel",
        rules=tuple(rules),
        promoted=frozenset(promoted),
        masks=frozenset(masks),
        literals=frozenset(literals),
        promotion=promotion,
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
    if not FUSED_DTYPES.issuperset((compute, *result_dtypes, *operand_dtypes)):
        return False
    if spec.rule(compute, literals, numerics) is None:
        return False
    return agrees is None or numerics == "fast" or agrees(spec, compute, literals)
