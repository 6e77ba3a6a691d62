"""Conformance: torch's op database and the ops around it. Processes as in ../semantics (see isolation.py there)."""

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "semantics")]

from isolation import judge  # noqa: E402
from sweep import start_servers  # noqa: E402

SECONDS = 300.0


@pytest.fixture(scope="session")
def conformance_servers():
    """Two processes that fork for every batch, with the op database loaded."""
    servers = start_servers(2)
    yield servers
    servers.close()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run a test function in a process of its own, but for those that drive such processes themselves."""
    names = pyfuncitem._fixtureinfo.argnames
    if "conformance_servers" in names or pyfuncitem.config.option.usepdb:
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    servers = pyfuncitem._request.getfixturevalue("conformance_servers")
    outcome = servers.call(str(pyfuncitem.path), pyfuncitem.originalname, arguments, SECONDS)
    print(judge(*outcome), end="")
    return True
