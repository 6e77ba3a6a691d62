"""What is held against eager, op by op: dtypes, literals and numbers."""

import itertools

import pytest
import torch

from torchy.codegen.cpu.exactness import inexact
from torchy.ir.dtypes import kind_of
from torchy.ir.ops import SPECS

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.int32, torch.int64, torch.bool)
LITERALS = {
    "div_mode": [{"rounding_mode": mode} for mode in (None, "trunc", "floor")],
    "pow": [{"exponent": value} for value in (2, 3, 0.5, -0.5, -1, -2, 1, 0, 2.0, 3.0)],
    "lerp": [{"weight": value} for value in (0.1, 0.9, 0.5, 0.0, -0.3)],
    "clamp": [{}, {"min": None}, {"max": None}],
    "clamp_tensor": [{}, {"min": None}, {"max": None}],
}
SCALARS = {"f": (0.7, 1.0, -2.3), "i": (3, 1, -2), "b": (True, False, True)}


def exact_cases():
    for spec, dtype in itertools.product(SPECS.values(), DTYPES):
        for literals in LITERALS.get(spec.name, [{}]):
            rule = spec.rule(dtype, literals)
            if rule is None or inexact(spec, rule, dtype):
                continue
            if kind_of(dtype) == "f" or not any(isinstance(v, float) for v in literals.values()):
                words = [spec.name, str(dtype).removeprefix("torch."), *map(str, literals.values())]
                yield pytest.param(spec, dtype, literals, id="-".join(words))


def scalars_of(trial):
    values = SCALARS[kind_of(trial.statement.compute)]
    return list(itertools.islice(itertools.cycle(values), len(trial.scalars)))
