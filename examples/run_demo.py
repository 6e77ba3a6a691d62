"""Executes quickstart.ipynb twice, with Torchy and eagerly, side by side, and tells how they compare.

Two kernels run the same notebook, cell by cell; in one of them the ``%%torchy`` lines are taken out. After each
``%%torchy`` cell everything that the two kernels hold is compared bit by bit, with what the cell printed and raised.
Then the cell is run again, a few times in turns, for the figures of the steady state.

Writes ``build/quickstart.html``, which needs no network, and prints a table. Exit status 1 if anything differs.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import nbformat
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config

from examples.pages import to_html

HERE = Path(__file__).resolve().parent
NOTEBOOK = HERE / "quickstart.ipynb"
MARK = "%%torchy"


@dataclass
class Row:
    """What the table says of one cell. Times in ms; counts are those of the last run."""

    cell: str
    eager_first: float
    first: float
    counts: dict[str, int] = field(default_factory=dict)
    eager: list[float] = field(default_factory=list)
    steady: list[float] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


class Kernel:
    """A kernel that executes the cells of one notebook, one at a time."""

    def __init__(self, notebook: NotebookNode) -> None:
        self.notebook = notebook
        self.running = contextlib.ExitStack()
        sockets = self.running.enter_context(tempfile.TemporaryDirectory(prefix="demo-"))
        self.client = NotebookClient(
            notebook,
            timeout=600,
            kernel_name="python3",
            resources={"metadata": {"path": str(HERE)}},
            # files instead of ports: nobody else can connect, and the kernel does not warn of it
            config=Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"}),
        )

    def __enter__(self) -> Self:
        self.running.enter_context(self.client.setup_kernel())
        self.probe("install()")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.running.close()

    def run(self, index: int, *, count: bool = True) -> float:
        """Execute a cell and keep its outputs; return what it took in ms.

        Parameters
        ----------
        index
            The cell's. An error that its tags do not announce is raised.
        count
            False: without an execution count of its own.
        """
        self.client.execute_cell(self.notebook.cells[index], index, store_history=count)
        return 1e3 * float(self.probe("print_seconds()"))

    def run_again(self, index: int) -> float:
        """Execute a cell once more, keeping the outputs of its first run."""
        first = self.notebook.cells[index]
        self.notebook.cells[index] = copy.deepcopy(first)
        try:
            return self.run(index, count=False)
        finally:
            self.notebook.cells[index] = first

    def probe(self, call: str) -> str:
        """Return what a function of probe.py prints in the kernel; leaves no trace in the notebook."""
        printed: list[str] = []

        def collect(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])

        channels: Any = self.client.kc
        reply = run_sync(channels.execute_interactive)(
            f"__import__('probe').{call}",
            silent=True,
            store_history=False,
            output_hook=collect,
            timeout=600,
        )
        content = reply["content"]
        if content["status"] != "ok":
            raise RuntimeError(f"probe.{call}: {content['ename']}: {content['evalue']}")
        return "".join(printed)


def is_torchy(cell: NotebookNode) -> bool:
    """Return True for a cell that Torchy is switched on for."""
    return bool(cell.cell_type == "code" and cell.source.startswith(MARK))


def without_torchy(notebook: NotebookNode) -> NotebookNode:
    """Return the notebook as plain PyTorch; all lines keep their numbers."""
    plain = copy.deepcopy(notebook)
    for cell in plain.cells:
        if is_torchy(cell) or cell.source.startswith("%load_ext torchy_jupyter"):
            cell.source = "\n".join(["# eager", *cell.source.split("\n")[1:]])
    return plain


def with_parameters(notebook: NotebookNode, parameters: dict[str, object]) -> NotebookNode:
    """Return the notebook with other values in the cell that is tagged ``parameters``."""
    changed = copy.deepcopy(notebook)
    for cell in changed.cells:
        if "parameters" in cell.metadata.get("tags", []):
            lines = [f"{name} = {value!r}" for name, value in parameters.items()]
            cell.source = "\n".join([cell.source, *lines])
    return changed


def said(cell: NotebookNode) -> list[str]:
    """Return what a cell printed, gave as its value, and raised; a kernel may send what is printed in parts."""
    texts: list[str] = []
    for output in cell.outputs:
        match output.output_type:
            case "stream" if texts and texts[-1].startswith(f"{output.name}: "):
                texts[-1] += output.text
            case "stream":
                texts.append(f"{output.name}: {output.text}")
            case "execute_result":
                texts.append(f"value: {output.data.get('text/plain')}")
            case "error":
                texts.append(f"error: {output.ename}: {output.evalue}")
    return texts


def differences(torchy: Kernel, eager: Kernel, index: int) -> list[str]:
    """Return in words what differs between the two kernels, after both have run a cell."""
    here, there = (json.loads(kernel.probe("print_facts()")) for kernel in (torchy, eager))
    found = [
        f"{name}: {here.get(name)}, eagerly {there.get(name)}"
        for name in {**here, **there}
        if here.get(name) != there.get(name)
    ]
    mine, its = (said(kernel.notebook.cells[index]) for kernel in (torchy, eager))
    if mine != its:
        found.append(f"output: {mine}, eagerly {its}")
    return found


def compare(notebook: NotebookNode, rounds: int) -> tuple[list[Row], NotebookNode]:
    """Execute a notebook with and without Torchy.

    Parameters
    ----------
    notebook
        Has ``%%torchy`` cells.
    rounds
        How often each of these is run again, in either kernel by turns.

    Returns
    -------
    rows
        One for each ``%%torchy`` cell.
    executed
        The notebook with the outputs of each cell's first run.
    """
    rows = []
    executed = copy.deepcopy(notebook)
    with Kernel(executed) as torchy, Kernel(without_torchy(notebook)) as eager:
        for index, cell in enumerate(notebook.cells):
            eager_first, first = eager.run(index), torchy.run(index)
            if not is_torchy(cell):
                continue
            row = Row(cell.id, eager_first, first, differences=differences(torchy, eager, index))
            for _ in range(rounds):
                row.eager.append(eager.run_again(index))
                row.steady.append(torchy.run_again(index))
            row.counts = json.loads(torchy.probe("print_counts()"))
            row.differences += differences(torchy, eager, index)
            rows.append(row)
    return rows, executed


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text."""
    names = ["cell", "ops", "groups", "kernels", "flushes"]
    names += ["eager first-run ms", "first-run ms", "eager ms", "steady ms", "bit-identical"]
    lines = [names]
    for row in rows:
        counts = [f"{row.counts[name]:,}" for name in ("ops", "groups", "kernels", "flushes")]
        medians = (statistics.median(row.eager), statistics.median(row.steady))
        times = (row.eager_first, row.first, *medians)
        same = "no" if row.differences else "yes"
        lines.append([row.cell, *counts, *(f"{time:.1f}" for time in times), same])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return 0 if all is bit-identical, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--rounds", type=int, default=7, help="runs for the steady state (default: 7)"
    )
    parser.add_argument("--output", type=Path, default=HERE.parent / "build" / "quickstart.html")
    parser.add_argument("--parameters", type=json.loads, default={}, help='as JSON: {"epochs": 2}')
    options = parser.parse_args(arguments)

    subprocess.run([sys.executable, "-m", "torchy", "build"], check=True)
    print("Running the notebook with Torchy and eagerly, side by side ...", flush=True)
    notebook = with_parameters(nbformat.read(NOTEBOOK, as_version=4), options.parameters)
    rows, executed = compare(notebook, options.rounds)

    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(to_html(executed, "Torchy: quickstart"), encoding="utf-8")
    print(f"\n{table(rows)}\n")
    print(
        f"eager, steady: medians of {options.rounds} runs in turns, without what is shown after a cell"
    )
    print(
        "bit-identical: every value in the namespace, the next random number, what was printed and raised"
    )
    for row in rows:
        for difference in row.differences:
            print(f"DIFFERS after {row.cell}: {difference}")
    print(f"The notebook with its explorers: {options.output}")
    return int(any(row.differences for row in rows))


if __name__ == "__main__":
    sys.exit(main())
