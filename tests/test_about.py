"""``python -m torchy report``, ``TORCHY=off``, and what says at once that it cannot be served."""

import operator
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import torchy
from torchy import about
from torchy.codegen.cpu import kernel
from torchy.record import building

ROOT = Path(__file__).parent.parent
OFF = """
import torch, torchy
with torchy.lazy() as session:
    x = torch.ones(8) * 2
    assert not torchy.is_pending(x) and session.asleep
print(torchy.enable(never="add").report.events[0].text)
y = x + 1
torchy.flush()
torchy.disable()
print(y.sum().item(), session.counters["recorded"], torchy.current_session(), torchy.walker_ready())
"""


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_report_tells_versions_and_machine_and_tests_each_kind_of_ops():
    done = run("-m", "torchy", "report")
    assert done.returncode == 0, done.stdout + done.stderr
    told = dict(line.split(":", 1) for line in done.stdout.splitlines())
    assert torchy.__version__ in told["torchy"] and torch.__version__ in told["torch"]
    assert torch.backends.cpu.get_cpu_capability() in told["torch uses"]
    assert told["walker"].strip().startswith("built, ")
    assert told["self-test"].strip().startswith(f"eager's bits ({len(about.KINDS)} kinds of ops")


def test_the_self_test_finds_what_is_wrong(monkeypatch):
    def other_bits(x):
        y = x * 2
        return y + torchy.is_pending(y)

    def other_layout(x):
        y = x * 2
        return y.t().contiguous().t() if torchy.is_pending(y) else y

    def raises(x):
        y = x * 2
        if torchy.is_pending(y):
            raise IndexError("no such thing")
        return y

    kinds = {"bits": other_bits, "layout": other_layout, "raises": raises, "fine": lambda x: x + 1}
    monkeypatch.setattr(about, "KINDS", kinds)
    text, well = about.self_test()
    assert not well
    assert text.startswith(
        "bits: other bits than eager's; layout: other strides than eager's; "
        "raises: IndexError: no such thing (4 kinds"
    )


def test_the_self_test_sees_that_no_kernel_can_be_compiled(monkeypatch):
    monkeypatch.setattr(
        kernel, "write_module", operator.truediv
    )  # fails, in no code of the program
    monkeypatch.setattr(about, "KINDS", {"new": lambda x: (x * 2.71828 - 3.14159) / 1.41421})
    text, well = about.self_test()
    assert not well and text.startswith("no kernel was run (1 kinds of ops")
    assert "; new: kernel failed to compile: " in text
    monkeypatch.setattr(about, "KINDS", {"runs now": torch.nonzero})
    text, well = about.self_test()
    assert not well and text.startswith("no kernel was run (1 kinds of ops")


def test_a_report_without_a_compiler_says_what_to_do(tmp_path):
    done = run("-m", "torchy", "report", "--cache-dir", tmp_path, PATH="", CXX="")
    assert done.returncode == 1
    assert "not built yet; no C++ compiler found" in done.stdout
    assert "install one (apt install g++" in done.stdout


def test_switched_off_in_the_environment_everything_runs_as_in_eager(tmp_path):
    for said in ("off", "OFF", "0"):
        done = run("-c", OFF, TORCHY=said, XDG_CACHE_HOME=str(tmp_path), PATH="")
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{torchy.settings.OFF}\n24.0 0 None True\n"
    assert "self-test:   TORCHY=off" in run("-m", "torchy", "report", TORCHY="off").stdout


def test_a_script_that_runs_switched_off_says_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import torch; print((torch.ones(3) * 2).sum().item())")
    done = run("-m", "torchy", "run", script, TORCHY="off")
    assert done.stdout == "6.0\n" and "off: TORCHY=off in the environment" in done.stderr


def test_what_else_the_environment_says_is_an_error():
    done = run("-c", "import torchy; torchy.enable()", TORCHY="maybe")
    assert "ValueError: TORCHY in the environment must be on or off, not 'maybe'" in done.stderr


def test_an_older_torch_is_told_which_one_is_needed(monkeypatch):
    monkeypatch.setattr(building, "TORCH", (2, 9))
    with pytest.raises(torchy.WalkerUnavailable, match=r"needs torch 2\.13 or newer.*pip install"):
        building.build()
