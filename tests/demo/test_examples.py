"""The example notebook, executed in real kernels, and what the demo says of it."""

import contextlib
import html
import io
import json
import re

import nbformat
import pytest
import torch

from examples import run_demo
from examples.pages import to_html
from examples.probe import facts

SMALL = {"enlarge": 2, "epochs": 1}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """What the demo printed, and the page it wrote."""
    page, printed = tmp_path_factory.mktemp("demo") / "page.html", io.StringIO()
    arguments = ["--rounds", "1", "--output", str(page), "--parameters", json.dumps(SMALL)]
    with contextlib.redirect_stdout(printed):
        assert run_demo.main(arguments) == 0, printed.getvalue()
    return printed.getvalue(), page.read_text()


@pytest.fixture(params=["torchy", pytest.param("eager", marks=pytest.mark.slow)])
def shown(request):
    """The text of the executed notebook, as the demo shows it or as plain PyTorch's."""
    if request.param == "torchy":
        _, page = request.getfixturevalue("demo")
    else:
        notebook = run_demo.with_parameters(nbformat.read(run_demo.NOTEBOOK, as_version=4), SMALL)
        notebook = run_demo.without_torchy(notebook)
        with run_demo.Kernel(notebook) as kernel:
            for index in range(len(notebook.cells)):
                kernel.run(index)
        page = to_html(notebook, "Torchy")
    return html.unescape(re.sub(r"<[^>]*>", "", page))


def test_the_notebook_is_kept_without_outputs():
    notebook = nbformat.read(run_demo.NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


@pytest.mark.notebook
def test_the_notebook_runs_and_its_own_checks_hold(shown):
    # with figures, which the source of the cells does not have
    assert re.search(r"\d+ losses and \d+ weights are equal", shown)
    assert re.search(r"\d % right", shown)
    assert "cannot be multiplied (1797x64 and 63x10)" in shown
    assert "raised on line 4 - " in shown


@pytest.mark.notebook
def test_a_traceback_points_to_the_line_of_the_cell(shown):
    assert re.findall(r"-+> (\d+) product = shifted @", shown) == ["4"]


@pytest.mark.notebook
def test_the_demo_prints_a_table_and_writes_the_page(demo):
    printed, page = demo
    for cell in ("numeric", "training", "plot", "error"):
        assert re.search(rf"^{cell} .* yes$", printed, re.MULTILINE), printed
    assert "data:image/svg+xml;base64," in page
    assert not re.search(r"(src|href)=.?https?:|import\(.?https?:|from .https?:", page)


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


COURSE = sorted(run_demo.NOTEBOOK.parent.glob("course-*.ipynb"))


@pytest.mark.notebook
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=pytest.mark.slow if "compile" in path.name else ())
        for path in COURSE
    ],
    ids=lambda path: path.stem,
)
def test_the_course_runs_and_its_own_checks_hold(path):
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code")
    with run_demo.Kernel(notebook) as kernel:
        for index in range(len(notebook.cells)):
            kernel.run(index)


def test_the_course_has_six_parts():
    assert [path.name.split("-")[1] for path in COURSE] == list("123456")
