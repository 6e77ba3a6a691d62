"""Every test here runs in a process of its own: nothing has been recorded there (see ../semantics/isolation.py).

So tests have no fixtures; what they share is in recording.py.

They say exactly what is done by whom. Where the machine is so busy that a flush stalls for 20 ms, the walker has Python go
on with it, and they fail: so a test that fails (but for a crash) is run once more.
"""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "semantics")]

from isolation import Server, judge  # noqa: E402

SECONDS = 60.0  # a test that takes longer hangs
SERVER = pytest.StashKey[Server]()


def pytest_collection_finish(session):
    """Begin to load torch, even if the tests of other folders come first."""
    options = session.config.option
    here = any(HERE in item.path.parents for item in session.items)
    if here and not options.usepdb and not options.collectonly:
        session.config.stash[SERVER] = Server(preload=("loaded",), folder=HERE)


def pytest_sessionfinish(session):
    """End the server."""
    if SERVER in session.config.stash:
        session.config.stash[SERVER].close()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run a test function in a process of its own; with ``--pdb`` in pytest's."""
    if pyfuncitem.config.option.usepdb:
        return None
    arguments = dict(pyfuncitem.callspec.params) if hasattr(pyfuncitem, "callspec") else {}
    server = pyfuncitem.config.stash[SERVER]
    name = pyfuncitem.originalname
    request = (str(pyfuncitem.path), name, arguments, SECONDS)
    kind, value, printed = server.call(*request)
    if kind == "failed":
        print(f"at first:\n{value}")
        kind, value, printed = server.call(*request)
    print(judge(kind, value, printed), end="")
    return True
