"""Every test here runs in a process of its own (see isolation.py); with ``--pdb`` it runs in pytest's.

They begin in the background, a test on each of two cores, while pytest is still in other folders.
"""

import os
import sys
import threading
import zlib
from concurrent.futures import Future
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from isolation import Servers, judge  # noqa: E402

SECONDS = 60.0  # a test that takes longer hangs
AT_A_TIME = min(2, os.cpu_count() or 1)


class Ahead:
    """Runs the tests of this folder ahead of pytest, which then takes up their outcomes in order."""

    def __init__(self, items: list[pytest.Function]) -> None:
        self.servers = Servers(AT_A_TIME, preload=("preload",))
        self.outcomes: dict[str, Future] = {item.nodeid: Future() for item in items}
        # with their futures: whoever waits for an outcome may take it out before its test begins
        self.left = iter([(item, self.outcomes[item.nodeid]) for item in items])
        self.lock = threading.Lock()
        self.closed = False
        self.workers = [threading.Thread(target=self.work) for _ in range(AT_A_TIME)]
        for worker in self.workers:
            worker.start()

    def work(self) -> None:
        """Run one test after the other."""
        while not self.closed:
            with self.lock:
                item, outcome = next(self.left, (None, None))
            if item is None:
                return
            try:
                outcome.set_result(self.run(item))
            except BaseException as error:  # noqa: BLE001 - whoever waits for the outcome gets it
                outcome.set_exception(error)

    def outcome(self, item: pytest.Function) -> tuple:
        """Return a test's outcome."""
        return self.outcomes.pop(item.nodeid).result()

    def run(self, item: pytest.Function) -> tuple:
        """Run a test on a server that is idle."""
        arguments = dict(item.callspec.params) if hasattr(item, "callspec") else {}
        marker = item.get_closest_marker("seconds")
        seconds = marker.args[0] if marker else SECONDS
        return self.servers.call(str(item.path), item.originalname, arguments, seconds)

    def close(self) -> None:
        """End the servers, when the tests that are running have ended."""
        self.closed = True
        for worker in self.workers:
            worker.join()
        self.servers.close()


AHEAD = pytest.StashKey[Ahead]()


def pytest_configure(config):
    """Name the markers of this folder."""
    config.addinivalue_line("markers", "seconds(n): may take so long")
    config.addinivalue_line("markers", "shared: one of each body's parametrizations is not slow")


@pytest.hookimpl(tryfirst=True)  # before slow ones are left out
def pytest_collection_modifyitems(items):
    """Mark as slow what is shared, but for one parametrization of each body, chosen by its name."""
    bodies = {}
    for item in items:
        if item.get_closest_marker("shared") and not item.get_closest_marker("slow"):
            bodies.setdefault((item.path, item.originalname), []).append(item)
    for tests in bodies.values():
        chosen = min(tests, key=lambda item: zlib.crc32(item.nodeid.encode()))
        for item in tests:
            if item is not chosen:
                item.add_marker(pytest.mark.slow)


def pytest_collection_finish(session):
    """Begin, even if the tests of other folders come first."""
    items = [item for item in session.items if HERE in item.path.parents]
    options = session.config.option
    if items and not options.usepdb and not options.collectonly:
        session.config.stash[AHEAD] = Ahead(items)


def pytest_sessionfinish(session):
    """End the processes."""
    if AHEAD in session.config.stash:
        session.config.stash[AHEAD].close()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run a test function in a process of its own."""
    if pyfuncitem.config.option.usepdb:
        return None
    print(judge(*pyfuncitem.config.stash[AHEAD].outcome(pyfuncitem)), end="")
    return True
