"""Why some formulas do not have eager's bits when kernels on the CPU compute them: known beforehand, on any machine.

What depends on the machine and on the build of torch is tried out: see :mod:`torchy.codegen.cpu.verify`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch

from torchy.codegen.loops import MATH
from torchy.ir.dtypes import computed_in, kind_of
from torchy.ir.ops.spec import OpSpec, Rule
from torchy.versions import TORCH

POSITION: Final = "eager's result depends on the element's position (vector body or scalar tail)"
ZEROS: Final = (
    "of zeros with different signs, eager's vector body and scalar tail pick different ones"
)
NAN_POSITION: Final = "eager's vector body and scalar tail treat NaN differently"
NAN_SIGN: Final = "of 16 bits, eager's vector body and scalar tail give a NaN different signs"
STILL: Final = "an operand does not move along the inner dimension, where eager rounds by position"
HALF_MATH: Final = "of 16 bits, eager calls other functions in its vector body than in its tail"
_NO_VECTOR: Final = "no vector form of eager's function is known"
_SIGNALLING: Final = "eager calls the C library, for which a signalling NaN is no missing value"
_SCALAR_LIBM: Final = "eager calls the C library, one element at a time"


@dataclass(frozen=True, slots=True)
class Inexact:
    """Which of an op's formulas are not exact, and why.

    Parameters
    ----------
    why
        In words, for the report.
    kinds
        Those of the dtype computed in.
    literals
        Only the formulas for these, as :class:`Rule` has them; None: all.
    """

    why: str
    kinds: str = "fib"
    literals: Mapping[str, object] | None = None

    def holds(self, rule: Rule, kind: str) -> bool:
        """Tell whether a formula is one of them."""
        return kind in self.kinds and self.literals in (None, rule.literals)


# Of those that depend on the position until then.
_SINGLY: Final = frozenset(("sinh", "cosh") if TORCH >= (2, 14) else ())

_INEXACT: Final[Mapping[str, Inexact]] = {
    **dict.fromkeys(
        """
        floor_divide fmod remainder exp2 sinh cosh asinh acosh atanh atan2 hypot sigmoid silu silu_backward gelu
        gelu_backward softplus softplus_backward elu elu_backward mish mish_backward
        """.split(),
        Inexact(POSITION),
    ),
    **dict.fromkeys(_SINGLY, Inexact(_SCALAR_LIBM)),
    "div_mode": Inexact(POSITION, literals={"rounding_mode": "floor"}),
    "pow": Inexact(POSITION, literals={}),
    **dict.fromkeys(
        "maximum minimum clamp_tensor clamp_min_tensor clamp_max_tensor softshrink lerp_tensor".split(),
        Inexact(ZEROS, "f"),
    ),
    "lerp": Inexact(ZEROS, literals={"weight": 1}),
    **dict.fromkeys(
        "hardtanh_backward hardswish_backward hardshrink_backward softshrink_backward".split(),
        Inexact(NAN_POSITION),
    ),
}

# Of those that depend on the position: the formula is the same everywhere, but the vector body calls SLEEF's functions,
# the tail the C library's. On float32, where elements lie one after the other.
BY_POSITION: Final = (
    frozenset("exp2 sinh cosh atanh atan2 hypot sigmoid silu silu_backward softplus".split())
    | frozenset("softplus_backward elu mish mish_backward".split())
) - _SINGLY

# A parameter whose elements must differ along the inner dimension, of the formulas for no literals, on floats: where they
# do not, eager's compiler takes a product out of the loop, and rounds it there, but not in all parts of the loop.
_MOVING: Final = {"add": "other", "sub": "other", "rsub": "self", "tanh_backward": "output"}

# In 16 bits also these: parts of the loop round in between, and parts do not.
_HALVES: Final[Mapping[str, Inexact]] = {
    **dict.fromkeys("add sub rsub".split(), Inexact(POSITION, literals={})),
    **dict.fromkeys(("pow", "div_mode"), Inexact(POSITION)),
    **dict.fromkeys("rsqrt native_dropout_backward".split(), Inexact(POSITION)),
    **dict.fromkeys("signbit copysign".split(), Inexact(NAN_SIGN)),
}

# Of the pointwise ops that have no formula: why.
_NO_FORMULA: Final = {
    **dict.fromkeys("logaddexp logaddexp2 celu".split(), POSITION),
    **dict.fromkeys("xlogy sinc".split(), _SCALAR_LIBM),
    **dict.fromkeys(
        "digamma i0 nextafter gcd lcm igamma igammac logit_backward".split(), _NO_VECTOR
    ),
    **dict.fromkeys("fmax fmin".split(), _SIGNALLING),
    "nan_to_num": "its defaults are the dtype's limits",
    "logit": "eager takes another logarithm for strided input",
}


def no_formula(spec: OpSpec) -> str:
    """Return why the op table has no formula for a pointwise op; empty if it has one."""
    return _NO_FORMULA.get(spec.name, "")


def inexact(
    spec: OpSpec, rule: Rule, compute: torch.dtype, still: frozenset[str] = frozenset()
) -> str:
    """Return why a kernel with a formula has not eager's bits, empty if nothing is known against it.

    Parameters
    ----------
    compute
        The dtype computed in.
    still
        The parameters whose elements do not differ along the inner dimension.
    """
    kind = kind_of(compute)
    if computed_in(compute) is not compute:
        if not MATH.isdisjoint(rule.names()):
            return HALF_MATH
        halves = _HALVES.get(spec.name)
        if halves is not None and halves.holds(rule, kind):
            return halves.why
    known = _INEXACT.get(spec.name)
    if known is not None and known.holds(rule, kind):
        return known.why
    if kind == "f" and not rule.literals and _MOVING.get(spec.name) in still:
        return STILL
    return ""
