"""Language models of characters: training, and writing a text one character after the other."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.step import Step

TEXT = """
Shall I compare thee to a summer's day? Thou art more lovely and more temperate:
Rough winds do shake the darling buds of May, and summer's lease hath all too short a date;
Sometime too hot the eye of heaven shines, and often is his gold complexion dimm'd;
And every fair from fair sometime declines, by chance or nature's changing course untrimm'd;
But thy eternal summer shall not fade, nor lose possession of that fair thou ow'st;
Nor shall death brag thou wander'st in his shade, when in eternal lines to time thou grow'st:
So long as men can breathe or eyes can see, so long lives this, and this gives life to thee.
"""
LETTERS = sorted(set(TEXT))


def encode(text: str) -> Tensor:
    """Return each character's index."""
    return torch.tensor([LETTERS.index(letter) for letter in text])


class Block(nn.Module):
    """A transformer's block: causal attention, and a network for each token."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return what is passed on, batch x time x width like ``x``."""
        b, t, c = x.shape
        q, k, v = self.to_qkv(self.first(x)).split(c, dim=2)
        q, k, v = (z.view(b, t, self.heads, c // self.heads).transpose(1, 2) for z in (q, k, v))
        scores = q @ k.transpose(-2, -1) / math.sqrt(k.size(-1))
        future = torch.triu(torch.ones(t, t, dtype=torch.bool), diagonal=1)
        weights = F.softmax(scores.masked_fill(future, float("-inf")), dim=-1)
        y = (weights @ v).transpose(1, 2).contiguous().view(b, t, c)
        x = x + self.out(y)
        added: Tensor = self.mlp(self.second(x))
        return x + added


def char_gpt() -> Step:
    """A training step of a GPT with 2 layers, 64 wide, on 16 x 64 characters, with AdamW."""
    data, context = encode(TEXT), 64
    embed, place = nn.Embedding(len(LETTERS), 64), nn.Embedding(context, 64)
    blocks = nn.Sequential(Block(64, 4), Block(64, 4))
    head = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, len(LETTERS), bias=False))
    model = nn.ModuleList([embed, place, blocks, head])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)

    def step() -> float:
        starts = torch.randint(len(data) - context, (16,))
        x = torch.stack([data[i : i + context] for i in starts])
        y = torch.stack([data[i + 1 : i + context + 1] for i in starts])
        logits = head(blocks(embed(x) + place(torch.arange(context))))
        loss = F.cross_entropy(logits.view(-1, logits.size(-1)), y.view(-1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


def rnn() -> Step:
    """A recurrent network by hand with 100 units, on 25 characters at a time, with Adagrad by hand."""
    data, hidden_size, length = encode(TEXT), 100, 25
    vocab_size = len(LETTERS)
    wxh = (torch.randn(vocab_size, hidden_size) * 0.01).requires_grad_()
    whh = (torch.randn(hidden_size, hidden_size) * 0.01).requires_grad_()
    why = (torch.randn(hidden_size, vocab_size) * 0.01).requires_grad_()
    bh = torch.zeros(hidden_size, requires_grad=True)
    by = torch.zeros(vocab_size, requires_grad=True)
    parameters = [wxh, whh, why, bh, by]
    memory = [torch.zeros_like(p) for p in parameters]
    position = 0
    h = torch.zeros(1, hidden_size)
    smooth_loss = math.log(vocab_size)

    def step() -> float:
        nonlocal position, h, smooth_loss
        if position + length + 1 >= len(data):
            position = 0
            h = torch.zeros(1, hidden_size)
        inputs = data[position : position + length]
        targets = data[position + 1 : position + length + 1]
        loss = torch.zeros(())
        for t in range(length):
            x = F.one_hot(inputs[t : t + 1], vocab_size).float()
            h = torch.tanh(x @ wxh + h @ whh + bh)
            loss = loss + F.cross_entropy(h @ why + by, targets[t : t + 1])
        for p in parameters:
            p.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for p, m in zip(parameters, memory, strict=True):
                assert p.grad is not None
                p.grad.clamp_(-5, 5)
                m += p.grad * p.grad
                p -= 0.1 * p.grad / torch.sqrt(m + 1e-8)
        h = h.detach()
        position += length
        smooth_loss = 0.99 * smooth_loss + 0.01 * loss.item() / length
        return smooth_loss

    return step


def generation() -> Step:
    """A GPT by hand with 2 layers, 64 wide, writes 32 characters, each drawn; keys and values are kept."""
    width, heads, depth, size = 64, 4, 2, len(LETTERS)
    embed, place = torch.randn(size, width), torch.randn(32, width)
    head = torch.randn(width, size) / math.sqrt(width)
    layers = [
        {
            name: torch.randn(shape) / math.sqrt(shape[0])
            for name, shape in {
                "qkv": (width, 3 * width),
                "out": (width, width),
                "up": (width, 4 * width),
                "down": (4 * width, width),
            }.items()
        }
        for _ in range(depth)
    ]
    first = LETTERS.index("\n")

    @torch.no_grad()
    def step() -> str:
        cache: list[tuple[Tensor, Tensor] | None] = [None] * depth
        token, text = first, ""
        for i in range(32):
            x = (embed[token] + place[i]).unsqueeze(0)
            for n, layer in enumerate(layers):
                h = F.layer_norm(x, (width,))
                q, k, v = (h @ layer["qkv"]).view(3, heads, 1, width // heads)
                kept = cache[n]
                if kept is not None:
                    k = torch.cat([kept[0], k], dim=1)
                    v = torch.cat([kept[1], v], dim=1)
                cache[n] = k, v
                weights = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(width // heads), dim=-1)
                x = x + (weights @ v).reshape(1, width) @ layer["out"]
                x = x + F.gelu(F.layer_norm(x, (width,)) @ layer["up"]) @ layer["down"]
            logits = (F.layer_norm(x, (width,)) @ head)[0] / 0.8
            best, _ = torch.topk(logits, 10)
            logits[logits < best[-1]] = -float("inf")
            token = int(torch.multinomial(F.softmax(logits, dim=-1), num_samples=1).item())
            text += LETTERS[token]
        return text

    return step
