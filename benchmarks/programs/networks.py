"""Pieces of networks, written out by hand or called from torch.nn, forward and sometimes backward."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.step import Step


def attention() -> Step:
    """Attention by hand: 8 heads over 512 tokens."""
    q, k, v = (torch.randn(8, 512, 64) for _ in range(3))

    def step() -> float:
        scores = q @ k.transpose(1, 2) * 64**-0.5
        weights = (scores - scores.amax(-1, keepdim=True)).exp()
        weights = weights / weights.sum(-1, keepdim=True)
        return float((weights @ v).sum().item())

    return step


def layer_norm() -> Step:
    """A layer norm by hand over 8192 rows of 512."""
    x, weight, bias = torch.randn(8192, 512), torch.randn(512), torch.randn(512)

    def step() -> float:
        centred = x - x.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + 1e-5).rsqrt()
        return (centred * scale * weight + bias).sum().item()

    return step


def softmax() -> Step:
    """A softmax by hand over 4096 rows of 1000."""
    x = torch.randn(4096, 1000)

    def step() -> float:
        shifted = (x - x.amax(1, keepdim=True)).exp()
        return (shifted / shifted.sum(1, keepdim=True)).std().item()

    return step


def activations() -> Step:
    """Activations on 1024 x 1024, by hand and by torch, compared."""
    x = 2 * torch.randn(1024, 1024)

    def step() -> list[tuple[bool, float]]:
        pairs = [
            (torch.where(x > 0, x, 0.01 * x), F.leaky_relu(x)),
            (x * torch.sigmoid(x), F.silu(x)),
            (x * torch.tanh(torch.log1p(torch.exp(x))), F.mish(x)),
            (0.5 * x * (1 + torch.erf(x / math.sqrt(2))), F.gelu(x)),
            (torch.where(x > 0, x, torch.exp(x) - 1), F.elu(x)),
            (torch.clamp(x / 6 + 0.5, 0, 1) * x, F.hardswish(x)),
        ]
        return [
            (torch.allclose(mine, theirs, atol=1e-5), theirs.mean().item())
            for mine, theirs in pairs
        ]

    return step


def rms_rotary() -> Step:
    """RMS norm, projections and rotary embedding of 4 x 256 tokens with 8 heads of 32."""
    x = torch.randn(4, 256, 256)
    gain = torch.ones(256)
    to_q, to_k = (torch.randn(256, 256) / 16 for _ in range(2))
    frequency = 10_000 ** (-torch.arange(0, 32, 2) / 32)
    angle = torch.arange(256)[:, None] * frequency
    cos, sin = angle.cos(), angle.sin()

    def rms_norm(x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * gain

    def rotate(x: Tensor) -> Tensor:
        even, odd = x[..., ::2], x[..., 1::2]
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)

    def step() -> tuple[float, float]:
        h = rms_norm(x)
        q, k = (rotate((h @ w).view(4, 256, 8, 32).transpose(1, 2)) for w in (to_q, to_k))
        near = (q[:, :, 1:] * k[:, :, :-1]).sum(-1) / math.sqrt(32)
        return near.mean().item(), near.max().item()

    return step


def losses() -> Step:
    """Focal, Huber, KL and label-smoothed losses by hand on 512 x 100, with their gradients."""
    target = torch.randint(100, (512,))
    teacher = torch.randn(512, 100).softmax(-1)
    logits = torch.randn(512, 100, requires_grad=True)

    def focal(logits: Tensor, gamma: float = 2.0) -> Tensor:
        log_p = F.log_softmax(logits, dim=-1).gather(1, target[:, None]).squeeze(1)
        return -((1 - log_p.exp()) ** gamma * log_p).mean()

    def huber(logits: Tensor, delta: float = 1.0) -> Tensor:
        error = (logits - teacher.log()).abs()
        return torch.where(error < delta, 0.5 * error**2, delta * (error - 0.5 * delta)).mean()

    def kl(logits: Tensor) -> Tensor:
        log_q = logits - torch.logsumexp(logits, dim=-1, keepdim=True)
        return (teacher * (teacher.log() - log_q)).sum(-1).mean()

    def smoothed(logits: Tensor, smoothing: float = 0.1) -> Tensor:
        log_p = logits.log_softmax(-1)
        truth = F.one_hot(target, 100) * (1 - smoothing) + smoothing / 100
        return -(truth * log_p).sum(-1).mean()

    def step() -> list[float]:
        found: list[float] = []
        for loss_of in (focal, huber, kl, smoothed):
            loss = loss_of(logits)
            (slope,) = torch.autograd.grad(loss, logits)
            found += [loss.item(), slope.norm().item()]
        return found

    return step


def batch_norm() -> Step:
    """Batch norm by hand with running statistics, and ReLU, on feature maps 32 x 64 x 28 x 28."""
    gamma, beta = torch.ones(1, 64, 1, 1), torch.zeros(1, 64, 1, 1)
    running_mean, running_var = torch.zeros(64), torch.ones(64)
    x = 3 * torch.randn(32, 64, 28, 28) + 1

    def step() -> tuple[float, float]:
        nonlocal running_mean, running_var
        mean = x.mean(dim=(0, 2, 3), keepdim=True)
        var = ((x - mean) ** 2).mean(dim=(0, 2, 3), keepdim=True)
        y = F.relu(gamma * (x - mean) / torch.sqrt(var + 1e-5) + beta)
        running_mean = 0.9 * running_mean + 0.1 * mean.squeeze()
        running_var = 0.9 * running_var + 0.1 * var.squeeze()
        return y.mean().item(), running_var.mean().item()

    return step


def contrastive() -> Step:
    """InfoNCE on two noisy views of 128 rows: cosine similarities, loss, accuracy, and a step of descent."""
    rows = torch.randn(1024, 64)
    weight = (torch.randn(64, 32) / 8).requires_grad_()

    def step() -> tuple[float, float]:
        batch = rows[torch.randint(len(rows), (128,))]
        first, second = (
            F.normalize((batch + 0.5 * torch.randn_like(batch)) @ weight, dim=1) for _ in range(2)
        )
        similarity = first @ second.T / 0.1
        truth = torch.arange(128)
        loss = (F.cross_entropy(similarity, truth) + F.cross_entropy(similarity.T, truth)) / 2
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            assert weight.grad is not None
            weight.sub_(0.1 * weight.grad)
            weight.grad.zero_()
        accuracy = (similarity.argmax(1) == truth).float().mean()
        return loss.item(), accuracy.item()

    return step


def graph_conv() -> Step:
    """Two rounds of message passing on a graph with 5000 nodes and 30,000 edges, 32 features."""
    source, to = torch.randint(5000, (2, 30_000))
    features = torch.randn(5000, 32)
    weights = [torch.randn(32, 32) / 6 for _ in range(2)]
    degree = torch.zeros(5000).index_add_(0, to, torch.ones(30_000)) + 1

    def step() -> object:
        h = features
        for weight in weights:
            messages = h[source] / degree[source].sqrt().unsqueeze(1)
            gathered = torch.zeros_like(h).index_add_(0, to, messages)
            h = torch.relu((gathered / degree.sqrt()[:, None] + h / degree[:, None]) @ weight)
        return h.mean(dim=0)[:4].tolist()

    return step


def mixture() -> Step:
    """The log likelihood of 100,000 points under 8 Gaussians in 4 dimensions, and who is responsible for them."""
    points = torch.randn(100_000, 4) * 2
    means, log_scales, weights = torch.randn(8, 4) * 2, 0.3 * torch.randn(8, 4), torch.rand(8)

    def step() -> tuple[float, list[float]]:
        z = (points.unsqueeze(1) - means) / log_scales.exp()
        log_density = -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1) - log_scales.sum(-1)
        joint = log_density + torch.log_softmax(weights, 0)
        evidence = torch.logsumexp(joint, dim=1)
        responsible = (joint - evidence[:, None]).exp()
        return evidence.mean().item(), responsible.mean(0).tolist()

    return step


def transformer_block() -> Step:
    """A transformer's encoder layer, inference: 4 x 64 tokens, width 128, 4 heads."""
    layer = nn.TransformerEncoderLayer(128, 4, 256, batch_first=True, norm_first=True).eval()
    head = nn.Linear(128, 10)
    tokens = torch.randn(4, 64, 128)

    def step() -> tuple[list[int], float]:
        with torch.no_grad():
            hidden = layer(tokens)
            probabilities = F.softmax(head(hidden.mean(dim=1)), dim=-1)
        best = probabilities.max(dim=-1)
        return best.indices.tolist(), float(best.values.min())

    return step
