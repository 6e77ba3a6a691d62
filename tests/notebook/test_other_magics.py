"""What else a notebook does in cells that run under Torchy: scripts, debugger, shell, reloading, captured output."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Kernel

pytestmark = pytest.mark.notebook

LAST = "torchy_jupyter.last_explorer().report"
OPS = f"[op.short for trace in {LAST}.traces for op in trace.ops]"
SETUP = "x = torch.linspace(0, 1, 16).reshape(4, 4)\n"


@pytest.fixture(params=["%%torchy", "%torchy on"])
def run(request: pytest.FixtureRequest, kernel: Kernel):
    """Run a cell under Torchy, by a line of its own or since all are."""
    if request.param == "%%torchy":
        yield lambda code: kernel.run(f"%%torchy --quiet\n{code}")
    else:
        kernel.run("%torchy on --quiet")
        yield kernel.run
        kernel.run("%torchy off")


def test_a_script_is_run_in_the_session(run, kernel: Kernel, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import torch\nz = torch.ones(3) * 2\nw = z + 1\nprint(w.sum().item())\n")
    output = run(f"%run {script}")
    assert (output.status, output.stdout) == ("ok", "9.0\n")
    found = f"{{op.file for trace in {LAST}.traces for op in trace.ops}}"
    assert str(script) in kernel.value(found)
    assert kernel.value("z.tolist(), w.tolist()") == "[2.0, 2.0, 2.0] [3.0, 3.0, 3.0]"
    output = run(f"%run -i {script}\nv = w * 2\nv.tolist()")
    assert output.result == "[6.0, 6.0, 6.0]"
    assert run(f"%run -p {script}").status == "ok"
    assert run(f"%run -t {script}").stdout.startswith("9.0\n")


def test_a_script_that_fails_leaves_what_it_made(run, kernel: Kernel, tmp_path: Path) -> None:
    script = tmp_path / "fails.py"
    script.write_text("import torch\nmade = torch.ones(3) * 2\nmade.add_(1)\n1 / 0\n")
    output = run(f"%run -i {script}")
    assert "ZeroDivisionError" in output.traceback + output.stdout + output.stderr
    assert kernel.value("made.tolist()") == "[3.0, 3.0, 3.0]"


def test_loading_twice_changes_nothing(run, kernel: Kernel) -> None:
    hooks = "len(get_ipython().ast_transformers), len(get_ipython().input_transformers_cleanup)"
    before = kernel.value(hooks)
    output = run(f"{SETUP}y = x * 2\n%load_ext torchy_jupyter\nz = y + 1")
    assert output.status == "ok"
    assert "already loaded" in output.stdout
    assert kernel.value(hooks) == before
    assert kernel.value("torch.equal(z, x * 2 + 1)") == "True"


def test_names_are_reset_in_mid_cell(run, kernel: Kernel) -> None:
    kernel.run(SETUP)
    output = run("y = x * 2\nkept = [y]\n%reset_selective -f ^y$\nz = kept[0] + 1\nz[0, 0].item()")
    assert (output.status, output.result) == ("ok", "1.0")
    assert kernel.value("'y' in globals()") == "False"
    assert kernel.value("torch.equal(z, x * 2 + 1)") == "True"
    output = run("%xdel z\n%who_ls Tensor")
    assert output.status == "ok"
    assert "'z'" not in str(output.result)


def test_output_is_captured(run, kernel: Kernel) -> None:
    kernel.run(SETUP)
    output = run("%%capture seen\ny = x * 2\nprint(y[0, 1].item())\ny + 1")
    assert (output.status, output.stdout) == ("ok", "")
    assert kernel.value("seen.stdout.split()[0], len(seen.outputs)") == "0.13333334028720856 1"
    assert kernel.value("torch.equal(y, x * 2)") == "True"


def test_the_shell_is_asked(run, kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "there.txt").write_text("here")
    kernel.run(SETUP)
    output = run(
        f"y = x * 2\nnames = !ls {tmp_path}\n!echo {{y.sum().item()}}\n"
        "z = y + 1\nn = 3\n!echo $n\nprint(list(names), z[0, 0].item())"
    )
    assert output.status == "ok", output.traceback
    said = output.stdout.replace("\r", "").split("\n")
    assert [line for line in said if line] == ["16.0", "3", "['there.txt'] 1.0"]


def test_what_is_stored_and_brought_back(run, kernel: Kernel) -> None:
    kernel.run(f"{SETUP}%load_ext storemagic")
    assert run("y = x * 2\nnumbers = y[0].tolist()\n%store y\n%store numbers").status == "ok"
    assert run("y = None\nnumbers = None\n%store -r y numbers\nz = y + 1").status == "ok"
    assert kernel.value("torch.equal(y, x * 2), torch.equal(z, y + 1)") == "True True"
    assert kernel.value("numbers == y[0].tolist()") == "True"
    kernel.run("%store -z")


def test_a_module_is_edited_between_cells(run, kernel: Kernel, tmp_path: Path) -> None:
    name = f"edited_{tmp_path.name}"
    module = tmp_path / f"{name}.py"
    module.write_text(
        "def f(x):\n    return x * 2\n\n\nclass Scale:\n    def __call__(self, x): return x + 1\n"
    )
    kernel.run(f"{SETUP}import sys; sys.path.insert(0, {str(tmp_path)!r})")
    kernel.run("sys.dont_write_bytecode = True\n%load_ext autoreload\n%autoreload 2")
    kernel.run(f"import {name}\nfrom {name} import f, Scale\nscale = Scale()")
    for _ in range(3):
        assert run("y = scale(f(x))\ny.sum().item()").result == "32.0"
    module.write_text(
        "# a line more\ndef f(x):\n    return (x * 3).relu()\n\n\n"
        "class Scale:\n    def __call__(self, x): return x - 1\n"
    )
    for _ in range(3):
        assert run("y = scale(f(x))\ny.sum().item()").result == "8.0"
    assert "'relu'" in kernel.value(OPS)
    lines = f"{{op.line for trace in {LAST}.traces for op in trace.ops if op.short == 'relu'}}"
    assert kernel.value(lines) == kernel.value("{f.__code__.co_firstlineno + 1}")
    kernel.run("%autoreload 0\nsys.path.pop(0)")


def test_the_debugger_looks_at_what_was_pending(run, kernel: Kernel) -> None:
    kernel.run(SETUP)
    run("def fails(t):\n    u = t * 2\n    v = u + 1\n    raise ValueError('no')\n")
    assert run("fails(x)").error == "ValueError: no"
    # the debugger's commands, as its input would have them
    steps = (
        "import io, sys\nfrom IPython.core.debugger import Pdb\n"
        "said = io.StringIO()\n"
        "commands = io.StringIO('p v[0, 1].item()\\np (u * 2).sum().item()\\nup\\nq\\n')\n"
        "debugger = Pdb(stdin=commands, stdout=said)\ndebugger.use_rawinput = False\n"
        "debugger.reset()\n"
    )
    output = run(f"{steps}debugger.interaction(None, sys.last_traceback)\ny = x + 1")
    assert output.status == "ok", output.traceback
    said = kernel.value("said.getvalue()")
    assert "1.1333333253860474" in said
    assert "32.0" in said
    assert kernel.value("torch.equal(y, x + 1)") == "True"


def test_a_breakpoint_in_the_midst(run, kernel: Kernel) -> None:
    kernel.run(SETUP)
    output = run(
        "import io, pdb\nsaid = io.StringIO()\n"
        "def f(t):\n    u = t * 2\n    pdb.Pdb(stdin=io.StringIO('p u[0, 1].item()\\n"
        "!u.add_(1)\\nc\\n'), stdout=said).set_trace()\n    return u * 10\n"
        "y = f(x)\ny[0, 0].item()"
    )
    assert (output.status, output.result) == ("ok", "10.0")
    assert "0.13333334028720856" in kernel.value("said.getvalue()")
    assert kernel.value("torch.equal(y, (x * 2 + 1) * 10)") == "True"


def test_cells_in_other_languages_and_files(run, kernel: Kernel, tmp_path: Path) -> None:
    kernel.run(SETUP)
    path = tmp_path / "written.py"
    assert run(f"%%writefile {path}\nw = x * 7\n").status == "ok"
    assert run(f"y = x + 1\nexec(open({str(path)!r}).read())\nw[0, 1].item()").status == "ok"
    assert kernel.value("torch.equal(w, x * 7)") == "True"
    output = run("%%bash\necho said")
    assert (output.status, output.stdout.strip()) == ("ok", "said")
    assert run("%%python\nprint(1 + 1)").stdout.strip() == "2"


def test_the_last_results_are_kept(run, kernel: Kernel) -> None:
    kernel.run(SETUP)
    assert run("x[0, 1] * 2").status == "ok"
    number = kernel.value("get_ipython().execution_count - 2")
    assert run(f"(Out[{number}] * 10).item()").result == "1.3333333730697632"


def test_warnings_name_the_cell_s_line(run, kernel: Kernel) -> None:
    kernel.run(f"{SETUP}torch.set_warn_always(True)")
    output = run("y = x * 2\nz = torch.nn.functional.mse_loss(y[0], y[:, :1])\nz = z + 1")
    kernel.run("torch.set_warn_always(False)")
    assert output.status == "ok"
    assert "Using a target size" in output.stderr
    assert "z = torch.nn.functional.mse_loss" in output.stderr
