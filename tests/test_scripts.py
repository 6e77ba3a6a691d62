"""``python -m torchy run``: a script runs as it does by itself, and what it did is told."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = """\
import sys
import torch

def main():
    x = torch.ones(8)
    y = x * 2 + 1
    print(sys.argv[1:], __name__, y.sum().item())
    if "--fail" in sys.argv:
        raise ValueError("no more")
    if "--exit" in sys.argv:
        sys.exit(7)

main()
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    return path


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "torchy", "run", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_script_runs_with_its_arguments_and_a_summary_is_told(script):
    done = run(script, "-o", "8", "--lr", "0.1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['-o', '8', '--lr', '0.1'] __main__ 24.0\n"
    assert "3 ops recorded" in done.stderr


def test_a_time_line_is_written(script, tmp_path):
    done = run("-o", tmp_path / "trace.json", script)
    assert done.returncode == 0, done.stderr
    names = [e["name"] for e in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]]
    assert any(name.startswith("flush 0: item()") for name in names)


def test_the_page_is_written_by_who_has_registered_it(script, tmp_path):
    done = run("-o", tmp_path / "trace.html", script)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "trace.html").read_text()
    assert "<title>Torchy: train.py</title>" in page
    assert "y = x * 2 + 1" in page and "`.item()` needed a value".replace("`", "") in page


def test_what_the_script_raises_is_told_as_python_does(script, tmp_path):
    done = run("-o", tmp_path / "trace.html", script, "--fail")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "Traceback (most recent call last):"
    assert "scripts.py" not in done.stderr and "runpy" not in done.stderr
    assert "ValueError: no more" in done.stderr
    assert "ValueError: no more (train.py, line 9)" in (tmp_path / "trace.html").read_text()


def test_it_is_the_main_module_as_for_python(tmp_path):
    """Workers find its classes, its folder is first, and it stays the main module until the end."""
    script = tmp_path / "main.py"
    script.write_text(
        """# -*- coding: latin-1 -*-
import atexit, multiprocessing, os, pathlib, pickle, sys
class Kept:
    pass
def work(kept):
    return kept
if __name__ == "__main__":
    print(pathlib.Path(__file__).is_absolute(), __package__, sys.argv[0])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(type(pool.map(work, [Kept()])[0]) is Kept, "é")
    atexit.register(lambda: print(len(pickle.dumps(Kept())) > 0))
    sys.excepthook = lambda kind, error, traceback: print("hook", kind.__name__)
    os.chdir("/")
    sys.stdout.flush()
    if not os.fork():
        sys.exit(0)
    os.wait()
    raise KeyboardInterrupt
""",
        encoding="latin-1",
    )
    done = run("-o", tmp_path / "trace.html", script)
    assert done.returncode == 130, done.stderr
    assert done.stdout.splitlines()[:2] == [f"True None {script}", "True é"]
    assert done.stdout.splitlines()[-2:] == ["hook KeyboardInterrupt", "True"]
    assert "KeyboardInterrupt" in (tmp_path / "trace.html").read_text()
    assert done.stderr.count("wrote") == 1


def test_the_exit_status_is_the_scripts(script):
    assert run(script, "--exit").returncode == 7


def test_what_cannot_be_is_told_before_the_script_runs(script, tmp_path):
    done = run("-o", tmp_path / "trace.pdf", script)
    assert done.returncode == 2 and done.stdout == ""
    assert "its suffix is none of .json" in done.stderr
    done = run("-o", tmp_path / "none" / "trace.html", script)
    assert done.returncode == 2 and "there is no folder" in done.stderr and done.stdout == ""
    done = run(tmp_path / "none.py")
    assert done.returncode == 2 and "there is no file" in done.stderr
