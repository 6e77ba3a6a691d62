"""Random programs: generated, run eagerly and under Torchy, and cut down to what still differs."""

from __future__ import annotations

import contextlib
import linecache
import random
import warnings
from collections.abc import Callable

import torch
from facts import Facts, differences, facts_of
from sameness import process_state, reset

PRELUDE = """
def in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()
a = torch.arange(12.0).reshape(3, 4) / 3 - 1
b = torch.linspace(-2, 2, 4)
c = torch.ones(3, 4) * 0.5
d = torch.arange(4) - 1
e = torch.zeros(3, 1) + 2
f = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4)
""".strip()

BINARY = [
    "x + y",
    "x - y",
    "x * y",
    "x / y",
    "torch.maximum(x, y)",
    "torch.where(x > y, x, y)",
    "x > y",
    "x == y",
    "torch.addcmul(x, y, y, value=N)",
    "torch.add(x, y, alpha=N)",
    "torch.lerp(x, y, 0.3)",
    "x @ y.t()",
    "x // y",
    "x % y",
    "torch.cat([x, y])",
    "torch.atan2(x, y)",
    "x.masked_fill(y > 0, N)",
]
UNARY = [
    "x + N",
    "x * N",
    "N - x",
    "x / N",
    "x ** 2",
    "x.tanh()",
    "x.exp()",
    "x.abs()",
    "-x",
    "x.sigmoid()",
    "x.relu()",
    "x.sqrt()",
    "x.clamp(-1, 1)",
    "x.clone()",
    "x.double()",
    "x.float()",
    "x.long()",
    "x > N",
    "x.contiguous()",
    "torch.zeros_like(x) + N",
    "x.sum()",
    "x.sum(0)",
    "x.mean(-1)",
    "x.amax(0)",
    "x.softmax(-1)",
    "x.cumsum(0)",
    "x.sin()",
    "x.round()",
    "x.sort(0)[0]",
    "x.flip(0)",
    "x.logical_not()",
    "x.floor()",
    "x.log()",
    "x.var()",
    "F.gelu(x)",
    "F.layer_norm(x, x.shape[-1:])",
    "torch.rand_like(x)",
    "F.dropout(x, 0.5)",
    "x.to(torch.int32)",
    "x.half()",
    "x.mul(N).add(N)",
    "x.std(0)",
]
VIEWS = [
    "x[1:]",
    "x[0]",
    "x.t()",
    "x.view(-1)",
    "x.reshape(-1)",
    "x[::2]",
    "x[..., 1:]",
    "x.unsqueeze(0)",
    "x.detach()",
    "x.expand(3, -1)",
    "x.diagonal()",
    "x.transpose(0, -1)",
    "x.squeeze()",
    "x[..., -1]",
    "x[:, None]",
    "x.data",
    "x.view(torch.int32)",
    "x.flatten()",
    "x.unfold(0, 2, 1)",
    "x.narrow(0, 1, 1)",
    "x.permute(1, 0)",
    "x.T",
]
WRITES = [
    "x.add_(N)",
    "x.mul_(N)",
    "x.add_(y)",
    "x.mul_(y)",
    "x.sub_(y, alpha=N)",
    "x.copy_(y)",
    "x.zero_()",
    "x.fill_(N)",
    "x.exp_()",
    "x.relu_()",
    "x[0] = N",
    "x[0] = y",
    "x[1:] += y",
    "x[..., 0] *= N",
    "x[x > 0] = N",
    "x.clamp_(-2, 2)",
    "torch.add(x, y, out=z)",
    "torch.mul(x, N, out=z)",
    "torch.exp(x, out=z)",
    "x.t_()",
    "x.neg_()",
    "x.div_(y)",
    "x.masked_fill_(y > 0, N)",
    "x[-1].copy_(x[0])",
    "x[:-1] = x[1:]",
    "x += y",
    "x -= N",
    "x.resize_(0)",
    "x.uniform_()",
    "x.transpose_(0, -1)",
    "torch.sum(x, 0, out=z)",
    "x.set_(y)",
    "x.index_fill_(0, ZERO, N)",
    "x.addcdiv_(y, y, value=N)",
    "x.lerp_(y, 0.25)",
    "x.requires_grad_(False)",
    "x.tanh_()",
]
READS = [
    "log.append(x.sum().item())",
    "log.append(x.tolist())",
    "log.append(str(x))",
    "arrays.append(x.numpy())",
    "arrays.append(x.numpy().copy())",
    "log.append(bool((x > 0).any()))",
    "arrays[-1][...] = N",
    "arrays[-1] += 1",
    "log.append(x.flatten()[0].item() > 0)",
    "in_thread(lambda: x.add_(1))",
    "in_thread(lambda: log.append(x.tolist()))",
    "log.append(x.data_ptr() == y.data_ptr())",
    "log.append((x._version, x.shape, x.stride()))",
    "del x",
    "log.append(copy.deepcopy(x))",
    "log.append(len(x))",
    "log.append([r.clone() for r in x])",
    "log.append(pickle.loads(pickle.dumps(x)))",
    "log.append(x.untyped_storage().nbytes())",
]
GRADIENTS = [
    "w = x.detach().clone().requires_grad_()",
    "w = w * x",
    "w = (w + x).tanh()",
    "w.sum().backward(retain_graph=True)",
    "w.retain_grad()",
    "log.append(w.grad)",
    "w = w[1:]",
    "w = w.clone(); w.mul_(2)",
    "log.append(w.grad_fn is None)",
    "log.append(torch.autograd.grad((w * w).sum(), w, retain_graph=True)[0])",
    "w = w.softmax(-1)",
    "w.data.mul_(0.5)",
    "w = w.exp() / N",
]
COMPOUND = [
    "for i in range(3): x = x * 0.9 + y",
    "for i in range(4): x.mul_(0.5).add_(i)",
    "x, y = y, x",
    "x = y",
    "for r in x: r.add_(y.sum())",
    "x = x + y if x.sum() > 0 else x - y",
    "z = [x * i for i in range(3)][1]",
]
FAMILIES = [
    (BINARY, 5),
    (UNARY, 5),
    (VIEWS, 4),
    (WRITES, 6),
    (READS, 2),
    (GRADIENTS, 2),
    (COMPOUND, 1),
]
NUMBERS = ["2", "-1", "0.5", "3.7", "0", "1", "-0.0", "1.5", "True", "0.1", "7"]


def scope() -> dict[str, object]:
    """Return the names that a program starts with."""
    import copy
    import pickle
    import threading

    import torch.nn.functional as F

    return {
        "torch": torch,
        "F": F,
        "threading": threading,
        "copy": copy,
        "pickle": pickle,
        "log": [],
        "arrays": [],
        "ZERO": torch.tensor([0]),
    }


def line(generator: random.Random, names: list[str], number: int) -> str:
    """Return a random statement over the given names."""
    family = generator.choices([f for f, _ in FAMILIES], [weight for _, weight in FAMILIES])[0]
    text = generator.choice(family)
    for place in ("x", "y", "z"):
        name = generator.choice(names)
        text = "".join(name if word == place else word for word in _words(text))
    text = "".join(generator.choice(NUMBERS) if word == "N" else word for word in _words(text))
    if family in (BINARY, UNARY, VIEWS):
        target = generator.choice([*names, f"v{number}", f"v{number}"])
        text = f"{target} = {text}"
    return text


def _words(text: str) -> list[str]:
    """Split a statement into names and what is between them."""
    import re

    return re.split(r"(\b\w+\b)", text)


def generate(seed: int, length: int) -> list[str]:
    """Return a program that mostly runs, as a list of statements."""
    generator = random.Random(seed)
    lines = PRELUDE.split("\n")
    head, lines = lines[:4], lines[4:]
    names = ["a", "b", "c", "d", "e", "f"]
    reset()
    state = scope()
    with quiet():
        exec("\n".join([*head, *lines]), state)
        while len(lines) < length + 6:
            candidate = line(generator, names, len(lines))
            try:
                exec(candidate, state)
            except Exception:
                if generator.random() < 0.9:
                    continue
            tensors = [
                name
                for name, value in state.items()
                if isinstance(value, torch.Tensor) and name not in ("ZERO", "w")
            ]
            names = [name for name in tensors if state[name].numel() < 500][-14:] or ["a"]
            lines.append(candidate)
    return lines


def source(lines: list[str]) -> str:
    """Return the program's text: each statement notes its own error."""
    body = list(PRELUDE.split("\n")[:4])
    for index, text in enumerate(lines):
        body += [
            "try:",
            f"    {text}",
            "except Exception as error:",
            f"    log.append(({index}, type(error), str(error)))",
        ]
    return "\n".join(body) + "\n"


@contextlib.contextmanager
def quiet():
    """Let warnings pass unseen."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def run(lines: list[str], session: Callable) -> Facts:
    """Run a program and return all facts about what it left."""
    text, name = source(lines), "<random program>"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    code, state = compile(text, name, "exec"), scope()
    reset()
    kinds = (torch.Tensor,)
    with quiet(), session():
        exec(code, state)
        left = {key: value for key, value in state.items() if isinstance(value, kinds)}
        before = facts_of(left, look=False)
    log = [entry if not isinstance(entry, type) else entry.__name__ for entry in state["log"]]
    after = facts_of([left, state["arrays"], log], look=True)
    return {"inside": before, "state": process_state(), **after}


def disagreement(lines: list[str], **settings: object) -> list[str]:
    """Return how a program's outcomes under Torchy differ from eager's."""
    import torchy

    eager = run(lines, contextlib.nullcontext)
    for _ in range(2):
        lazily = run(lines, lambda: torchy.lazy(**settings))
        found = [f"inside: {x}" for x in differences(eager.pop("inside"), lazily.pop("inside"))]
        found += differences(eager, lazily)
        if found:
            return found
        eager["inside"] = {}
        eager = run(lines, contextlib.nullcontext)
    return []


def shrink(lines: list[str], **settings: object) -> list[str]:
    """Return a program without the statements that do not matter."""
    size = max(len(lines) // 2, 1)
    while size:
        start = 0
        while start < len(lines):
            fewer = lines[:start] + lines[start + size :]
            if disagreement(fewer, **settings):
                lines = fewer
            else:
                start += size
        size //= 2
    return lines
