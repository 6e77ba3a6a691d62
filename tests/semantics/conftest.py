"""Every test here runs in a process of its own, two at a time (see isolation.py); with ``--pdb`` it runs in pytest's."""

import os
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from isolation import Servers, judge  # noqa: E402

SECONDS = 60.0  # a test that takes longer hangs
AT_A_TIME = min(2, os.cpu_count() or 1)


class Ahead:
    """Runs the tests of this folder a little ahead of pytest, which then takes up their outcomes in order."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(AT_A_TIME)
        self.servers = Servers(AT_A_TIME, preload=("preload",))
        self.started: dict[str, Future] = {}

    def outcome(self, item: pytest.Function) -> tuple:
        """Return a test's outcome; start the next ones."""
        items = item.session.items
        here = items.index(item)
        for other in items[here : here + 2 * AT_A_TIME]:
            if HERE in other.path.parents and other.nodeid not in self.started:
                self.started[other.nodeid] = self.pool.submit(self.run, other)
        return self.started.pop(item.nodeid).result()

    def run(self, item: pytest.Function) -> tuple:
        """Run a test on a server that is idle."""
        arguments = dict(item.callspec.params) if hasattr(item, "callspec") else {}
        marker = item.get_closest_marker("seconds")
        seconds = marker.args[0] if marker else SECONDS
        return self.servers.call(str(item.path), item.originalname, arguments, seconds)

    def close(self) -> None:
        """End the servers."""
        self.pool.shutdown(cancel_futures=True)
        self.servers.close()


@pytest.fixture(scope="session")
def tests_ahead():
    """The processes that fork for every test."""
    ahead = Ahead()
    yield ahead
    ahead.close()


def pytest_configure(config):
    """Name the marker of this folder."""
    config.addinivalue_line("markers", "seconds(n): may take so long")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run a test function in a process of its own."""
    if pyfuncitem.config.option.usepdb:
        return None
    ahead = pyfuncitem._request.getfixturevalue("tests_ahead")
    print(judge(*ahead.outcome(pyfuncitem)), end="")
    return True
