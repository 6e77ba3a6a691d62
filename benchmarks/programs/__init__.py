"""Whole programs, as notebooks have them: each makes its data, and returns a function that does one step and looks at it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from benchmarks.programs import agents, language, networks, numerics, training
from benchmarks.step import Step

__all__ = ["MEMORY", "PROGRAMS", "Step"]

PROGRAMS: Mapping[str, Callable[[], Step]] = {
    make.__name__: make
    for make in (
        numerics.images,
        numerics.n_body,
        numerics.mandelbrot,
        numerics.julia,
        numerics.black_scholes,
        numerics.monte_carlo,
        numerics.heat,
        numerics.wave,
        numerics.life,
        numerics.lorenz,
        numerics.newton,
        numerics.power_iteration,
        numerics.k_means,
        numerics.standardise,
        numerics.logistic,
        numerics.signals,
        networks.attention,
        networks.layer_norm,
        networks.softmax,
        networks.activations,
        networks.rms_rotary,
        networks.losses,
        networks.batch_norm,
        networks.contrastive,
        networks.graph_conv,
        networks.mixture,
        networks.transformer_block,
        training.mlp,
        training.lstm,
        training.adamw,
        training.conv_net,
        training.regression,
        training.mlp_tiny,
        training.mlp_large,
        training.vae,
        training.pinn,
        training.momentum,
        training.gan,
        training.fine_tune,
        training.distillation,
        training.schedule,
        language.char_gpt,
        language.rnn,
        language.generation,
        agents.reinforce,
        agents.q_learning,
    )
}

# The ten whose memory and first run are measured too.
MEMORY: Sequence[str] = (
    "attention",
    "layer_norm",
    "softmax",
    "images",
    "n_body",
    "mandelbrot",
    "mlp",
    "lstm",
    "adamw",
    "conv_net",
)
