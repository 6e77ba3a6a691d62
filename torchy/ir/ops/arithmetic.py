"""The op table: arithmetic, comparison, logic, elementary functions, copies. One line an op.

Formulas keep eager's order of operations. ``fma`` stands where ATen's compiled kernel fuses a multiplication with an
addition: all of these lines were checked bit by bit, see ``tests/codegen``. Kernels are in ``ATen/native/cpu``.
"""

from __future__ import annotations

from typing import Final

from torchy.ir.ops.spec import OpSpec, Rule, on, pointwise

_FLOOR_DIVIDE: Final = (
    "(a := self / other, m := fmod(self, other), q := (self - m) / other,"
    " d := q - 1 if (m != 0) & ((other < 0) ^ (m < 0)) else q, f := floor(d),"
    " g := f + 1 if d - f > 0.5 else f, h := copysign(0, a) if d == 0 else g, a if other == 0 else h)"
)
_LERP: Final = (
    "fma(weight if (s := abs(weight) < 0.5) else weight - 1, end - self, self if s else end)"
)
_SIGN: Final = "(1 if self > 0 else 0) - (1 if self < 0 else 0)"
_MIN_ONLY: Final = "min if (self < min) | isnan(min) else self"
_MAX_ONLY: Final = "max if (self > max) | isnan(max) else self"
_POWERS: Final = (
    *(on("fi", text, exponent=e) for text, e in (("self * self", 2), ("self * self * self", 3), ("self", 1), ("1", 0))),
    on("f", "root(self)", exponent=0.5), on("f", "1 / sqrt(self)", exponent=-0.5),
    on("f", "1 / self", exponent=-1), on("f", "1 / (self * self)", exponent=-2),
    on("f", "pow(self, exponent)"),
)  # fmt: skip


def _float(name: str, formula: str | None = None) -> OpSpec:
    """Write the line of a function of one value, in floating point."""
    return pointwise(name, "self", formula or f"{name}(self)", promotion="float")


def _compare(name: str, sign: str) -> OpSpec:
    return pointwise(name, "self other", on("fib", f"self {sign} other"))


def _never(formula: str) -> tuple[str | Rule, ...]:
    """Write the formulas of what only floats can be."""
    return formula, on("ib", "False")


# fmt: off
ARITHMETIC: Final = (
    # --- arithmetic
    pointwise("add", "self other alpha!!",
              on("fi", "self + other", alpha=1), on("b", "self | alpha & other"), on("fi", "fma(other, alpha, self)")),
    pointwise("sub", "self other alpha!!", on("fi", "self - other", alpha=1), on("fi", "fma(other, -alpha, self)")),
    pointwise("rsub", "self other alpha!!", on("fi", "other - self", alpha=1), on("fi", "fma(self, -alpha, other)")),
    pointwise("mul", "self other", on("fi", "self * other"), on("b", "self & other"), unrounded="other"),
    pointwise("div", "self other", "self / other", promotion="float", unrounded="other"),
    pointwise("div_mode", "self other rounding_mode?", on("f", "trunc(self / other)", rounding_mode="trunc"),
              on("f", _FLOOR_DIVIDE, rounding_mode="floor"), on("f", "self / other", rounding_mode=None),
              raises_on_data="i", promotion="mode"),
    pointwise("floor_divide", "self other", _FLOOR_DIVIDE, raises_on_data="i"),
    pointwise("fmod", "self other", "fmod(self, other)", raises_on_data="i"),
    pointwise("remainder", "self other",
              "m + other if ((m := fmod(self, other)) != 0) & ((other < 0) ^ (m < 0)) else m", raises_on_data="i"),
    pointwise("addcmul", "self tensor1 tensor2 value!", on("fi", "fma(value * tensor1, tensor2, self)"),
              unrounded="value"),
    pointwise("addcdiv", "self tensor1 tensor2 value!", "self + value * tensor1 / tensor2", unrounded="value"),
    pointwise("lerp", "self end weight!!", on("f", "fma(weight - 1, end - self, end)", weight=1), _LERP,
              unrounded="weight"),
    pointwise("lerp_tensor", "self end weight", _LERP),
    pointwise("pow", "self exponent&", *_POWERS),
    pointwise("neg", "self", on("fi", "-self")),
    pointwise("abs", "self", on("fi", "abs(self)")),
    pointwise("sign", "self", on("fi", _SIGN), on("b", "self")),
    pointwise("sgn", "self", on("fi", _SIGN), on("b", "self")),
    pointwise("copysign", "self other", "copysign(self, other)", promotion="float"),
    pointwise("heaviside", "self values", on("fi", "values if self == 0 else 1 if self > 0 else 0")),
    # --- roots and rounding
    _float("reciprocal", "1 / self"),
    _float("sqrt", "root(self)"),
    _float("rsqrt", "1 / sqrt(self)"),
    pointwise("floor", "self", "floor(self)", on("i", "self")),
    pointwise("ceil", "self", "ceil(self)", on("i", "self")),
    pointwise("trunc", "self", "trunc(self)", on("i", "self")),
    pointwise("round", "self", "rint(self)", on("i", "self")),
    pointwise("frac", "self", "self - trunc(self)"),
    # --- elementary functions
    _float("exp"), _float("exp2"), _float("expm1"), _float("log"), _float("log2"), _float("log10"), _float("log1p"),
    _float("sin"), _float("cos"), _float("tan"), _float("asin"), _float("acos"), _float("atan"),
    _float("sinh"), _float("cosh"), _float("tanh"), _float("asinh"), _float("acosh"), _float("atanh"),
    _float("erf"), _float("erfc"), _float("erfinv"), _float("lgamma"),
    _float("rad2deg", "self * 57.29577951308232"), _float("deg2rad", "self * 0.017453292519943295"),
    _float("angle", "self if isnan(self) else pi if self < 0 else 0"),
    pointwise("atan2", "self other", "atan2(self, other)", promotion="float"),
    pointwise("hypot", "self other", "hypot(self, other)"),
    pointwise("logaddexp", "self other"), pointwise("logaddexp2", "self other"), pointwise("xlogy", "self other"),
    pointwise("digamma", "self"), pointwise("sinc", "self"), pointwise("i0", "self"),
    pointwise("nextafter", "self other"), pointwise("gcd", "self other"), pointwise("lcm", "self other"),
    pointwise("igamma", "self other"), pointwise("igammac", "self other"),
    pointwise("nan_to_num", "self nan? posinf? neginf?"),
    # --- comparison
    _compare("eq", "=="), _compare("ne", "!="), _compare("lt", "<"), _compare("le", "<="),
    _compare("gt", ">"), _compare("ge", ">="),
    pointwise("isnan", "self", *_never("isnan(self)")),
    pointwise("isinf", "self", *_never("abs(self) == inf")),
    pointwise("isposinf", "self", *_never("self == inf")),
    pointwise("isneginf", "self", *_never("self == -inf")),
    pointwise("signbit", "self", "copysign(1, self) < 0", on("i", "self < 0")),
    # --- logic and bits
    pointwise("logical_not", "self", on("fi", "self == 0"), on("b", "~self")),
    pointwise("logical_and", "self other", on("fi", "(self != 0) & (other != 0)"), on("b", "self & other")),
    pointwise("logical_or", "self other", on("fi", "(self != 0) | (other != 0)"), on("b", "self | other")),
    pointwise("logical_xor", "self other", on("fi", "(self != 0) ^ (other != 0)"), on("b", "self ^ other")),
    pointwise("bitwise_not", "self", on("ib", "~self")),
    pointwise("bitwise_and", "self other", on("ib", "self & other")),
    pointwise("bitwise_or", "self other", on("ib", "self | other")),
    pointwise("bitwise_xor", "self other", on("ib", "self ^ other")),
    pointwise("bitwise_left_shift", "self other", on("i", "0 if (other < 0) | (other >= bits) else self << other")),
    pointwise("bitwise_right_shift", "self other",
              on("i", "self >> (bits - 1 if (other < 0) | (other >= bits) else other)")),
    # --- selection
    pointwise("where", "condition% self other", on("fib", "self if condition else other")),
    pointwise("masked_fill", "self mask% value!", on("fib", "value if mask else self"), promotion="self"),
    pointwise("clamp", "self min max", on("fi", _MAX_ONLY, min=None), on("fi", _MIN_ONLY, max=None),
              "(t := min if self < min else self, u := max if max < t else t, nan if isnan(min) | isnan(max) else u)",
              on("i", "(t := min if self < min else self, max if max < t else t)")),
    pointwise("clamp_min", "self min", on("fi", _MIN_ONLY)),
    pointwise("clamp_max", "self max", on("fi", _MAX_ONLY)),
    pointwise("clamp_tensor", "self min max", on("fi", _MAX_ONLY, min=None), on("fi", _MIN_ONLY, max=None),
              on("fi", "(t := min if (self < min) | isnan(min) else self, max if (max < t) | isnan(max) else t)")),
    pointwise("clamp_min_tensor", "self min", on("fi", _MIN_ONLY)),
    pointwise("clamp_max_tensor", "self max", on("fi", _MAX_ONLY)),
    pointwise("maximum", "self other", on("fi", "other if (other > self) | isnan(other) else self"),
              on("b", "self | other")),
    pointwise("minimum", "self other", on("fi", "other if (other < self) | isnan(other) else self"),
              on("b", "self & other")),
    pointwise("fmax", "self other"), pointwise("fmin", "self other"),
    # --- copies: computed in the result's dtype
    pointwise("copy", "src", on("fib", "src"), promotion="result", ignored="self non_blocking"),
    pointwise("_to_copy", "self", on("fib", "self"), promotion="result",
              ignored="dtype layout device pin_memory non_blocking memory_format"),
    pointwise("clone", "self", on("fib", "self"), promotion="result", ignored="memory_format"),
    pointwise("fill", "value!", on("fib", "value"), promotion="result", ignored="self"),
    pointwise("zero", "", on("fib", "0"), promotion="result", ignored="self"),
)
# fmt: on
