"""Programs that once differed, for reasons that no other file here is about."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from sameness import program


def attempt(function, *arguments):
    """Return what a function gives, or what it raises."""
    try:
        return function(*arguments)
    except (RuntimeError, ZeroDivisionError) as error:
        return str(error)


@program
@pytest.mark.parametrize("name", ["softshrink", "celu", "leaky_relu_", "elu_", "hardtanh"])
def test_a_number_that_an_op_rejects_after_one_that_it_took(name):
    numbers = {"softshrink": (0.5, -1.0), "celu": (0.5, 0.0), "hardtanh": (0, -1)}
    x, results = torch.linspace(-1, 1, 5).requires_grad_(), []
    for number in numbers.get(name, (0.5, -0.3)):
        before = x.detach() * 2
        if name == "hardtanh":
            results.append(attempt(F.hardtanh, torch.arange(5, dtype=torch.uint8) * 1, number, 2))
        else:
            results.append(attempt(lambda n=number: getattr(F, name)(x * 1, n).sum().backward()))
        results.append(before.add_(1))
    return results, x.grad


@program
def test_functional_forms_that_copy_first():
    x = torch.ones(3, 2)
    aten = torch.ops.aten
    return (
        aten.copy(x * 1, x * 2),
        aten.zero(x * 1),
        aten.fill(x * 1, 3),
        aten.copy(x.t() * 1, x * 2),
    )


@program
@pytest.mark.parametrize("rank", [64, 65, 256, 300])
def test_tensors_of_very_many_dimensions(rank):
    x = torch.arange(24.0).reshape([2] + [1] * (rank - 2) + [12])
    try:
        return ((x * 1 + 1) * x.flatten()[:12].reshape([1] * (rank - 1) + [12])).reshape(24)
    except RuntimeError as error:
        return str(error)


@program
def test_composite_ops_that_read_memory():
    engine = torch.quasirandom.SobolEngine(2, scramble=True, seed=3)
    plain = torch.quasirandom.SobolEngine(2)
    plain.quasi = plain.quasi * 1
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.ones(3, 2, 1), torch.tensor([3, 1]))
    lengths = packed.batch_sizes * 1
    padded = torch.nn.utils.rnn.pad_packed_sequence(packed._replace(batch_sizes=lengths))
    quantized = torch.choose_qparams_optimized(torch.linspace(-1, 1, 12) * 2, 12, 20, 0.1, 8)
    return engine.draw(4), plain.draw(4), padded, quantized


@program
def test_precision_set_by_the_new_interface():
    x = torch.randn(8, 8)
    results = [x @ x * 2]
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        results += [x * 2 + 1, (x @ x).relu()]
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before
    return results, (x * 3) @ x


@program
def test_strides_that_depend_on_the_library():
    x = torch.ones(2, 4, 5, 6, 7).contiguous(memory_format=torch.channels_last_3d)
    weight = torch.ones(4, 4, 3, 3, 3)
    results = []
    for enabled in (True, False, True, False):
        with torch.backends.mkldnn.flags(enabled=enabled):
            results.append(F.conv3d(x, weight) * 2)
    return results


@program
def test_denormals_flushed_on_one_thread_only():
    torch.set_num_threads(2)
    x = torch.linspace(1, 9, 300_001) * 1e-39
    torch.set_flush_denormal(True)
    y = x * 1
    torch.set_flush_denormal(False)
    return y, x * 1


@program
def test_signalling_nans_are_no_missing_values():
    signalling = torch.tensor([0x7F800001] * 4, dtype=torch.int32).view(torch.float32)
    ones = torch.ones(4)
    return torch.fmax(signalling, ones), torch.fmin(ones, signalling)


def test_after_the_last_session_readers_call_torch_s_own_straight():
    import torchy

    with torchy.lazy():
        with torchy.lazy():
            y = torch.ones(2) * 2
        assert y.tolist() == [2.0, 2.0]
    called = []
    settle = torchy.face._process.runtime.walker.settle
    torchy.face._process.runtime.walker.settle = lambda *args: called.append(args) or settle(*args)
    assert y.tolist() == [2.0, 2.0]
    assert not called
    for name in ("tolist", "numpy", "type", "data_ptr"):
        hook, own = getattr(torch.Tensor, name), vars(torch._C.TensorBase)[name]
        assert (hook.__name__, hook.__doc__) == (own.__name__, own.__doc__)
    with torchy.lazy():
        assert (y + 1).tolist() == [3.0, 3.0]
    assert called


def test_what_the_program_puts_in_a_reader_s_place_between_sessions_is_heard():
    import torchy

    tolist, called = torch._C.TensorBase.tolist, []

    def mine(t):
        called.append(t.shape)
        return tolist(t)  # torch's own

    with torchy.lazy():
        pass
    torch.Tensor.tolist = mine
    for _ in range(2):
        with torchy.lazy():
            y = torch.ones(2) * 2
            assert y.tolist() == [2.0, 2.0]
    torch.Tensor.tolist = tolist
    with torchy.lazy():
        y = torch.ones(2) * 3
        assert y.tolist() == [3.0, 3.0]
    assert called == [(2,), (2,)]


@program
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16])
def test_calls_that_take_a_dtype_for_some_sizes_only(dtype):
    log = []
    for sizes in ((2, 0, 3), (0, 2, 2), (2, 3, 3), (1, 1, 1), (2, 2, 2)):
        x = torch.ones(sizes).to(dtype)
        for name, function in {
            "bmm": lambda x: x.transpose(1, 2) @ x,
            "softmax": lambda x: x.softmax(-1),
            "mean": lambda x: x.mean(0),
            "cumsum": lambda x: x.cumsum(0, dtype=x.dtype),
            "addmm": lambda x: torch.addmm(x[0, :1], x[0].T, x[0]) if len(x) else x,
        }.items():
            try:
                log.append((name, function(x) == 1))
            except Exception as error:
                log.append((name, type(error).__name__, str(error)))
    return log


OUTER = {
    "kron": (torch.kron, lambda: [torch.ones(3, 4), torch.arange(6.0).reshape(2, 3)]),
    "inner": (torch.inner, lambda: [torch.ones(3, 4, 5), torch.arange(10.0).reshape(2, 5)]),
    "tensordot": (
        lambda a, b, out: torch.tensordot(a, b, dims=([1], [0]), out=out),
        lambda: [torch.ones(40, 3), torch.arange(60.0).reshape(3, 20)],
    ),
    "tensorsolve": (
        torch.linalg.tensorsolve,
        lambda: [torch.eye(6).reshape(6, 2, 3), torch.ones(6)],
    ),
    "tensorinv": (
        lambda a, out: torch.linalg.tensorinv(a, ind=1, out=out),
        lambda: [torch.eye(6).reshape(6, 2, 3)],
    ),
}


@program(given=lambda: (), slow=("never",))
@pytest.mark.parametrize("read", ["pending", "read", "written", "viewed"])
@pytest.mark.parametrize("size", [0, 1, 2])
@pytest.mark.parametrize("name", OUTER)
def test_ops_that_are_made_of_others_resize_what_they_write_to(name, size, read):
    function, operands = OUTER[name]
    out, results = torch.ones(size, size), []
    if read == "pending":
        out = out * 2
    elif read == "written":
        out.add_(1)
    elif read == "viewed":
        results.append((out * 3)[:1])
    results.append(out + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results.append(function(*[x * 1 for x in operands()], out=out))
    results.append(out * 2)
    out.mul_(3)
    return out, results


@program
def test_an_op_changes_memory_though_its_schema_does_not_say_so():
    import torch._inductor  # has such an op

    results = []
    for size in (40, 4, 4000):
        x = torch.ones(8)
        y = x + 1
        torch.ops.inductor.resize_storage_bytes_(x, 4 * size)
        known = min(size, 8)
        results += [y, x.as_strided((known,), (1,)) * 2, x.untyped_storage().nbytes()]
        z = torch.ones(8)
        y = z * 2
        lazily = torch._lazy_clone(z)
        results += [lazily.add_(1), y, z, z + 1]
    return results


@program
def test_ops_that_are_made_of_others_read_their_operands_at_once():
    x = torch.arange(16.0).reshape(1, 2, 8)
    results = [
        F.max_pool1d(x * 2, 2),
        torch.nn.MaxPool1d(3, 1)((x + 1).relu()),
        F.max_pool1d(x[0] * 3, 2),
    ]
    results.append(torch.ops.aten._saturate_weight_to_fp16(x * 1e6))
    return results


@pytest.mark.parametrize("mode", ["first", "later"])
def test_what_torch_warns_of_once_is_warned_of_once(mode):
    import torchy

    torch.set_warn_always(False)
    x, c, z = (
        torch.arange(4.0),
        torch.tensor([1, 0, 1, 0], dtype=torch.uint8),
        torch.ones(4, dtype=torch.complex64),
    )
    with torchy.lazy(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            y = torch.where(c, x, -x) + (z.to(torch.float32) if mode == "first" else z.real)
        assert y.tolist() == [1.0, 0.0, 3.0, -2.0]
        z.to(torch.float32)
    texts = sorted(str(warning.message)[:13] for warning in caught)
    assert texts == ["Casting compl", "where receive"]
    assert not torch.is_warn_always_enabled()


@program
def test_nnpack_is_used_where_it_was_allowed():
    x, w = torch.rand(16, 8, 20, 20), torch.rand(6, 8, 5, 5)
    torch.backends.mkldnn.set_flags(False)
    results = []
    try:
        for on in (False, True, False):
            torch.backends.nnpack.set_flags(on)
            results.append(F.conv2d(x, w) + 0)
    finally:
        torch.backends.mkldnn.set_flags(True)
        torch.backends.nnpack.set_flags(True)
    return results, torch.equal(results[0], results[1])


@program
def test_nnpack_decides_how_a_convolution_s_result_lies():
    x = torch.ones(16, 2, 8, 8).contiguous(memory_format=torch.channels_last)
    w, results = torch.ones(3, 2, 3, 3), []
    with torch.backends.mkldnn.flags(enabled=False):
        try:
            for on in (True, False, True, False):
                torch.backends.nnpack.set_flags(on)
                results.append(torch.conv2d(x * 1.0, w, padding=1))
        finally:
            torch.backends.nnpack.set_flags(True)
    return results


@program
def test_onednn_s_tensors_beside_pending_ones():
    x, w, b = torch.randn(8, 16) * 2, torch.randn(16, 16) * 2, torch.randn(16) * 2
    image, ones = torch.ones(2, 3, 4, 4) * 3, [torch.ones(3) * i for i in (1, 2, 3, 4)]
    results = []
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            y = torch.ops.aten.mkldnn_linear(x.to_mkldnn(), w * 1, b * 1).to_dense()
            scaled = [one * 2 for one in ones]
            z = torch.batch_norm(image.to_mkldnn(), *scaled, False, 0.1, 1e-5, False).to_dense()
            results += [y.clone(), z.clone()]
    return results


@program
def test_weights_are_packed_while_they_are_pending():
    aten = torch.ops.aten
    x, w, b = torch.randn(8, 16), torch.randn(16, 16), torch.randn(16)
    packed = aten.fbgemm_pack_gemm_matrix_fp16(w * 1.5)
    results = [
        aten.fbgemm_linear_fp16_weight(x * 2, packed, b * 2),
        aten.fbgemm_linear_fp16_weight_fp32_activation(x * 2, packed, b * 2),
    ]
    quantized, offsets, scale, zero = aten.fbgemm_linear_quantize_weight(w * 1.5)
    matrix = aten.fbgemm_pack_quantized_matrix(quantized)
    results.append(
        aten.fbgemm_linear_int8_weight_fp32_activation(
            x * 2, quantized, matrix, offsets, scale, zero, b * 2
        )
    )
    results += aten._rowwise_prune(x * 2, (x * 2)[:, 0] > 0, torch.int64)
    return results
