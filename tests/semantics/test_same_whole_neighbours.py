"""Rules 1, 3, 4 and 6 for programs whose regions also use jit, compile, sparse, quantized, nested or complex tensors."""

import io
import logging

import pytest
import torch
import torch.nn.functional as F
from sameness import program, quiet
from torch import Tensor, nn


def gate():
    """Return a scripted module with data-dependent control flow.

    Of a class of its own: after a few calls a scripted class is compiled anew, and rounds differently.
    """

    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.count = 0

        def forward(self, x: Tensor, times: int) -> Tensor:
            for _ in range(times):
                if bool(x.sum() > 0):
                    x = torch.tanh(self.linear(x))
                else:
                    x = x.abs() + 0.5
                self.count += 1
            return x

    return torch.jit.script(Gate())


@program(times=2, recorded=True)
def test_a_scripted_module_is_trained():
    with quiet():
        model = gate()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    x, y, losses = torch.randn(5, 4) * 2, torch.randn(5, 4) + 0.1, []
    for step in range(6):
        loss = F.mse_loss(model(x * (step - 2), 3), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    stream = io.BytesIO()
    with quiet():
        torch.jit.save(model, stream)
        stream.seek(0)
        loaded = torch.jit.load(stream)
    return [p + 0 for p in model.parameters()], losses, loaded(x + 1, 2), model.count, loaded.count


@program(times=2, recorded=True)
def test_a_traced_and_frozen_module_is_used():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)
    )
    x = torch.randn(3, 1, 4, 4) * 2
    with quiet():
        traced = torch.jit.trace(model.eval(), (x,))
        frozen = torch.jit.freeze(traced)
        results = []
        for step in range(4):
            images = x * step + 0.5
            results.append(traced(images) - frozen(images + 0) + frozen(images).sum())
            images.add_(1)
            results.append(images.clone())
        kinds = [node.kind() for node in traced.inlined_graph.nodes()]
    return results, kinds


@torch.jit.ignore
def looked_at(x: Tensor) -> float:
    """Look at a value in Python, from TorchScript."""
    return float(x.sum().item())


def mixed(x: Tensor, cache: list[Tensor], table: dict[str, Tensor]) -> tuple[Tensor, float]:
    """Write to its operands, keep tensors in containers, fork, and call Python."""
    future = torch.jit.fork(torch.add, x * 3, 1)
    x.mul_(2)
    cache.append(x[1:] + table["bias"])
    table["last"] = cache[-1].relu()
    total = looked_at(table["last"])
    return torch.jit.wait(future) + x, total


@program(times=2, recorded=True)
def test_a_scripted_function_writes_to_pending_operands():
    with quiet():
        scripted = torch.jit.script(mixed)
    x, cache, table, seen = torch.arange(4.0) * 2, [], {"bias": torch.ones(3) * 0.5}, []
    view = x[::2]
    for _ in range(3):
        z, total = scripted(x.clone(), cache, table)
        y, more = scripted(view.repeat(2), cache, table)
        x.add_(1)
        seen += [z * 2, total, y, more]
    return x, view, seen, len(cache), table["bias"]


@program(times=2, recorded=True, slow=("never",))
@pytest.mark.seconds(120)
@pytest.mark.parametrize(
    "backend",
    ["eager", "aot_eager", pytest.param("aot_eager_decomp_partition", marks=pytest.mark.slow)],
)
def test_a_compiled_model_is_trained(backend):
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 2))
    compiled = torch.compile(model, backend=backend)
    optimizer, losses = torch.optim.AdamW(model.parameters(), 0.01), []
    x, y = torch.randn(6, 4) * 2, torch.randn(6, 2)
    for step in range(5):
        loss = F.mse_loss(compiled(x + step), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        last = compiled(x[:3] * 2)
    return model, losses, last


@program(times=2, recorded=True)
def test_a_compiled_function_breaks_its_graph_and_writes():
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)  # what it logs has the time
    torch._dynamo.reset()
    graphs = []

    def backend(module, given):
        graphs.append(len(given))
        return module.forward

    @torch.compile(backend=backend)
    def step(state, x):
        state.mul_(0.9).add_(x)
        if state.sum() > 10:
            state = state / 2
        print(f"{state.sum().item():.6f}")
        state[0] = x[-1]
        return state.sin() + 1

    state, results = torch.zeros(4) + 1, []
    for i in range(5):
        results.append(step(state, torch.arange(4.0) * i))
        state = state * 1.5
    return state, results, len(graphs)


@program(times=1, recorded=True)
@pytest.mark.slow
@pytest.mark.seconds(240)
def test_a_function_compiled_by_inductor_reads_and_writes_pending_tensors():
    torch._dynamo.reset()

    @torch.compile
    def kernel(x, y):
        x.add_(y)
        return (x * 2 + y).floor()

    x, y = torch.arange(8.0) * 0.5, torch.ones(8) * 3
    view, seen = x[2:], []
    for i in range(3):
        z = kernel(x, y * i)
        view.sub_(1)
        seen.append(z + view.sum())
    return x, view, y, seen


@program(times=2, recorded=True)
def test_an_exported_program_is_called():
    with quiet():
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
        x = torch.randn(2, 3) * 2
        exported = torch.export.export(model, (x,))
        module = exported.module()
        return module(x + 1), module(x.flip(0)), exported.state_dict, x


@program(times=2, recorded=True)
def test_a_graph_network_on_a_sparse_adjacency():
    edges = torch.tensor([[0, 1, 1, 2, 3, 4, 4], [1, 0, 2, 1, 4, 3, 0]])
    weights = nn.Parameter(torch.rand(7))
    first, second = nn.Linear(3, 4), nn.Linear(4, 2)
    x, y = torch.randn(5, 3) * 2, torch.tensor([0, 1, 0, 1, 0])
    optimizer = torch.optim.Adam([weights, *first.parameters(), *second.parameters()], 0.02)
    losses = []
    for _ in range(4):
        adjacency = torch.sparse_coo_tensor(edges, weights.sigmoid(), (5, 5)).coalesce()
        h = torch.sparse.mm(adjacency, first(x)).relu()
        logits = adjacency @ second(h) + second(h)
        loss = F.cross_entropy(logits, y) + 1e-3 * torch.sparse.sum(adjacency * adjacency)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    softened = torch.sparse.softmax(adjacency.detach(), 1)
    return weights, first, second, losses, adjacency.detach(), softened, softened.to_dense() * 2


@program(times=2, recorded=True)
@pytest.mark.filterwarnings("ignore")
def test_power_iteration_with_a_matrix_in_csr():
    with quiet():
        dense = torch.rand(6, 6) * (torch.rand(6, 6) > 0.5)
        matrix = (dense + dense.t()).to_sparse_csr()
    v = torch.ones(6)
    for _ in range(6):
        w = matrix @ v
        v = w / w.norm()
    product = matrix @ torch.stack([v, v * 2], 1)
    csc = matrix.to_sparse_csc()
    return (
        v,
        product,
        matrix.values() * 2,
        matrix.to_dense(),
        csc,
        torch.addmm(dense, matrix, dense),
    )


@program(times=2, recorded=True)
def test_gradients_through_a_matrix_in_csr():
    with quiet():
        dense = torch.randn(4, 4) * (torch.rand(4, 4) > 0.4)
        matrix = dense.to_sparse_csr().requires_grad_()
    x = torch.randn(4, 2, requires_grad=True)
    for _ in range(2):
        y = (matrix @ (x * 2)).tanh()
        y.sum().backward()
    return x, y, matrix.grad.to_dense(), matrix.detach().to_dense()


@program(times=2, recorded=True)
def test_a_sparse_tensor_grows_and_is_written():
    total = torch.sparse_coo_tensor(torch.zeros(2, 0, dtype=torch.long), torch.zeros(0), (4, 4))
    dense = torch.zeros(4, 4) + 1
    for step in range(4):
        index = torch.randint(4, (2, 3))
        total = total + torch.sparse_coo_tensor(index, torch.ones(3) * step, (4, 4))
        dense += total
        dense.add_(total, alpha=0.5)
        total = total.coalesce()
        total.values().mul_(0.5)
    masked = dense.sparse_mask(total)
    return total, dense, masked, total.to_dense() * 2, (dense * 2).to_sparse(), total.t() @ dense


@program(times=2, recorded=True)
def test_a_model_is_quantized_dynamically():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    x = torch.randn(6, 4)
    for _ in range(2):
        optimizer.zero_grad()
        model(x).pow(2).mean().backward()
        optimizer.step()
    with quiet():
        small = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
        result = small(x * 2)
        return (
            result,
            small(result.repeat(1, 2)),
            [w.int_repr() for w in (small[0].weight(),)],
            model,
        )


@program(times=2, recorded=True)
def test_a_model_is_quantized_after_calibration():
    with quiet():
        model = torch.ao.quantization.QuantWrapper(
            nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
        ).eval()
        model.qconfig = torch.ao.quantization.get_default_qconfig("fbgemm")
        prepared = torch.ao.quantization.prepare(model)
        for step in range(3):
            prepared(torch.randn(2, 1, 4, 4) * (step + 1))
        converted = torch.ao.quantization.convert(prepared)
        x = torch.randn(2, 1, 4, 4) * 2
        q = torch.quantize_per_tensor(x, 0.05, 10, torch.quint8)
        added = torch.ops.quantized.add(q, q, 0.1, 5)
        return converted(x), added, added.dequantize() * 2, q[0].clone()


@program(times=2, recorded=True)
def test_training_aware_of_quantization():
    with quiet():
        model = nn.Sequential(torch.ao.quantization.QuantStub(), nn.Linear(4, 4), nn.ReLU())
        model.qconfig = torch.ao.quantization.get_default_qat_qconfig("fbgemm")
        prepared = torch.ao.quantization.prepare_qat(model.train())
        optimizer = torch.optim.SGD(prepared.parameters(), 0.1)
        losses = []
        for _ in range(3):
            loss = prepared(torch.randn(3, 4)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return losses, [p + 0 for p in prepared.parameters()], [b + 0 for b in prepared.buffers()]


@program(times=2, recorded=True)
def test_attention_over_jagged_tensors_in_training():
    projection = nn.Linear(4, 12)
    optimizer = torch.optim.SGD(projection.parameters(), 0.1)
    parts = [torch.randn(n, 4) * 2 for n in (3, 1, 4)]
    losses = []
    with quiet():
        for _ in range(2):
            batch = torch.nested.nested_tensor([p + 0 for p in parts], layout=torch.jagged)
            q, k, v = projection(batch).chunk(3, -1)
            q, k, v = (t.unflatten(-1, (2, 2)).transpose(1, 2) for t in (q, k, v))
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            loss = y.values().square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        padded = torch.nested.to_padded_tensor(batch.sin() * 2, 0.0)
        pieces = [piece + 1 for piece in (batch * 2).unbind()]
        joined = torch.nested.nested_tensor_from_jagged(
            torch.cat(parts) * 3, torch.tensor([0, 2, 8])
        )
        sums = joined.sum(1)
    return projection, losses, padded, pieces, sums


@program(times=2, recorded=True)
def test_strided_nested_tensors():
    with quiet():
        batch = torch.nested.nested_tensor([torch.arange(3.0) * 2, torch.ones(2) + 1])
        doubled = batch * 2 + batch
        padded = doubled.to_padded_tensor(-1.0)
        back = torch.nested.as_nested_tensor([padded[0] * 2, padded[1, :1]])
        layer = nn.Linear(2, 3)
        rows = torch.nested.nested_tensor([torch.randn(2, 2) * 2, torch.randn(1, 2)])
        y = layer(rows).relu()
        parts = [part + 0 for t in (back, doubled, y) for part in t.unbind()]
    return padded, parts


@program(times=2, recorded=True)
def test_a_complex_filter_is_learned():
    n = 16
    signal = torch.sin(torch.arange(n) * 0.7) + 0.3 * torch.randn(n)
    wanted = torch.sin(torch.arange(n) * 0.7)
    gains = torch.ones(n // 2 + 1, dtype=torch.complex64, requires_grad=True)
    optimizer, losses = torch.optim.Adam([gains], 0.1), []
    for _ in range(5):
        filtered = torch.fft.irfft(torch.fft.rfft(signal) * gains, n)
        loss = (filtered - wanted).square().mean() + 1e-3 * gains.abs().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    parts = torch.view_as_real(gains.detach() * 1j)
    parts[:, 0] += 1
    rotated = torch.polar(gains.detach().abs(), gains.detach().angle() + 0.5)
    return gains, losses, parts, rotated, gains.detach().conj() @ rotated, rotated.imag.mul_(2)


@program(times=2, recorded=True)
def test_a_quantum_circuit_of_complex_gates():
    state = torch.zeros(4, dtype=torch.complex64)
    state[0] = 1
    angle = torch.tensor(0.3, requires_grad=True)
    hadamard = torch.tensor([[1, 1], [1, -1]], dtype=torch.complex64) / 2**0.5
    swap = torch.eye(4, dtype=torch.complex64)[[0, 1, 3, 2]]
    for _ in range(3):
        phase = torch.stack([torch.exp(-0.5j * angle), torch.exp(0.5j * angle)])
        state = torch.kron(hadamard, torch.diag(phase)) @ state
        state = swap @ state
        state = state / state.abs().square().sum().sqrt()
    energy = (state.conj() * torch.arange(4) * state).real.sum()
    energy.backward()
    print(state.detach(), energy)
    return state.detach(), energy, angle


@torch.jit.script
def worded(x: Tensor) -> tuple[str, list[float], list[int]]:
    """Turn values into text and numbers, in C++."""
    numbers: list[float] = x.tolist()
    steps: list[int] = []
    for i in range(int(x.sum())):
        steps.append(i)
    return f"{x + 1} {x.sum()}", numbers, steps


@program(recorded=True)
def test_values_are_written_out_by_torchscript():
    x = torch.arange(4.0) * 2
    factor, scale = x * 7, torch.tensor(3.0) * 2
    with quiet():
        traced = torch.jit.trace(lambda t: t * factor + scale, (x,))
        stream = io.BytesIO()
        factor.mul_(2)
        torch.jit.save(traced, stream)
        stream.seek(0)
        loaded = torch.jit.load(stream)
    return worded(x + 1), str(traced.graph).count("\n"), traced(x), loaded(x + 1), x
