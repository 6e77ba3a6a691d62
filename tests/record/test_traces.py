"""What was recorded is read back: ops, views, patterns, numbers and lines; sizes, as words."""

import pytest
import torch
from recording import begun, integers, recorded, the_walker, trace_of, turn

import torchy
from torchy.ir.trace import Constant, Mode, Number, Operand, Source
from torchy.record.places import Place, Places
from torchy.session.script import Recording

HERE = __file__


def names(trace):
    return [op.name for op in trace.ops]


def test_the_ops_in_order_with_the_views_that_they_read_and_give():
    x, w = torch.randn(3, 4), torch.randn(4)

    def body():
        y = x * w
        return (y + y).sum(0)

    trace, _ = recorded(body)
    assert names(trace) == ["aten::mul.Tensor", "aten::add.Tensor", "aten::sum.dim_IntList"]
    assert [op.reads for op in trace.ops] == [(0, 1), (2, 2), (3,)]
    assert [op.results for op in trace.ops] == [(2,), (3,), (4,)]
    assert [op.writes for op in trace.ops] == [(2,), (3,), (4,)]
    assert [buffer.creator for buffer in trace.buffers] == [None, None, 0, 1, 2]
    assert [view.rank for view in trace.views] == [2, 1, 2, 2, 1]
    assert {view.dtype for view in trace.views} == {torch.float32}


def test_the_patterns_of_operands():
    wide = torch.randn(8, 6)
    operands = {
        "dense": (wide, Mode.LINEAR, True),
        "one element": (torch.randn(1, 1), Mode.SCALAR, False),
        "a row": (wide[0], Mode.UNIT, False),
        "a column": (wide[:, :1], Mode.REPEAT, False),
        "other rows": (torch.randn(16, 6)[::2], Mode.UNIT, True),
        "every other": (torch.randn(8, 12)[:, ::2], Mode.STRIDED, True),
        "expanded": (wide[:, :1].expand(8, 6), Mode.REPEAT, True),
    }
    for name, (operand, mode, same) in operands.items():
        with torchy.lazy():
            wide + operand  # runs now if the layout of its result has to be learned
        trace, _ = recorded(lambda operand=operand: wide + operand)
        assert trace.ops[-1].arguments[1].mode == mode, name
        assert trace.ops[-1].arguments[1].same_sizes == same, name
        assert trace.ops[-1].result_mode == Mode.LINEAR


def test_ops_that_are_not_pointwise_have_no_pattern():
    x = torch.randn(3, 3)
    trace, _ = recorded(lambda: (x @ x).sum(1, keepdim=True))
    assert [op.result_mode for op in trace.ops] == [None, None]
    assert {operand for op in trace.ops for operand in op.operands()} == {Operand(0), Operand(1)}
    assert trace.ops[1].arguments[1:] == (Constant((1,)), Constant(True), Constant(None))


def test_numbers_are_not_part_of_the_trace_but_their_kinds():
    x = torch.randn(5)

    def body():
        return torch.add(x * 2.5, 3, alpha=4), x < True

    trace, record = recorded(body)
    assert trace.number_kinds == (float, int, int, bool)
    assert trace.ops[0].arguments[1] == Number(0, float)
    assert trace.ops[1].arguments[1:] == (Number(1, int), Number(2, int))
    recording = Recording(trace, record.words, record.numbers)
    assert recording.numbers() == (2.5, 3, 4, True)
    assert [type(number) for number in recording.numbers()] == [float, int, int, bool]


def test_an_alpha_of_one_is_part_of_the_trace():
    x = torch.randn(5)
    trace, record = recorded(lambda: torch.add(x, x, alpha=1))
    assert trace.ops[0].arguments[2] == Constant(1)
    assert record.numbers == b""


def test_dtypes_among_the_arguments_are_dtypes():
    x = torch.randn(5)
    trace, _ = recorded(lambda: (x.double(), x.sum(0, dtype=torch.float64)))
    assert trace.ops[0].name == "aten::_to_copy"
    assert trace.ops[0].arguments[1] == Constant(torch.float64)
    assert trace.ops[1].arguments[3] == Constant(torch.float64)
    assert [trace.views[op.results[0]].dtype for op in trace.ops] == [torch.float64] * 2


def test_lists_of_tensors_are_tuples_of_operands():
    x, y = torch.randn(2, 3), torch.randn(4, 3)
    trace, _ = recorded(lambda: torch.cat([x, y, x]))
    (op,) = trace.ops
    assert op.arguments == ((Operand(0), Operand(1), Operand(0)), Constant(0))
    assert op.reads == (0, 1, 0)


def test_views_of_one_buffer():
    def body():
        x = torch.arange(12.0) * 2
        return x[:6] + x[6:], x.view(3, 4).t() * x.view(3, 4).t()

    trace, record = recorded(body)
    assert [view.buffer for view in trace.views] == [0, 1, 1, 1, 2, 1, 3]
    layouts = Recording(trace, record.words, record.numbers).layouts()
    assert [layout.offset for layout in layouts] == [0, 0, 0, 6, 0, 0, 0]
    assert [layout.sizes for layout in layouts[1:6]] == [(12,), (6,), (6,), (6,), (4, 3)]
    assert layouts[5].strides == (1, 4)
    assert trace.ops[2].reads == (5, 5)  # one view, though it was made twice


def test_writes_to_what_was_there_and_to_results():
    def body():
        x = torch.zeros(4)
        y = x * 2
        x.add_(y)
        y[1:].mul_(3)
        return x, y

    trace, record = recorded(body)
    assert names(trace) == ["aten::mul.Tensor", "aten::add_.Tensor", "aten::mul_.Tensor"]
    assert [op.writes for op in trace.ops] == [(1,), (0,), (2,)]
    assert [op.results for op in trace.ops] == [(1,), (0,), (2,)]
    assert trace.views[2].buffer == trace.views[1].buffer == 1
    assert list(record.flags) == [4 + 2, 4 + 1]  # live and written, live and created


def test_an_op_with_several_results():
    x = torch.randn(6, 3)
    with torchy.lazy():
        torch.var_mean(x, 0)  # runs now: how its results lie is learned
    trace, _ = recorded(lambda: torch.var_mean(x, 0))
    (op,) = trace.ops
    assert op.results == (1, 2) and op.writes == (1, 2)
    assert [trace.buffer_of(view) for view in op.results] == [1, 2]


def test_each_op_has_its_line():
    x = torch.randn(4)

    def body():
        y = x * 2
        z = (
            y.exp()
            - 1
        )  # fmt: skip
        return [z.sin() for _ in range(2)]

    first = body.__code__.co_firstlineno
    trace, _ = recorded(body)
    lines = [op.source for op in trace.ops]
    assert lines == [Source(HERE, first + n) for n in (1, 3, 3, 6, 6)]


def test_the_last_node_tells_the_whole_path():
    x = torch.randn(4)
    walker = the_walker()
    places = Places(walker)
    with torchy.lazy(compile="never") as session:
        y = (x * 2).exp()
        with begun(session) as record:
            trace = places.trace(record.path)
            assert places.trace(record.path) is trace
            assert places.trace([-1, record.path[-1]]) is trace  # it is known by that
        places.clear()
        assert places.trace(record.path) == trace
        assert len(places) == walker.places() == 2
    del y


def test_steps_are_described_without_what_is_known_of_results():
    x = torch.randn(4, 3)
    _, record = recorded(lambda: x[0] * x)
    node = Place.of(the_walker().describe_node(record.path[0]))
    step = Place.of(the_walker().describe_step(node.step))
    assert node[:8] == step[:8] and step.name == "aten::mul.Tensor"
    assert (step.pattern, step.result_views, step.result_buffers) == ([], [], [])
    assert (node.result_views, node.result_buffers) == ([2], [1])
    # a mode for each operand and the result, same sizes marked; then dtype and rank
    assert node.pattern == [2, 0 + 8, 0 + 8, 6, 2]


def test_one_step_has_a_node_for_each_pattern():
    square, paths = torch.randn(4, 4), []
    with torchy.lazy(compile="never") as session:
        for operand in (torch.randn(4, 4), torch.randn(1, 4), torch.randn(4, 4)):
            turn(session, lambda operand=operand: square + operand)
            with begun(session) as record:
                paths += record.path
    nodes = [Place.of(the_walker().describe_node(node)) for node in paths]
    assert len({node.step for node in nodes}) == 1
    assert paths[0] == paths[2] != paths[1]
    modes = [trace_of([node]).ops[0].arguments[1].mode for node in paths]
    assert modes == [Mode.LINEAR, Mode.UNIT, Mode.LINEAR]


def test_sizes_of_this_recording_are_words():
    x = torch.randn(7, 5)[1:, ::2]
    _, record = recorded(lambda: x.sum(1))
    assert integers(record.words) == [5, 6, 3, 5, 2, 0, 6, 1]  # offset, sizes, strides


def test_what_is_described_wrongly_is_refused():
    walker = the_walker()
    recorded(lambda: torch.randn(4) * 2)
    for describe in (walker.describe_node, walker.describe_step):
        for number in (-1, 10**9):
            with pytest.raises(IndexError):
                describe(number)
