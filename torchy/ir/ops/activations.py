"""The op table: activations, and the backward forms that autograd makes. One line an op; see ``arithmetic.py``."""

from __future__ import annotations

from typing import Final

from torchy.ir.ops.spec import on, pointwise

_SIGMOID: Final = "1 / (1 + exp(-self))"
_BETA: Final = "0.7978845608028654"  # sqrt(2 / pi)
_KAPPA: Final = "0.044715"
_HALF_ROOT: Final = "0.7071067811865476"  # sqrt(1 / 2)
_PDF: Final = "0.3989422804014327"  # 1 / sqrt(2 pi)
_SIXTH: Final = "0.1666666716337204"  # 1.0f / 6.0f, in float64 too
_INNER: Final = f"t := tanh({_BETA} * (self + {_KAPPA} * self * self * self))"
_HARD: Final = "(t := self + 3, 6 if t > 6 else 0 if t < 0 else t)"
_CLAMP: Final = (
    "(t := min_val if self < min_val else self, u := max_val if max_val < t else t,"
    " nan if isnan(min_val) | isnan(max_val) else u)"
)

# fmt: off
# Numbers that eager checks are literals (?): each value is tried once.
ACTIVATIONS: Final = (
    pointwise("relu", "self", on("fi", "0 if self < 0 else self")),
    pointwise("threshold", "self threshold! value!", on("fi", "value if self <= threshold else self"), promotion="self"),
    pointwise("threshold_backward", "grad_output self threshold!",
              on("fi", "0 if self <= threshold else grad_output")),
    pointwise("leaky_relu", "self negative_slope!", "self * (1 if self > 0 else negative_slope)", promotion="self",
              unrounded="negative_slope"),
    pointwise("leaky_relu_backward", "grad_output self negative_slope?",
              "grad_output * (1 if self > 0 else negative_slope)", ignored="self_is_result",
              unrounded="negative_slope"),
    pointwise("hardtanh", "self min_val? max_val?", _CLAMP, promotion="self"),
    pointwise("hardtanh_backward", "grad_output self min_val! max_val!",
              "grad_output if (self > min_val) & (self < max_val) else 0"),
    pointwise("hardsigmoid", "self", f"{_HARD} / 6", promotion="self"),
    pointwise("hardsigmoid_backward", "grad_output self",
              f"grad_output * {_SIXTH} if (self > -3) & (self < 3) else 0"),
    pointwise("hardswish", "self", f"self * {_HARD} / 6", promotion="self"),
    pointwise("hardswish_backward", "grad_output self",
              "0 if self <= -3 else grad_output if self >= 3 else grad_output * (self / 3 + 0.5)"),
    pointwise("hardshrink", "self lambd!", "0 if (self >= -lambd) & (self <= lambd) else self", promotion="self"),
    pointwise("hardshrink_backward", "grad_out self lambd!",
              "grad_out if (self < -lambd) | (self > lambd) else 0"),
    pointwise("softshrink", "self lambd?",
              "self - lambd if self > lambd else self + lambd if self < -lambd else self * 0", promotion="self"),
    pointwise("softshrink_backward", "grad_output self lambd!",
              "grad_output if (self < -lambd) | (self > lambd) else 0"),
    pointwise("tanh_backward", "grad_output output", "grad_output * fma(-output, output, 1)"),
    pointwise("sigmoid", "self", _SIGMOID, promotion="float"),
    pointwise("sigmoid_backward", "grad_output output", "grad_output * (1 - output) * output"),
    pointwise("silu", "self", "self / (1 + exp(-self))", promotion="self"),
    pointwise("silu_backward", "grad_output self",
              f"(s := {_SIGMOID}, grad_output * s * fma(self, 1 - s, 1))"),
    pointwise("gelu", "self approximate?",
              on("f", f"0.5 * self * (1 + erf(self * {_HALF_ROOT}))", approximate="none"),
              on("f", f"({_INNER}, 0.5 * self * (1 + t))", approximate="tanh"), promotion="self"),
    pointwise("gelu_backward", "grad_output self approximate?",
              on("f", f"grad_output * (0.5 * (1 + erf(self * {_HALF_ROOT})) + self * ({_PDF} * exp(self * self * -0.5)))",
                 approximate="none"),
              on("f", f"({_INNER}, grad_output * (0.5 * (1 + t) + 0.5 * self * (1 - t * t)"
                 f" * ({_BETA} * (1 + 3 * {_KAPPA} * (self * self)))))", approximate="tanh")),
    pointwise("softplus", "self beta! threshold!",
              "self if self * beta > threshold else log1p(exp(self * beta)) / beta", promotion="self"),
    pointwise("softplus_backward", "grad_output self beta! threshold!",
              "(z := exp(self * beta), grad_output if self * beta > threshold else grad_output * z / (z + 1))"),
    pointwise("elu", "self alpha! scale! input_scale!",
              "expm1(self * input_scale) * (alpha * scale) if self < 0 else self * scale",
              promotion="self"),
    pointwise("elu_backward", "grad_output alpha? scale? input_scale? is_result? self_or_result",
              on("f", "grad_output * input_scale * (self_or_result + alpha * scale) if self_or_result <= 0"
                 " else grad_output * scale", is_result=True),
              on("f", "grad_output * input_scale * (alpha * scale) * exp(self_or_result * input_scale)"
                 " if self_or_result <= 0 else grad_output * scale", is_result=False)),
    pointwise("celu", "self alpha?"),
    pointwise("mish", "self", "self * tanh(log1p(exp(self)))", promotion="self"),
    pointwise("mish_backward", "grad_output self",
              f"(s := {_SIGMOID}, t := tanh(log1p(exp(self))), grad_output * fma(self * s, fma(-t, t, 1), t))"),
    pointwise("logit", "self eps?"),
    pointwise("logit_backward", "grad_output self eps?"),
    pointwise("native_dropout_backward", "grad_output mask% scale!", "grad_output * (cast(mask) * scale)"),
)
# fmt: on
