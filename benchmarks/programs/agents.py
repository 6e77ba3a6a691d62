"""Agents that learn from what they do: environments in Python, small networks, and numbers to and fro."""

from __future__ import annotations

import math
import random
from collections import deque

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Categorical

from benchmarks.step import Step


class CartPole:
    """A pole on a cart, to be kept upright by pushing the cart left or right."""

    def __init__(self) -> None:
        self.random = random.Random(0)
        self.state = self.reset()

    def reset(self) -> list[float]:
        """Put the pole upright, nearly; return position, speed, angle and its speed."""
        self.state = [self.random.uniform(-0.05, 0.05) for _ in range(4)]
        return self.state

    def step(self, action: int) -> tuple[list[float], float, bool]:
        """Push; return what is seen, the reward, and whether it is over."""
        x, v, angle, spin = self.state
        force = 10.0 if action == 1 else -10.0
        push = (force + 0.05 * spin**2 * math.sin(angle)) / 1.1
        bend = 0.5 * (4 / 3 - 0.1 * math.cos(angle) ** 2 / 1.1)
        turn = (9.8 * math.sin(angle) - math.cos(angle) * push) / bend
        pull = push - 0.05 * turn * math.cos(angle) / 1.1
        self.state = [x + 0.02 * v, v + 0.02 * pull, angle + 0.02 * spin, spin + 0.02 * turn]
        over = abs(self.state[0]) > 2.4 or abs(self.state[2]) > 0.2095
        return self.state, 1.0, over


def reinforce() -> Step:
    """REINFORCE on a cart with a pole: an episode of 60 moves at most, and what it teaches."""
    environment = CartPole()
    policy = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 2), nn.Softmax(dim=-1))
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)

    def step() -> tuple[int, float]:
        state = environment.reset()
        log_probs, rewards = [], []
        for _ in range(60):
            distribution = Categorical(policy(torch.tensor(state)))
            action = distribution.sample()  # type: ignore[no-untyped-call]
            log_probs.append(distribution.log_prob(action))  # type: ignore[no-untyped-call]
            state, reward, over = environment.step(action.item())
            rewards.append(reward)
            if over:
                break

        returns: list[float] = []
        value = 0.0
        for reward in reversed(rewards):
            value = reward + 0.99 * value
            returns.insert(0, value)
        gains = torch.tensor(returns)
        gains = (gains - gains.mean()) / (gains.std() + 1e-8)
        loss = -(torch.stack(log_probs) * gains).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return len(rewards), loss.item()

    return step


def q_learning() -> Step:
    """Deep Q-learning on a cart with a pole: one move, and a batch of 64 from what is remembered."""
    environment, draws = CartPole(), random.Random(1)

    def network() -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2)
        )

    online, target = network(), network()
    target.load_state_dict(online.state_dict())
    optimizer = torch.optim.AdamW(online.parameters(), lr=1e-4, amsgrad=True)
    replay: deque[tuple[list[float], int, float, list[float], bool]] = deque(maxlen=5000)
    state = environment.reset()
    moves = 0

    def move() -> None:
        nonlocal state, moves
        epsilon = 0.05 + 0.85 * math.exp(-moves / 200)
        moves += 1
        if draws.random() < epsilon:
            action = draws.randrange(2)
        else:
            with torch.no_grad():
                action = int(online(torch.tensor(state).unsqueeze(0)).max(1).indices.item())
        after, reward, over = environment.step(action)
        replay.append((state, action, reward, after, over))
        state = environment.reset() if over else after

    while len(replay) < 64:
        move()

    def step() -> tuple[float, float]:
        move()
        batch = draws.sample(replay, 64)
        states = torch.tensor([row[0] for row in batch])
        actions = torch.tensor([[row[1]] for row in batch])
        rewards = torch.tensor([row[2] for row in batch])
        afters = torch.tensor([row[3] for row in batch])
        going_on = 1 - torch.tensor([float(row[4]) for row in batch])

        values = online(states).gather(1, actions).squeeze(1)
        with torch.no_grad():
            wanted = rewards + 0.99 * target(afters).max(1).values * going_on
        loss = F.smooth_l1_loss(values, wanted)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_value_(online.parameters(), 100)
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), online.parameters(), strict=True):
                slow.mul_(0.995).add_(0.005 * fast)
        return loss.item(), values.mean().item()

    return step
