"""Training: a step of fitting a network, from a line through points to two networks against each other."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.step import Step


def mlp() -> Step:
    """A training step of a small network, with Adam."""
    model = nn.Sequential(
        nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    x, target = torch.randn(128, 64), torch.randint(10, (128,))

    def step() -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), target)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.item()

    return step


def lstm() -> Step:
    """An LSTM by hand, forward and backward, over 60 steps of 32 sequences."""
    x = torch.randn(60, 32, 16)
    inner = torch.randn(16, 256, requires_grad=True)
    outer = torch.randn(64, 256, requires_grad=True)
    bias = torch.zeros(256, requires_grad=True)

    def step() -> float:
        h, c = torch.zeros(32, 64), torch.zeros(32, 64)
        for row in x:
            i, f, g, o = (row @ inner * 0.1 + h @ outer * 0.1 + bias).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        loss = h.square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for weight in (inner, outer, bias):
                assert weight.grad is not None
                weight -= 0.1 * weight.grad
                weight.grad = None
        return loss.item()

    return step


def adamw() -> Step:
    """AdamW by torch, over 200 small tensors."""
    weights = [torch.randn(32, 16, requires_grad=True) for _ in range(200)]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    optimizer = torch.optim.AdamW(weights, 1e-3)

    def step() -> float:
        optimizer.step()
        return weights[0].sum().item()

    return step


def conv_net() -> Step:
    """A training step of a small convolutional network, with SGD."""
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 64, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    x, target = torch.randn(32, 3, 32, 32), torch.randint(10, (32,))

    def step() -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), target)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.item()

    return step


def regression() -> Step:
    """A line through 400 noisy points, with SGD: an epoch of 8 batches."""
    x = torch.rand(400, 1)
    y = 2 * x + 1 + 0.1 * torch.randn(400, 1)
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def step() -> float:
        total = 0.0
        for i in range(0, len(x), 50):
            loss = F.mse_loss(model(x[i : i + 50]), y[i : i + 50])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item()
        return total / 8

    return step


def mlp_tiny() -> Step:
    """A network 2-16-16-1 on two moons of 500 points, with Adam and the accuracy."""
    angle = math.pi * torch.rand(500)
    label = torch.randint(0, 2, (500,)).float()
    x = torch.stack([torch.cos(angle), torch.sin(angle)], dim=1)
    x = torch.where(label[:, None] == 1, torch.tensor([1.0, 0.5]) - x, x)
    x += 0.2 * torch.randn_like(x)
    model = nn.Sequential(
        nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)
    )
    loss_fn = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def step() -> str:
        logits = model(x).squeeze(1)
        loss = loss_fn(logits, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        accuracy = ((logits > 0).float() == label).float().mean()
        return f"loss {loss.item():.6f}, accuracy {100 * accuracy.item():.1f}%"

    return step


def mlp_large() -> Step:
    """A network 784-1024-1024-10 with dropout on batches of 256 digits, with SGD and momentum."""
    prototypes = torch.rand(10, 784)
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 1024), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(1024, 1024), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(1024, 10),
    )  # fmt: skip
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step() -> tuple[float, int]:
        labels = torch.randint(10, (256,))
        images = (prototypes[labels] + torch.randn(256, 784)).view(-1, 1, 28, 28)
        optimizer.zero_grad(set_to_none=True)
        outputs = model(images)
        loss = criterion(outputs, labels)
        loss.backward()
        optimizer.step()
        _, predicted = torch.max(outputs.data, 1)
        return loss.item(), int((predicted == labels).sum().item())

    return step


class Vae(nn.Module):
    """A variational autoencoder of 784 pixels, 256 hidden and 16 latent units."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(784, 256)
        self.mean = nn.Linear(256, 16)
        self.log_var = nn.Linear(256, 16)
        self.decoder = nn.Sequential(nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 784))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the reconstruction's logits, and the code's mean and log variance."""
        h = F.relu(self.hidden(x))
        mean, log_var = self.mean(h), self.log_var(h)
        std = torch.exp(0.5 * log_var)
        code = mean + torch.randn_like(std) * std
        return self.decoder(code), mean, log_var


def vae() -> Step:
    """A variational autoencoder of 784 pixels on batches of 128, with Adam."""
    pictures = (torch.rand(20, 784) < 0.3).float() * 0.8 + 0.1
    model = Vae()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> tuple[float, float]:
        x = torch.bernoulli(pictures[torch.randint(20, (128,))])
        logits, mean, log_var = model(x)
        reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        divergence = -0.5 * torch.sum(1 + log_var - mean.pow(2) - log_var.exp())
        loss = (reconstruction + divergence) / len(x)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.item(), divergence.item() / len(x)

    return step


def pinn() -> Step:
    """A damped oscillator's equation solved by a network of 32 wide: double backward on 100 points."""
    model = nn.Sequential(
        nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    damping, stiffness = 0.5, 9.0

    def step() -> list[float]:
        t = (3 * torch.rand(100, 1)).requires_grad_(True)
        u = model(t)
        (du,) = torch.autograd.grad(u, t, torch.ones_like(u), create_graph=True)
        (d2u,) = torch.autograd.grad(du, t, torch.ones_like(du), create_graph=True)
        physics = torch.mean((d2u + damping * du + stiffness * u) ** 2)

        zero = torch.zeros(1, 1, requires_grad=True)
        u0 = model(zero)
        (v0,) = torch.autograd.grad(u0, zero, create_graph=True)
        boundary = (u0 - 1).square().squeeze() + 0.1 * v0.square().squeeze()

        loss = boundary + 1e-2 * physics
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return [loss.item(), physics.item(), boundary.item()]

    return step


def momentum() -> Step:
    """Momentum with weight decay by hand, on the 32 tensors of a network with 16 layers."""
    layers: list[nn.Module] = []
    for _ in range(15):
        layers += [nn.Linear(32, 32), nn.Tanh()]
    model = nn.Sequential(*layers, nn.Linear(32, 1))
    velocities = [torch.zeros_like(p) for p in model.parameters()]
    x = torch.randn(512, 32)
    y = torch.sin(x[:, :1] + x[:, 1:2])

    def step() -> float:
        rows = torch.randint(512, (64,))
        loss = ((model(x[rows]) - y[rows]) ** 2).mean()
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p, v in zip(model.parameters(), velocities, strict=True):
                assert p.grad is not None
                v.mul_(0.9).add_(p.grad + 1e-4 * p)
                p.sub_(0.01 * v)
        return float(loss.detach())

    return step


def gan() -> Step:
    """Two networks against each other over points on a ring of 8 Gaussians: two optimizers, batches of 128."""
    generator = nn.Sequential(
        nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)
    )
    critic = nn.Sequential(
        nn.Linear(2, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1)
    )
    of_generator = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999))
    of_critic = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.999))
    bce = nn.BCEWithLogitsLoss()
    ones, zeros = torch.ones(128, 1), torch.zeros(128, 1)

    def step() -> tuple[float, float, float]:
        angle = torch.randint(8, (128,)) * (2 * math.pi / 8)
        real = torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(128, 2)
        fake = generator(torch.randn(128, 8))

        of_critic.zero_grad()
        critic_loss = bce(critic(real), ones) + bce(critic(fake.detach()), zeros)
        critic_loss.backward()
        of_critic.step()

        of_generator.zero_grad()
        generator_loss = bce(critic(fake), ones)
        generator_loss.backward()
        of_generator.step()
        return critic_loss.item(), generator_loss.item(), fake.detach().norm(dim=1).mean().item()

    return step


def fine_tune() -> Step:
    """A new head on a frozen convolutional network, on batches of 32 small pictures, with Adam."""
    backbone = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
    )  # fmt: skip
    for parameter in backbone.parameters():
        parameter.requires_grad = False
    backbone.eval()
    head = nn.Sequential(nn.Linear(32 * 16, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 5))
    model = nn.Sequential(backbone, head)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-3)
    classes = torch.randn(5, 3, 32, 32)

    def step() -> tuple[float, float]:
        target = torch.randint(0, 5, (32,))
        pictures = classes[target] + 2 * torch.randn(32, 3, 32, 32)
        flip = torch.rand(32) < 0.5
        pictures[flip] = pictures[flip].flip(-1)
        optimizer.zero_grad()
        output = model(pictures)
        loss = F.nll_loss(F.log_softmax(output, dim=1), target)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        correct = output.argmax(dim=1).eq(target).sum()
        return loss.item(), correct.item() / 32

    return step


def distillation() -> Step:
    """A small network learns from a large one's soft answers as well as from labels, batches of 128."""
    teacher = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 10)).eval()
    student = nn.Sequential(nn.Linear(64, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 10))
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    temperature = 3.0

    def step() -> tuple[float, float]:
        x = 2 * torch.randn(128, 64)
        with torch.no_grad():
            answers = teacher(x)
            labels = (answers + 0.1 * torch.randn_like(answers)).argmax(dim=-1)
        logits = student(x)
        soft = F.kl_div(
            F.log_softmax(logits / temperature, dim=-1),
            F.softmax(answers / temperature, dim=-1),
            reduction="batchmean",
        )
        loss = 0.7 * soft * temperature**2 + 0.3 * F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        agree = (logits.argmax(-1) == answers.argmax(-1)).float().mean()
        return loss.item(), agree.item()

    return step


def schedule() -> Step:
    """A network with batch norm and residuals by SGD under OneCycleLR, with clipped gradients, batches of 64."""
    inner = nn.ModuleList(
        nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU()) for _ in range(4)
    )
    first, last = nn.Linear(20, 64), nn.Linear(64, 1)
    model = nn.ModuleList([first, inner, last])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, total_steps=5000)
    x = torch.randn(2048, 20)
    y = (x[:, 0] * x[:, 1] + x[:, 2].sin()).unsqueeze(1) + 0.1 * torch.randn(2048, 1)
    average = 1.0

    def step() -> tuple[float, float, float]:
        nonlocal average
        rows = torch.randperm(2048)[:64]
        h = F.relu(first(x[rows]))
        for block in inner:
            h = h + block(h)
        loss = F.smooth_l1_loss(last(h), y[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        optimizer.step()
        scheduler.step()
        average = 0.98 * average + 0.02 * loss.item()
        return average, float(norm), float(scheduler.get_last_lr()[0])

    return step
