"""The example notebook, executed in real kernels, and what the demo says of it."""

import json
import re

import nbformat
import pytest
import torch

from examples import run_demo
from examples.probe import facts

SMALL = {"enlarge": 2, "epochs": 1}


@pytest.fixture(scope="module", params=["torchy", pytest.param("eager", marks=pytest.mark.slow)])
def executed(request):
    """The notebook's cells by id, executed as they are or as plain PyTorch."""
    notebook = run_demo.with_parameters(nbformat.read(run_demo.NOTEBOOK, as_version=4), SMALL)
    if request.param == "eager":
        notebook = run_demo.without_torchy(notebook)
    with run_demo.Kernel(notebook) as kernel:
        for index in range(len(notebook.cells)):
            kernel.run(index)
    return {cell.id: cell for cell in notebook.cells}


def text_of(cell):
    return "\n".join(run_demo.said(cell))


def test_the_notebook_is_kept_without_outputs():
    notebook = nbformat.read(run_demo.NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


@pytest.mark.notebook
def test_the_notebook_runs_and_its_own_checks_hold(executed):
    assert "weights are equal" in text_of(executed["training-check"])
    assert "% right" in text_of(executed["plot"])
    assert "cannot be multiplied (1797x64 and 63x10)" in text_of(executed["error"])
    assert "raised on line 4" in text_of(executed["error-check"])


@pytest.mark.notebook
def test_a_traceback_points_to_the_line_of_the_cell(executed):
    [error] = [o for o in executed["error"].outputs if o.output_type == "error"]
    shown = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
    assert re.findall(r"-+> (\d+) product = shifted @", shown) == ["4"]


@pytest.mark.notebook
def test_the_demo_prints_a_table_and_writes_the_page(tmp_path, capsys):
    page = tmp_path / "page.html"
    arguments = ["--rounds", "1", "--output", str(page), "--parameters", json.dumps(SMALL)]
    assert run_demo.main(arguments) == 0
    printed = capsys.readouterr().out
    for cell in ("numeric", "training", "plot", "error"):
        assert re.search(rf"^{cell} .* yes$", printed, re.MULTILINE), printed
    html = page.read_text()
    assert "data:image/svg+xml;base64," in html
    assert not re.search(r"(src|href)=.?https?:|import\(.?https?:|from .https?:", html)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.tensor(0.0), torch.tensor(-0.0)),
        (torch.tensor(1.0), torch.tensor(1.0000001)),
        (torch.ones(2, 3), torch.ones(3, 2).T),
        (torch.ones(2), torch.ones(2, dtype=torch.float64)),
        (0.1 + 0.2, 0.3),
        ([1, [torch.ones(2)]], [1, [torch.zeros(2)]]),
        (torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)),
    ],
    ids=["sign of zero", "last bit", "strides", "dtype", "number", "nested", "weights"],
)
def test_facts_tell_different_values_apart(one, other):
    assert dict(facts({"x": one})) != dict(facts({"x": other}))


def test_facts_of_equal_values_are_equal():
    quiet, other = torch.tensor([0x7FC00000, 0x7FC00001], dtype=torch.int32).view(torch.float32)
    assert dict(facts({"x": quiet})) == dict(facts({"x": other}))
    loop = []
    loop.append(loop)
    assert dict(facts({"x": loop}))["x[0]"] == "is x"
