"""Cells under Torchy in a real kernel: the program cannot tell, but for the explorer below it."""

from __future__ import annotations

import pytest

from .conftest import Kernel

pytestmark = pytest.mark.notebook

LAST = "torchy_jupyter.last_explorer().report"


def reasons(kernel: Kernel) -> str:
    return kernel.value(f"[trace.reason for trace in {LAST}.traces]")


def test_a_cell_runs_and_shows_its_explorer_twice(kernel: Kernel) -> None:
    output = kernel.run("%%torchy\nx = torch.arange(4.0)\ny = (x + 1) * 2\ny.sum().item()")
    assert (output.status, output.result) == ("ok", "20.0")
    assert len(output.explorers) == 1 and output.widgets == 1
    assert kernel.value("y.tolist()") == "[2.0, 4.0, 6.0, 8.0]"
    assert kernel.value("torchy.is_pending(y)") == "False"


def test_the_report_has_the_cells_own_lines(kernel: Kernel) -> None:
    kernel.run("%%torchy --quiet\nx = torch.ones(4)\n\ny = x + 1\nz = y * 3")
    lines = kernel.value(
        f"[(op.short, op.line) for trace in {LAST}.traces for op in trace.ops if op.short != 'ones']"
    )
    assert "('add', 4)" in lines and "('mul', 5)" in lines
    number = kernel.value("get_ipython().execution_count - 3")
    listing = kernel.value(f"repr({LAST}.traces[-1])")
    assert f"# cell {number}, line 5" in listing


def test_the_last_expression_is_displayed_and_flushed_in_the_cell(kernel: Kernel) -> None:
    output = kernel.run("%%torchy\nx = torch.arange(3.0)\nx + 1")
    assert output.result == "tensor([1., 2., 3.])"
    assert "end of cell" in reasons(kernel)


def test_a_trailing_semicolon_is_honoured(kernel: Kernel) -> None:
    output = kernel.run("%%torchy\nx = torch.arange(3.0)\nx + 1;")
    assert (output.status, output.result) == ("ok", None)


def test_a_last_assignment_is_displayed_if_ipython_is_set_so(kernel: Kernel) -> None:
    kernel.run("%config InteractiveShell.ast_node_interactivity = 'last_expr_or_assign'")
    assert kernel.run("%%torchy\nx = torch.ones(2) + 1").result == "tensor([2., 2.])"
    assert kernel.run("%%torchy\na, b = 1, 2").result is None
    kernel.run("%config InteractiveShell.ast_node_interactivity = 'last_expr'")
    assert kernel.run("%%torchy\nx = torch.ones(2) + 1").result is None


def test_future_imports_may_come_first(kernel: Kernel) -> None:
    output = kernel.run("%%torchy\nfrom __future__ import annotations\ntorch.ones(1) + 1")
    assert (output.status, output.result) == ("ok", "tensor([2.])")


def test_quiet_shows_no_explorer_but_keeps_the_report(kernel: Kernel) -> None:
    output = kernel.run("%%torchy --quiet\nx = torch.arange(3.0)\nx + 1")
    assert (output.explorers, output.widgets) == ([], 0)
    assert output.result == "tensor([1., 2., 3.])"
    assert kernel.value(f"{LAST}.totals.ops") != "0"


def test_await_works(kernel: Kernel) -> None:
    output = kernel.run(
        "%%torchy\nimport asyncio\nx = torch.ones(3)\nawait asyncio.sleep(0.01)\ny = x + 1\ny"
    )
    assert (output.status, output.result) == ("ok", "tensor([2., 2., 2.])")
    assert len(output.explorers) == 1


@pytest.mark.parametrize("above", ["%%torchy\n%%time\n", "%%time\n%%torchy\n"])
def test_time_composes_above_and_below_and_measures_the_flush(kernel: Kernel, above: str) -> None:
    output = kernel.run(above + "x = torch.ones(3)\ny = x + 1\ny * 2")
    assert output.status == "ok", output.traceback
    assert "Wall time" in output.stdout
    assert output.result == "tensor([4., 4., 4.])"
    assert len(output.explorers) == 1
    assert "end of cell" in reasons(kernel)


def test_timeit_measures_what_it_runs(kernel: Kernel) -> None:
    output = kernel.run(
        "%%torchy --quiet --compile always\nx = torch.ones(3)\n%timeit -n 5 -r 2 x + 1"
    )
    assert output.status == "ok", output.traceback
    assert int(kernel.value(f"{LAST}.totals.traces")) >= 10
    assert kernel.value(f"{LAST}.totals.dead") == "0"


def test_an_exception_has_the_cells_lines_and_nothing_is_lost(kernel: Kernel) -> None:
    output = kernel.run("%%torchy\nx = torch.ones(3)\ny = x + 1\nz = torch.ones(4)\ny + z\n'never'")
    assert output.status == "error" and output.error.startswith("RuntimeError")
    assert "----> 5 y + z" in output.traceback
    assert "torchy_jupyter" not in output.traceback
    assert "1 # %%torchy\n" in output.traceback
    assert len(output.explorers) == 1
    assert kernel.value("y.tolist()") == "[2.0, 2.0, 2.0]"
    assert kernel.run("%%torchy\n(y + 1).tolist()").result == "[3.0, 3.0, 3.0]"


def test_the_flush_after_an_exception_says_so_and_where(kernel: Kernel) -> None:
    kernel.run("def fail():\n    pass\n    raise ValueError('no')")
    kernel.run("%%torchy\ny = torch.ones(3) + 1\nfail()")
    assert reasons(kernel) == "['the cell raised ValueError']"
    assert kernel.value(f"{LAST}.traces[0].where.line") == "3"
    assert kernel.value("y.tolist()") == "[2.0, 2.0, 2.0]"


def test_an_error_in_the_last_expression_points_at_it(kernel: Kernel) -> None:
    output = kernel.run("%%torchy\nx = 1\nx / 0")
    assert output.error == "ZeroDivisionError: division by zero"
    assert "----> 3 x / 0" in output.traceback
    assert "torchy_jupyter" not in output.traceback


def test_a_syntax_error_is_reported_and_the_next_cell_works(kernel: Kernel) -> None:
    assert kernel.run("%%torchy\nx = = 1").error.startswith("SyntaxError")
    assert kernel.run("%%torchy\ntorch.ones(1) + 1").result == "tensor([2.])"


def test_an_interrupt_flushes_and_the_next_cell_works(kernel: Kernel) -> None:
    output = kernel.run(
        "%%torchy\nimport time\nx = torch.ones(3)\ny = x + 1\nprint('ready', flush=True)\n"
        "for _ in range(3000):\n    y = y + 0\n    time.sleep(0.01)",
        interrupt_on="ready",
    )
    assert output.error.startswith("KeyboardInterrupt")
    assert kernel.value("y.tolist()") == "[2.0, 2.0, 2.0]"
    assert kernel.run("%%torchy\n(y + 1).tolist()").result == "[3.0, 3.0, 3.0]"


def test_display_in_mid_cell_is_a_flush_of_its_own(kernel: Kernel) -> None:
    output = kernel.run("%%torchy\nx = torch.ones(2)\ny = x + 1\ndisplay(y)\nz = y * 2\nz;")
    assert output.displays[0]["text/plain"] == "tensor([2., 2.])"
    assert "'display'" in reasons(kernel)


def test_one_flush_serves_all_formatters_of_a_display(kernel: Kernel) -> None:
    kernel.run(
        "%%torchy --quiet\n"
        "class Shown:\n"
        "    def __init__(self, tensor): self.tensor = tensor\n"
        "    def __repr__(self): return str(self.tensor.tolist())\n"
        "    def _repr_html_(self): return f'<b>{self.tensor.tolist()}</b>'\n"
        "x = torch.ones(2) + 1\n"
        "display(Shown(x))"
    )
    assert reasons(kernel) == "['display']"


def test_printing_shows_values(kernel: Kernel) -> None:
    output = kernel.run(
        "%%torchy\nx = torch.ones(2)\nfor _ in range(2):\n    x = x + 1\n    print(x)"
    )
    assert output.stdout == "tensor([2., 2.])\ntensor([3., 3.])\n"


def test_matplotlib_draws(kernel: Kernel) -> None:
    output = kernel.run(
        "%%torchy\n%matplotlib inline\nimport matplotlib.pyplot as plt\n"
        "x = torch.linspace(0, 6, 50)\nplt.plot(x, x.sin() * 2);"
    )
    assert output.status == "ok", output.traceback
    kinds = ["image/png" if "image/png" in data else "other" for data in output.displays]
    assert "image/png" in kinds
    assert kinds.index("image/png") < len(kinds) - 2  # the explorer comes last


def test_a_large_result_that_out_keeps_is_pointed_out(kernel: Kernel) -> None:
    output = kernel.run("%%torchy\ntorch.ones(1 << 20) + 1")
    assert "Out keeps 4 MiB" in output.explorers[0]
    output = kernel.run("%%torchy\ntorch.ones(1 << 20) + 1;")
    assert "Out keeps" not in output.explorers[0]
    kernel.run("%reset -f out")


def test_a_captured_cell_runs_under_torchy(kernel: Kernel) -> None:
    output = kernel.run("%%capture seen\n%%torchy\nx = torch.ones(2) + 1\nprint(x)")
    assert output.status == "ok" and output.messages == []
    assert kernel.value("seen.stdout") == "tensor([2., 2.])"


def test_reset_in_mid_cell_does_not_break_the_cell(kernel: Kernel) -> None:
    output = kernel.run(
        "%%torchy\nkept = 1\n%reset -f\nimport torch, torchy, torchy_jupyter\n1 + 1"
    )
    assert (output.status, output.result) == ("ok", "2")


def test_an_empty_cell_is_fine(kernel: Kernel) -> None:
    output = kernel.run("%%torchy")
    assert output.status == "ok" and "No op was deferred" in output.explorers[0]


def test_functions_of_other_cells_are_shown_under_their_name(kernel: Kernel) -> None:
    number = int(kernel.value("get_ipython().execution_count")) - 1
    kernel.run("def double(x):\n    return x * 2")
    output = kernel.run("%%torchy\ndouble(torch.ones(3));")
    assert f"cell {number + 1}: time by line" in output.explorers[0]
    assert "return x * 2" in output.explorers[0]
