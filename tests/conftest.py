"""Shared by all tests: randomness is seeded, and the seed of a test that fails is printed."""

import random
import zlib
from collections.abc import Generator

import numpy
import pytest
import torch

SEED_KEY = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=0, help="changes every test's seed (default: 0)")


def pytest_report_header(config: pytest.Config) -> str:
    return f"torch {torch.__version__}, {torch.get_num_threads()} threads, --seed {config.getoption('seed')}"


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A number that depends on the test's name and --seed only, not on which tests ran before."""
    name = f"{request.config.getoption('seed')} {request.node.nodeid}"
    return zlib.crc32(name.encode())


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest, seed: int) -> None:
    request.node.stash[SEED_KEY] = seed
    random.seed(seed)
    numpy.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed formats tracebacks


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and SEED_KEY in item.stash:
        text = f"{item.stash[SEED_KEY]} (from --seed {item.config.getoption('seed')})"
        report.sections.append(("Seed", text))
    return report
