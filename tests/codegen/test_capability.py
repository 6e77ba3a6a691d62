"""Under another instruction set eager contracts other products: kernels that differ from it there are found out."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import torch, torchy
g = torch.Generator().manual_seed(0)
a, b = (torch.randn(1 << 17, generator=g).bfloat16() for _ in range(2))
def work(a, b):
    return torch.lerp(a, b, 0.3) * 1, torch.addcmul(a, a, b, value=0.3) + 1, (a * b - a).relu() / 3, a.float() * b
for x, y in ((a, b), (a.float(), b.float())):
    wanted = work(x, y)
    with torchy.lazy(compile="always"):
        found = work(x, y)
    print(*(torch.equal(one, other) for one, other in zip(wanted, found)))
"""


@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_bits_are_those_of_the_capability_in_force(capability):
    environment = os.environ | {"ATEN_CPU_CAPABILITY": capability}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.stdout == "True True True True\n" * 2, ran.stderr
