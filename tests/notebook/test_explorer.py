"""The explorer without a kernel: what it makes of a report."""

from __future__ import annotations

import base64
import html.parser
import json
import re
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from torchy.ir.trace import Buffer, Constant, Layout, Op, Operand, Source, Trace, View
from torchy.plan.plan import Call, FusedGroup, Plan, Step
from torchy.report import Report, ReportBuilder
from torchy_jupyter.explorer import CellSource, Explorer, Raised
from torchy_jupyter.explorer.bundle import loader, module
from torchy_jupyter.explorer.fold import fold_repeats
from torchy_jupyter.explorer.graph import digraph
from torchy_jupyter.explorer.shown import Note, Snapshot
from torchy_jupyter.explorer.snapshot import take
from torchy_jupyter.explorer.summary import summary
from torchy_jupyter.explorer.words import assigned_name, flush_reason

CELL, OTHER = "/tmp/ipykernel_1/2.py", "/tmp/ipykernel_1/1.py"
CELLS = {
    OTHER: CellSource("cell 1", "def f(x):\n    return x * 2"),
    CELL: CellSource("cell 2", "%%torchy\nfor _ in range(9):\n    x = f(x) + 1\nprint('<', x)"),
}
F32 = torch.float32
ROW = Layout((4,), (1,), 0)


def chain(names: Sequence[str], lines: Sequence[int], file: str = CELL) -> Trace:
    """A trace in which each op reads what the one before it wrote."""
    count = len(names)
    buffers = (Buffer(0, None), *(Buffer(i + 1, i) for i in range(count)))
    views = tuple(View(i, i, F32, 1) for i in range(count + 1))
    ops = tuple(
        Op(
            i,
            f"aten::{name}.Tensor",
            (Operand(i), Constant(2)),
            (i + 1,),
            None,
            (i + 1,),
            Source(file if line > 0 else OTHER, abs(line)),
        )
        for i, (name, line) in enumerate(zip(names, lines, strict=True))
    )
    return Trace(buffers, views, ops)


def plan(*steps: tuple[int, ...] | int, dead: tuple[int, ...] = ()) -> Plan:
    made: tuple[Step, ...] = tuple(
        Call(step) if isinstance(step, int) else FusedGroup(step, None, (), (), 0)  # type: ignore[arg-type]
        for step in steps
    )
    empty = ((),) * len(made)
    return Plan(made, dead, empty, empty, {1: "aten::sum is a call"})


def note(builder: ReportBuilder, trace: Trace, **changes: object) -> None:
    """Note a flush of a trace: compiled, by `item()` on the cell's third line, a millisecond long."""
    flush = {
        "reason": "item()",
        "where": Source(CELL, 3),
        "tier": "compiled",
        "seconds": 1e-3,
        "bytes_saved": 0,
    }
    builder.trace(trace=trace, **(flush | changes))  # type: ignore[arg-type]


def report(repeats: int = 1, loop: int = 9) -> Report:
    """`repeats` flushes of a loop that multiplies and adds, then a sum; a dead op at the end."""
    builder = ReportBuilder()
    names = ["mul", "add"] * loop + ["sum", "neg"]
    lines = [-2, 3] * loop + [4, 4]
    trace = chain(names, lines)
    fused = tuple(range(2 * loop))
    made = plan(fused, 2 * loop, dead=(2 * loop + 1,))
    for number in range(repeats):
        builder.kernel(
            "k1",
            {"loop nest": lambda: "for i: <mul>", "LLVM IR": lambda: "define <8 x float>"},
            0.012,
        )
        note(
            builder,
            trace,
            reason="print",
            where=Source(CELL, 4),
            tier="interpreted" if number == 0 else "compiled",
            bytes_saved=1024,
            plan=made,
            kernels=("k1", None),
            layouts=(ROW,) * (len(names) + 1),
            step_seconds=(9e-4, 1e-4),
        )
    builder.event("kernel failed to compile", "k2: interpreted <why>")
    return builder.report()


def shown(**options: int) -> Snapshot:
    return take(report(**options), CELLS)


@pytest.mark.parametrize(
    ("tokens", "stands_for"),
    [
        ("", []),
        ("abc", [0, 1, 2]),
        ("aa", [0, 1]),  # twice is not worth folding
        ("aaa", [0, 0, 0]),
        ("xabababy", [0, 1, 2, 1, 2, 1, 2, 7]),
        ("aabaabaabc", [0, 1, 2, 0, 1, 2, 0, 1, 2, 9]),
    ],
)
def test_repeats_are_folded(tokens: str, stands_for: list[int]) -> None:
    assert fold_repeats(list(tokens)) == stands_for


def test_a_loops_ops_are_shown_once_with_a_count() -> None:
    (flush,) = shown().flushes
    assert [(op.name, op.count, op.group) for op in flush.ops] == [
        ("mul", 9, 0),
        ("add", 9, 0),
        ("sum", 1, 1),
        ("neg", 1, None),
    ]
    assert flush.op_count == 20
    assert [(group.kind, group.letter, group.ops) for group in flush.groups] == [
        ("fused", "A", (0, 1)),
        ("call", "", (18,)),
    ]


def flushes_of(*counts: int) -> Report:
    """Flushes of so many ops each."""
    builder = ReportBuilder()
    for count in counts:
        note(
            builder,
            chain(["mul"] * count, [3] * count),
            tier="interpreted",
            seconds=1.0 + (count % 2),
            plan=plan(tuple(range(count))),
        )
    return builder.report()


def test_equal_groups_are_shown_once_with_a_count() -> None:
    builder = ReportBuilder()
    trace = chain(["mul", "add"] * 12, [3, 3] * 12)
    pairs = tuple((2 * i, 2 * i + 1) for i in range(12))
    note(builder, trace, where=None, seconds=12e-3, plan=plan(*pairs), kernels=("k1",) * 12)
    (look,) = take(builder.report(), CELLS).flushes
    (group,) = look.groups
    assert (group.count, group.ops) == (12, (0, 1))
    assert group.seconds == pytest.approx(12e-3)
    assert "×12" in digraph(look).source


def test_equal_flushes_are_shown_once_with_sums() -> None:
    snapshot = shown(repeats=5)
    (flush,) = snapshot.flushes
    assert flush.count == 5
    assert flush.seconds == pytest.approx(5e-3) and flush.bytes_saved == 5120
    assert (snapshot.counts.kernels, snapshot.counts.calls, snapshot.counts.one_by_one) == (
        4,
        5,
        18,
    )


def test_flushes_whose_records_are_gone_count_where_they_happened() -> None:
    builder = ReportBuilder(keep=10)
    trace, made = chain(["mul"], [3]), plan((0,))
    for _ in range(100):
        note(builder, trace, bytes_saved=8, plan=made, kernels=("k1",), step_seconds=(8e-4,))
    snapshot = take(builder.report(), CELLS)
    (flush,) = snapshot.flushes
    assert (flush.count, flush.bytes_saved, snapshot.notes) == (100, 800, ())
    assert flush.seconds == pytest.approx(0.1)
    (line,) = [line for line in snapshot.sources[0].lines if line.ops]
    assert (line.number, line.ops) == (3, 100)
    assert line.seconds == pytest.approx(0.08)


def test_of_many_different_flushes_the_heaviest_are_shown() -> None:
    snapshot = take(flushes_of(*range(1, 61)), CELLS)
    assert len(snapshot.flushes) == 40
    assert {flush.op_count for flush in snapshot.flushes} >= set(range(1, 60, 2))
    assert snapshot.notes == ("20 more flushes are only counted.",)


def test_kernels_have_letters_through_all_flushes() -> None:
    snapshot = take(flushes_of(*range(1, 31)), CELLS)
    letters = [group.letter for flush in snapshot.flushes for group in flush.groups]
    assert letters[:3] == ["A", "B", "C"] and letters[25:28] == ["Z", "AA", "AB"]


def test_lines_show_their_ops_time_and_flushes() -> None:
    running, other = shown(repeats=2).sources
    assert (running.name, other.name) == ("cell 2", "cell 1")
    by_number = {line.number: line for line in running.lines}
    assert [line.text for line in running.lines] == CELLS[CELL].text.split("\n")
    assert (by_number[1].ops, by_number[3].ops, by_number[4].ops) == (0, 18, 4)
    assert by_number[3].seconds == pytest.approx(9e-4)  # half of two groups of 0.9 ms
    assert by_number[4].seconds == pytest.approx(2e-4)  # the sum; a dead op takes none
    assert (by_number[3].estimated, by_number[4].estimated) == (True, False)
    assert (by_number[3].chips, by_number[4].chips) == (("A",), ("f",))
    said = "flush 1 ×2: `print` shows a value · 20 ops, 2.0 ms"
    assert by_number[4].notes == (Note("flush", said, 0),)
    assert other.lines[1].ops == 18


def test_times_add_up_to_the_cell() -> None:
    builder = ReportBuilder()
    builder.ran_now(
        name="aten::eigh", where=Source(CELL, 3), why="it cannot", began=0.0, count=2, seconds=0.25
    )
    account = take(builder.report(), CELLS, seconds=1.0).account
    parts = (account.kernels, account.interpreted, account.calls, account.eager, account.outside)
    assert account.eager == 0.25 and sum(parts) == pytest.approx(account.cell)
    snapshot = take(report(repeats=3), CELLS, seconds=1.0)
    lines = sum(line.seconds for source in snapshot.sources for line in source.lines)
    assert lines + snapshot.account.outside == pytest.approx(1.0)


def test_what_ran_as_eager_is_told_with_its_reason() -> None:
    builder = ReportBuilder()
    builder.ran_now(
        name="aten::eigh", where=Source(CELL, 3), why="it cannot", began=0.0, count=2, seconds=0.25
    )
    snapshot = take(builder.report(), CELLS, seconds=1.0)
    (line,) = [line for line in snapshot.sources[0].lines if line.chips]
    assert (line.number, line.chips, line.seconds) == (3, ("~",), 0.25)
    assert line.notes == (Note("eager", "`eigh` ran as eager ×2: it cannot · 250 ms"),)
    assert [(now.short, now.count, now.why) for now in snapshot.ran_now] == [
        ("eigh", 2, "it cannot")
    ]


def test_the_end_of_a_cell_is_told_at_its_end() -> None:
    builder = ReportBuilder()
    note(builder, chain(["mul"], [3]), reason="end of cell", where=Source(CELL, 2))
    (flush,) = take(builder.report(), CELLS).flushes
    assert (flush.line, flush.reason, flush.place) == (4, "the cell ended", "cell 2, line 4")


def test_a_cell_that_failed_says_where() -> None:
    raised = Raised(ValueError("no more\nat all"), Source(CELL, 3))
    snapshot = take(report(), CELLS, raised=raised)
    assert snapshot.error == "ValueError: no more (cell 2, line 3)"
    (line,) = [line for line in snapshot.sources[0].lines if line.number == 3]
    assert line.notes == (Note("error", "ValueError: no more"),)
    page = Explorer(report(), CELLS, raised=raised)._repr_html_()
    assert "ValueError: no more (cell 2, line 3)" in page


def test_a_syntax_error_is_told_by_its_name() -> None:
    with pytest.raises(SyntaxError) as raised:
        compile("1 +", "<unknown>", "exec")
    assert str(Raised(raised.value, None)) == "SyntaxError: invalid syntax (<unknown>, line 1)"


def test_folding_keeps_kernels_whole() -> None:
    """The first kernel has another line than its likes: what is folded must not begin in its midst."""
    builder = ReportBuilder()
    steps = 6
    trace = chain(["mul", "add", "sort"] * steps, [4, 3, 3] + [2, 3, 3] * (steps - 1))
    fused = [(3 * i, 3 * i + 1) for i in range(steps)]
    made = plan(*(step for pair in fused for step in (pair, pair[1] + 1)))
    note(
        builder,
        trace,
        where=None,
        seconds=12e-3,
        plan=made,
        kernels=("k1", None) * steps,
        step_seconds=(1e-3, 1e-3) * steps,
    )
    (flush,) = take(builder.report(), CELLS).flushes
    named = {op.index: op.name for op in flush.ops}
    kernels = [[named[op] for op in group.ops] for group in flush.groups if group.letter]
    assert kernels == [["mul", "add"], ["mul", "add"]]
    assert sum(group.count for group in flush.groups if group.letter) == steps
    assert sum(group.seconds for group in flush.groups) == pytest.approx(12e-3)


def test_a_session_that_sleeps_says_since_when_and_why() -> None:
    builder = ReportBuilder()
    builder.event("asleep", "traces are small", Source(CELL, 3))
    snapshot = take(builder.report(), CELLS)
    assert snapshot.asleep == "traces are small (since cell 2, line 3)"


@pytest.mark.parametrize(
    ("reason", "line", "said"),
    [
        ("item()", "losses.append(loss.item())", "`.item()` needed a value"),
        ("item()", "if b.sum() > 0:", "`if` needed a value"),
        ("item()", "    while error > 1e-3:", "`while` needed a value"),
        ("item()", "total += float(loss)", "`float()` needed a value"),
        ("item()", "print(float(x.sum()))", "`float()` needed a value"),
        ("item()", "n = len([int(z) for z in x])", "`int()` needed a value"),
        ("item()", "x = a if done else b", "a condition needed a value"),
        ("item()", "check(done)", "a Python number was asked for"),
        ("aten::sort runs now", "y = x.sort()", "`sort` ran as eager and needed a value: no idea"),
        ("__array__()", "plt.plot(x)", "NumPy (or what is built on it: matplotlib, pandas) reads the values"),
        ("something else", "", "something else"),
    ],
)  # fmt: skip
def test_reasons_are_told_in_plain_words(reason: str, line: str, said: str) -> None:
    assert flush_reason(reason, line, {"sort": "no idea"}) == said


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("y = x * 2", "y"),
        ("    hidden: Tensor = f(x)", "hidden"),
        ("y += 1", "y"),
        ("for i in range(3): y = x", "y"),
        ("a, b = f(x)", ""),
        ("x == y", ""),
        ("return x * 2", ""),
        ("self.w = x", ""),
        ("a = x + 1; b = a * 2", ""),
        ("else: y = b + 3", ""),
        ("f = lambda t: t * 5", ""),
    ],
)
def test_a_line_tells_what_the_program_calls_its_result(line: str, name: str) -> None:
    assert assigned_name(line) == name


def test_the_last_op_of_a_line_has_the_programs_name() -> None:
    (flush,) = shown().flushes
    assert [op.variable for op in flush.ops] == ["", "x", "", ""]
    assert flush.groups[0].names == ()


def test_data_flow_crosses_folded_repeats() -> None:
    (flush,) = shown().flushes
    flow = {op.index: op.feeds for op in flush.ops}
    assert flow == {0: (1,), 1: (0, 18), 18: (19,), 19: ()}


def test_the_graph_is_there_for_graphviz() -> None:
    explorer = Explorer(report(), CELLS)
    graph = explorer.to_graphviz()
    assert graph.source == explorer.to_graphviz(1).source
    assert "cluster_0" in graph.source and "kernel A" in graph.source
    with pytest.raises(ValueError, match="there is no flush 2 to draw: this cell has 1 to 1"):
        explorer.to_graphviz(2)
    with pytest.raises(ValueError, match="this cell has none"):
        Explorer(ReportBuilder().report(), CELLS).to_graphviz()
    if shutil.which("dot") is None:
        pytest.skip("no `dot` program here")
    picture = graph.pipe(format="svg", encoding="utf-8")
    assert "<svg" in picture and "kernel A" in picture


def test_a_large_graph_is_collapsed_to_its_groups() -> None:
    builder = ReportBuilder()
    names = [["sin", "cos", "exp", "neg"][(i * i * 7 + i // 3) % 4] for i in range(600)]
    trace = chain(names, [3 + i % 97 for i in range(600)])
    note(builder, trace, where=None, seconds=1.0, plan=plan(tuple(range(600))))
    (look,) = take(builder.report(), CELLS).flushes
    assert len(look.ops) > 300
    assert "op-" not in digraph(look).source and "group-0" in digraph(look).source


def test_dot_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    explorer = Explorer(report(), CELLS)
    assert "kernel A" in explorer.to_graphviz().source
    assert "%1: f32[4] = mul(%0, 2)" in explorer._repr_html_()


def test_the_snapshot_is_json() -> None:
    assert json.loads(json.dumps(shown().to_dict()))["counts"]["ops"] == 20


def test_text_is_short_and_has_lines() -> None:
    text = repr(Explorer(report(), CELLS))
    assert "1 trace: 20 ops recorded, 18 fused, 1 dead; 1 kernel compiled" in text
    assert len(text.splitlines()) < 30


def test_the_first_line_says_what_became_of_the_ops() -> None:
    first, flushes, time, memory = summary(shown(repeats=5))
    assert first == "*100* ops → *4* kernels + *5* calls + *18* one by one"
    assert (flushes, time, memory) == ("5 flushes", "5.0 ms", "5.0 KiB never touched memory")


class Seen(html.parser.HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_static_html_has_only_what_survives_an_untrusted_reopen() -> None:
    page = Explorer(report(), CELLS)._repr_html_()
    seen = Seen()
    seen.feed(page)
    tables = {"table", "thead", "tbody", "tr", "th", "td"}
    assert seen.tags <= {"div", "span", "b", "details", "summary", "pre"} | tables
    assert seen.attributes <= {"class", "style", "open"}
    assert "var(" not in page
    assert "print(&#x27;&lt;&#x27;, x)" in page and "&lt;why&gt;" in page


def test_a_saved_page_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "trace.html"
    explorer = Explorer(report(), CELLS)
    explorer.save(path)
    page = path.read_text(encoding="utf-8")
    packed = re.search(r'Uint8Array.from\(atob\("([^"]+)"\)', page)
    assert packed is not None
    data = json.loads(zlib.decompress(base64.b64decode(packed[1]), -zlib.MAX_WBITS))
    assert data["kernels"][0]["levels"][1] == ["LLVM IR", "define <8 x float>"]
    assert "export" not in page and not re.search(r"https?://", page)


def test_the_front_end_travels_compressed_and_asks_no_other_host() -> None:
    assert not re.search(r"https?://|^import ", module(), re.MULTILINE)
    assert "export { render };" in module() and "export default { render };" in loader()
    assert len(loader()) < 36_000


def test_what_the_browser_asks_for_is_given() -> None:
    explorer = Explorer(report(), CELLS)
    assert json.loads(explorer._details())["title"] == "cell 2"
    assert explorer._level("k1", "LLVM IR") == "define <8 x float>"
    assert explorer._level("k1", "PTX") is None and explorer._level("k2", "LLVM IR") is None
    assert "1 trace: 20 ops recorded" in explorer.issue()


def test_nothing_deferred_is_said() -> None:
    empty = ReportBuilder().report()
    assert "No op was deferred" in Explorer(empty, CELLS)._repr_html_()
    assert "0 traces" in repr(Explorer(empty, {}))


def test_eagers_time_is_estimated_only_if_it_is_known() -> None:
    assert take(report(repeats=3), CELLS, seconds=1.0).account.eager_cell == 0
    one_by_one = take(report(), CELLS, seconds=1.0)  # what ran one by one took as long as in eager
    assert one_by_one.account.eager_cell == pytest.approx(1.0)


def test_what_is_counted_only_is_a_part_of_its_own() -> None:
    account = take(flushes_of(*range(1, 61)), CELLS, seconds=100.0).account
    assert account.hidden == pytest.approx(20.0) and account.eager_cell == 0
    assert account.interpreted == pytest.approx(70.0)
    assert account.outside == pytest.approx(10.0)


def test_a_sample_that_is_too_slow_exceeds_no_cell() -> None:
    builder = ReportBuilder()
    builder.ran_now(
        name="aten::eigh", where=None, why="it cannot", began=0.0, count=16, seconds=16.0
    )
    account = take(builder.report(), CELLS, seconds=1.0).account
    assert (account.eager, account.outside, account.unplaced) == (1.0, 0.0, 1.0)


def test_a_group_without_a_kernel_is_no_kernel() -> None:
    builder = ReportBuilder()
    note(
        builder,
        chain(["mul", "add"], [3, 3]),
        plan=plan((0,), (1,)),
        kernels=("k1", "k2"),
        step_seconds=(5e-4, 5e-4),
        refused={1: "rows lie otherwise"},
    )
    snapshot = take(builder.report(), CELLS)
    assert (snapshot.counts.kernels, snapshot.counts.one_by_one) == (1, 1)
    assert (snapshot.account.kernels, snapshot.account.interpreted) == (
        pytest.approx(5e-4),
        pytest.approx(5e-4),
    )
