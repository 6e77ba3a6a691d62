"""The op table: ops that are deferred but run by torch itself, by their dispatcher names.

Whatever may raise for data that it meets (a target out of range, an index) is not here: it runs at once.
"""

from __future__ import annotations

from typing import Final

from torchy.ir.ops.spec import OpSpec

_OVERLOADS: Final = """
sum sum.dim_IntList mean mean.dim prod prod.dim_int amax amin aminmax max min
any any.dim any.dims all all.dim all.dims argmax argmin
var.correction std.correction var_mean.correction std_mean.correction
linalg_vector_norm cumsum cumprod logcumsumexp logsumexp
_softmax _log_softmax _softmax_backward_data _log_softmax_backward_data
native_layer_norm native_layer_norm_backward native_group_norm native_group_norm_backward
native_batch_norm native_batch_norm_backward
mm addmm bmm baddbmm mv addmv dot vdot addr
convolution convolution_backward
mse_loss mse_loss_backward smooth_l1_loss smooth_l1_loss_backward huber_loss huber_loss_backward
log_sigmoid_forward log_sigmoid_backward glu glu_backward
cat stack tril triu flip roll
avg_pool2d avg_pool2d_backward _adaptive_avg_pool2d _adaptive_avg_pool2d_backward
upsample_nearest2d upsample_bilinear2d
"""
_PRODUCTS: Final = frozenset(
    "mm addmm bmm baddbmm mv addmv dot vdot addr convolution convolution_backward".split()
)
_HIDDEN_WRITES: Final = {"native_batch_norm": ("running_mean", "running_var")}


def _specs() -> tuple[OpSpec, ...]:
    overloads: dict[str, set[str]] = {}
    for name in _OVERLOADS.split():
        base, _, overload = name.partition(".")
        overloads.setdefault(base, set()).add(overload)
    return tuple(
        OpSpec(
            name,
            "call",
            overloads=frozenset(found),
            hidden_writes=_HIDDEN_WRITES.get(name, ()),
            minds_precision=name in _PRODUCTS,
        )
        for name, found in overloads.items()
    )


CALLS: Final = _specs()
