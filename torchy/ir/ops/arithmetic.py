"""The op table: arithmetic, comparison, logic, elementary functions, copies. One line an op.

Formulas keep eager's order of operations. ``fma`` stands where ATen's compiled kernel fuses a multiplication with an
addition: all of these lines were checked bit by bit, see ``tests/codegen``. Kernels are in ``ATen/native/cpu``.
"""

from __future__ import annotations

from typing import Final

from torchy.ir.ops.spec import (
    NO_VECTOR,
    POSITION,
    SCALAR_LIBM,
    SIGNALLING,
    ZEROS,
    OpSpec,
    pointwise,
)

_FLOOR_DIVIDE: Final = (
    "(a := self / other, m := fmod(self, other), q := (self - m) / other,"
    " d := q - 1 if (m != 0) & ((other < 0) ^ (m < 0)) else q, f := floor(d),"
    " g := f + 1 if d - f > 0.5 else f, h := copysign(0, a) if d == 0 else g, a if other == 0 else h)"
)
_LERP: Final = (
    "fma(weight if (s := abs(weight) < 0.5) else weight - 1, end - self, self if s else end)"
)
_LERP_ONE: Final = "fma(weight - 1, end - self, end)"
_POWERS: Final = {
    "self * self": 2, "self * self * self": 3, "self": 1, "1": 0,
}  # fmt: skip
_FLOAT_POWERS: Final = {
    "root(self)": 0.5, "1 / sqrt(self)": -0.5, "1 / self": -1, "1 / (self * self)": -2,
}  # fmt: skip


def _float(name: str, formula: str | None = None, *, inexact: str = "", kernel: str = "") -> OpSpec:
    """Write the line of a function of one value, in floating point."""
    text = formula or f"{name}(self)"
    return pointwise(name, "self", text, promotion="float", inexact=inexact, kernel=kernel)


def _compare(name: str, sign: str) -> OpSpec:
    return pointwise(name, "self other", f"self {sign} other", kinds="fib")


def _call(name: str, parameters: str, why: str) -> OpSpec:
    """Write the line of a pointwise op without a formula."""
    return pointwise(name, parameters, stays_call=why)


# fmt: off
ARITHMETIC: Final = (
    # --- arithmetic
    pointwise("add", "self other alpha!!", "fma(other, alpha, self)", b="self | alpha & other", kinds="fi",
              when={"self + other": {"alpha": 1}}, moving="other"),
    pointwise("sub", "self other alpha!!", "fma(other, -alpha, self)", kinds="fi",
              when={"self - other": {"alpha": 1}}, moving="other", kernel="add_kernel"),
    pointwise("rsub", "self other alpha!!", "fma(self, -alpha, other)", kinds="fi",
              when={"other - self": {"alpha": 1}}, moving="self", kernel="add_kernel"),
    pointwise("mul", "self other", "self * other", b="self & other", kinds="fi"),
    pointwise("div", "self other", "self / other", promotion="float", kernel="div_true_kernel"),
    pointwise("div_mode", "self other rounding_mode?", when={
        "trunc(self / other)": {"rounding_mode": "trunc"},
        _FLOOR_DIVIDE: {"rounding_mode": "floor"},
        "self / other": {"rounding_mode": None},
    }, raises_on_data="i", promotion="mode", inexact_of={_FLOOR_DIVIDE: POSITION},
       kernel="div_trunc_kernel, div_floor_kernel, div_true_kernel"),
    pointwise("floor_divide", "self other", _FLOOR_DIVIDE, inexact=POSITION, raises_on_data="i", kernel="div_floor_kernel"),
    pointwise("fmod", "self other", "fmod(self, other)", inexact=POSITION, raises_on_data="i"),
    pointwise("remainder", "self other",
              "m + other if ((m := fmod(self, other)) != 0) & ((other < 0) ^ (m < 0)) else m",
              inexact=POSITION, raises_on_data="i"),
    pointwise("addcmul", "self tensor1 tensor2 value!", "fma(value * tensor1, tensor2, self)", kinds="fi"),
    pointwise("addcdiv", "self tensor1 tensor2 value!", "self + value * tensor1 / tensor2"),
    pointwise("lerp", "self end weight!!", _LERP, when={_LERP_ONE: {"weight": 1}},
              inexact_of={_LERP_ONE: ZEROS}, kernel="lerp_scalar_kernel"),
    pointwise("lerp_tensor", "self end weight", _LERP, inexact=ZEROS, kernel="lerp_tensor_kernel"),
    pointwise("pow", "self exponent&", when={
        **{text: {"exponent": value} for text, value in _POWERS.items()},
        **{text: {"exponent": value} for text, value in _FLOAT_POWERS.items()},
    }, kinds_of=dict.fromkeys(_FLOAT_POWERS, "f"), fast="pow(self, exponent)", kinds="fi", inexact=POSITION,
       kernel="pow_tensor_scalar_kernel, pow_tensor_tensor_kernel"),
    pointwise("neg", "self", "-self", kinds="fi"),
    pointwise("abs", "self", "abs(self)", kinds="fi"),
    pointwise("sign", "self", "(1 if self > 0 else 0) - (1 if self < 0 else 0)", b="self", kinds="fi"),
    pointwise("sgn", "self", "(1 if self > 0 else 0) - (1 if self < 0 else 0)", b="self", kinds="fi"),
    pointwise("copysign", "self other", "copysign(self, other)", promotion="float"),
    pointwise("heaviside", "self values", "values if self == 0 else 1 if self > 0 else 0", kinds="fi"),
    # --- roots and rounding
    _float("reciprocal", "1 / self"),
    _float("sqrt", "root(self)"),
    _float("rsqrt", "1 / sqrt(self)"),
    pointwise("floor", "self", "floor(self)", i="self"),
    pointwise("ceil", "self", "ceil(self)", i="self"),
    pointwise("trunc", "self", "trunc(self)", i="self"),
    pointwise("round", "self", "rint(self)", i="self"),
    pointwise("frac", "self", "self - trunc(self)"),
    # --- elementary functions
    _float("exp"), _float("exp2", inexact=POSITION), _float("expm1"),
    _float("log"), _float("log2"), _float("log10"), _float("log1p"),
    _float("sin"), _float("cos"), _float("tan"),
    _float("asin"), _float("acos"), _float("atan"),
    _float("sinh", inexact=POSITION), _float("cosh", inexact=POSITION), _float("tanh"),
    _float("asinh", inexact=POSITION), _float("acosh", inexact=POSITION), _float("atanh", inexact=POSITION),
    _float("erf"), _float("erfc"), _float("erfinv"), _float("lgamma"),
    _float("rad2deg", "self * 57.29577951308232"), _float("deg2rad", "self * 0.017453292519943295"),
    _float("angle", "self if isnan(self) else pi if self < 0 else 0"),
    pointwise("atan2", "self other", "atan2(self, other)", promotion="float", inexact=POSITION),
    pointwise("hypot", "self other", "hypot(self, other)", inexact=POSITION),
    _call("logaddexp", "self other", POSITION), _call("logaddexp2", "self other", POSITION),
    _call("xlogy", "self other", SCALAR_LIBM),
    _call("digamma", "self", NO_VECTOR), _call("sinc", "self", SCALAR_LIBM), _call("i0", "self", NO_VECTOR),
    _call("nextafter", "self other", NO_VECTOR), _call("gcd", "self other", NO_VECTOR),
    _call("lcm", "self other", NO_VECTOR), _call("igamma", "self other", NO_VECTOR),
    _call("igammac", "self other", NO_VECTOR),
    _call("nan_to_num", "self nan? posinf? neginf?", "its defaults are the dtype's limits"),
    # --- comparison
    _compare("eq", "=="), _compare("ne", "!="), _compare("lt", "<"), _compare("le", "<="),
    _compare("gt", ">"), _compare("ge", ">="),
    pointwise("isnan", "self", "isnan(self)", i="False", b="False", kernel="ne_kernel"),
    pointwise("isinf", "self", "abs(self) == inf", i="False", b="False", kernel="abs_kernel, eq_kernel"),
    pointwise("isposinf", "self", "self == inf", i="False", b="False"),
    pointwise("isneginf", "self", "self == -inf", i="False", b="False"),
    pointwise("signbit", "self", "copysign(1, self) < 0", i="self < 0"),
    # --- logic and bits
    pointwise("logical_not", "self", "self == 0", b="~self", kinds="fi"),
    pointwise("logical_and", "self other", "(self != 0) & (other != 0)", b="self & other", kinds="fi"),
    pointwise("logical_or", "self other", "(self != 0) | (other != 0)", b="self | other", kinds="fi"),
    pointwise("logical_xor", "self other", "(self != 0) ^ (other != 0)", b="self ^ other", kinds="fi"),
    pointwise("bitwise_not", "self", "~self", kinds="ib"),
    pointwise("bitwise_and", "self other", "self & other", kinds="ib"),
    pointwise("bitwise_or", "self other", "self | other", kinds="ib"),
    pointwise("bitwise_xor", "self other", "self ^ other", kinds="ib"),
    pointwise("bitwise_left_shift", "self other",
              "0 if (other < 0) | (other >= bits) else self << other", kinds="i", kernel="lshift_kernel"),
    pointwise("bitwise_right_shift", "self other",
              "self >> (bits - 1 if (other < 0) | (other >= bits) else other)", kinds="i", kernel="rshift_kernel"),
    # --- selection
    pointwise("where", "condition% self other", "self if condition else other", kinds="fib"),
    pointwise("masked_fill", "self mask% value!", "value if mask else self", promotion="self", kinds="fib"),
    pointwise("clamp", "self min max", when={
        "max if (self > max) | isnan(max) else self": {"min": None},
        "min if (self < min) | isnan(min) else self": {"max": None},
    }, f="(t := min if self < min else self, u := max if max < t else t, nan if isnan(min) | isnan(max) else u)",
       i="(t := min if self < min else self, max if max < t else t)", kinds="fi", kernel="clamp_scalar_kernel_impl"),
    pointwise("clamp_min", "self min", "min if (self < min) | isnan(min) else self", kinds="fi",
              kernel="clamp_min_scalar_kernel_impl"),
    pointwise("clamp_max", "self max", "max if (self > max) | isnan(max) else self", kinds="fi",
              kernel="clamp_max_scalar_kernel_impl"),
    pointwise("clamp_tensor", "self min max", when={
        "max if (self > max) | isnan(max) else self": {"min": None},
        "min if (self < min) | isnan(min) else self": {"max": None},
        "(t := min if (self < min) | isnan(min) else self, max if (max < t) | isnan(max) else t)": {},
    }, kinds="fi", inexact_f=ZEROS, kernel="clamp_kernel_impl"),
    pointwise("clamp_min_tensor", "self min", "min if (self < min) | isnan(min) else self", kinds="fi",
              inexact_f=ZEROS, kernel="maximum_kernel"),
    pointwise("clamp_max_tensor", "self max", "max if (self > max) | isnan(max) else self", kinds="fi",
              inexact_f=ZEROS, kernel="minimum_kernel"),
    pointwise("maximum", "self other", "other if (other > self) | isnan(other) else self", b="self | other",
              kinds="fi", inexact_f=ZEROS),
    pointwise("minimum", "self other", "other if (other < self) | isnan(other) else self", b="self & other",
              kinds="fi", inexact_f=ZEROS),
    _call("fmax", "self other", SIGNALLING),
    _call("fmin", "self other", SIGNALLING),
    # --- copies: computed in the result's dtype
    pointwise("copy", "src", "src", kinds="fib", promotion="result", ignored="self non_blocking"),
    pointwise("_to_copy", "self", "self", kinds="fib", promotion="result", kernel="copy_kernel",
              ignored="dtype layout device pin_memory non_blocking memory_format"),
    pointwise("clone", "self", "self", kinds="fib", promotion="result", kernel="copy_kernel",
              ignored="memory_format"),
    pointwise("fill", "value!", "value", kinds="fib", promotion="result", ignored="self"),
    pointwise("zero", "", "0", kinds="fib", promotion="result", kernel="fill_kernel", ignored="self"),
)
# fmt: on
