"""``--nan``, ``--keep``, ``--compare`` and receipts in a real kernel."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.notebook

HUNT = """%%torchy --nan
import torch
x = torch.linspace(-1, 1, 100)
for turn in range(3):
    y = (x + turn).log()
    y.sum().item()"""


def test_the_first_nan_is_told(kernel):
    output = kernel.run(HUNT)
    assert output.status == "ok"
    found = kernel.value(
        "(lambda b: (b.kind, b.short, b.line, b.step, b.iteration, b.operands[0].nans))"
        "(__import__('torchy_jupyter').last_explorer().first_nan)"
    )
    assert found == "('NaN', 'log', 5, 0, 0, 0)"
    copy = "".join(str(d) for d in output.displays)
    assert "the first NaN is born here: log" in copy


def test_a_clean_cell_has_none(kernel):
    kernel.run("%%torchy --nan\nimport torch\n(torch.ones(5) * 2).sum().item()")
    assert kernel.value("__import__('torchy_jupyter').last_explorer().first_nan") == "None"


def test_values_of_the_past(kernel):
    kernel.run(
        "%%torchy --keep 64MiB\nimport torch\nx = torch.ones(8)\nfor i in range(20):\n    x = x * 2\n    x[0].item()"
    )
    explorer = "__import__('torchy_jupyter').last_explorer()"
    number = f"{explorer}.report.traces[-1].number"
    assert (
        kernel.value(f"{explorer}.value(0, step=3, trace={number}).tolist()[0] in (16.0, 32.0)")
        == "True"
    )
    assert kernel.value(f"{explorer}.snapshot.keeps") == "True"
    told = kernel.value(f"{explorer}._watched.value_text({number}, 0, None)")
    assert '"steps": 20, "step": 19' in told and '"histogram"' in told


def test_what_was_not_asked_for_says_how(kernel):
    kernel.run("%%torchy\nimport torch\n(torch.ones(5) * 2).sum().item()")
    for name, option in (
        ("first_nan", "--nan"),
        ("comparison", "--compare"),
        ("value(0)", "--keep"),
    ):
        error = kernel.run(f"__import__('torchy_jupyter').last_explorer().{name}").error
        assert error.startswith("RuntimeError") and f"%%torchy {option}" in error


def test_eager_is_run_for_comparison(kernel):
    output = kernel.run(
        "%%torchy --compare --compile always\nimport torch\nx = torch.linspace(0, 1, 100_000)\n"
        "y = (x * 2 + 1).sin()\ny.sum().item()"
    )
    explorer = "__import__('torchy_jupyter').last_explorer()"
    assert kernel.value(f"all(row.equal for row in {explorer}.comparison)") == "True"
    assert (
        kernel.value(f"{explorer}.snapshot.account.measured, {explorer}.snapshot.equal")
        == "True True"
    )
    assert "All bits are eager" in "".join(str(d) for d in output.displays)


def test_a_receipt_is_written_and_checked(kernel, tmp_path: Path):
    path = tmp_path / "run.jsonl"
    cell = (
        "%%torchy\nimport torch\nx = torch.linspace(0, 1, 1000)\n"
        "for i in range(3):\n    x = (x * 1.5).sin()\n    x.sum().item()"
    )
    assert "are noted in" in kernel.run(f"%torchy receipt {path}").stdout
    kernel.run(cell)
    assert "noted in" in kernel.run("%torchy").stdout
    assert "3 flushes written to" in kernel.run("%torchy receipt").stdout
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[1]["at"].startswith("cell ") and lines[1]["at"].endswith(", line 6")
    assert "compared with" in kernel.run(f"%torchy receipt --check {path}").stdout
    kernel.run(cell)
    assert "3 of 3 equal" in kernel.run("%torchy receipt").stdout
    kernel.run(f"%torchy receipt --check {path}")
    kernel.run(cell.replace("1.5", "1.6"))
    said = kernel.run("%torchy receipt").stdout
    assert "0 of 3 equal; first difference: cell " in said and "line 5, `sin`" in said
    assert "there is none" in kernel.run("%torchy receipt").error
    assert "no receipt" in kernel.run(f"%torchy receipt --check {__file__}").error


def test_a_long_cell_tells_how_far_it_is(kernel):
    output = kernel.run(
        "%%torchy\nimport torch, time\nx = torch.ones(8)\n"
        "for i in range(14):\n    x = x * 2\n    x.sum().item()\n    time.sleep(0.25)"
    )
    lines = [str(d) for d in output.displays]
    assert any("ops recorded" in line and "so far" in line for line in lines)


def test_a_short_cell_does_not(kernel):
    output = kernel.run("%%torchy\nimport torch\n(torch.ones(5) * 2).sum().item()")
    assert not any("so far" in str(d) for d in output.displays)


def test_the_doctor_has_findings(kernel):
    kernel.run(
        "import torch\nx = torch.linspace(0, 1, 1 << 20)\n"
        "w = torch.linspace(0, 1, 1 << 20, dtype=torch.float64)"
    )
    cell = (
        "%%torchy --compile always --keep 512MiB\n"
        "for i in range(4):\n    y = ((x * w).sin() + 1).exp()\n    y.sum().item()"
    )
    for _ in range(3):
        kernel.run(cell)
    explorer = "__import__('torchy_jupyter').last_explorer()"
    told = kernel.value(
        f"[(f.kind, f.line, f.gain_seconds is not None) for f in {explorer}.findings]"
    )
    assert "('dtype', 3, True)" in told
    assert kernel.value(f"[f['line'] for f in {explorer}.snapshot.findings]") == "[3]"


def test_a_tensor_that_is_made_in_a_loop_is_found_below_the_magic(kernel):
    kernel.run(
        "%%torchy\nimport torch\nx = torch.zeros(1 << 20)\n"
        "for i in range(20):\n    x = x + torch.arange(1048576.0)\nx.sum().item()"
    )
    explorer = "__import__('torchy_jupyter').last_explorer()"
    assert "('made', 5)" in kernel.value(
        f"str([(f.kind, f.line) for f in __import__('torchy').explain.findings({explorer}.report, 0.0,"
        f" {explorer}._watched._texts)])"
    )
