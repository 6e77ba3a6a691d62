"""Cells that run cells: sessions within sessions, and what is left when one of them fails."""

from __future__ import annotations

import pytest

from .conftest import Kernel

pytestmark = pytest.mark.notebook

SETUP = "shell = get_ipython()\nx = torch.ones(3)"


def require_left(kernel: Kernel) -> None:
    """Nothing of a session is left, and the next cell works."""
    assert kernel.value("torchy.current_session()") == "None"
    assert kernel.value("torchy.is_pending(torch.ones(3) + 1)") == "False"
    output = kernel.run("%%torchy --quiet\nw = torch.ones(3) * 5\np = torchy.is_pending(w)\nw")
    assert (output.result, kernel.value("p")) == ("tensor([5., 5., 5.])", "True")


def test_a_plain_cell_is_run_by_a_cell(kernel: Kernel) -> None:
    kernel.run(SETUP)
    output = kernel.run(
        "%%torchy --quiet\ny = x * 2\nshell.run_cell('z = y + 1; y.add_(5);')\nv = (y + z).tolist()"
    )
    assert output.status == "ok", output.traceback
    assert kernel.value("v") == "[10.0, 10.0, 10.0]"
    assert kernel.value("z.tolist()") == "[3.0, 3.0, 3.0]"
    require_left(kernel)


def test_a_torchy_cell_is_run_by_a_torchy_cell(kernel: Kernel) -> None:
    kernel.run(SETUP)
    output = kernel.run(
        "%%torchy --quiet\ny = x * 2\n"
        "done = shell.run_cell('%%torchy --quiet --compile never\\nz = y + 1\\nz')\n"
        "y.add_(z)\nv = y.tolist()"
    )
    assert output.result == "tensor([3., 3., 3.])", output.traceback
    assert kernel.value("v") == "[5.0, 5.0, 5.0]"
    assert kernel.value("done.result.tolist()") == "[3.0, 3.0, 3.0]"
    require_left(kernel)


def test_a_cell_that_a_cell_runs_raises(kernel: Kernel) -> None:
    kernel.run(SETUP)
    output = kernel.run(
        "%%torchy --quiet\ny = x * 2\n"
        "done = shell.run_cell('z = y + 1\\ny.add_(1)\\n1 / 0')\n"
        "v = y + z\nv.tolist()"
    )
    assert output.result == "[6.0, 6.0, 6.0]", output.traceback
    assert kernel.value("type(done.error_in_exec).__name__") == "ZeroDivisionError"
    require_left(kernel)


def test_a_torchy_cell_that_a_torchy_cell_runs_raises(kernel: Kernel) -> None:
    kernel.run(SETUP)
    output = kernel.run(
        "%%torchy --quiet\ny = x * 2\n"
        "done = shell.run_cell('%%torchy --quiet\\nz = y + 1\\ny.add_(1)\\n1 / 0')\n"
        "v = y + z\nv.tolist()"
    )
    assert output.result == "[6.0, 6.0, 6.0]", output.traceback
    assert kernel.value("type(done.error_in_exec).__name__") == "ZeroDivisionError"
    require_left(kernel)


def test_the_outer_cell_raises_after_the_inner_one(kernel: Kernel) -> None:
    kernel.run(SETUP)
    output = kernel.run(
        "%%torchy --quiet\ny = x * 2\nshell.run_cell('%%torchy --quiet\\nz = y + 1')\n"
        "y.mul_(z)\nv = y - 1\nraise KeyError('outer')"
    )
    assert output.error == "KeyError: 'outer'"
    assert kernel.value("[t[0].item() for t in (y, z, v)]") == "[6.0, 3.0, 5.0]"
    require_left(kernel)


def test_the_error_of_an_inner_cell_is_raised_on(kernel: Kernel) -> None:
    kernel.run(SETUP)
    output = kernel.run(
        "%%torchy --quiet\ny = x * 2\nshell.run_cell('%%torchy\\ny.add_(1)\\n1 / 0').raise_error()"
    )
    assert output.error == "ZeroDivisionError: division by zero"
    assert kernel.value("y.tolist()") == "[3.0, 3.0, 3.0]"
    require_left(kernel)


def test_a_syntax_error_in_an_inner_cell(kernel: Kernel) -> None:
    kernel.run(SETUP)
    output = kernel.run(
        "%%torchy --quiet\ny = x * 2\ndone = shell.run_cell('%%torchy\\nz = = 1')\n"
        "pending = torchy.is_pending(y + 1)\n(y + 1).tolist()"
    )
    assert output.result == "[3.0, 3.0, 3.0]", output.traceback
    assert kernel.value("type(done.error_before_exec).__name__") == "SyntaxError"
    require_left(kernel)


def test_a_region_in_a_cell_raises_and_the_cell_goes_on(kernel: Kernel) -> None:
    output = kernel.run(
        "%%torchy --quiet\nx = torch.ones(3)\ny = x * 2\ntry:\n"
        "    with torchy.lazy(max_ops=3):\n        y.add_(1)\n        raise ValueError\n"
        "except ValueError:\n    z = y * 2\npending = torchy.is_pending(z)\n(y + z).tolist()"
    )
    assert output.result == "[9.0, 9.0, 9.0]", output.traceback
    assert kernel.value("pending") == "True"
    require_left(kernel)


def test_a_region_that_a_cell_leaves_open_in_an_exception(kernel: Kernel) -> None:
    output = kernel.run(
        "%%torchy --quiet\nx = torch.ones(3)\ndef fail(y):\n    with torchy.lazy():\n"
        "        with torchy.lazy(compile='never'):\n            y.add_(1)\n            1 / 0\n"
        "y = x * 2\nfail(y)"
    )
    assert output.error == "ZeroDivisionError: division by zero"
    assert kernel.value("y.tolist()") == "[3.0, 3.0, 3.0]"
    require_left(kernel)


def test_a_cell_enables_and_another_disables(kernel: Kernel) -> None:
    kernel.run("torchy.enable()\nx = torch.ones(3)\ny = x * 2")
    output = kernel.run("%%torchy --quiet\nz = y + 1\nz.tolist()")
    assert output.result == "[3.0, 3.0, 3.0]", output.traceback
    kernel.run("y.add_(z)\ntorchy.disable()")
    assert kernel.value("y.tolist()") == "[5.0, 5.0, 5.0]"
    require_left(kernel)


def test_tasks_of_a_cell_outlive_it(kernel: Kernel) -> None:
    kernel.run(
        "import asyncio\nasync def work(x):\n    for _ in range(3):\n        x.add_(1)\n"
        "        await asyncio.sleep(0)\n    return x * 2"
    )
    kernel.run("%%torchy --quiet\nx = torch.ones(3) * 2\ntask = asyncio.ensure_future(work(x))")
    output = kernel.run("(await task).tolist(), x.tolist()")
    assert output.result == "([10.0, 10.0, 10.0], [5.0, 5.0, 5.0])", output.traceback
    require_left(kernel)


def test_a_task_of_a_cell_is_cancelled_in_a_region(kernel: Kernel) -> None:
    kernel.run(
        "import asyncio\nasync def work(x):\n    with torchy.lazy():\n        while True:\n"
        "            x.add_(1)\n            await asyncio.sleep(0)"
    )
    output = kernel.run(
        "%%torchy --quiet\nx = torch.ones(3) * 2\ntask = asyncio.ensure_future(work(x))\n"
        "for _ in range(3):\n    await asyncio.sleep(0)\ntask.cancel()\n"
        "done = await asyncio.gather(task, return_exceptions=True)\nx.tolist()"
    )
    assert output.result == "[5.0, 5.0, 5.0]", output.traceback
    assert kernel.value("type(done[0]).__name__") == "CancelledError"
    require_left(kernel)
