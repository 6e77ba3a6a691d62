import subprocess
import sys

import pytest
import torch

from tests.ir.test_listing import example
from torchy.ir.reproducer import reproducer
from torchy.ir.trace import Buffer, Constant, Layout, Number, Op, Operand, Trace, View

F32 = torch.float32


def run(script):
    names: dict[str, object] = {}
    exec(compile(script, "reproducer.py", "exec"), names)
    return names


def test_a_reproducer_computes_what_the_trace_says(capsys):
    trace, layouts, numbers = example()
    names = run(reproducer(trace, layouts, numbers))
    x, row = names["v0"], names["v1"]
    y = x + 2.5 * row
    y[:, 1].neg_()
    torch.testing.assert_close(names["v2"], y, rtol=0, atol=0)
    torch.testing.assert_close(names["v4"], y.sum((0,), False, dtype=torch.float64), rtol=0, atol=0)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["v2", "v3", "v4"]


def test_a_reproducer_runs_by_itself(tmp_path):
    trace, layouts, numbers = example()
    path = tmp_path / "reproducer.py"
    path.write_text(reproducer(trace, layouts, numbers))
    done = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.startswith("v2 [")


def test_inputs_have_the_layouts_of_the_recording():
    trace, layouts, numbers = example()
    layouts = (Layout((2, 3), (1, 5), 4), *layouts[1:])
    x = run(reproducer(trace, layouts, numbers))["v0"]
    assert (x.shape, x.stride(), x.storage_offset()) == ((2, 3), (1, 5), 4)


def test_the_same_seed_gives_the_same_values():
    one, other, another = (run(reproducer(*example(), seed=seed))["v4"] for seed in (0, 0, 1))
    assert torch.equal(one, other)
    assert not torch.equal(one, another)


def one_op(name, arguments, inputs, results, layouts, numbers=()):
    """A trace of one op: its inputs' dtypes, then its results'."""
    dtypes = (*inputs, *results)
    buffers = tuple(Buffer(i, None if i < len(inputs) else 0) for i in range(len(dtypes)))
    views = tuple(View(i, i, d, len(layouts[i].sizes)) for i, d in enumerate(dtypes))
    made = tuple(range(len(inputs), len(dtypes)))
    op = Op(0, name, arguments, made, None, made)
    kinds = tuple(type(number) for number in numbers)
    return run(reproducer(Trace(buffers, views, (op,), kinds), layouts, numbers))


ROW = Layout((3,), (1,), 0)


@pytest.mark.parametrize("number", [2, 2.5, True, float("inf"), float("nan"), -0.0])
def test_a_number_in_place_of_a_tensor_stays_a_number(number):
    names = one_op(
        "aten::mul.Tensor",
        (Operand(0), Number(0, type(number))),
        [F32],
        [F32],
        [ROW, ROW],
        [number],
    )
    torch.testing.assert_close(names["v1"], names["v0"] * number, equal_nan=True)
    assert names["v1"].dtype is F32


def test_keyword_arguments_lists_and_several_results():
    names = one_op(
        "aten::cat", ((Operand(0), Operand(1)), Constant(0)), [F32, F32], [F32], [ROW, ROW, ROW]
    )
    assert torch.equal(names["v2"], torch.cat([names["v0"], names["v1"]]))
    names = one_op(
        "aten::_to_copy", (Operand(0), Constant(torch.float64)), [F32], [torch.float64], [ROW, ROW]
    )
    assert names["v1"].dtype is torch.float64
    names = one_op(
        "aten::max.dim",
        (Operand(0), Constant(0), Constant(False)),
        [torch.bool],
        [torch.bool, torch.int64],
        [ROW, Layout((), (), 0), Layout((), (), 0)],
    )
    assert names["v2"].dtype is torch.int64


def test_views_of_one_buffer_share_memory_in_a_reproducer():
    views = (View(0, 0, F32, 1), View(1, 0, torch.int32, 1))
    ops = (Op(0, "aten::zero_", (Operand(1),), (1,), None, (1,)),)
    trace = Trace(
        (Buffer(0, None),), views, (*ops, Op(1, "aten::neg_", (Operand(0),), (0,), None, (0,)))
    )
    names = run(reproducer(trace, (ROW, Layout((2,), (1,), 1))))
    assert names["v0"].tolist()[1:] == [0.0, 0.0]
    assert names["v0"][0] != 0
