"""The tiers that a test runs on, each time or on demand."""

import pytest

TIERS = pytest.mark.parametrize("compile", ["always", "never", "auto"])
# without the background: for what counts on a flush being run by a kernel, or repeated, from some time on
SETTLED = pytest.mark.parametrize("compile", ["always", "never"])
# op by op only on demand: for what takes long, and hardly depends on the tier
COMPILED = pytest.mark.parametrize(
    "compile", ["always", pytest.param("never", marks=pytest.mark.slow)]
)
