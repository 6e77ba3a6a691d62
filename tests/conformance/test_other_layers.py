"""Ops outside the database: quantized, mkldnn, sparse, custom ops with every kind of kernel, collectives."""

import contextlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from sameness import quiet, same

MODES = pytest.mark.parametrize(
    "settings",
    [{"mode": "pass_through"}, {"mode": "carry"}, {"compile": "always"}, {"compile": "never"}],
    ids=["pass_through", "carry", "always", "never"],
)


def operators():
    """Return a name that no other test uses for its custom ops."""
    operators.count = getattr(operators, "count", 0) + 1
    return f"test_torchy_{os.getpid()}_{operators.count}"


@MODES
def test_quantized_ops(settings):
    def program():
        with quiet():
            x = torch.linspace(-2, 2, 24).reshape(4, 6) * 1.5
            q = torch.quantize_per_tensor(x, 0.05, 10, torch.quint8)
            r = torch.quantize_per_tensor(x + 0.3, 0.04, 3, torch.quint8)
            results = [
                q,
                q.dequantize() * 2,
                torch.ops.quantized.add(q, r, 0.1, 5),
                torch.ops.quantized.mul(q, r, 0.1, 5),
                torch.ops.quantized.cat([q, r], 0, 0.1, 5),
                q.relu(),
                q[1:],
                q.reshape(6, 4),
                q.t().contiguous(),
                q.int_repr() + 1,
                q.clone(),
                torch.sigmoid(q),
                q.max(),
                q.mean(),
                q == r,
                q.sort()[0],
            ]
            if "fbgemm" in torch.backends.quantized.supported_engines:
                weight = torch.quantize_per_channel(
                    torch.randn(3, 6) * 0.5,
                    torch.ones(3) * 0.02,
                    torch.zeros(3, dtype=torch.int64),
                    0,
                    torch.qint8,
                )
                packed = torch.ops.quantized.linear_prepack(weight, torch.randn(3) * 0.1)
                results += [
                    torch.ops.quantized.linear(q, packed, 0.2, 4),
                    torch.ops.quantized.linear_dynamic(x, packed),
                ]
                kernel = torch.quantize_per_tensor(torch.randn(2, 3, 3, 3), 0.05, 0, torch.qint8)
                convolution = torch.ops.quantized.conv2d_prepack(
                    kernel, None, [1, 1], [0, 0], [1, 1], 1
                )
                image = torch.quantize_per_tensor(
                    torch.randn(1, 3, 6, 6) * 2, 0.05, 10, torch.quint8
                )
                results.append(torch.ops.quantized.conv2d(image, convolution, 0.2, 4))
            return results

    same(program, **settings)


@MODES
def test_quantized_modules(settings):
    def program():
        with quiet():
            model = torch.nn.Sequential(
                torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
            ).eval()
            dynamic = torch.ao.quantization.quantize_dynamic(
                model, {torch.nn.Linear}, dtype=torch.qint8
            )
            x = torch.randn(5, 6) * 2
            observer = torch.ao.quantization.MinMaxObserver()
            observer(x * 2)
            scale, zero = observer.calculate_qparams()
            return (
                dynamic(x) + 1,
                scale,
                zero,
                torch.fake_quantize_per_tensor_affine(x, scale, zero.int(), 0, 255),
            )

    same(program, times=2, **settings)


@MODES
def test_mkldnn_tensors(settings):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch was built without mkldnn")

    def program():
        x = torch.randn(2, 3, 6, 6) * 2
        m = x.to_mkldnn()
        conv = torch.utils.mkldnn.to_mkldnn(torch.nn.Conv2d(3, 4, 3).eval())
        linear = torch.utils.mkldnn.to_mkldnn(torch.nn.Linear(6, 2).eval())
        y = x.clone().to_mkldnn().requires_grad_()
        (y * y).to_dense().sum().backward()
        return (
            m.relu(),
            (m + m).to_dense() + 1,
            conv(m),
            linear(x[0, 0].to_mkldnn()),
            m.reshape(6, 36),
            (m * 2).to_dense(),
            torch.max_pool2d(m, 2),
            m.transpose(0, 1).to_dense(),
            y.grad.to_dense(),
            m.sigmoid().to_dense() * x,
        )

    same(program, times=2, **settings)


@MODES
def test_sparse_tensors_and_their_gradients(settings):
    def program():
        with quiet():
            x = (torch.randn(5, 5) * 2).relu()
            s = x.to_sparse().requires_grad_()
            dense = torch.randn(5, 3, requires_grad=True)
            (torch.sparse.mm(s, dense * 2) + 1).sum().backward()
            csr = x.to_sparse_csr()
            t = torch.sparse_coo_tensor(
                torch.tensor([[0, 1, 1], [2, 0, 2]]), torch.arange(3.0) * 2, (2, 3)
            )
            u = (t + t).coalesce()
            u.values().mul_(2)
            hybrid = torch.sparse_coo_tensor(
                torch.tensor([[0, 2, 0]]), torch.randn(3, 2) * 2, (4, 2)
            ).coalesce()
            mask = torch.randn(5, 5).to_sparse()
            return (
                s.grad,
                dense.grad,
                csr @ dense.detach(),
                csr * 2,
                t,
                u,
                t.to_dense() + 1,
                hybrid * 3,
                t.t().coalesce(),
                torch.sparse.softmax(s.detach(), 1),
                torch.sparse.sum(t, 0),
                csr.to_sparse_csc(),
                csr.values() + 1,
                x.sparse_mask(mask.coalesce()),
                torch.sparse.addmm(dense.detach()[:, :1] * 1, s.detach(), dense.detach()[:, :1]),
            )

    same(program, times=2, **settings)


def define(kind, scope):
    """Register a custom op with a kernel of some kind; return how to call it."""
    name = operators()
    library = torch.library.Library(name, "FRAGMENT")
    scope.append(library)
    library.define("affine(Tensor x, float scale) -> Tensor")
    library.define("grow_(Tensor(a!) x) -> Tensor(a!)")
    library.define("rows(Tensor(a) x) -> Tensor(a)")

    def affine(x, scale):
        return (
            torch.from_numpy(x.detach().numpy() * 1.0) * scale + 1
            if kind == "CPU"
            else x * scale + 1
        )

    def grow(x):
        return x.add_(1)

    def rows(x):
        return x[1:]

    for op, kernel in (("affine", affine), ("grow_", grow), ("rows", rows)):
        library.impl(op, kernel, kind)
    if kind == "AutogradCPU":
        library.impl("affine", lambda x, scale: x * scale + 1, "CPU")
    return getattr(torch.ops, name)


KINDS = ["CPU", "CompositeExplicitAutograd", "CompositeImplicitAutograd", "AutogradCPU"]


@MODES
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", KINDS)
def test_custom_ops(settings, kind, when):
    import torchy

    scope = []
    ops = define(kind, scope) if when == "before" else None
    with torchy.lazy():
        (torch.ones(2) * 2).sum().item()
    ops = ops or define(kind, scope)

    def program():
        x = torch.arange(6.0).reshape(3, 2) * 2
        y = ops.affine(x, 1.5)
        z = ops.grow_(x * 1)
        rows = ops.rows(x + 0)
        rows.mul_(2)
        w = torch.ones(3, requires_grad=True)
        result = ops.affine(w * 2, 3.0)
        if result.requires_grad:
            result.sum().backward()
        with torch.no_grad():
            again = ops.affine(x.t(), 0.5)
        return x, y, z, rows, w, result, again, ops.affine(torch.ones(2), 2.0) * 2

    same(program, **settings)


@MODES
def test_custom_ops_of_the_python_decorator(settings):
    name = operators()

    @torch.library.custom_op(f"{name}::wave", mutates_args=())
    def wave(x: torch.Tensor, phase: float) -> torch.Tensor:
        return torch.from_numpy(x.numpy() + phase).sin()

    wave.register_autograd(
        lambda context, gradient: (gradient * context.saved_tensors[0].cos(), None),
        setup_context=lambda context, inputs, output: context.save_for_backward(inputs[0]),
    )

    @torch.library.custom_op(f"{name}::shift_", mutates_args=("x",))
    def shift(x: torch.Tensor, by: float) -> None:
        x.numpy()[...] += by

    def program():
        x = (torch.arange(4.0) * 0.5).requires_grad_()
        y = wave(x * 2, 0.1)
        (y * y).sum().backward()
        z = torch.ones(3) * 2
        shift(z, 0.5)
        view = z[1:]
        shift(view, 1.0)
        return x.grad, y, z, view, z * 2

    same(program, **settings)


@MODES
def test_composite_functions_and_backend_select(settings):
    def program():
        x = torch.randn(10) * 2
        return (
            torch.hann_window(8) * 2,
            torch.kaiser_window(8),
            torch.tril_indices(3, 3),
            torch.eye(3) * 2,
            torch.arange(5) + 1,
            torch.linspace(0, 1, 5) * 2,
            torch.logspace(0, 1, 5),
            torch.vander(x[:3]),
            torch.nn.functional.layer_norm(x, (10,)),
            torch.bartlett_window(7) + 1,
            x,
            torch.corrcoef(x.reshape(2, 5)),
            torch.cov(x.reshape(2, 5)),
            torch.block_diag(x[:1], x[1:2]),
        )

    same(program, **settings)


CPP = r"""
#include <torch/library.h>
#include <torch/csrc/autograd/custom_function.h>
#include <ATen/ATen.h>
namespace {
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;
at::Tensor pointers(const at::Tensor& x, const at::Tensor& y) {  // looks through const and plain pointers
  auto result = at::empty_like(x);
  const float* a = x.const_data_ptr<float>();
  const float* b = y.data_ptr<float>();
  float* c = result.mutable_data_ptr<float>();
  for (int64_t i = 0; i < x.numel(); ++i) c[i] = a[i] + 10 * b[i];
  return result;
}
at::Tensor ops(const at::Tensor& x) { return at::mul(x, 2).add_(1); }
void write_(at::Tensor& x) { x.mutable_data_ptr<float>()[0] = 42; }
double look(const at::Tensor& x) { return x.sum().item<double>() + x.const_data_ptr<float>()[1]; }
at::Tensor of_copies(const at::Tensor& x) {  // looks at what it has made
  auto doubled = x.mul(2).t().contiguous();
  auto result = at::empty_like(doubled);
  const float* a = doubled.const_data_ptr<float>();
  for (int64_t i = 0; i < x.numel(); ++i) result.mutable_data_ptr<float>()[i] = a[i] + 10;
  return result;
}
struct Scaled : Function<Scaled> {
  static at::Tensor scaled(const at::Tensor& x) {
    auto result = at::empty_like(x);
    for (int64_t i = 0; i < x.numel(); ++i)
      result.mutable_data_ptr<float>()[i] = 3 * x.const_data_ptr<float>()[i];
    return result;
  }
  static at::Tensor forward(AutogradContext*, const at::Tensor& x) { return scaled(x); }
  static variable_list backward(AutogradContext*, const variable_list& gradients) {
    return {scaled(gradients[0].contiguous())};
  }
};
}  // namespace
TORCH_LIBRARY(torchy_pointers, m) {
  m.def("anywhere", &pointers);  // for all devices, as far as torch knows
  m.def("of_copies", &of_copies);
  m.def("scaled", [](const at::Tensor& x) { return Scaled::apply(Scaled::apply(x)) * 2; });
  m.def("pointers(Tensor x, Tensor y) -> Tensor");
  m.def("ops(Tensor x) -> Tensor");
  m.def("look(Tensor x) -> float");
  m.def("write_(Tensor(a!) x) -> ()");
}
TORCH_LIBRARY_IMPL(torchy_pointers, CPU, m) {
  m.impl("pointers", &pointers);
  m.impl("write_", [](at::Tensor x) { write_(x); });
}
TORCH_LIBRARY_IMPL(torchy_pointers, CompositeExplicitAutograd, m) { m.impl("ops", &ops); }
TORCH_LIBRARY_IMPL(torchy_pointers, CPU, n) { n.impl("look", &look); }
"""


@pytest.fixture(scope="session")
def cpp_library(tmp_path_factory):
    """Compile custom ops that use raw pointers."""
    folder = tmp_path_factory.mktemp("cpp")
    source, library = folder / "pointers.cpp", folder / "pointers.so"
    source.write_text(CPP)
    home = Path(torch.__file__).parent
    command = [
        "g++",
        "-O1",
        "-std=c++20",
        "-fPIC",
        "-shared",
        f"-I{home}/include",
        f"-I{home}/include/torch/csrc/api/include",
        str(source),
        "-o",
        str(library),
        f"-L{home}/lib",
        "-ltorch_cpu",
        "-lc10",
        f"-Wl,-rpath,{home}/lib",
    ]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=200)
    except FileNotFoundError:
        pytest.skip("there is no C++ compiler")
    return str(library)


@MODES
@pytest.mark.parametrize("when", ["before", "after"])
def test_custom_ops_of_cpp_that_use_raw_pointers(settings, when, cpp_library):
    import torchy

    if when == "before":
        torch.ops.load_library(cpp_library)
    with torchy.lazy():
        (torch.ones(2) * 2).sum().item()
    torch.ops.load_library(cpp_library)
    ops = torch.ops.torchy_pointers

    def program():
        x, y = torch.arange(4.0) * 2, torch.ones(4) + 1
        a = ops.pointers(x, y)
        x.add_(1)
        b = ops.pointers(x[1:], (y * 3)[1:])
        c = ops.ops(x)
        ops.write_(x)
        view = x[2:]
        ops.write_(view)
        d = x * 2
        e = ops.anywhere(x * 3, y)
        f = ops.of_copies(torch.outer(x, y)) + ops.of_copies(torch.eye(4))
        w = torch.linspace(-1, 1, 4, requires_grad=True)
        (ops.scaled(w * 2) * x * 3).sum().backward()
        return x, y, a, b, c, view, d, e, f, w.grad, ops.look(x * 1), ops.look(a)

    same(program, **settings)


COLLECTIVES = """
import os, sys, torch, torch.distributed as dist
from torch import nn
import contextlib
rank, lazily = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method="file://" + sys.argv[3], rank=rank, world_size=2)

def program():
    torch.manual_seed(rank)
    seen = []
    x = torch.randn(6) * 2
    dist.all_reduce(x)
    seen.append(x + 1)
    y = torch.arange(4.0) * (rank + 1)
    dist.broadcast(y, 0)
    y.mul_(2)
    parts = [torch.zeros(3) * 1 for _ in range(2)]
    dist.all_gather(parts, torch.ones(3) * rank + 0.5)
    seen += [y, torch.stack(parts) * 2]
    work = dist.all_reduce(z := torch.ones(5) * (rank + 1), async_op=True)
    other = x * 3
    work.wait()
    seen += [z + other[:5]]
    out = torch.zeros(2) + 0
    dist.reduce_scatter(out, [torch.ones(2) * rank, torch.ones(2) * 2]) if dist.get_backend() != "gloo" else None
    if rank == 0:
        dist.send(torch.arange(3.0) * 7, 1)
    else:
        got = torch.zeros(3) + 0
        dist.recv(got, 0)
        seen.append(got + 1)
    things = [None, None]
    dist.all_gather_object(things, (torch.ones(2) * rank).tolist())
    seen.append(torch.tensor(things))
    torch.manual_seed(7)
    model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2)))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    torch.manual_seed(rank + 10)
    for _ in range(3):
        optimizer.zero_grad()
        loss = (model(torch.randn(6, 5) * 2) ** 2).mean()
        loss.backward()
        optimizer.step()
        seen.append(loss.detach())
    return seen + [p.detach() for p in model.parameters()] + [p.grad for p in model.parameters()]

expected = program()
import torchy
for settings in [{"mode": "pass_through"}, {"mode": "carry"}, {"compile": "always"}, {"compile": "never"}]:
    with torchy.lazy(**settings):
        seen = program()
    for i, (a, b) in enumerate(zip(expected, seen, strict=True)):
        if not torch.equal(a, b):
            raise SystemExit(f"rank {rank} {settings}: result {i} is {b}, not {a}")
dist.barrier()
dist.destroy_process_group()
print("equal", flush=True)
os._exit(0)  # where a process ends in order, gloo aborts it now and then, without Torchy too
"""


def test_collectives_and_distributed_data_parallel(tmp_path):
    script, store = tmp_path / "program.py", tmp_path / "store"
    script.write_text(textwrap.dedent(COLLECTIVES))
    root = str(Path(__file__).parents[2])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), root])
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), "lazily", str(store)],
            text=True,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(
        error for _, error in outputs
    )
    assert [out.strip() for out, _ in outputs] == ["equal", "equal"]
