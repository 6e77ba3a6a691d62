"""The op table: activations, and the backward forms that autograd makes. One line an op; see ``arithmetic.py``."""

from __future__ import annotations

from typing import Final

from torchy.ir.ops.spec import NAN_POSITION, NO_VECTOR, POSITION, ZEROS, pointwise

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
    pointwise("relu", "self", "0 if self < 0 else self", kinds="fi", kernel="clamp_min_scalar_kernel_impl"),
    pointwise("threshold", "self threshold! value!", "value if self <= threshold else self", kinds="fi",
              promotion="self"),
    pointwise("threshold_backward", "grad_output self threshold!", "0 if self <= threshold else grad_output",
              kinds="fi", kernel="threshold_kernel"),
    pointwise("leaky_relu", "self negative_slope!", "self * (1 if self > 0 else negative_slope)", promotion="self"),
    pointwise("leaky_relu_backward", "grad_output self negative_slope?",
              "grad_output * (1 if self > 0 else negative_slope)", ignored="self_is_result"),
    pointwise("hardtanh", "self min_val? max_val?", _CLAMP, promotion="self", kernel="clamp_scalar_kernel_impl"),
    pointwise("hardtanh_backward", "grad_output self min_val! max_val!",
              "grad_output if (self > min_val) & (self < max_val) else 0", inexact=NAN_POSITION),
    pointwise("hardsigmoid", "self", f"{_HARD} / 6", promotion="self"),
    pointwise("hardsigmoid_backward", "grad_output self",
              f"grad_output * {_SIXTH} if (self > -3) & (self < 3) else 0"),
    pointwise("hardswish", "self", f"self * {_HARD} / 6", promotion="self"),
    pointwise("hardswish_backward", "grad_output self",
              "0 if self <= -3 else grad_output if self >= 3 else grad_output * (self / 3 + 0.5)",
              inexact=NAN_POSITION),
    pointwise("hardshrink", "self lambd!", "0 if (self >= -lambd) & (self <= lambd) else self", promotion="self"),
    pointwise("hardshrink_backward", "grad_out self lambd!",
              "grad_out if (self < -lambd) | (self > lambd) else 0", inexact=NAN_POSITION,
              kernel="shrink_backward_kernel"),
    pointwise("softshrink", "self lambd?",
              "self - lambd if self > lambd else self + lambd if self < -lambd else self * 0", promotion="self",
              inexact=ZEROS),
    pointwise("softshrink_backward", "grad_output self lambd!",
              "grad_output if (self < -lambd) | (self > lambd) else 0", inexact=NAN_POSITION,
              kernel="shrink_backward_kernel"),
    pointwise("tanh_backward", "grad_output output", "grad_output * fma(-output, output, 1)", moving="output"),
    pointwise("sigmoid", "self", _SIGMOID, promotion="float", inexact=POSITION),
    pointwise("sigmoid_backward", "grad_output output", "grad_output * (1 - output) * output"),
    pointwise("silu", "self", "self / (1 + exp(-self))", promotion="self", inexact=POSITION),
    pointwise("silu_backward", "grad_output self",
              f"(s := {_SIGMOID}, grad_output * s * (1 + self * (1 - s)))", inexact=POSITION),
    pointwise("gelu", "self approximate?", when={
        f"0.5 * self * (1 + erf(self * {_HALF_ROOT}))": {"approximate": "none"},
        f"({_INNER}, 0.5 * self * (1 + t))": {"approximate": "tanh"},
    }, promotion="self", inexact=POSITION, kernel="GeluKernelImpl"),
    pointwise("gelu_backward", "grad_output self approximate?", when={
        f"grad_output * (0.5 * (1 + erf(self * {_HALF_ROOT})) + self * ({_PDF} * exp(self * self * -0.5)))":
            {"approximate": "none"},
        f"({_INNER}, grad_output * (0.5 * (1 + t) + 0.5 * self * (1 - t * t)"
        f" * ({_BETA} * (1 + 3 * {_KAPPA} * (self * self)))))": {"approximate": "tanh"},
    }, inexact=POSITION, kernel="GeluBackwardKernelImpl"),
    pointwise("softplus", "self beta! threshold!",
              "self if self * beta > threshold else log1p(exp(self * beta)) / beta", promotion="self",
              inexact=POSITION),
    pointwise("softplus_backward", "grad_output self beta! threshold!",
              "(z := exp(self * beta), grad_output if self * beta > threshold else grad_output * z / (z + 1))",
              inexact=POSITION),
    pointwise("elu", "self alpha! scale! input_scale!",
              "(exp(self * input_scale) - 1) * (alpha * scale) if self <= 0 else self * scale",
              promotion="self", inexact=POSITION),
    pointwise("elu_backward", "grad_output alpha? scale? input_scale? is_result? self_or_result", when={
        "grad_output * input_scale * (self_or_result + alpha * scale) if self_or_result <= 0"
        " else grad_output * scale": {"is_result": True},
        "grad_output * input_scale * (alpha * scale) * exp(self_or_result * input_scale) if self_or_result <= 0"
        " else grad_output * scale": {"is_result": False},
    }, inexact=POSITION),
    pointwise("celu", "self alpha?", stays_call=POSITION),
    pointwise("mish", "self", "self * tanh(log1p(exp(self)))", promotion="self", inexact=POSITION),
    pointwise("mish_backward", "grad_output self",
              f"(s := {_SIGMOID}, t := tanh(log1p(exp(self))), grad_output * (t + self * s * (1 - t * t)))",
              inexact=POSITION),
    pointwise("logit", "self eps?", stays_call="eager takes another logarithm for strided input"),
    pointwise("logit_backward", "grad_output self eps?", stays_call=NO_VECTOR),
    pointwise("native_dropout_backward", "grad_output mask% scale!", "grad_output * (cast(mask) * scale)"),
)
# fmt: on
