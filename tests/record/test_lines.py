"""Which line of the program an op comes from: noted as code and instruction, told as file and number."""

import threading

import pytest
import torch
from recording import the_walker

import torchy
from torchy.ir.trace import Source
from torchy.record.source import LIBRARY_FOLDERS, OWN_FOLDERS

LIBRARY = LIBRARY_FOLDERS[0] + "some_library.py"
TORCH = OWN_FOLDERS[0] + "some_module.py"


def run(text, file, **names):
    """Run a program as if it stood in a file."""
    names["here"] = the_walker().line_here
    exec(compile(text, file, "exec"), names)
    return names


def told(line):
    return the_walker().source(line)


def test_a_line_is_told_with_its_file():
    line = the_walker().line_here()
    code = test_a_line_is_told_with_its_file.__code__
    assert told(line) == Source(__file__, code.co_firstlineno + 1)


def test_the_same_instruction_is_the_same_line_and_another_one_of_the_same_origin():
    made = run("a = [here() for _ in range(3)]\nb, c = here(), here()", "program.py")
    assert len(set(made["a"])) == 1
    assert made["b"] != made["c"]
    assert told(made["b"]) == told(made["c"]) == Source("program.py", 2)
    origins = [the_walker().origin(made[name]) for name in "bc"] + [
        the_walker().origin(made["a"][0])
    ]
    assert origins[0] == origins[1] != origins[2]


def test_a_cell_that_is_run_again_has_the_same_origin():
    text = "\nline = here()"
    first, again = (run(text, "cell 7")["line"] for _ in range(2))
    other = run(text, "cell 8")["line"]
    assert first != again  # compiled anew
    assert told(first) == told(again) == Source("cell 7", 2)
    origin = the_walker().origin
    assert origin(first) == origin(again) != origin(other)


def test_a_statement_of_several_lines():
    text = "lines = [\n    here(),\n    (\n    here(),\n    ),\n]"
    one, (two,) = run(text, "program.py")["lines"]
    assert (told(one).line, told(two).line) == (2, 4)


def test_what_libraries_do_for_a_program_is_at_the_line_of_the_program():
    called = run("def call(f):\n    return f()", LIBRARY)["call"]
    deeper = run("def call(f, g):\n    return f(g)", LIBRARY)["call"]
    made = run("\nline = deeper(called, here)", "program.py", deeper=deeper, called=called)
    assert told(made["line"]) == Source("program.py", 2)


def test_a_program_that_a_library_calls_is_the_program():
    call = run("def call(f):\n    return f()", LIBRARY)["call"]
    made = run("\n\ndef f():\n    return here()\nline = call(f)", "program.py", call=call)
    assert told(made["line"]) == Source("program.py", 4)


def test_where_there_is_only_a_library_its_innermost_line_counts():
    lines = []
    outer = run("def outer(f):\n    return f()", LIBRARY)["outer"]
    inner = run("\n\ndef inner():\n    lines.append(here())", LIBRARY, lines=lines)["inner"]
    thread = threading.Thread(target=outer, args=(inner,))
    thread.start()
    thread.join()
    assert told(lines[0]) == Source(LIBRARY, 4)


@pytest.mark.parametrize("folder", OWN_FOLDERS)
def test_torch_and_torchy_are_never_told(folder):
    own = run("def own():\n    return here()", folder + "some_module.py")["own"]
    assert told(own()).file == __file__


def test_where_there_is_nothing_but_torch_no_line_is_told():
    import _thread

    lines, done = [], threading.Event()
    own = run(
        "def own():\n    lines.append(here())\n    done.set()", TORCH, lines=lines, done=done
    )["own"]
    _thread.start_new_thread(own, ())
    assert done.wait(10)
    assert lines == [-1]
    assert told(-1) is None
    assert the_walker().origin(-1) == -1


def test_a_line_outlives_its_code():
    import gc

    line = run("line = here()", "gone.py")["line"]
    gc.collect()
    for number in range(100):  # whose code objects would take its address
        run("here()", f"other {number}")
    assert told(line) == Source("gone.py", 1)


@pytest.mark.parametrize("line", [10**9, -7])
def test_lines_that_nobody_has_noted_are_refused(line):
    walker = the_walker()
    walker.line_here()
    with pytest.raises(RuntimeError, match="range"):
        walker._tell_line(line)
    assert walker.origin(line) == -1  # unknown: all may have been forgotten meanwhile
    assert told(walker.line_here()).file == __file__  # it goes on


def test_ops_of_a_library_are_told_at_the_line_that_called_it():
    norm = run("def norm(x):\n    y = x * x\n    return y.sum()", LIBRARY)["norm"]
    x = torch.randn(4)
    with torchy.lazy(compile="never") as session:
        y = norm(x)
    line = test_ops_of_a_library_are_told_at_the_line_that_called_it.__code__.co_firstlineno + 4
    assert [(op.file, op.line) for op in session.report.traces[0].ops] == [(__file__, line)] * 2
    del y


def test_ops_within_torch_are_told_at_the_line_that_called_it():
    x = torch.randn(4, 4)
    with torchy.lazy(compile="never") as session:
        y = torch.nn.functional.gelu(torch.nn.Softplus()(x))
    line = test_ops_within_torch_are_told_at_the_line_that_called_it.__code__.co_firstlineno + 3
    ops = session.report.traces[0].ops
    assert len(ops) == 2 and {(op.file, op.line) for op in ops} == {(__file__, line)}
    del y


def test_files_whose_names_are_no_text_are_told_as_they_are():
    name = "caf\udce9.py"
    names = {"x": torch.ones(3)}
    with torchy.lazy(compile="never") as session:
        exec(compile("y = x * 2\nz = y.sum().item()", name, "exec"), names)
    assert names["z"] == 6
    trace = session.report.traces[0]
    assert trace.where.file == name
