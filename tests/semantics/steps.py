"""Programs as lists of steps: wherever one is cut off, what eager would have there is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from facts import Facts, differences, equal, facts_of
from sameness import reset

State = dict[str, object]
Step = Callable[[State], object]


def keep(name: str, function: Callable[..., object], *names: str) -> Step:
    """Return the step that keeps what a function returns for what was kept under some names."""
    return lambda state: state.update({name: function(*(state[other] for other in names))})


@dataclasses.dataclass
class Steps:
    """A program: what it begins with, and its steps.

    Each writes once, unless it is ``composite``: cut off within a step, some writes have been done then.
    """

    given: Callable[[], State]
    steps: list[Step]
    composite: bool = False

    def start(self) -> State:
        """Return what the program begins with."""
        reset()
        torch.set_num_threads(1)  # so that a process that has run it may fork
        return self.given()

    def run(self, state: State, done: list[int], until: int | None = None) -> None:
        """Run the first ``until`` steps; ``done`` counts them."""
        for index, step in enumerate(self.steps[:until]):
            step(state)
            done.append(index)

    def eagerly(self) -> list[tuple[Facts, Facts]]:
        """Return for each number of steps the facts after them, and after one more (of what is kept before it)."""
        state = self.start()
        found = []
        for step in [*self.steps, lambda state: None]:
            before, names = facts(state), list(state)
            step(state)
            found.append((before, facts({name: state[name] for name in names if name in state})))
        return found


def facts(state: State) -> Facts:
    """Return all facts about what a program has kept, and the random stream."""
    return {"stream": torch.get_rng_state().numpy().tobytes(), **facts_of(state, look=True)}


def require_same(expected: list[Facts], seen: Facts, composite: bool = False) -> None:
    """Fail unless the facts are one of those that are expected; each for itself if ``composite``."""
    found = [differences(one, seen) for one in expected]
    if composite and all(found):
        missing = object()
        odd = [
            path
            for path in {path for one in (*expected, seen) for path in one}
            if not any(equal(one.get(path, missing), seen.get(path, missing)) for one in expected)
        ]
        found = [[line for line in lines if line.split(":")[0] in odd] for lines in found]
        assert not odd or any(found), odd
    if all(found):
        raise AssertionError("no state that eager could have:\n" + "\n".join(min(found, key=len)))


def chain() -> Steps:
    """Pointwise ops, views, writes through them, a look in the midst."""
    return Steps(
        lambda: {"x": torch.linspace(-1, 1, 12).view(3, 4).clone(), "b": torch.arange(4.0)},
        [
            keep("y", lambda x, b: x * 2 + b, "x", "b"),
            keep("row", lambda y: y[1], "y"),
            lambda s: s["row"].add_(s["b"]),
            keep("z", lambda y: y.exp(), "y"),
            lambda s: s["x"].mul_(3),
            keep("t", lambda x: x.t(), "x"),
            lambda s: s["t"][2:].sub_(1),
            keep("mask", lambda z, x: z > x, "z", "x"),
            keep("w", lambda m, z, y: torch.where(m, z, y), "mask", "z", "y"),
            keep("seen", lambda z: z[0, 1].item(), "z"),
            lambda s: s["z"][:, 1].copy_(s["x"][:, 0]),
            lambda s: s["w"].div_(2),
            lambda s: s["w"].sqrt_(),
            keep("v", lambda w: w.view(-1)[3:9], "w"),
            lambda s: s["v"].zero_(),
            lambda s: s.pop("z"),
            keep("u", lambda v, row: v[:4] + row, "v", "row"),
        ],
    )


def calls() -> Steps:
    """Calls of torch's own ops and random ops between pointwise ones."""
    return Steps(
        lambda: {
            "x": torch.linspace(0, 1, 2 * 3 * 6 * 6).view(2, 3, 6, 6).clone(),
            "k": torch.linspace(-1, 1, 4 * 3 * 3 * 3).view(4, 3, 3, 3).clone(),
            "w": torch.linspace(-1, 1, 16 * 5).view(16, 5).clone(),
        },
        [
            keep("a", lambda x, k: F.conv2d(x, k, padding=1), "x", "k"),
            keep("r", lambda a: a.relu() * 0.5, "a"),
            keep("p", lambda r: F.avg_pool2d(r, 3), "r"),
            keep("n", lambda p: p + torch.rand(2, 4, 2, 2), "p"),
            keep("m", lambda n, w: n.reshape(2, 16) @ w, "n", "w"),
            lambda s: s["m"].add_(1),
            keep("s", lambda m: m.softmax(-1), "m"),
            keep("d", lambda s: F.dropout(s, 0.5), "s"),
            lambda s: s["w"].normal_(),
            keep("o", lambda d, w: torch.addmm(torch.ones(2, 16), d, w.t()).tanh(), "d", "w"),
            keep("c", lambda o, m: torch.cat([o[:, :5], m]), "o", "m"),
            keep("total", lambda c: c.sum(), "c"),
            keep("order", lambda c: c.sort(), "c"),
        ],
    )


def training() -> Steps:
    """Two steps of training: forward, backward, an optimizer with momentum."""

    def given() -> State:
        model = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.LayerNorm(8), torch.nn.Linear(8, 2)
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return {
            "model": model,
            "optimizer": optimizer,
            "x": torch.rand(5, 4),
            "y": torch.rand(5, 2),
        }

    turn = [
        lambda s: s["optimizer"].zero_grad(),
        keep("out", lambda model, x: model(x), "model", "x"),
        keep("loss", lambda out, y: ((out - y) ** 2).mean(), "out", "y"),
        lambda s: s["loss"].backward(),
        lambda s: s["optimizer"].step(),
        keep("seen", lambda loss: loss.item(), "loss"),
    ]
    return Steps(given, [*turn, *turn])


def gradients() -> Steps:
    """Training again, but each write of the optimizer is a step of its own; backward makes gradients one by one."""

    def given() -> State:
        w = torch.linspace(-1, 1, 12).view(4, 3).clone().requires_grad_()
        b = torch.zeros(3).requires_grad_()
        return {"w": w, "b": b, "m": torch.zeros(4, 3), "n": torch.zeros(3), "x": torch.rand(5, 4)}

    def descend(name: str, momentum: str) -> list[Step]:
        return [
            lambda s: s[momentum].mul_(0.9),
            lambda s: s[momentum].add_(s[name].grad),
            lambda s: s[name].detach().add_(s[momentum], alpha=-0.1),
        ]

    def turn(i: int) -> list[Step]:
        return [
            keep(f"h{i}", lambda x, w, b: (x @ w + b).tanh(), "x", "w", "b"),
            keep(f"loss{i}", lambda h: (h * h).mean(), f"h{i}"),
            lambda s: s[f"loss{i}"].backward(),
            *descend("w", "m"),
            *descend("b", "n"),
            keep(f"seen{i}", lambda loss: loss.item(), f"loss{i}"),
        ]

    return Steps(given, [*turn(1), *turn(2)], composite=True)


def one() -> Steps:
    """Hardly a program."""
    return Steps(
        lambda: {"x": torch.linspace(-1, 1, 6)},
        [keep("y", lambda x: x * 2, "x"), lambda s: s["y"].add_(1)],
    )


PROGRAMS = {
    "one": one,
    "chain": chain,
    "calls": calls,
    "gradients": gradients,
    "training": training,
}
