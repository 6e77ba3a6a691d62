"""Rules 1 and 3: ops that torch's op database leaves out, or tries without pending operands of other kinds.

Most are made of others and read what those have made; or take sparse, quantized and nested tensors beside plain ones.
"""

import pytest
import torch
from sameness import program

aten = torch.ops.aten
N_STATE = len(torch.get_rng_state())
INDICES, VALUES = torch.tensor([[0, 2], [1, 0]]), torch.ones(2)
CROW, COL, SIZES = torch.tensor([0, 1, 2]), torch.tensor([0, 1]), torch.tensor([3, 2, 1])


def dense(t):
    """Return a copy that is pending."""
    return t.logical_or(torch.zeros_like(t)) if t.dtype is torch.bool else t * 1


def with_gaps(t):
    """Return a copy that is pending, and of which ops that want it dense make one of their own."""
    return dense(torch.stack([t, t], -1))[..., 0]


fresh = dense


def ones(*sizes):
    return fresh(torch.ones(*sizes))


def tensor(*values):
    return fresh(torch.tensor(*values))


def coo():
    return torch.sparse_coo_tensor(fresh(INDICES), fresh(VALUES), (3, 3))


def quantized():
    return torch.quantize_per_tensor(fresh(torch.arange(4.0)), 0.5, 3, torch.qint8)


def nested(*sizes):
    return torch.nested.nested_tensor([torch.ones(2, *sizes), torch.ones(3, *sizes)])


def drawn(state):
    """Return what a generator draws after it was set to a state."""
    return torch.rand(3, generator=torch.Generator().set_state(state))


def assigned(target, source):
    target[:2] = source
    return target.dequantize()


OPS = {
    "coo, sizes inferred": lambda: torch.sparse_coo_tensor(
        fresh(INDICES), fresh(VALUES)
    ).to_dense(),
    "coo of inputs": lambda: torch.sparse_coo_tensor(INDICES, VALUES).to_dense(),
    "coo of lists": lambda: torch.sparse_coo_tensor([[0, 2], [1, 0]], [1.0, 2.0]).to_dense(),
    "coo with sizes": lambda: coo().to_dense(),
    "gradient of coo": lambda: torch.autograd.grad(
        torch.sparse_coo_tensor(fresh(INDICES), (w := torch.ones(2, requires_grad=True)) * 2)
        .to_dense()
        .sum(),
        w,
    )[0],
    "csr": lambda: torch.sparse_csr_tensor(fresh(CROW), fresh(COL), fresh(VALUES)).to_dense(),
    "csr with sizes": lambda: torch.sparse_csr_tensor(
        fresh(CROW), fresh(COL), fresh(VALUES), (2, 2)
    ).to_dense(),
    "csc": lambda: torch.sparse_csc_tensor(fresh(CROW), fresh(COL), fresh(VALUES)).to_dense(),
    "bsr": lambda: torch.sparse_bsr_tensor(fresh(CROW), fresh(COL), ones(2, 2, 2)).to_dense(),
    "bsc": lambda: torch.sparse_bsc_tensor(fresh(CROW), fresh(COL), ones(2, 2, 2)).to_dense(),
    "compressed": lambda: torch.sparse_compressed_tensor(
        fresh(CROW), fresh(COL), fresh(VALUES), layout=torch.sparse_csr
    ).to_dense(),
    "check coo": lambda: torch._validate_sparse_coo_tensor_args(
        fresh(INDICES), fresh(VALUES), (3, 3)
    ),
    "check wrong coo": lambda: torch._validate_sparse_coo_tensor_args(
        fresh(INDICES), fresh(VALUES), (2, 2)
    ),
    "check csr": lambda: torch._validate_sparse_csr_tensor_args(
        fresh(CROW), fresh(COL), fresh(VALUES), (2, 2)
    ),
    "check wrong csr": lambda: torch._validate_sparse_csr_tensor_args(
        fresh(CROW), fresh(COL + 5), fresh(VALUES), (2, 2)
    ),
    "check bsr": lambda: torch._validate_sparse_bsr_tensor_args(
        fresh(CROW), fresh(COL), ones(2, 2, 2), (4, 4)
    ),
    "coo, checked": lambda: torch.sparse_coo_tensor(
        fresh(INDICES), fresh(VALUES), (3, 3), check_invariants=True
    ).to_dense(),
    "csr, checked": lambda: torch.sparse_csr_tensor(
        fresh(CROW), fresh(COL), fresh(VALUES), (2, 2), check_invariants=True
    ).to_dense(),
    "pack, backward": lambda: aten._pack_padded_sequence_backward(
        ones(6, 2), [3, 3, 2], fresh(SIZES), False
    ),
    "pack": lambda: torch._pack_padded_sequence(ones(3, 3, 2), tensor([3, 2, 1]), False),
    "pad": lambda: torch._pad_packed_sequence(ones(6, 2), fresh(SIZES), False, 0.0, 3),
    "qparams": lambda: torch._choose_qparams_per_tensor(fresh(torch.arange(4.0))),
    "qparams, optimized": lambda: torch.choose_qparams_optimized(
        fresh(torch.arange(4.0)), 4, 10, 0.1, 4
    ),
    "wrapped linear": lambda: aten._wrapped_quantized_linear_prepacked(
        ones(2, 4),
        tensor(0.1),
        tensor(0),
        aten._wrapped_linear_prepack(ones(3, 4), tensor(0.1), tensor(0), ones(3)),
        tensor(0.1),
        tensor(0),
        3,
    ),
    "moving averages": lambda: aten.fused_moving_avg_obs_fake_quant(
        fresh(torch.arange(4.0)),
        fresh(torch.ones(1).long()),
        fresh(torch.ones(1).long()),
        tensor([0.0]),
        tensor([1.0]),
        tensor([0.1]),
        fresh(torch.tensor([0]).int()),
        0.1,
        0,
        255,
        0,
    ),
    "fake quantize": lambda: torch.fake_quantize_per_tensor_affine(
        fresh(torch.arange(4.0)), tensor(0.1), fresh(torch.tensor(0).int()), 0, 255
    ),
    "fake quantize channels": lambda: torch.fake_quantize_per_channel_affine(
        ones(2, 2), ones(2), fresh(torch.zeros(2).int()), 0, 0, 255
    ),
    "sparse embedding, backward": lambda: aten.embedding_sparse_backward(
        ones(2, 3), tensor([0, 1]), 4, -1, False
    ).to_dense(),
    "sparse embedding, padded, backward": lambda: aten.embedding_sparse_backward(
        ones(2, 3), tensor([0, 1]), 4, 1, False
    ).to_dense(),
    "sparse embedding, scaled, backward": lambda: aten.embedding_sparse_backward(
        ones(2, 3), tensor([0, 1]), 4, 1, True
    ).to_dense(),
    "sparse gather, backward": lambda: aten._gather_sparse_backward(
        ones(3), 0, tensor([0, 1]), ones(2)
    ).to_dense(),
    "sparse embedding bag, backward": lambda: aten._embedding_bag_sparse_backward(
        ones(1, 3), tensor([0, 1]), tensor([0]), tensor([0, 0]), tensor([2]), 4, False, 0, None
    ).to_dense(),
    "to coo": lambda: fresh(torch.eye(3)).to_sparse().to_dense(),
    "to csr": lambda: fresh(torch.eye(3)).to_sparse_csr().to_dense(),
    "to bsr": lambda: fresh(torch.eye(4)).to_sparse_bsr((2, 2)).to_dense(),
    "to csc": lambda: fresh(torch.eye(4)).to_sparse_csc().to_dense(),
    "sspaddmm": lambda: torch.sspaddmm(
        torch.eye(3).to_sparse(), torch.eye(3).to_sparse(), ones(3, 3)
    ).to_dense(),
    "smm": lambda: torch.smm(torch.eye(3).to_sparse(), ones(3, 3)).to_dense(),
    "sparse mask": lambda: ones(3, 3).sparse_mask(torch.eye(3).to_sparse().coalesce()).to_dense(),
    "reshape from tensor": lambda: torch._reshape_from_tensor(
        fresh(torch.arange(4.0)), tensor([2, 2])
    ),
    "shape as tensor": lambda: torch._shape_as_tensor(ones(2, 2)),
    "max pool with indices": lambda: torch.max_pool1d_with_indices(ones(1, 1, 4), 2),
    "chain of products": lambda: torch.chain_matmul(
        fresh(torch.eye(2)), fresh(torch.eye(2)), fresh(torch.eye(2))
    ),
    "copy into quantized": lambda: (
        torch.quantize_per_tensor(torch.arange(4.0), 0.5, 3, torch.qint8)
        .copy_(fresh(torch.arange(4.0)))
        .dequantize()
    ),
    "assign to quantized": lambda: assigned(
        torch.quantize_per_tensor(torch.arange(4.0), 0.5, 3, torch.qint8), fresh(torch.arange(2.0))
    ),
    "quantize by tensors": lambda: torch.quantize_per_tensor(
        fresh(torch.arange(4.0)), tensor(0.5), tensor(3), torch.qint8
    ).dequantize(),
    "quantize many": lambda: [
        q.dequantize()
        for q in torch.quantize_per_tensor(
            [fresh(torch.arange(4.0)), fresh(torch.arange(4.0))],
            tensor([0.5, 0.5]),
            tensor([3, 3]),
            torch.qint8,
        )
    ],
    "quantize channels": lambda: torch.quantize_per_channel(
        ones(2, 2), ones(2), fresh(torch.zeros(2).long()), 0, torch.qint8
    ).dequantize(),
    "make channels quantized": lambda: torch._make_per_channel_quantized_tensor(
        fresh(torch.ones(2, 2).to(torch.int8)), ones(2), fresh(torch.zeros(2).long()), 0
    ).dequantize(),
    "make quantized": lambda: torch._make_per_tensor_quantized_tensor(
        fresh(torch.ones(2, 2).to(torch.int8)), 0.5, 1
    ).dequantize(),
    "ctc": lambda: torch.nn.functional.ctc_loss(
        fresh(torch.randn(5, 1, 4).log_softmax(-1)), tensor([[1, 2]]), tensor([5]), tensor([2])
    ),
    "ctc of narrow lengths": lambda: torch.nn.functional.ctc_loss(
        fresh(torch.randn(5, 1, 4).log_softmax(-1)),
        tensor([[1, 2]]),
        tensor([5]).int(),
        tensor([2]).short(),
    ),
    "max pool of one dimension": lambda: torch.max_pool1d(fresh(torch.randn(2, 3, 9)), 2),
    "max pool of rows": lambda: torch.max_pool1d(fresh(torch.randn(2, 9, 3)).transpose(1, 2), 2),
    "max pool, backward": lambda: torch.autograd.grad(
        torch.max_pool1d((x := torch.randn(1, 2, 9).requires_grad_()) * 2, 3).sum(), x
    ),
    "padded sequence": lambda: torch._VF._pad_packed_sequence(
        ones(5, 2), tensor([2, 2, 1]), True, 0.5, 4
    ),
    "narrowT": lambda: torch.narrow(fresh(torch.arange(4.0)), 0, tensor(1), 2),
    "tsplit": lambda: torch.tensor_split(fresh(torch.arange(4.0)), tensor([1, 2])),
    "repint": lambda: torch.repeat_interleave(tensor([1, 2])),
    "bincount": lambda: torch.bincount(tensor([1, 2]), ones(2)),
    "lugeqrf": lambda: torch.linalg.lu_factor(fresh(torch.eye(3)))[0],
    "nested": lambda: torch.nested.nested_tensor([ones(2), ones(3)]).to_padded_tensor(0.0),
    "nestpad": lambda: torch._nested_from_padded(
        ones(2, 3, 2), tensor([[2, 2], [3, 2]])
    ).to_padded_tensor(0.0),
    "nestmask": lambda: torch._nested_tensor_from_mask(
        ones(2, 3, 2), fresh(torch.ones(2, 3).bool())
    ).to_padded_tensor(0.0),
    "nestla": lambda: torch._nested_tensor_from_mask_left_aligned(
        ones(2, 3, 2), fresh(torch.ones(2, 3).bool())
    ),
    "segred": lambda: torch.segment_reduce(ones(3), "sum", lengths=tensor([1, 2])),
    "pad sequence": lambda: torch.nn.utils.rnn.pad_sequence([ones(2), ones(3)]),
    "multinom": lambda: torch.multinomial(ones(3), 2),
    "tril": lambda: torch.combinations(fresh(torch.arange(3.0))),
    "cdist": lambda: torch.cdist(ones(2, 2), fresh(torch.zeros(2, 2))),
    "histdd": lambda: torch.histogramdd(
        fresh(torch.rand(5, 2)), [tensor([0.0, 0.5, 1]), tensor([0.0, 0.5, 1])]
    ),
    "hist": lambda: torch.histogram(fresh(torch.rand(5)), tensor([0.0, 0.5, 1])),
    "embrenorm": lambda: torch.embedding_renorm_(ones(3, 2), tensor([1]), 1.0, 2.0),
    "emb2": lambda: torch.nn.functional.embedding_bag(tensor([0, 1]), ones(3, 2), tensor([0, 1])),
    "rng state": lambda: torch.set_rng_state(torch.get_rng_state().clone()),
    "generator state": lambda: drawn(torch.get_rng_state().clone()),
    "generator state, part": lambda: drawn(torch.cat([torch.get_rng_state()] * 2)[:N_STATE]),
    "generator state, row": lambda: drawn(torch.stack([torch.get_rng_state()] * 2)[0]),
    "rowprune": lambda: torch._rowwise_prune(ones(3, 2), tensor([True, False, True]), torch.int64),
    "grid": lambda: torch.affine_grid_generator(ones(1, 2, 3), [1, 1, 2, 2], False),
    "intrepr": lambda: quantized().int_repr(),
    "sgn": lambda: torch.nn.functional.one_hot(tensor([0, 2])),
    "lcoo": lambda: torch.sparse.softmax(coo(), 0).to_dense(),
    "ssum": lambda: torch.sparse.sum(coo(), 0).to_dense(),
    "coalesce": lambda: coo().coalesce().values(),
    "spmm": lambda: torch.sparse.mm(coo(), ones(3, 3)),
    "spmmr": lambda: torch.sparse.mm(
        torch.sparse_csr_tensor(fresh(CROW), fresh(COL), fresh(VALUES), (2, 2)), ones(2, 2), "sum"
    ),
    "idxput": lambda: torch.ones(3).index_put_((tensor([0, 1]),), ones(2)),
    "spcopy": lambda: torch.eye(3).to_sparse().copy_(coo()).to_dense(),
    "spadd": lambda: torch.add(ones(3, 3), torch.eye(3).to_sparse()),
    "spaddcsr": lambda: torch.add(ones(3, 3), torch.eye(3).to_sparse_csr()),
    "csrmm": lambda: torch.eye(3).to_sparse_csr() @ ones(3, 3),
    "addmmcsr": lambda: torch.addmm(ones(3, 3), torch.eye(3).to_sparse_csr(), ones(3, 3)),
    "mulsp": lambda: (torch.eye(3).to_sparse() * tensor(2.0)).to_dense(),
    "divsp": lambda: (torch.eye(3).to_sparse() / tensor(2.0)).to_dense(),
    "qadd": lambda: torch.ops.quantized.add(quantized(), quantized(), 0.5, 3).dequantize(),
    "qadds": lambda: torch.ops.quantized.mul_scalar(quantized(), tensor(2.0)).dequantize(),
    "qcat": lambda: torch.cat([quantized()] * 2).dequantize(),
    "qeq": lambda: quantized() == fresh(torch.arange(4.0)),
    "qmask": lambda: quantized().masked_fill(tensor([True, False, True, False]), 1.0).dequantize(),
    "qset_": lambda: torch.quantize_per_tensor(torch.arange(4.0), 0.5, 3, torch.qint8)[
        tensor([0, 1])
    ].dequantize(),
    "qlerp": lambda: quantized().resize_as_(ones(2)).dequantize(),
    "nestadd": lambda: (nested() * tensor(2.0)).to_padded_tensor(0.0),
    "nestadd3": lambda: (nested(2) + ones(2, 1, 2)).to_padded_tensor(0.0),
    "nestcopy": lambda: (
        nested().copy_(torch.nested.nested_tensor([ones(2), ones(3)])).to_padded_tensor(0.0)
    ),
    "nestlin": lambda: torch.nn.functional.linear(nested(2), ones(4, 2), ones(4)).to_padded_tensor(
        0.0
    ),
    "nestln": lambda: torch.nn.functional.layer_norm(
        nested(2), (2,), ones(2), ones(2)
    ).to_padded_tensor(0.0),
    "nestmm": lambda: torch.matmul(nested(2), ones(2, 2)).to_padded_tensor(0.0),
    "nestvb": lambda: torch._nested_view_from_buffer(
        fresh(torch.arange(5.0)), tensor([[2], [3]]), tensor([[1], [1]]), tensor([0, 2])
    ).to_padded_tensor(0.0),
}


@program(times=2, slow=("never",))
@pytest.mark.parametrize("lay", [dense, with_gaps])
@pytest.mark.parametrize("part", range(4))
def test_ops_beside_the_database(part, lay):
    global fresh
    fresh = lay  # the process is the test's own
    results = {}
    for name in list(OPS)[part::4]:
        try:
            results[name] = OPS[name]()
        except RuntimeError as error:
            results[name] = str(error)
    return results
