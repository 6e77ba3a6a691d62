"""All rules at once: random programs of views, writes, reads, gradients and threads agree with eager."""

import pytest
from programs import disagreement, generate, shrink

TIERS = pytest.mark.parametrize("compile", ["always", "never"])


def check(seeds, length, **settings):
    """Compare programs; show the first that differs, cut down."""
    for seed in seeds:
        lines = generate(seed, length)
        print(f"seed {seed}", flush=True)
        found = disagreement(lines, **settings)
        if found:
            lines = shrink(lines, **settings)
            text = "\n".join(["    " + line for line in lines])
            more = (
                "\n".join(disagreement(lines, **settings)[:6])
                or "\n".join(found[:6]) + "\n(only once)"
            )
            raise AssertionError(f"seed {seed}, {settings}:\n{text}\n{more}")


@TIERS
@pytest.mark.parametrize("block", range(8))
def test_random_programs(block, compile):
    check(range(block * 5, block * 5 + 5), 30, compile=compile)


@TIERS
def test_long_random_programs(compile):
    check(range(1000, 1003), 120, compile=compile)


@TIERS
def test_random_programs_in_short_traces(compile):
    check(range(2000, 2008), 40, compile=compile, max_ops=3)


@pytest.mark.slow
@pytest.mark.seconds(900)
@pytest.mark.timeout(1000)
@TIERS
@pytest.mark.parametrize("block", range(10))
def test_many_random_programs(block, compile):
    check(range(10_000 + block * 100, 10_000 + block * 100 + 100), 40, compile=compile)
