"""The op table: ops that are deferred but run by torch itself, by their dispatcher names.

Whatever may raise for data that it meets is not here: it runs at once. But for indices and targets: whether those are in
range is looked at when the op is recorded.
"""

from __future__ import annotations

from typing import Final

from torchy.ir.ops.spec import Indices, OpSpec

_OVERLOADS: Final = """
sum sum.dim_IntList mean mean.dim prod prod.dim_int amax amin aminmax max min
max.dim min.dim cummax cummin sort sort.stable topk
any any.dim any.dims all all.dim all.dims argmax argmin
var.correction std.correction var_mean.correction std_mean.correction
linalg_vector_norm cumsum cumprod logcumsumexp logsumexp
_softmax _log_softmax _softmax_backward_data _log_softmax_backward_data
native_layer_norm native_layer_norm_backward native_group_norm native_group_norm_backward
native_batch_norm native_batch_norm_backward
mm addmm bmm baddbmm mv addmv dot vdot addr
convolution convolution_backward
mse_loss mse_loss_backward smooth_l1_loss smooth_l1_loss_backward huber_loss huber_loss_backward
binary_cross_entropy_with_logits log_sigmoid_forward log_sigmoid_backward glu glu_backward
cat stack tril triu flip roll repeat constant_pad_nd
avg_pool2d avg_pool2d_backward _adaptive_avg_pool2d _adaptive_avg_pool2d_backward
max_pool2d_with_indices max_pool2d_with_indices_backward
upsample_nearest2d upsample_bilinear2d
_cdist_forward _cdist_backward
nll_loss_forward nll_loss_backward nll_loss2d_forward nll_loss2d_backward
_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention_for_cpu_backward
select_backward slice_backward isin.Tensor_Tensor
embedding embedding_dense_backward index_select index_add gather scatter.src scatter.value scatter_add
"""
_PRODUCTS: Final = frozenset(
    """
    mm addmm bmm baddbmm mv addmv dot vdot addr convolution convolution_backward
    _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention_for_cpu_backward
    """.split()
)
_HIDDEN_WRITES: Final = {"native_batch_norm": ("running_mean", "running_var")}
# Numbers that change nothing but values: neither what eager allows, nor how a result lies in memory.
_NUMBERS: Final = {
    **dict.fromkeys("addmm baddbmm addmv addr".split(), "beta alpha"),
    "index_add": "alpha",
    "scatter": "value",
    "constant_pad_nd": "value",
}
_ALONG_DIM: Final = Indices("index", into="self", dimension="dim")
_TARGETS: Final = Indices("target", into="self", dimension=-1, ignored="ignore_index")
_TARGETS_2D: Final = Indices("target", into="self", dimension=1, ignored="ignore_index")
_INDICES: Final = {
    **dict.fromkeys("index_select index_add gather scatter scatter_add".split(), _ALONG_DIM),
    **dict.fromkeys(("nll_loss_forward", "nll_loss_backward"), _TARGETS),
    **dict.fromkeys(("nll_loss2d_forward", "nll_loss2d_backward"), _TARGETS_2D),
    "embedding": Indices("indices", into="weight", dimension=0),
}


def _specs() -> tuple[OpSpec, ...]:
    overloads: dict[str, set[str]] = {}
    for name in _OVERLOADS.split():
        base, _, overload = name.partition(".")
        overloads.setdefault(base, set()).add(overload)
    return tuple(
        OpSpec(
            name,
            "call",
            runtime=frozenset(_NUMBERS.get(name, "").split()),
            overloads=frozenset(found),
            hidden_writes=_HIDDEN_WRITES.get(name, ()),
            indices=_INDICES.get(name),
            minds_precision=name in _PRODUCTS,
        )
        for name, found in overloads.items()
    )


CALLS: Final = _specs()
