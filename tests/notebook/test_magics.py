"""The magics in a real kernel: options, switching on and off, loading and unloading."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Kernel, start

pytestmark = pytest.mark.notebook

LAST = "torchy_jupyter.last_explorer()"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("%%torchy --frobnicate", "--frobnicate"),
        ("%%torchy --numerics sloppy", "sloppy"),
        ("%%torchy fast", "fast"),
    ],
)
def test_an_unknown_option_fails_the_cell(kernel: Kernel, line: str, message: str) -> None:
    output = kernel.run(f"{line}\nran = True")
    assert output.status == "error" and output.error.startswith("UsageError")
    assert message in output.error
    assert "--numerics exact|fast, --compile auto|always|never, --max-ops N" in output.error
    assert kernel.value("'ran' in globals()") == "False"


def test_options_reach_the_session(kernel: Kernel) -> None:
    output = kernel.run(
        "%%torchy --numerics fast --compile never --quiet\nsession = torchy.current_session()"
    )
    assert output.status == "ok", output.traceback
    settings = kernel.value("session.settings")
    assert "fast" in settings and "never" in settings


def test_ops_that_are_never_to_be_deferred_run_at_once(kernel: Kernel) -> None:
    wrong = kernel.run("%torchy on --never softmax")
    assert "'softmax' is no op that Torchy defers; like it: _softmax" in wrong.error
    kernel.run("x = torch.rand(64)")
    output = kernel.run(
        "%%torchy --never mul,_softmax\ny = ((x * 2 + 1).softmax(0) + 1).sum().item()"
    )
    assert output.status == "ok", output.traceback
    assert kernel.value("y == ((x * 2 + 1).softmax(0) + 1).sum().item()") == "True"
    ran = f"sorted({{(r.name, r.why) for r in {LAST}.report.ran_now}})"
    why = "it is never to be deferred: you have said so"
    assert kernel.value(ran) == str([("aten::_softmax", why), ("aten::mul.Tensor", why)])
    kernel.run("%torchy on --never add,mul")
    assert "on for all cells: --never add,mul." in kernel.run("%torchy status").stdout
    kernel.run("%torchy off")


def test_help_is_shown(kernel: Kernel) -> None:
    reply = kernel.client.execute("%%torchy?", reply=True, timeout=60)
    (page,) = reply["content"]["payload"]
    text = page["data"]["text/plain"]
    assert "--numerics" in text and "Run this cell under Torchy" in text


def test_run_cell_magic_works_too(kernel: Kernel) -> None:
    kernel.run("get_ipython().run_cell_magic('torchy', '--quiet', 'made = torch.ones(2) + 1')")
    assert kernel.value("made.tolist()") == "[2.0, 2.0]"
    assert "1 trace:" in kernel.value(f"{LAST}.report.summary()")


def test_on_holds_for_all_cells_until_off(kernel: Kernel) -> None:
    assert kernel.run("%torchy on").explorers == []
    first = kernel.run("x = torch.ones(2)\nx + 1")
    assert first.result == "tensor([2., 2.])" and len(first.explorers) == 1
    second = kernel.run("x = x * 3\nx.tolist()")
    assert second.result == "[3.0, 3.0]" and len(second.explorers) == 1
    assert kernel.run("1 + 1").explorers == []  # nothing to show
    failing = kernel.run("y = x + 1\n1 / 0")
    assert failing.error.startswith("ZeroDivisionError")
    assert kernel.run("y.tolist()").result == "[4.0, 4.0]"
    assert "on for all cells" in kernel.run("%torchy status").stdout
    kernel.run("%torchy off")
    off = kernel.run("(x + 1).tolist()")
    assert off.result == "[4.0, 4.0]" and off.explorers == []
    assert "Torchy is off" in kernel.run("%torchy status").stdout


def test_on_takes_options(kernel: Kernel) -> None:
    kernel.run("%torchy on --quiet --compile never")
    assert kernel.run("session = torchy.current_session()\ntorch.ones(2) + 1").explorers == []
    assert "never" in kernel.value("session.settings")
    assert len(kernel.run("%%torchy\ntorch.ones(2) + 1").explorers) == 1
    kernel.run("%torchy off")


def test_last_shows_and_save_writes_the_explorer(kernel: Kernel, tmp_path: Path) -> None:
    kernel.run("%%torchy --quiet\nx = torch.ones(2) + 1")
    assert len(kernel.run("%torchy last").explorers) == 1
    path = tmp_path / "trace.html"
    assert str(path) in kernel.run(f"%torchy save {path}").stdout
    page = path.read_text()
    assert page.startswith("<!doctype html>") and "torch.ones(2) + 1" in page
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page


@pytest.mark.parametrize("line", ["%torchy sideways", "%torchy save", "%torchy off now"])
def test_a_wrong_command_says_what_is_right(kernel: Kernel, line: str) -> None:
    output = kernel.run(line)
    assert output.error.startswith("UsageError") and "save FILE.html" in output.error


def test_the_last_explorer_is_of_a_cell_that_recorded_something(kernel: Kernel) -> None:
    kernel.run("%torchy on")
    kernel.run("x = torch.ones(3)\ny = x * 2 + 1\ny.tolist()")
    assert kernel.run("%torchy off").explorers == []
    kernel.run("1 + 1")
    assert "2 ops recorded" in kernel.value(f"{LAST}.report.summary()")


def test_save_takes_quoted_names_and_says_what_is_wrong(kernel: Kernel, tmp_path: Path) -> None:
    kernel.run("%%torchy\n(torch.ones(3) * 2).tolist()")
    path = tmp_path / "my file.html"
    assert kernel.run(f"%torchy save '{path}'").status == "ok"
    assert path.read_text().startswith("<!")
    output = kernel.run("%torchy save /nonexistent/x.html")
    assert output.error.startswith("UsageError") and "/nonexistent/x.html" in output.error


def test_status_and_help_within_a_cell(kernel: Kernel) -> None:
    assert "Torchy is on for this cell" in kernel.run("%%torchy\n%torchy status").stdout
    reply = kernel.client.execute("%torchy?", reply=True, timeout=60)
    (page,) = reply["content"]["payload"]
    assert "%torchy [" in page["data"]["text/plain"]
    assert "%%torchy [" not in page["data"]["text/plain"]


def test_what_runs_now_is_counted(kernel: Kernel) -> None:
    kernel.run("%%torchy\nx = torch.ones(3)\nx.numpy()\ny = x * 2")
    assert "ran now" in kernel.value(f"{LAST}.report.summary()")


def test_unload_undoes_everything(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    count = (
        "import builtins; ip = get_ipython(); "
        "(len(ip.input_transformers_cleanup), len(ip.ast_transformers), "
        "len(ip.events.callbacks['pre_run_cell']), len(ip.events.callbacks['post_run_cell']), "
        "'format' in vars(ip.display_formatter), len(vars(builtins)), "
        "'torchy' in ip.magics_manager.magics['line'], "
        "'torchy' in ip.magics_manager.magics['cell'], 'TorchyMagics' in ip.magics_manager.registry)"
    )
    kernel.run("1")  # the first cell sets things up itself
    before = kernel.run(count).result
    assert kernel.run("%load_ext torchy_jupyter").status == "ok"
    assert kernel.run(count).result != before
    kernel.run("%torchy on")
    assert kernel.run("%unload_ext torchy_jupyter").status == "ok"
    assert kernel.run(count).result == before
    assert "torchy" in kernel.run("%%torchy\n1").stderr  # no such magic
    assert kernel.run("import torch\n(torch.ones(2) + 1).tolist()").result == "[2.0, 2.0]"
    assert kernel.run("%load_ext torchy_jupyter").status == "ok"
    assert kernel.run("%%torchy\n(torch.ones(2) + 1).tolist()").result == "[2.0, 2.0]"
    assert kernel.run("%reload_ext torchy_jupyter").status == "ok"
    assert len(kernel.run("%%torchy\n(torch.ones(2) + 1).tolist()").explorers) == 1


def test_without_a_compiler_the_cell_says_so_and_runs_eagerly(tmp_path: Path) -> None:
    kernel = start(tmp_path, CXX="", PATH="/nonexistent", XDG_CACHE_HOME=str(tmp_path / "cache"))
    try:
        assert kernel.run("%load_ext torchy_jupyter\nimport torch").status == "ok"
        output = kernel.run("%%torchy\n(torch.ones(2) + 1).tolist()")
        assert (output.status, output.result) == ("ok", "[2.0, 2.0]")
        notices = [data["text/plain"] for data in output.displays]
        assert any("compiler" in notice for notice in notices)
        again = kernel.run("%%torchy\n(torch.ones(2) + 1).tolist()")
        assert any("runs eagerly" in data["text/plain"] for data in again.displays)
        assert kernel.run("%torchy on").status == "ok"
        assert kernel.run("1 + 1").result == "2"
        assert kernel.run("1 + 1").displays == []  # said once
    finally:
        kernel.close()


def test_without_a_command_it_shows_the_status(kernel: Kernel) -> None:
    assert "Torchy is off" in kernel.run("%torchy").stdout


def test_on_says_so_with_its_options(kernel: Kernel) -> None:
    said = kernel.run("%torchy on --max-ops 64 --max-bytes 2MiB --run-dead --quiet").stdout
    assert said.startswith(
        "Torchy is on for all cells: --max-ops 64 --max-bytes 2097152 --run-dead --quiet."
    )
    settings = kernel.value(
        "[torchy.current_session().settings.max_ops, torchy.current_session().settings.max_bytes,"
        " torchy.current_session().settings.skip_dead]"
    )
    assert settings == "[64, 2097152, False]"
    kernel.run("%torchy off")


def test_a_wrong_size_is_told(kernel: Kernel) -> None:
    assert "a size is a number of bytes" in kernel.run("%torchy on --max-bytes many").error


@pytest.mark.parametrize("head", ["%torchy on", "%%torchy"])
def test_a_wrong_count_is_told_at_once(kernel: Kernel, head: str) -> None:
    output = kernel.run(f"{head} --max-ops 0\n1")
    assert output.error.startswith("UsageError") and "no number of at least 1" in output.error
    assert "Torchy is off" in kernel.run("%torchy").stdout


def test_lines_are_counted_as_ipython_does(kernel: Kernel) -> None:
    kernel.run("\n\n%%torchy --quiet\nx = torch.ones(3)\ny = x * 2\nprint(y.sum())")
    lines = "[(l.number, l.text) for l in torchy_jupyter.last_explorer().snapshot.sources[0].lines if l.ops]"
    assert kernel.value(lines) == "[(3, 'y = x * 2'), (4, 'print(y.sum())')]"


@pytest.mark.parametrize(
    "value", ["torch.nn.LazyLinear(3).weight", "torch.sparse_coo_tensor([[0]], [1.0])"]
)
def test_what_has_no_size_may_be_a_cells_value(kernel: Kernel, value: str) -> None:
    output = kernel.run(f"%%torchy\n{value}")
    assert output.status == "ok", output.traceback


def test_a_mode_that_is_left_open_sees_nothing_of_the_explorer(kernel: Kernel) -> None:
    kernel.run(
        "from torch.utils._python_dispatch import TorchDispatchMode\nseen = []\n"
        "class Mode(TorchDispatchMode):\n"
        "    def __torch_dispatch__(self, function, types, args=(), kwargs=None):\n"
        "        seen.append(str(function)); return function(*args, **(kwargs or {}))\n"
        "mode = Mode(); mode.__enter__()"
    )
    output = kernel.run("%%torchy\ny = (torch.ones(100) * 5.25).log1p()")
    assert kernel.value("mode.__exit__(None, None, None)") == "None"
    assert output.status == "ok" and "Error in callback" not in output.stdout + output.stderr
    assert "torchy" not in kernel.value("seen")


def test_save_minds_what_is_there(kernel: Kernel, tmp_path: Path) -> None:
    kernel.run("%%torchy --quiet\nx = torch.ones(2) + 1")
    assert "is a folder" in kernel.run(f"%torchy save {tmp_path}").error
    assert str(tmp_path / "v1.0.html") in kernel.run(f"%torchy save {tmp_path / 'v1.0'}").stdout


def test_save_adds_the_suffix(kernel: Kernel, tmp_path: Path) -> None:
    kernel.run("%%torchy --quiet\nx = torch.ones(2) + 1")
    assert str(tmp_path / "trace.html") in kernel.run(f"%torchy save {tmp_path / 'trace'}").stdout
    assert (tmp_path / "trace.html").exists()


def test_the_magic_by_itself_is_no_complete_cell(kernel: Kernel) -> None:
    complete = "get_ipython().check_complete('%%torchy\\n{}')[0]"
    assert kernel.value(complete.format("")) == "incomplete"
    assert kernel.value(complete.format("x = 1\\n")) == "incomplete"
    assert kernel.value(complete.format("x = 1\\n\\n")) == "complete"


def test_switched_off_by_the_environment_cells_run_as_in_eager(tmp_path: Path) -> None:
    kernel = start(tmp_path, TORCHY="off")
    try:
        said = "Torchy is off: TORCHY=off in the environment: all runs as in eager."
        assert said in kernel.run("%load_ext torchy_jupyter").stdout
        assert said in kernel.run("%torchy on").stdout
        kernel.run("import torch, torchy")
        output = kernel.run(
            "%%torchy --max-ops 5\nx = torch.ones(2) + 1\n[torchy.is_pending(x), x.tolist()]"
        )
        assert output.result == "[False, [2.0, 2.0]]" and output.explorers == []
        assert said in kernel.run("%torchy").stdout
    finally:
        kernel.close()
