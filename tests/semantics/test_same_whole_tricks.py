"""Rules 1, 3, 5 and 6 for training loops with the tricks of the trade: mixed precision, hooks, checkpoints, copies."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from sameness import program, quiet
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, centered=True, momentum=0.3),
}
SCHEDULERS = {
    "steps": lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.5),
    "plateau": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=0, factor=0.3),
    "warmup": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o,
        [
            torch.optim.lr_scheduler.LinearLR(o, 0.1, total_iters=2),
            torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
        ],
        [2],
    ),
    "cycle": lambda o: torch.optim.lr_scheduler.CyclicLR(o, 0.01, 0.1, 2, cycle_momentum=False),
}


def network():
    """Return a small network with dropout."""
    return nn.Sequential(
        nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Dropout(0.1), nn.Linear(8, 2)
    )


@program(times=2, recorded=True, slow=("never",))
@pytest.mark.parametrize("schedule", SCHEDULERS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_clipped_accumulated_and_scheduled(name, schedule):
    model, x, y = network(), torch.randn(12, 4), torch.randint(2, (12,))
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() == 1]
    optimizer = OPTIMIZERS[name]([{"params": decayed}, {"params": others, "weight_decay": 0.0}])
    scheduler = SCHEDULERS[schedule](optimizer)
    for step in range(8):
        part = slice(step % 4 * 3, step % 4 * 3 + 3)
        loss = F.cross_entropy(model(x[part]), y[part]) / 2
        loss.backward()
        if step % 2:
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step(*([loss] if schedule == "plateau" else []))
            print(f"{step} {loss:.9f} {norm:.9f} {optimizer.param_groups[0]['lr']}")
    return model, optimizer


@program(times=2, recorded=True)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_with_a_gradient_scaler(dtype):
    model, x, y = network(), torch.randn(6, 4), torch.randn(6, 2)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    scales = []
    for step in range(6):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=dtype):
            output = model(x)
            loss = F.mse_loss(output, y)
        scaler.scale(loss * (float("inf") if step == 3 else 1.0)).backward()
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        scales.append((scaler.get_scale(), norm, loss.detach(), output.dtype))
    return model, optimizer, scales, {k: str(v) for k, v in scaler.state_dict().items()}


@program(times=2, recorded=True)
def test_master_weights_of_a_bfloat16_model():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)).bfloat16()
    masters = [p.detach().clone().float().requires_grad_() for p in model.parameters()]
    optimizer = torch.optim.Adam(masters, 0.01)
    x, y = torch.randn(6, 4).bfloat16(), torch.randn(6, 1)
    losses = []
    for _ in range(4):
        loss = F.mse_loss(model(x).float(), y)
        loss.backward()
        for master, parameter in zip(masters, model.parameters(), strict=True):
            master.grad = parameter.grad.float()
            parameter.grad = None
        optimizer.step()
        with torch.no_grad():
            for master, parameter in zip(masters, model.parameters(), strict=True):
                parameter.copy_(master)
        losses.append(loss.item())
    return model, masters, losses


@program(times=2, recorded=True)
def test_hooks_of_every_kind_in_one_training_loop():
    seen = []
    model, x, y = network(), torch.randn(6, 4), torch.randn(6, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    first, last = model[0], model[4]

    def with_keywords(module, given, keywords, result):
        seen.append(("forward", type(module).__name__, len(keywords)))
        return result * 1.5

    handles = [
        first.register_forward_pre_hook(lambda m, given: (given[0] * 2,)),
        first.register_forward_hook(with_keywords, with_kwargs=True),
        last.register_forward_hook(
            lambda m, given, result: seen.append(result.sum()), prepend=True
        ),
        last.register_full_backward_pre_hook(lambda m, gradients: (gradients[0] * 0.5,)),
        last.register_full_backward_hook(lambda m, given, gradients: (given[0] + 1e-3,)),
        model.register_full_backward_hook(
            lambda m, given, gradients: seen.append(gradients[0].norm())
        ),
        first.weight.register_hook(lambda g: g.clamp(-0.1, 0.1)),
        first.bias.register_post_accumulate_grad_hook(lambda p: p.grad.mul_(0.5)),
        optimizer.register_step_pre_hook(
            lambda o, a, k: seen.append(first.weight.grad.abs().max())
        ),
        optimizer.register_step_post_hook(
            lambda o, a, k: seen.append(first.weight.detach().clone())
        ),
        nn.modules.module.register_module_forward_hook(lambda m, given, result: None),
    ]
    for step in range(4):
        optimizer.zero_grad()
        output = model(x)
        output.grad_fn.register_hook(
            lambda given, gradients: seen.append(gradients[0].mean().item())
        )
        output.grad_fn.register_prehook(lambda gradients: (gradients[0] * 2,))
        torch.autograd.graph.register_multi_grad_hook(
            (first.weight, last.weight), lambda gradients: seen.append([g.sum() for g in gradients])
        )
        F.mse_loss(output, y).backward()
        optimizer.step()
        if step == 2:
            for handle in handles:
                handle.remove()
    return model, seen


@program(times=2, recorded=True)
def test_hooks_of_state_dicts():
    model, seen = network(), []
    optimizer = torch.optim.Adam(model.parameters(), 0.01)

    def halved(module, state, prefix, metadata):
        state[prefix + "0.weight"] = state[prefix + "0.weight"] * 0.5

    model.register_state_dict_post_hook(halved)
    model.register_state_dict_pre_hook(lambda m, prefix, keep: seen.append(prefix))
    model.register_load_state_dict_pre_hook(
        lambda m, state, *rest: state.update({"0.bias": state["0.bias"] + 1})
    )
    model.register_load_state_dict_post_hook(lambda m, keys: seen.append(m[0].bias.sum()))
    optimizer.register_state_dict_post_hook(lambda o, state: state | {"extra": torch.ones(1) * 3})
    optimizer.register_load_state_dict_pre_hook(
        lambda o, state: seen.append(state["state"][0]["exp_avg"].norm())
    )
    for _ in range(2):
        model(torch.randn(3, 4)).sum().backward()
        optimizer.step()
    states = model.state_dict(), optimizer.state_dict()
    model.load_state_dict(states[0])
    optimizer.load_state_dict({k: v for k, v in states[1].items() if k != "extra"})
    return model, optimizer, seen, states[0], states[1]["extra"]


@program(times=2, recorded=True)
def test_an_optimizer_step_within_backward():
    model, x, y = network(), torch.randn(6, 4), torch.randn(6, 2)
    optimizers = {p: torch.optim.Adam([p], 0.01) for p in model.parameters()}

    def step(parameter):
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(step)
    losses = []
    for _ in range(4):
        loss = F.mse_loss(model(x), y)
        loss.backward()
        losses.append(loss.detach())
    return model, losses, list(optimizers.values())


@program(times=2, recorded=True)
@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_in_a_training_loop(reentrant):
    blocks = nn.ModuleList(network()[:4] for _ in range(2))
    head = nn.Linear(8, 2)
    between = nn.Linear(8, 4)
    parameters = [*blocks.parameters(), *between.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, 0.01)
    x, y, losses = torch.randn(6, 4), torch.randn(6, 2), []
    for _ in range(4):
        h = x.clone().requires_grad_()
        h = between(checkpoint(blocks[0], h, use_reentrant=reentrant))
        h = checkpoint(lambda t: F.dropout(blocks[1](t), 0.5), h, use_reentrant=reentrant)
        loss = F.mse_loss(head(h), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return blocks, between, head, losses


@program(times=2, recorded=True)
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_segments_under_autocast(reentrant):
    model = nn.Sequential(
        *(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.2), nn.Tanh()) for _ in range(4))
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(3):
        x = torch.randn(5, 4, requires_grad=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = checkpoint_sequential(model, 2, x * 2, use_reentrant=reentrant)
        optimizer.zero_grad()
        y.float().pow(2).sum().backward()
        optimizer.step()
    return model, x, y


@program(times=2, recorded=True)
def test_a_gradient_penalty_in_training():
    critic = nn.Sequential(nn.Linear(2, 8), nn.Softplus(), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(critic.parameters(), 0.01, betas=(0.0, 0.9))
    history = []
    for _ in range(4):
        real, fake = torch.randn(6, 2) + 1, torch.randn(6, 2)
        mix = torch.rand(6, 1)
        between = (mix * real + (1 - mix) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        penalty = 10 * (slope.norm(2, dim=1) - 1).square().mean()
        loss = critic(fake).mean() - critic(real).mean() + penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append((loss.detach(), penalty.item()))
    return critic, history


@program(times=2, recorded=True)
def test_learning_to_learn_through_an_inner_step():
    model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        for phase in (0.0, 1.0):
            x = torch.linspace(-2, 2, 8)[:, None]
            y = (x + phase).sin()
            fast = dict(model.named_parameters())
            for _ in range(2):
                inner = F.mse_loss(torch.func.functional_call(model, fast, x), y)
                gradients = torch.autograd.grad(inner, list(fast.values()), create_graph=True)
                fast = {k: p - 0.1 * g for (k, p), g in zip(fast.items(), gradients, strict=True)}
            outer = F.mse_loss(torch.func.functional_call(model, fast, x + 0.1), y)
            outer.backward()
            losses.append(outer.item())
        optimizer.step()
    return model, losses


class Quantized(torch.autograd.Function):
    """Nearest code of a book: a straight-through gradient, and indices without one."""

    @staticmethod
    def forward(context, x, book):
        index = torch.cdist(x, book).argmin(1)
        context.save_for_backward(index, book)
        context.mark_non_differentiable(index)
        context.set_materialize_grads(False)
        return book[index], index

    @staticmethod
    def backward(context, gradient, _):
        index, book = context.saved_tensors
        return gradient, torch.zeros_like(book).index_add(0, index, gradient)


class Normalized(torch.autograd.Function):
    """Scales its operand in place; keeps an intermediate result; has a second derivative."""

    @staticmethod
    def forward(context, x):
        scale = x.detach().square().mean(1, keepdim=True).add(1e-5).rsqrt()
        context.mark_dirty(x)
        x.mul_(scale)
        context.save_for_backward(x, scale)
        return x

    @staticmethod
    def backward(context, gradient):
        y, scale = context.saved_tensors
        return scale * (gradient - y * (gradient * y).mean(1, keepdim=True))


@program(times=2, recorded=True)
def test_custom_functions_in_training():
    encoder, decoder = nn.Linear(4, 3), nn.Linear(3, 4)
    book = nn.Parameter(torch.randn(5, 3))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters(), book], 0.02)
    x, history = torch.randn(10, 4), []
    for _ in range(4):
        z = Normalized.apply(encoder(x) * 1)
        code, index = Quantized.apply(z, book)
        loss = F.mse_loss(decoder(code), x) + F.mse_loss(z, code.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append((loss.detach(), index, index.requires_grad))
    return encoder, decoder, book, history


@program(times=2, recorded=True)
def test_parametrizations_in_training():
    class Symmetric(nn.Module):
        def forward(self, weight):
            return weight.triu() + weight.triu(1).mT

        def right_inverse(self, weight):
            return weight.triu()

    model = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(4, 4)),
        parametrizations.spectral_norm(nn.Linear(4, 4)),
        parametrizations.orthogonal(nn.Linear(4, 4)),
        parametrizations.orthogonal(nn.Linear(4, 4), orthogonal_map="cayley"),
        nn.Linear(4, 4),
    )
    parametrize.register_parametrization(model[4], "weight", Symmetric())
    optimizer, losses = torch.optim.Adam(model.parameters(), 0.02), []
    x, y = torch.randn(6, 4), torch.randn(6, 4)
    for _ in range(3):
        with parametrize.cached():
            loss = F.mse_loss(model(x), y) + model[2].weight.sum() * 0.01
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    model[4].weight = torch.eye(4) * 2
    orthogonal = model[2].weight.detach().clone()
    parametrize.remove_parametrizations(model[0], "weight")
    model.eval()
    return model, losses, orthogonal, model(x)


@program(times=2, recorded=True)
def test_pruning_in_training():
    from torch.nn.utils import prune

    model, x, y = network(), torch.randn(6, 4), torch.randn(6, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    prune.l1_unstructured(model[0], "weight", amount=0.4)
    prune.random_structured(model[4], "weight", amount=2, dim=1)
    for _ in range(3):
        optimizer.zero_grad()
        F.mse_loss(model(x), y).backward()
        optimizer.step()
    sparsity = (model[0].weight == 0).float().mean().item()
    prune.remove(model[0], "weight")
    return model, sparsity


def steps(model, optimizer, x, y, count):
    """Train for some steps; return the losses."""
    losses = []
    for _ in range(count):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


@program(times=2, recorded=True)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_run_is_saved_and_resumed(legacy):
    model, x, y = network(), torch.randn(6, 4), torch.randn(6, 2)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    steps(model, optimizer, x, y, 3)
    stream = io.BytesIO()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "data": (x[:3], x),
    }
    torch.save(state, stream, _use_new_zipfile_serialization=not legacy)
    on = steps(model, optimizer, x, y, 3)
    stream.seek(0)
    loaded = torch.load(stream, weights_only=True)
    resumed = network()
    resumed.load_state_dict(loaded["model"])
    again = torch.optim.Adam(resumed.parameters(), 0.5)
    again.load_state_dict(loaded["optimizer"])
    torch.set_rng_state(loaded["random"])
    repeated = steps(resumed, again, *(loaded["data"][1], y), 3)
    print([torch.equal(a, b) for a, b in zip(on, repeated, strict=True)])
    return model, resumed, on, repeated, loaded["data"]


@program(times=2, recorded=True)
def test_parameters_are_assigned_and_mapped_from_a_file():
    import tempfile

    model, x, y = network(), torch.randn(6, 4), torch.randn(6, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    steps(model, optimizer, x, y, 2)
    with tempfile.NamedTemporaryFile() as file:
        torch.save(model.state_dict(), file.name)
        with torch.device("meta"):
            empty = network()
        empty.load_state_dict(torch.load(file.name, mmap=True), assign=True)
        losses = steps(empty, torch.optim.SGD(empty.parameters(), 0.1), x, y, 2)
        return model, empty, losses


@program(times=2, recorded=True)
def test_a_copy_in_the_midst_of_training_goes_its_own_way():
    model, x, y = network(), torch.randn(6, 4), torch.randn(6, 2)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    steps(model, optimizer, x, y, 2)
    F.mse_loss(model(x), y).backward()
    twin, other = copy.deepcopy((model, optimizer))
    shallow = copy.copy(model)
    thawed = pickle.loads(pickle.dumps(model))
    steps(twin, other, x * 2, y, 2)
    steps(model, optimizer, x, y, 2)
    return model, twin, shallow, thawed, optimizer, other


@program(times=2, recorded=True)
def test_averaged_models():
    from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn, update_bn

    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    x, y = torch.randn(12, 4), torch.randn(12, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    smooth = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    mean = AveragedModel(model)
    lively = AveragedModel(model, avg_fn=lambda average, new, count: 0.5 * (average + new))
    schedule = SWALR(optimizer, swa_lr=0.05, anneal_epochs=2)
    for _ in range(4):
        steps(model, optimizer, x, y, 1)
        schedule.step()
        for average in (smooth, mean, lively):
            average.update_parameters(model)
    update_bn([x[:6], x[6:]], mean)
    mean.eval()
    return model, smooth, mean, lively, mean(x)


@program(times=2, recorded=True)
def test_lbfgs_fits_a_curve():
    x = torch.linspace(0, 3, 20)
    y = 2.5 * torch.exp(-1.3 * x) + 0.5 + 0.01 * torch.randn(20)
    a, b, c = (torch.tensor(v, requires_grad=True) for v in (1.0, 1.0, 0.0))
    optimizer = torch.optim.LBFGS([a, b, c], max_iter=8, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = (a * torch.exp(-b * x) + c - y).square().sum()
        loss.backward()
        return loss

    losses = [optimizer.step(closure) for _ in range(3)]
    print(a, b, c)
    return a, b, c, losses


@program(times=2, recorded=True)
def test_anomalies_are_found_where_eager_finds_them():
    w = torch.zeros(3, requires_grad=True)
    with quiet(), torch.autograd.detect_anomaly():
        y = (w * 2).sqrt() * 0
        y.sum().backward()
    return w
