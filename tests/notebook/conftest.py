"""A real kernel, and what it sends back for a cell."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

ROOT = Path(__file__).parents[2]
ANSI = re.compile(r"\x1b\[[0-9;]*m")
SECONDS = 120


@dataclass
class Output:
    """All that a cell sent: in order, and by kind."""

    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    reply: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        return str(self.reply["status"])

    def _all(self, *kinds: str) -> list[dict[str, Any]]:
        return [content for kind, content in self.messages if kind in kinds]

    @property
    def stdout(self) -> str:
        return "".join(part["text"] for part in self._all("stream") if part["name"] == "stdout")

    @property
    def stderr(self) -> str:
        return "".join(part["text"] for part in self._all("stream") if part["name"] == "stderr")

    @property
    def result(self) -> str | None:
        """What stands behind ``Out[n]:``."""
        found = self._all("execute_result")
        return found[0]["data"]["text/plain"] if found else None

    @property
    def displays(self) -> list[dict[str, Any]]:
        return [content["data"] for content in self._all("display_data")]

    @property
    def explorers(self) -> list[str]:
        """The explorers' static HTML."""
        pages = (data.get("text/html", "") for data in self.displays)
        return [page for page in pages if "torchy-static" in page]

    @property
    def widgets(self) -> int:
        return sum("application/vnd.jupyter.widget-view+json" in data for data in self.displays)

    @property
    def error(self) -> str:
        """``ValueError: what`` of the exception that failed the cell, empty if none did."""
        reply = self.reply
        return f"{reply['ename']}: {reply['evalue']}" if self.status == "error" else ""

    @property
    def traceback(self) -> str:
        found = self._all("error")
        return ANSI.sub("", "\n".join(found[0]["traceback"])) if found else ""


class Kernel:
    """A kernel to run cells in."""

    def __init__(self, manager: KernelManager) -> None:
        self.manager = manager
        self.client: BlockingKernelClient = manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=SECONDS)

    def run(self, code: str, interrupt_on: str | None = None) -> Output:
        """Run a cell; when it prints ``interrupt_on``, interrupt it."""
        output = Output()

        def hook(message: dict[str, Any]) -> None:
            kind, content = message["msg_type"], message["content"]
            if kind in ("stream", "execute_result", "display_data", "error"):
                output.messages.append((kind, content))
            if interrupt_on and kind == "stream" and interrupt_on in content["text"]:
                self.manager.interrupt_kernel()

        reply = self.client.execute_interactive(code, output_hook=hook, timeout=SECONDS)
        output.reply = reply["content"]
        return output

    def value(self, expression: str) -> str:
        """Print an expression in the kernel."""
        output = self.run(f"print({expression})")
        assert output.status == "ok", output.traceback
        return output.stdout.strip()

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def start(home: Path, **environment: str) -> Kernel:
    manager = KernelManager(kernel_name="python3", transport="ipc", ip=str(home / "ipc"))
    env = os.environ | {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(home)} | environment
    manager.start_kernel(env=env, cwd=str(home))
    return Kernel(manager)


@pytest.fixture
def fresh_kernel(tmp_path: Path) -> Iterator[Kernel]:
    """A kernel of the test's own, with nothing loaded."""
    kernel = start(tmp_path)
    yield kernel
    kernel.close()


@pytest.fixture(scope="session")
def shared_kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    kernel = start(tmp_path_factory.mktemp("kernel"))
    setup = kernel.run("%load_ext torchy_jupyter\nimport torch, torchy, torchy_jupyter")
    assert setup.status == "ok", setup.traceback
    warm = kernel.run("%%torchy --quiet\ntorch.ones(3) + 1")  # builds the walker
    assert warm.status == "ok", warm.traceback
    yield kernel
    kernel.close()


@pytest.fixture
def kernel(shared_kernel: Kernel) -> Iterator[Kernel]:
    """A kernel with the extension loaded and the walker built; no test leaves a session behind."""
    yield shared_kernel
    assert shared_kernel.value("torchy.current_session()") == "None"
