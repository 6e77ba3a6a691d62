"""Rule 3, tensors: types, sizes, strides and everything that autograd hangs on them; and that these do not flush."""

import pickle

import pytest
import torch
import torch.nn.functional as F
from sameness import program
from tiers import TIERS
from torch import nn


@program(recorded=True)
def test_strides_of_results_follow_the_operands():
    x = torch.randn(2, 3, 4, 5)
    kinds = {
        "contiguous": x, "channels last": x.to(memory_format=torch.channels_last), "transposed": x.transpose(1, 3),
        "permuted": x.permute(3, 1, 0, 2), "expanded": x[:1].expand(2, 3, 4, 5), "sliced": x[:, :, ::2, 1:],
        "flipped": x.flip(2), "narrow": x[:, 1:2], "one": x[:1, :1, :1, :1],
    }  # fmt: skip
    results = {}
    for name, a in kinds.items():
        results[name] = [a + 1, a * a, a.exp(), a > 0, a.clone(), a.double(), torch.zeros_like(a) + a,
                         a.contiguous(), a.sum(1), a.softmax(1), torch.where(a > 0, a, 0), a.neg().relu()]  # fmt: skip
        for other, b in kinds.items():
            if a.shape == b.shape:
                results[f"{name} {other}"] = [
                    a + b,
                    torch.where(a > b, a, b),
                    torch.addcmul(a, b, b),
                ]
    return results


@program
def test_broadcasting():
    x = torch.randn(3, 1, 4)
    others = [torch.randn(4), torch.randn(5, 1), torch.randn(3, 5, 1), torch.tensor(2.0), torch.randn(1, 1, 1, 1),
              torch.randn(2, 1, 5, 4), torch.randn(1)]  # fmt: skip
    return [
        [x + y, y * x, x > y, torch.where(y > 0, x, y), torch.maximum(x * 2, y - 1)] for y in others
    ]


@program
def test_empty_tensors():
    x = torch.ones(0, 3)
    y = torch.zeros(3, 0)
    return [x + 1, x * torch.ones(3), x @ y, y @ x, x.sum(), x.sum(0), x.mean(0), x > 1, (x * 2).reshape(3, 0),
            torch.cat([x * 2, torch.ones(1, 3) * 2]), (x + 1).prod(), x.exp_(), x.softmax(0), (x + 1).any(),
            (x + 1).t(), torch.where(x > 0, x, 1.0), torch.ones(0) + torch.ones(1), x.add_(torch.ones(3)),
            F.linear(x * 1, torch.ones(2, 3))]  # fmt: skip


@program
@pytest.mark.parametrize(
    "strides", [(12, 12, 3, 1), (0, 0, 0, 0), (1, 0, 1, 4), (3, 12, 1, 1), (8, 4, 1, 4)]
)
@pytest.mark.parametrize("sizes", [(0, 1, 4, 3), (2, 0, 4, 1), (1, 2, 3, 0)])
def test_strides_of_empty_tensors(sizes, strides):
    x = torch.empty_strided(sizes, strides)
    return [
        x + 1,
        x * x,
        x + torch.ones(()),
        (x * 2).exp(),
        x.clone(),
        x > 0.5,
        x + torch.ones(sizes[-1:]),
    ]


@program
def test_zero_dimensional_tensors():
    x, y = torch.tensor(2.0), torch.tensor(3)
    z = x * y
    z += 1
    return [
        x,
        z,
        z.exp(),
        z + y,
        z.expand(3) * 2,
        z.reshape(1) + 1,
        z.unsqueeze(0).mul_(2),
        y // 2,
        y > x,
        z[None] + y,
    ]


@program
def test_channels_last_networks():
    x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    y = F.relu(conv(x * 2) + 1)
    return (
        y,
        F.max_pool2d(y, 2),
        y.mean((2, 3)),
        nn.BatchNorm2d(4)(y),
        y.to(memory_format=torch.contiguous_format),
    )


@program
def test_layouts_of_in_place_and_out():
    x = torch.randn(4, 6)
    out = torch.zeros(6, 4).t()
    given = torch.add(x, 1, out=out)
    small = torch.zeros(0)
    resized = torch.mul(x, 2, out=small)
    strided = torch.zeros(8, 6)[::2]
    also = torch.exp(x, out=strided)
    y = x.t().mul_(2)
    return x, out, given, given is out, small, resized, resized is small, strided, also, y


@program
def test_in_place_returns_the_very_object():
    x = torch.randn(5) + 1
    results = [
        x.add_(1) is x,
        x.mul_(x) is x,
        x.zero_() is x,
        x.copy_(torch.ones(5)) is x,
        x.clamp_(0, 1) is x,
    ]
    y = x[1:]
    results += [
        y.exp_() is y,
        torch.relu_(x) is x,
        F.relu(x, inplace=True) is x,
        x.requires_grad_() is x,
    ]
    y = x
    y = y.detach()
    y += 1
    return results, x, y


@program
def test_versions_count_each_write_once():
    x = torch.zeros(6)
    y = x[2:]
    seen = [x._version]
    for _ in range(3):
        x.add_(1)
        y.mul_(2)
        y[0] = 5
        seen += [x._version, y._version]
    z = x * 2
    z.copy_(x).add_(z)
    torch.add(z, 1, out=z)
    with torch.no_grad():
        z += 1
    d = z.detach()
    d.mul_(3)
    return x, y, z, d, seen, z._version, d._version, z.data._version


@program
def test_history_is_eagers():
    x = torch.randn(4, requires_grad=True)
    w = torch.randn(4, 4, requires_grad=True)
    y = torch.tanh(w @ (x * 2 + 1)).sum()
    z = x.exp()[1:].clone()
    z[0] = 3
    z.retain_grad()
    return (
        y,
        z,
        z[:1],
        (x * 2).detach(),
        w.t(),
        x.view(2, 2) * 2,
        y.grad_fn.next_functions[0][0].name(),
    )


@program
def test_requires_grad_of_results():
    x = torch.ones(3, requires_grad=True)
    y = torch.ones(3)
    with torch.no_grad():
        a = x * 2
        b = y.add_(x)
        with torch.enable_grad():
            c = x * 2
    d = x > 0
    return (
        a,
        b,
        c,
        d,
        x.detach() * 2,
        (x * 2).requires_grad_(),
        y.requires_grad_(),
        x.data + 1,
        x.long(),
    )


@program
def test_parameters_stay_parameters():
    layer = nn.Linear(3, 3)
    with torch.no_grad():
        layer.weight.mul_(2)
        layer.bias.copy_(torch.ones(3) * 3)
        layer.weight[0] += 1
    doubled = layer.weight * 2
    return (
        layer.weight,
        layer.bias,
        isinstance(layer.weight, nn.Parameter),
        doubled,
        isinstance(doubled, nn.Parameter),
    )


@program
def test_a_tensors_attributes_and_identity_stay():
    x = torch.ones(3) * 2
    x.note = "mine"
    x += 1
    y = x.view(3)
    groups = {x: 1, y: 2}
    return x, x.note, hasattr(y, "note"), groups[x], x in groups, hash(x) == hash(x), x is y


@program
def test_types_by_every_name():
    x = torch.ones(3) * 2
    kinds = [torch.FloatTensor, torch.DoubleTensor, torch.Tensor, nn.Parameter]
    return (type(x).__name__, x.type(), x.is_cuda, x.is_cpu, str(x.device), x.layout, x.dtype, x.is_floating_point(),
            [isinstance(x, kind) for kind in kinds], x.type(torch.float64), x.type("torch.LongTensor"), x.is_mkldnn,
            x.new(2, 3).shape, x.new_tensor([1.5]), x.new_zeros(2) + x[:2], x.new_ones(2, dtype=torch.int64),
            x.new_full((2,), 3.0), x.double().type(), x.is_nested, x.is_meta, x.device.type, torch.is_tensor(x),
            torch.is_complex(x), x.get_device())  # fmt: skip


@program
def test_subclasses_are_left_alone():
    class Named(torch.Tensor):
        pass

    x = torch.ones(3).as_subclass(Named)
    y = x * 2 + 1
    z = torch.ones(3) * 2
    both = z + y
    return (
        type(y).__name__,
        type(both).__name__,
        y.as_subclass(torch.Tensor),
        both.as_subclass(torch.Tensor),
        z,
    )


@program
def test_conjugate_and_negative_views():
    x = torch.complex(torch.arange(4.0), torch.arange(4.0) - 1) * 2
    y = x.conj()
    z = y.imag
    w = z + 1
    x += 1
    return (
        x,
        y,
        z,
        w,
        y * x,
        y.real,
        x.mH if x.dim() > 1 else None,
        z.is_neg(),
        y.is_conj(),
        y.resolve_conj(),
        z.abs(),
    )


@program
def test_views_of_other_dtypes():
    x = torch.arange(6.0) * 2
    y = x.view(torch.int32)
    y += 1
    z = x.view(torch.uint8)[::4]
    c = torch.view_as_complex((x * 2).reshape(3, 2))
    r = torch.view_as_real(c * 1j)
    r[0] += 1
    return x, y, z, c, r


@program
def test_sparse_and_quantized_neighbours():
    x = torch.eye(4) * 2
    s = x.to_sparse()
    t = s * 3
    dense = t.to_dense() + x
    return (
        t,
        dense,
        s @ (x + 1),
        (x * 2).to_sparse_csr(),
        torch.sparse.sum(s),
        x.to_mkldnn().relu().to_dense() + 1,
    )


@program
def test_nested_tensors_are_left_alone():
    n = torch.nested.nested_tensor([torch.ones(2) * 2, torch.ones(3) * 3])
    return [part + 1 for part in (n * 2).unbind()], n.to_padded_tensor(0.0) + 1


@program
def test_meta_and_fake_tensors_pass_by():
    m = torch.ones(3, device="meta") * 2
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        f = torch.ones(3, 4) @ torch.ones(4, 2)
        shape = tuple((f * 2).shape)
    return tuple(m.shape), m.is_meta, shape, torch.ones(2) * 2


QUESTIONS = {
    "shape": lambda t: t.shape, "len": len, "size": lambda t: t.size(0), "dtype": lambda t: t.dtype,
    "dim": lambda t: t.dim(), "stride": lambda t: t.stride(), "device": lambda t: t.device,
    "numel": lambda t: t.numel(), "nbytes": lambda t: t.nbytes, "requires_grad": lambda t: t.requires_grad,
    "grad_fn": lambda t: t.grad_fn, "version": lambda t: t._version, "is_leaf": lambda t: t.is_leaf,
    "contiguous": lambda t: t.is_contiguous(), "offset": lambda t: t.storage_offset(), "hash": hash,
    "view": lambda t: t[1:], "reshape": lambda t: t.reshape(-1), "transpose": lambda t: t.t(), "is": lambda t: t is t,
    "detach": lambda t: t.detach(), "isinstance": lambda t: isinstance(t, torch.Tensor), "type": type,
    "add": lambda t: t + 1, "in place": lambda t: t.add_(1), "unbind": lambda t: t.unbind(), "expand": lambda t: t[None],
    "iteration": list, "split": lambda t: t.split(2), "device type": lambda t: t.is_cuda,
    "matmul": lambda t: t @ t, "sum": lambda t: t.sum(), "softmax": lambda t: t.softmax(0), "base": lambda t: t._base,
}  # fmt: skip


@pytest.mark.parametrize("question", QUESTIONS)
@TIERS
def test_does_not_flush(question, compile):
    import torchy

    a = torch.ones(3, 3)
    with torchy.lazy(compile=compile) as session:
        x = a + 1
        assert torchy.is_pending(x)
        before = session.counters["flushes"]
        QUESTIONS[question](x)
        assert session.counters["flushes"] == before
        assert torchy.is_pending(x)
    assert not torchy.is_pending(x)


LOOKING = {
    **dict.fromkeys(["tolist", "numpy", "type", "new_tensor", "__deepcopy__"], torch.Tensor),
    "resize_": torch.UntypedStorage,
}


@program
@pytest.mark.parametrize("name", LOOKING)
def test_what_a_method_that_looks_is_called(name):
    x = torch.ones(3) * 2
    method = getattr(LOOKING[name], name)
    described = [
        method.__name__,
        method.__qualname__,
        repr(method).split(" at ")[0],
        method.__doc__,
    ]
    return x, type(method), described, pickle.dumps(method)


@program
def test_a_function_that_looks_is_pickled():
    assert torch.utils.dlpack.to_dlpack is torch.to_dlpack
    return pickle.dumps(torch.to_dlpack), repr(torch.to_dlpack), torch.to_dlpack.__module__


@program
def test_the_angles_of_transposed_complex_numbers_are_not_transposed():
    x = torch.complex(torch.linspace(-1, 1, 12).reshape(4, 3).t(), torch.ones(3, 4))
    return x, x.angle(), x.real.angle(), (x * 2).abs(), x.sgn()
