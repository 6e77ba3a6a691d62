"""What a cell costs in a real kernel, from Enter to idle: plain, under Torchy, and with its explorer; and how much it sends.

Cells have been run before, so places are known; the first explorer of a notebook, which comes unfolded, is not among those
measured. Prints a line of JSON.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from statistics import median
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

ROOT = Path(__file__).resolve().parent.parent
SETUP = """\
%load_ext torchy_jupyter
import torch
x = torch.rand(16)
inputs, targets = torch.rand(64, 8), torch.rand(64, 1)
net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
"""
CELLS = {
    "one op": "y = x + 1",
    "ten lines, three looks": """\
a = x * 2
b = a + 1
print(b.sum().item())
c = b.tanh()
d = c * c
print(d.mean().item())
e = d - c
f = e.exp()
g = f / 3
print(float(g.sum()))""",
    "30 training steps": """\
for step in range(30):
    optimizer.zero_grad()
    loss = torch.nn.functional.mse_loss(net(inputs), targets)
    loss.backward()
    optimizer.step()
print(loss.item())""",
    "500 ops": """\
z = x
for i in range(250):
    z = z * 1.01 + 0.1
print(z.sum().item())""",
}
WAYS = {"plain": "", "quiet": "%%torchy --quiet\n", "explorer": "%%torchy\n"}
ROUNDS, WARM = 15, 3
PATIENCE = 120  # seconds


class Kernel:
    """A kernel to run cells in."""

    def __init__(self) -> None:
        self._manager = KernelManager(kernel_name="python3")
        self._manager.start_kernel(env=os.environ | {"PYTHONPATH": str(ROOT)})
        self._client: BlockingKernelClient = self._manager.blocking_client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=PATIENCE)

    def run(self, code: str) -> tuple[float, int]:
        """Run a cell; return the seconds until the kernel is idle, and the bytes that it has sent."""
        sent = 0

        def count(message: dict[str, Any]) -> None:
            nonlocal sent
            sent += len(json.dumps(message["content"])) + sum(map(len, message["buffers"]))

        begin = time.perf_counter()
        reply = self._client.execute_interactive(code, output_hook=count, timeout=PATIENCE)
        took = time.perf_counter() - begin
        if reply["content"]["status"] != "ok":
            raise RuntimeError(f"{code!r} failed: {reply['content']}")
        return took, sent

    def close(self) -> None:
        """End it."""
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)


def measure(rounds: int = ROUNDS) -> dict[str, dict[str, float]]:
    """Return by cell the medians of seconds, each way by turns, and the bytes that the explorer sends."""
    kernel = Kernel()
    try:
        kernel.run(SETUP)
        found: dict[str, dict[str, float]] = {}
        for name, body in CELLS.items():
            times: dict[str, list[float]] = {way: [] for way in WAYS}
            sizes: dict[str, list[int]] = {way: [] for way in WAYS}
            for turn in range(WARM + rounds):
                for way, head in WAYS.items():
                    took, sent = kernel.run(head + body)
                    if turn >= WARM:
                        times[way].append(took)
                        sizes[way].append(sent)
            found[name] = {way: median(measured) for way, measured in times.items()}
            found[name]["bytes"] = median(sizes["explorer"]) - median(sizes["quiet"])
        return found
    finally:
        kernel.close()


if __name__ == "__main__":
    print(json.dumps(measure()))
