"""The op table: arithmetic."""

from __future__ import annotations

from torchy.ir.ops.spec import OpSpec, pointwise

OPS: tuple[OpSpec, ...] = (
    pointwise("add", "self other alpha!", "fma(other, alpha, self)", b="self | alpha & other", kinds="fi"),
    pointwise("sub", "self other alpha!", "fma(other, -alpha, self)", kinds="fi", kernel="add_kernel"),
    pointwise("mul", "self other", "self * other", b="self & other", kinds="fi"),
    pointwise("div", "self other rounding_mode?", promotion="float", when={(("rounding_mode", None),): "self / other"}),
    pointwise("exp", "self", "exp(self)", promotion="float"),
    pointwise("relu", "self", "self if self > 0 else self if isnan(self) else 0", kinds="fi"),
    pointwise("tanh", "self", "tanh(self)", promotion="float"),
)
