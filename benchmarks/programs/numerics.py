"""Numerics: simulations, statistics, finance and images, as tutorials write them with tensors for arrays."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.step import Step


def images() -> Step:
    """Brightness, contrast, gamma and a soft vignette on 16 photographs."""
    photos = torch.rand(16, 3, 256, 256)
    ramp = torch.linspace(-1, 1, 256)
    vignette = 1 - 0.3 * (ramp[:, None].square() + ramp[None].square())

    def step() -> float:
        x = photos * 1.1 + 0.05
        x = (x - x.mean((2, 3), keepdim=True)) * 1.2 + 0.5
        x = x.clamp(0, 1) ** (1 / 2.2) * vignette
        grey = 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]
        return grey.mean().item()

    return step


def n_body() -> Step:
    """One step of 700 bodies that attract each other."""
    position, velocity = torch.randn(700, 3), torch.zeros(700, 3)

    def step() -> float:
        nonlocal position, velocity
        apart = position[None] - position[:, None]
        distance = (apart.square().sum(-1, keepdim=True) + 0.05) ** 1.5
        velocity = velocity + 1e-4 * (apart / distance).sum(1)
        position = position + 1e-2 * velocity
        return position.square().sum().item()

    return step


def mandelbrot() -> Step:
    """20 iterations on 600 x 400 points."""
    re, im = torch.meshgrid(torch.linspace(-2, 1, 600), torch.linspace(-1, 1, 400), indexing="xy")

    def step() -> float:
        x, y = torch.zeros_like(re), torch.zeros_like(im)
        count = torch.zeros_like(re)
        for _ in range(20):
            x, y = x * x - y * y + re, 2 * x * y + im
            inside = x * x + y * y < 4
            count = count + inside
            x, y = torch.where(inside, x, 2.0), torch.where(inside, y, 0.0)
        return count.mean().item()

    return step


def julia() -> Step:
    """A Julia set with complex numbers: 30 iterations on 240 x 160 points, those that have escaped left out."""
    re, im = torch.meshgrid(
        torch.linspace(-1.6, 1.6, 240), torch.linspace(-1, 1, 160), indexing="xy"
    )
    grid = torch.complex(re, im)
    angle = 0.0

    def step() -> tuple[int, float]:
        nonlocal angle
        angle += 0.01
        c = 0.7885 * torch.exp(torch.tensor(1j * angle))
        z = grid.clone()
        escaped_at = torch.zeros(z.shape, dtype=torch.int64)
        for i in range(30):
            inside = z.abs() <= 2
            z[inside] = z[inside] ** 2 + c
            escaped_at[inside] = i
        return int(escaped_at.max()), escaped_at.float().mean().item()

    return step


def black_scholes() -> Step:
    """Prices and deltas of a million European calls and puts."""
    n = 1_000_000
    spot = torch.empty(n).uniform_(50, 150)
    strike = torch.empty(n).uniform_(50, 150)
    years = torch.empty(n).uniform_(0.1, 2)
    volatility = torch.empty(n).uniform_(0.1, 0.5)
    rate = 0.03

    def cdf(x: Tensor) -> Tensor:
        return 0.5 * (1 + torch.erf(x / math.sqrt(2)))

    def step() -> tuple[float, float, float]:
        root = volatility * torch.sqrt(years)
        d1 = (torch.log(spot / strike) + (rate + 0.5 * volatility**2) * years) / root
        d2 = d1 - root
        discounted = strike * torch.exp(-rate * years)
        call = spot * cdf(d1) - discounted * cdf(d2)
        put = discounted * cdf(-d2) - spot * cdf(-d1)
        parity = (call - put - spot + discounted).abs().max()
        return call.mean().item(), put.mean().item(), float(parity)

    return step


def monte_carlo() -> Step:
    """An Asian and a barrier option, priced on 50,000 paths of 100 days."""
    spot, strike, barrier, rate, volatility, years, days = 100.0, 105.0, 130.0, 0.03, 0.2, 1.0, 100
    dt = years / days

    def step() -> str:
        noise = torch.randn(50_000, days)
        growth = (rate - 0.5 * volatility**2) * dt + volatility * math.sqrt(dt) * noise
        paths = spot * torch.exp(torch.cumsum(growth, dim=1))
        asian = torch.clamp(paths.mean(dim=1) - strike, min=0)
        alive = paths.max(dim=1).values < barrier
        knocked = F.relu(paths[:, -1] - strike) * alive
        discount = math.exp(-rate * years)
        price, error = discount * asian.mean(), discount * asian.std() / math.sqrt(len(asian))
        return f"Asian {price:.3f} ± {error:.3f}, barrier {discount * knocked.mean().item():.3f}"

    return step


def heat() -> Step:
    """The heat equation on a plate of 256 x 256 with one hot edge: 20 time steps by slices."""
    u = torch.full((256, 256), 20.0)
    u[0, :] = 100.0
    u[-1, :] = 0.0
    alpha = 0.2

    def step() -> object:
        for _ in range(20):
            u[1:-1, 1:-1] += alpha * (
                u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2] - 4 * u[1:-1, 1:-1]
            )
        return u[::64, 128].tolist()

    return step


def wave() -> Step:
    """A wave on a torus of 200 x 200: 10 time steps by roll."""
    x = torch.linspace(-1, 1, 200)
    u = torch.exp(-15 * (x[:, None] ** 2 + x[None, :] ** 2))
    previous = u.clone()
    courant = 0.25

    def laplacian(u: Tensor) -> Tensor:
        neighbours = sum(torch.roll(u, shift, dim) for dim in (0, 1) for shift in (-1, 1))
        return neighbours - 4 * u

    def step() -> tuple[float, float]:
        nonlocal u, previous
        for _ in range(10):
            u, previous = 2 * u - previous + courant * laplacian(u), u
        energy = ((u - previous) ** 2).sum()
        return energy.item(), u.abs().max().item()

    return step


def life() -> Step:
    """A generation of the game of life on 256 x 256 cells."""
    world = torch.randint(0, 2, (256, 256))

    def step() -> int:
        nonlocal world
        neighbours = torch.zeros_like(world)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                if (dy, dx) != (0, 0):
                    neighbours += torch.roll(world, shifts=(dy, dx), dims=(0, 1))
        born = (world == 0) & (neighbours == 3)
        survives = (world == 1) & ((neighbours == 2) | (neighbours == 3))
        world = (born | survives).long()
        return int(world.sum())

    return step


def lorenz() -> Step:
    """The Lorenz attractor: five Runge-Kutta steps of 1000 particles."""
    state = torch.randn(1000, 3) + torch.tensor([1.0, 1.0, 25.0])
    sigma, rho, beta, dt = 10.0, 28.0, 8 / 3, 0.01

    def slope(state: Tensor) -> Tensor:
        x, y, z = state.unbind(1)
        return torch.stack([sigma * (y - x), x * (rho - z) - y, x * y - beta * z], dim=1)

    def step() -> object:
        nonlocal state
        for _ in range(5):
            k1 = slope(state)
            k2 = slope(state + dt / 2 * k1)
            k3 = slope(state + dt / 2 * k2)
            k4 = slope(state + dt * k3)
            state = state + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return state.mean(0).numpy().tolist()

    return step


def newton() -> Step:
    """Kepler's equation by Newton's method for 20,000 orbits, until the largest correction is small."""
    eccentricity = 0.8 * torch.rand(20_000)
    start = 2 * math.pi * torch.rand(20_000)
    day = 0

    def step() -> tuple[int, float]:
        nonlocal day
        day += 1
        mean = (start + 0.0172 * day) % (2 * math.pi)
        anomaly = mean + eccentricity * torch.sin(mean)
        delta = torch.ones_like(mean)
        iterations = 0
        while delta.abs().max() > 1e-5:
            error = anomaly - eccentricity * torch.sin(anomaly) - mean
            delta = error / (1 - eccentricity * torch.cos(anomaly))
            anomaly -= delta
            iterations += 1
        radius = 1 - eccentricity * anomaly.cos()
        return iterations, radius.mean().item()

    return step


def power_iteration() -> Step:
    """The largest eigenvalue of a symmetric matrix of 1000 x 1000, from a random start until it stands still."""
    factors = torch.randn(1000, 2000)
    matrix = factors @ factors.T / 2000
    bump = F.normalize(torch.randn(1000), dim=0)
    matrix += 4 * torch.outer(bump, bump)

    def step() -> tuple[float, int]:
        vector = torch.randn(1000)
        vector /= vector.norm()
        last, found, iterations = 0.0, 1.0, 0
        while abs(found - last) > 1e-5 * abs(found) and iterations < 200:
            product = matrix @ vector
            last, found = found, (vector @ product).item()
            vector = product / torch.linalg.norm(product)
            iterations += 1
        return found, iterations

    return step


def k_means() -> Step:
    """One of Lloyd's iterations: 20,000 points with 8 features, 16 clusters."""
    points = torch.randn(20_000, 8) + 2 * torch.randn(16, 8)[torch.randint(16, (20_000,))]
    centroids = points[torch.randperm(len(points))[:16]]

    def step() -> tuple[float, list[int]]:
        nonlocal centroids
        distances = ((points[:, None, :] - centroids[None, :, :]) ** 2).sum(-1)
        labels = distances.argmin(dim=1)
        inertia = distances.min(dim=1).values.mean()
        centroids = torch.stack([points[labels == k].mean(dim=0) for k in range(16)])
        return inertia.item(), torch.bincount(labels, minlength=16).tolist()

    return step


def standardise() -> Step:
    """A table of 100,000 x 20 in doubles, standardised and clipped, and its correlations."""
    table = torch.randn(100_000, 20, dtype=torch.float64)
    table = (table + 0.5 * table.roll(1, 1)) * torch.arange(1, 21) + 3

    def step() -> tuple[float, str]:
        z = (table - table.mean(dim=0)) / table.std(dim=0)
        outliers = (z.abs() > 3).double().mean().item()
        z = z.clip(-3, 3)
        z = z - z.mean(0)
        correlation = z.T @ z / (z.norm(dim=0)[:, None] * z.norm(dim=0)[None, :])
        return outliers, str(correlation[:4, :4])

    return step


def logistic() -> Step:
    """Logistic regression with the gradients written out: 50,000 x 20, a step of gradient descent."""
    x = torch.randn(50_000, 20)
    y = (torch.rand(50_000) < torch.sigmoid(x @ torch.randn(20) - 0.5)).float()
    w, b = torch.zeros(20), torch.zeros(1)

    def step() -> tuple[float, float]:
        nonlocal w, b
        p = 1 / (1 + torch.exp(-(x @ w + b)))
        loss = -(y * torch.log(p + 1e-7) + (1 - y) * torch.log(1 - p + 1e-7)).mean()
        error = p - y
        w = w - 0.1 * (x.T @ error / len(x) + 1e-3 * w)
        b = b - 0.1 * error.mean()
        accuracy = ((p > 0.5) == (y > 0.5)).float().mean()
        return loss.item(), accuracy.item()

    return step


def signals() -> Step:
    """A walk of 20,000 samples: moving averages, changes, z-scores, drawdown, and what stands out."""
    window = 50

    def step() -> str:
        series = 100 + torch.cumsum(torch.randn(20_000), dim=0)
        total = torch.cumsum(series, dim=0)
        average = (total[window:] - total[:-window]) / window
        spread = series.unfold(0, window, 1)[1:].std(dim=1)
        z = (series[window:] - average) / (spread + 1e-8)
        changes = torch.diff(series)
        drawdown = (series.cummax(0).values - series).max()
        odd = int((z.abs() > 2).sum())
        up = (changes > 0).float().mean().item()
        return f"{odd} stand out, {up:.2%} up, volatility {changes.std():.4f}, {drawdown=}"

    return step
