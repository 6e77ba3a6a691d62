"""Every test here runs in a process of its own (see isolation.py); with ``--pdb`` it runs in pytest's."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from isolation import Server

SECONDS = 30.0  # a test that takes longer hangs


@pytest.fixture(scope="session")
def semantics_server():
    """The process that forks for every test."""
    server = Server(preload=("preload",))
    yield server
    server.close()


def pytest_configure(config):
    """Name the marker of this folder."""
    config.addinivalue_line("markers", "seconds(n): may take so long")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run a test function in a process of its own."""
    if pyfuncitem.config.option.usepdb:
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    marker = pyfuncitem.get_closest_marker("seconds")
    server = pyfuncitem._request.getfixturevalue("semantics_server")
    printed = server.run(
        str(pyfuncitem.path),
        pyfuncitem.originalname,
        arguments,
        marker.args[0] if marker else SECONDS,
    )
    print(printed, end="")
    return True
