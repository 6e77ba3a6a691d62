"""Rule 9, bounded: cells without end in one kernel leave nothing behind that eager's would not."""

import collections
import contextlib
import gc
import io
import linecache
import os
import tempfile
import threading

import pytest
import torch
from allocator import ALLOCATOR
from bounds import MIB, resident

OPS = ["exp", "sin", "tanh", "abs", "neg", "sigmoid", "square", "cos"]
EXPLORERS, TEXTS = 4, 50
CACHES = (300, 24, 8)  # places, plans, kernels: full before the first count


def cell(i):
    """Return the text of a cell: the same, edited in a number, edited in code, failing, displaying, ..."""
    edited = "\n".join(f"x = x.{OPS[(i >> 3 * k) % 8]}() + {k}" for k in range(3))
    return [
        "x = torch.linspace(0, 1, 64)\ny = (x * 2 + 1).tanh()\ny.sum().item()",
        f"x = torch.linspace(0, 1, 64)\ny = (x * {i} + 1).sin()\nprint(y.sum())",
        f"x = torch.linspace(0, 1, 64)\n{edited}\nx",
        "x = torch.ones(3) * 2\ny = x + 1\ny @ torch.ones(5)",
        f"z = [torch.rand(3, 4) + {i} for _ in range(3)]\nw = torch.stack(z).mean(0)\nw",
        "m = torch.nn.Linear(3, 2)\no = torch.optim.SGD(m.parameters(), 0.1)\n"
        "m(torch.ones(4, 3)).square().mean().backward()\no.step()\nm.bias.sum()",
        f"def f(x):\n    return x * {i}\nf(torch.ones(5) + 1).numpy()",
    ][i % 7]


class Notebook:
    """A shell in this process, which names cells by their text as Jupyter's kernel does."""

    def __init__(self):
        os.environ["IPYTHONDIR"] = tempfile.mkdtemp()
        from ipykernel.compiler import XCachingCompiler
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        config = Config()
        config.HistoryManager.enabled = False
        self.shell = InteractiveShell.instance(config=config, compiler_class=XCachingCompiler)
        self.run("import torch")

    def run(self, text):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            return self.shell.run_cell(text, store_history=True)

    def cells(self, numbers, lazily):
        """Run cells; every tenth one shows the explorer."""
        for i in numbers:
            quiet = "" if i % 10 == 0 else " --quiet"
            compile = " --compile always" if i % 4 == 0 else ""
            marker = f"%%torchy{quiet}{compile}\n" if lazily else "# a cell\n"
            result = self.run(marker + cell(i))
            assert result.success == (i % 7 != 3), result.error_in_exec

    def count(self):
        """Return what there is of everything, once all that may be forgotten is."""
        self.shell.history_manager.outputs.clear()  # Jupyter's kernel keeps none
        self.run("del x, y")
        gc.collect()
        ALLOCATOR.malloc_trim(0)
        kinds = collections.Counter(type(thing).__name__ for thing in gc.get_objects())
        own = {
            "file handles": len(os.listdir("/proc/self/fd")),
            "threads": threading.active_count(),
            "MiB": resident() // MIB,
            "lines": len(linecache.cache),
        }
        return kinds, own


def leaks(count):
    """Run many cells, eagerly, then under Torchy; fail if the second half of them leaves more behind."""
    import torchy
    from torchy.face import _process

    notebook = Notebook()
    half = count // 2
    notebook.cells(range(70), lazily=False)
    before, _ = notebook.count()
    notebook.cells(range(70, 210), lazily=False)
    eager = notebook.count()[0]
    eager.subtract(before)

    notebook.run("%load_ext torchy_jupyter")
    with torchy.lazy():
        runtime = _process.runtime
    from torchy_jupyter import cell as face

    face.MOST_SHOWN, face.MOST_TEXTS = EXPLORERS, TEXTS
    places, plans, kernels = CACHES
    runtime.plans.capacity, runtime.kernels._ready.capacity = plans, kernels

    def counted(numbers):
        runtime.upkeep.most_places = places
        most = [0, 0, 0]
        for start in range(numbers.start, numbers.stop, 50):
            notebook.cells(range(start, min(start + 50, numbers.stop)), lazily=True)
            sizes = len(runtime.places), len(runtime.plans), len(runtime.kernels._ready)
            most = [max(pair) for pair in zip(most, sizes, strict=True)]
            assert not runtime.sessions.by_number
        assert most[0] >= places / 2 and most[1:] == [plans, kernels], most  # they were full
        assert most[0] <= 2 * places
        runtime.upkeep.most_places = 0  # what is left of them is forgotten before all is counted
        with torchy.lazy():
            pass
        assert not runtime.scripts and not len(runtime.places)
        return notebook.count()

    first, own_before = counted(range(1000, 1000 + half))
    second, own_after = counted(range(1000 + half, 1000 + count))
    second.subtract(first)
    share = half / 140  # as many times as many cells as eagerly
    grown = {
        kind: number
        for kind, number in second.items()
        if number > max(eager[kind], 0) * share * 1.2 + half / 10 + 20
    }
    assert not grown, f"of {half} cells are left: {grown}"
    assert own_after["file handles"] <= own_before["file handles"]
    assert own_after["threads"] <= own_before["threads"] + 1  # the compiler's comes and goes
    assert own_after["lines"] <= own_before["lines"] + half  # IPython's own, one for each text
    return own_after["MiB"] - own_before["MiB"]


@pytest.mark.seconds(240)
def test_500_cells_leave_nothing_behind():
    assert torch.get_num_threads() > 0
    assert leaks(500) < 24


@pytest.mark.slow
@pytest.mark.seconds(580)
def test_10_000_cells_leave_nothing_behind():
    assert leaks(10_000) < 64  # IPython keeps each cell's text and code: 4 KiB
