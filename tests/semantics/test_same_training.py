"""Whole programs: optimizers, modules, training loops."""

import pytest
import torch
import torch.nn.functional as F
from sameness import program
from torch import nn

OPTIMIZERS = {
    "sgd": lambda p, **k: torch.optim.SGD(p, 0.1, **k),
    "momentum": lambda p, **k: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01, **k),
    "dampened": lambda p, **k: torch.optim.SGD(p, 0.1, momentum=0.9, dampening=0.5, maximize=True, **k),
    "adam": lambda p, **k: torch.optim.Adam(p, 0.01, **k),
    "amsgrad": lambda p, **k: torch.optim.Adam(p, 0.01, amsgrad=True, weight_decay=0.1, **k),
    "adamw": lambda p, **k: torch.optim.AdamW(p, 0.01, **k),
    "rmsprop": lambda p, **k: torch.optim.RMSprop(p, 0.01, momentum=0.5, centered=True, **k),
    "adagrad": lambda p, **k: torch.optim.Adagrad(p, 0.01, **k),
    "adadelta": lambda p, **k: torch.optim.Adadelta(p, **k),
    "adamax": lambda p, **k: torch.optim.Adamax(p, **k),
    "nadam": lambda p, **k: torch.optim.NAdam(p, **k),
    "radam": lambda p, **k: torch.optim.RAdam(p, **k),
    "rprop": lambda p, **k: torch.optim.Rprop(p, **k),
    "asgd": lambda p, **k: torch.optim.ASGD(p, **k),
}  # fmt: skip


def regression():
    """Return a small model and data."""
    return (
        nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1)),
        torch.randn(12, 5),
        torch.randn(12, 1),
    )


@program(times=2, slow=("never",))
@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer(name, foreach):
    model, x, y = regression()
    optimizer = OPTIMIZERS[name](model.parameters(), foreach=foreach)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return model, losses, optimizer


@program(times=2)
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "adagrad"])
def test_fused_optimizer(name):
    model, x, y = regression()
    optimizer = OPTIMIZERS[name](model.parameters(), fused=True)
    for _ in range(3):
        optimizer.zero_grad(set_to_none=False)
        F.mse_loss(model(x), y).backward()
        optimizer.step()
    return model, optimizer


@program(times=2)
def test_lbfgs_with_a_closure():
    model, x, y = regression()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5, line_search_fn="strong_wolfe")
    losses = []

    def closure():
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        losses.append(loss.item())
        return loss

    optimizer.step(closure)
    return model, losses


@program(times=2)
def test_capturable_and_sparse_adam():
    model, x, y = regression()
    optimizer = torch.optim.Adam(
        model.parameters(), lr=torch.tensor(0.01), capturable=False, foreach=False
    )
    embedding = nn.Embedding(5, 2, sparse=True)
    sparse = torch.optim.SparseAdam(embedding.parameters())
    for _ in range(3):
        F.mse_loss(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        embedding(torch.tensor([0, 2])).sum().backward()
        sparse.step()
        sparse.zero_grad()
    return model, embedding


@program(times=2)
def test_schedulers_clipping_and_averaging():
    model, x, y = regression()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=10)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    norms = []
    for _ in range(6):
        optimizer.zero_grad()
        F.mse_loss(model(x), y).backward()
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), 0.1))
        optimizer.step()
        scheduler.step()
        averaged.update_parameters(model)
    nn.utils.clip_grad_value_(model.parameters(), 0.001)
    return model, averaged.module, norms, scheduler.get_last_lr()


@program(times=2)
def test_gradient_accumulation_and_loss_scaling():
    model, x, y = regression()
    optimizer = torch.optim.Adam(model.parameters())
    scale, losses = 1024.0, []
    for step in range(6):
        loss = F.mse_loss(model(x[step : step + 4]), y[step : step + 4])
        (loss * scale / 2).backward()
        losses.append(loss.item())
        if step % 2:
            for parameter in model.parameters():
                parameter.grad.div_(scale)
            if all(torch.isfinite(parameter.grad).all() for parameter in model.parameters()):
                optimizer.step()
            optimizer.zero_grad()
    return model, losses


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width, heads):
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.heads = heads

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = (
            self.qkv(self.norms[0](x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        )
        scores = q @ k.mT / (width / self.heads) ** 0.5
        mask = torch.ones(length, length, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(mask, float("-inf")).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norms[1](x))


class Residual(nn.Module):
    """A convolutional block with batch norm."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.skip = nn.BatchNorm2d(4), nn.Conv2d(3, 4, 1)

    def forward(self, x):
        y = F.relu(self.norm(self.first(x)))
        y += self.second(y)
        return F.adaptive_avg_pool2d(F.relu(y + self.skip(x), inplace=True), 1).flatten(1)


class Recurrent(nn.Module):
    """Embedding, LSTM, GRU cell and head."""

    def __init__(self):
        super().__init__()
        self.embedding, self.lstm = (
            nn.Embedding(11, 6),
            nn.LSTM(6, 5, 2, batch_first=True, dropout=0.2),
        )
        self.cell, self.head = nn.GRUCell(5, 5), nn.Linear(5, 4)

    def forward(self, tokens):
        x, (h, c) = self.lstm(self.embedding(tokens))
        state = h[-1] + c[-1]
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        return self.head(state)


MODELS = {
    "mlp": lambda: (nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 4)), torch.randn(8, 6)),
    "batch norm": lambda: (nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.SiLU(), nn.Linear(8, 4)), torch.randn(8, 6)),
    "residual": lambda: (Residual(), torch.randn(4, 3, 6, 6)),
    "channels last": lambda: (Residual().to(memory_format=torch.channels_last),
                              torch.randn(4, 3, 6, 6).to(memory_format=torch.channels_last)),
    "transformer block": lambda: (nn.Sequential(Block(8, 2), Block(8, 2)), torch.randn(2, 5, 8)),
    "encoder layer": lambda: (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.randn(2, 5, 8)),
    "recurrent": lambda: (Recurrent(), torch.randint(11, (3, 7))),
    "gru": lambda: (nn.GRU(4, 3, bidirectional=True), torch.randn(5, 2, 4)),
    "attention": lambda: (nn.MultiheadAttention(8, 2, batch_first=True), torch.randn(2, 5, 8)),
    "group norm": lambda: (nn.Sequential(nn.Conv1d(4, 6, 3), nn.GroupNorm(2, 6), nn.ELU(),
                                         nn.ConvTranspose1d(6, 2, 3)), torch.randn(2, 4, 9)),
    "double": lambda: (nn.Sequential(nn.Linear(6, 8), nn.Softplus(), nn.Linear(8, 4)).double(),
                       torch.randn(3, 6).double()),
    "bfloat16": lambda: (nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4)).bfloat16(),
                         torch.randn(3, 6).bfloat16()),
    "spectral norm": lambda: (nn.utils.parametrizations.spectral_norm(nn.Linear(6, 4)), torch.randn(3, 6)),
    "weight norm": lambda: (nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), torch.randn(3, 6)),
}  # fmt: skip


def first_tensor(result):
    """Return the result itself, or the first of several."""
    return first_tensor(result[0]) if isinstance(result, tuple) else result


@program(times=2, slow=("never",))
@pytest.mark.parametrize("name", MODELS)
def test_model_in_training_and_evaluation(name):
    model, x = MODELS[name]()
    call = (lambda: model(x, x, x)) if name == "attention" else (lambda: model(x))
    optimizer, losses = torch.optim.Adam(model.parameters(), 0.01), []
    for _ in range(3):
        optimizer.zero_grad()
        y = first_tensor(call())
        loss = (y * torch.linspace(-1, 1, y.shape[-1]).to(y.dtype)).pow(2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        result = first_tensor(call())
    with torch.inference_mode():
        other = first_tensor(call())
    return model, losses, result, other + 0


LOSSES = {
    "mse": lambda y, t: F.mse_loss(y, t),
    "l1": lambda y, t: F.l1_loss(y, t),
    "huber": lambda y, t: F.huber_loss(y, t, delta=0.5),
    "smooth l1": lambda y, t: F.smooth_l1_loss(y, t, beta=0.3),
    "bce": lambda y, t: F.binary_cross_entropy(y.sigmoid(), t.sigmoid()),
    "bce logits": lambda y, t: F.binary_cross_entropy_with_logits(
        y, t.sigmoid(), pos_weight=torch.tensor(2.0) * 1
    ),
    "kl": lambda y, t: F.kl_div(y.log_softmax(1), t.softmax(1), reduction="batchmean"),
    "cross entropy": lambda y, t: F.cross_entropy(y, t.argmax(1), label_smoothing=0.1),
    "weighted": lambda y, t: F.cross_entropy(
        y, t.argmax(1), weight=torch.arange(5.0) + 1, ignore_index=2
    ),
    "soft targets": lambda y, t: F.cross_entropy(y, t.softmax(1)),
    "nll": lambda y, t: F.nll_loss(y.log_softmax(1), t.argmax(1), reduction="sum"),
    "gaussian": lambda y, t: F.gaussian_nll_loss(y, t, t.abs() + 0.1),
    "poisson": lambda y, t: F.poisson_nll_loss(y, t.abs()),
    "hinge": lambda y, t: F.hinge_embedding_loss(y, t.sign()),
    "margin": lambda y, t: F.multi_margin_loss(y, t.argmax(1)),
    "triplet": lambda y, t: F.triplet_margin_loss(y, t, t.flip(0)),
    "cosine": lambda y, t: F.cosine_embedding_loss(y, t, torch.ones(6)),
    "soft margin": lambda y, t: F.soft_margin_loss(y, t.sign()),
}


@program(times=2)
@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_its_gradient(name):
    x, t = torch.randn(6, 5, requires_grad=True), torch.randn(6, 5)
    loss = LOSSES[name](x * 2, t + 0.1)
    loss.backward()
    return loss, x


@program(times=2)
def test_running_statistics_are_written():
    norm, x = nn.BatchNorm1d(4, momentum=None), torch.randn(6, 4)
    mean = norm.running_mean[:2]
    seen = []
    for i in range(3):
        norm(x * (i + 1))
        seen.append(norm.running_var.clone())
    norm.eval()
    return norm, mean, seen, norm(x), norm.num_batches_tracked.item()


@program(times=2)
def test_the_model_changes_between_steps():
    model, x, y = regression()
    results = []
    for step in range(6):
        loss = F.mse_loss(model(x[: 4 + step]), y[: 4 + step]) + (model[0].weight ** 2).sum() * (
            step % 2
        )
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
                parameter.grad = None
        if step == 3:
            model[1] = nn.ReLU()
        results.append(loss)
    return model, results


@program(times=2)
def test_autocast():
    model, x, y = regression()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = model(x)
        w = (z @ z.t()) + 1
        loss = F.mse_loss(z.float(), y)
    loss.backward()
    return model, z, w, loss


@program(times=2)
def test_states_saved_and_restored_in_the_middle():
    model, x, y = regression()
    optimizer = torch.optim.Adam(model.parameters())
    states = []
    for step in range(5):
        optimizer.zero_grad()
        F.mse_loss(model(x), y).backward()
        optimizer.step()
        if step == 2:
            states = [{k: v.clone() for k, v in model.state_dict().items()}, optimizer.state_dict()]
    after = [parameter.detach().clone() for parameter in model.parameters()]
    model.load_state_dict(states[0])
    optimizer.load_state_dict(states[1])
    nn.utils.vector_to_parameters(
        nn.utils.parameters_to_vector(model.parameters()) * 0.5, model.parameters()
    )
    return model, optimizer, after
