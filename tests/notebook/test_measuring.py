"""What ``%time``, ``%timeit`` and ``%prun`` measure is the statement's work: not its recording, nor work of before."""

from __future__ import annotations

import ast

import pytest

from .conftest import Kernel

pytestmark = pytest.mark.notebook

LAST = "torchy_jupyter.last_explorer().report"
SETUP = "x = torch.linspace(0, 1, 64 * 64).reshape(64, 64)\ny = x @ x\n"
DROPS = "\ndef drops(x):\n    for _ in range(2):\n        (x @ x).exp()\n        z = x - 1\n"


def traces(kernel: Kernel) -> list[tuple[str, list[str], bool]]:
    """Return each trace of the last cell: its reason, its ops, and whether any of them is dead."""
    value = kernel.value(
        f"[(t.reason, [op.short for op in t.ops], any(op.dead for op in t.ops)) for t in {LAST}.traces]"
    )
    found: list[tuple[str, list[str], bool]] = ast.literal_eval(value)
    return found


def on(kernel: Kernel, way: str, body: str) -> list[tuple[str, list[str], bool]]:
    """Run a cell under Torchy in one of two ways; return its traces. Nothing sleeps, however slow the machine is."""
    if way == "%torchy on":
        kernel.run("%torchy on --quiet --compile never")
        output = kernel.run(body)
        kernel.run("%torchy off")
    else:
        output = kernel.run(f"%%torchy --quiet --compile never\n{body}")
    assert output.status == "ok", output.traceback
    return traces(kernel)


WAYS = pytest.mark.parametrize("way", ["%%torchy", "%torchy on"])


@WAYS
@pytest.mark.parametrize("magic", ["%timeit -n 2 -r 2", "%time", "%prun -q"])
@pytest.mark.parametrize(
    ("statement", "ops"),
    [
        ("x @ x", ["mm"]),
        ("a = x @ x; b = a + 1", ["mm", "add"]),
        ("x @ x; x + 1; None", ["mm", "add"]),
        ("drops(x)", ["mm", "exp", "sub"] * 2),
    ],
)
def test_each_run_of_a_statement_computes_what_it_makes(
    kernel: Kernel, way: str, magic: str, statement: str, ops: list[str]
) -> None:
    before = f"{SETUP}x.sum().item(){DROPS}"
    found = on(kernel, way, f"{before}{magic} {statement}")
    runs = [trace for trace in found if trace[1] == ops]
    # IPython runs it once more where a single run would take very little
    assert len(runs) >= (4 if "timeit" in magic else 1), found
    assert not any(dead for _, _, dead in runs)


@WAYS
@pytest.mark.parametrize("magic", ["timeit -n 2 -r 1", "time", "prun -q"])
def test_each_run_of_a_cell_computes_what_it_makes(kernel: Kernel, way: str, magic: str) -> None:
    kernel.run(SETUP + DROPS)
    body = f"%%{magic}\ndrops(x)\nz = x * 2"
    found = on(kernel, way, body)
    runs = [trace for trace in found if trace[1] == [*["mm", "exp", "sub"] * 2, "mul"]]
    assert len(runs) == (2 if "timeit" in magic else 1), found
    assert not any(dead for _, _, dead in found)


@pytest.mark.parametrize("magic", ["time", "prun -q"])
def test_a_magic_above_the_marker_measures_too(kernel: Kernel, magic: str) -> None:
    kernel.run(SETUP + DROPS)
    assert kernel.run(f"%%{magic}\n%%torchy --quiet\ndrops(x)").status == "ok"
    ((_, ops, dead),) = traces(kernel)
    assert (ops, dead) == (["mm", "exp", "sub"] * 2, False)


@WAYS
@pytest.mark.parametrize("magic", ["%timeit -n 2 -r 1", "%time", "%prun -q"])
def test_work_of_before_is_not_measured(kernel: Kernel, way: str, magic: str) -> None:
    kernel.run(SETUP)
    found = on(kernel, way, f"z = (x @ y).exp()\n{magic} w = z + 1")
    assert found[0][:2] == ("before a measurement", ["mm", "exp"])
    assert all(ops == ["add"] for _, ops, _ in found[1:])


@WAYS
def test_what_cells_drop_is_dead_again_in_the_next_cell(kernel: Kernel, way: str) -> None:
    kernel.run(SETUP + DROPS)
    on(kernel, way, "%time drops(x)")
    ((_, ops, dead),) = on(kernel, way, "drops(x)")
    assert (len(ops), dead) == (6, True)


@WAYS
def test_names_and_values_are_as_without(kernel: Kernel, way: str) -> None:
    kernel.run(SETUP)
    body = (
        "%timeit -n 1 -r 1 inner = x * 2\n"
        "%time outer = x * 3\n"
        "%prun -q profiled = x * 4\n"
        "taken = %timeit -n 3 -r 2 -q -o x + 1\n"
        "runs = (taken.loops, taken.repeat)\n"
        "value = get_ipython().run_line_magic('time', 'x[0, 1] * 5')"
    )
    on(kernel, way, f"names = set(globals())\n{body}\nmade = set(globals()) - names")
    assert kernel.value("sorted(made - {'names'})") == kernel.value(
        "['outer', 'profiled', 'runs', 'taken', 'value']"
    )
    assert kernel.value("torch.equal(outer, x * 3) and torch.equal(profiled, x * 4)") == "True"
    assert kernel.value("value.item() == (x[0, 1] * 5).item(), *runs") == "True 3 2"
    kernel.run("del outer, profiled, runs, taken, value, made, names")


@WAYS
def test_an_error_in_what_is_measured_is_the_program_s(kernel: Kernel, way: str) -> None:
    kernel.run(SETUP)
    for magic in ("%time", "%timeit -n 1 -r 1", "%prun -q"):
        lines = f"kept = x + 1\n{magic} torch.ones(3) * 2 + torch.ones(4)"
        if way == "%torchy on":
            kernel.run("%torchy on --quiet --compile never")
            output = kernel.run(lines)
            kernel.run("%torchy off")
        else:
            output = kernel.run(f"%%torchy --quiet\n{lines}")
        # `%time` shows the error and goes on; the others fail the cell
        assert "The size of tensor a (3) must match" in output.error + output.traceback + str(
            output.messages
        )
        assert kernel.value("torch.equal(kept, x + 1)") == "True"
        assert kernel.value("torchy.current_session()") == "None"


@pytest.mark.parametrize(
    ("body", "name", "line"),
    [
        ("%timeit -n 1 -r 1 x + 1", "in %timeit", "%timeit -n 1 -r 1 x + 1"),
        ("%time x + 1", "in %time", "%time x + 1"),
        ("%prun -q x + 1", "in %prun", "%prun -q x + 1"),
        ("%%timeit -n 1 -r 1\ny = x\nx + 1", "below %%timeit", "x + 1"),
        ("%%time\ny = x\nx + 1", "below %%time", "x + 1"),
        ("%%prun -q\ny = x\nx + 1", "below %%prun", "x + 1"),
    ],
)
def test_the_explorer_names_what_was_measured(
    kernel: Kernel, body: str, name: str, line: str
) -> None:
    kernel.run(SETUP)
    output = kernel.run(f"%%torchy\n{body}")
    assert output.status == "ok", output.traceback
    page = output.explorers[-1]
    number = kernel.value("get_ipython().execution_count - 2")
    assert f"cell {number} {name}: time by line" in page
    assert line in page.split("time by line", 1)[1]


def test_the_profile_has_the_flush(kernel: Kernel) -> None:
    kernel.run(SETUP)
    output = kernel.run("%%torchy --quiet\nstats = %prun -q -r (x @ x).exp()")
    assert output.status == "ok", output.traceback
    assert kernel.value("any(name == 'flush' for _, _, name in stats.stats)") == "True"


def test_unloading_leaves_the_profiler_as_it_was(kernel: Kernel) -> None:
    own = "'_run_with_profiler' in vars(get_ipython().magics_manager.registry['ExecutionMagics'])"
    assert kernel.value(own) == "True"
    kernel.run("%unload_ext torchy_jupyter")
    assert kernel.value(own) == "False"
    kernel.run("%load_ext torchy_jupyter")
    assert kernel.value(own) == "True"
