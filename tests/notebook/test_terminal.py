"""IPython in a terminal: no kernel, no widgets; cells have other file names there."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = """\
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("import torch\\n%load_ext torchy_jupyter")
shell.run_cell('''%%torchy --compile never
x = torch.ones(8)
dropped = x * 5
dropped = None
y = x * 2 + 1
y.sum().item()''', store_history=True)
import torchy_jupyter
[flush] = torchy_jupyter.last_explorer().snapshot.flushes
print([(op.name, op.dead, op.line) for op in flush.ops])
"""


def test_a_cell_runs_and_is_explained_in_text():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "24.0" in done.stdout
    assert "4 ops recorded" in done.stdout and "mul(%0, 2)" in done.stdout
    assert "explorer" not in done.stdout  # no word of a widget
    ops = "[('mul', True, 3), ('mul', False, 5), ('add', False, 5), ('sum', False, 6)]"
    assert done.stdout.splitlines()[-1] == ops
