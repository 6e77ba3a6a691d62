"""The explorer without a kernel: what it makes of a report."""

from __future__ import annotations

import base64
import html.parser
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from torchy.ir.trace import Buffer, Constant, Layout, Op, Operand, Source, Trace, View
from torchy.plan.plan import Call, FusedGroup, Plan, Step
from torchy.report import Report, ReportBuilder
from torchy_jupyter.explorer import CellSource, Explorer
from torchy_jupyter.explorer.fold import fold_repeats
from torchy_jupyter.explorer.graph import dot, svg
from torchy_jupyter.explorer.snapshot import Snapshot, take

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
        builder.trace(
            reason="print",
            where=Source(CELL, 4),
            tier="interpreted" if number == 0 else "compiled",
            seconds=1e-3,
            bytes_saved=1024,
            trace=trace,
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
    (trace,) = shown().traces
    assert [(op.name, op.count, op.group) for op in trace.ops] == [
        ("mul", 9, 0),
        ("add", 9, 0),
        ("sum", 1, 1),
        ("neg", 1, None),
    ]
    assert trace.op_count == 20
    assert [(group.kind, group.ops) for group in trace.groups] == [
        ("fused", (0, 1)),
        ("call", (18,)),
    ]


def test_equal_groups_are_shown_once_with_a_count() -> None:
    builder = ReportBuilder()
    trace = chain(["mul", "add"] * 12, [3, 3] * 12)
    pairs = tuple((2 * i, 2 * i + 1) for i in range(12))
    builder.trace(
        reason="item()",
        where=None,
        tier="compiled",
        seconds=12e-3,
        bytes_saved=0,
        trace=trace,
        plan=plan(*pairs),
        kernels=("k1",) * 12,
    )
    (look,) = take(builder.report(), CELLS).traces
    (group,) = look.groups
    assert (group.count, group.ops) == (12, (0, 1))
    assert group.seconds == pytest.approx(12e-3)
    assert "×12" in dot(look)


def test_equal_traces_are_shown_once_with_sums() -> None:
    (trace,) = shown(repeats=5).traces
    assert (trace.count, trace.tier) == (5, "4 compiled, 1 interpreted")
    assert trace.seconds == pytest.approx(5e-3) and trace.bytes_saved == 5120


def test_of_many_different_traces_the_heaviest_are_shown() -> None:
    builder = ReportBuilder()
    for number in range(60):
        builder.trace(
            reason="item()",
            where=Source(CELL, 3),
            tier="interpreted",
            seconds=1.0 + (number % 2),
            bytes_saved=0,
            trace=chain(["mul"] * (number + 1), [3] * (number + 1)),
        )
    snapshot = take(builder.report(), CELLS)
    numbers = [trace.number for trace in snapshot.traces]
    assert len(numbers) == 40 and numbers == sorted(numbers)
    assert set(range(1, 60, 2)) <= set(numbers)
    assert snapshot.notes == ("20 more traces are in last_explorer().report.traces.",)


def test_lines_show_their_ops_time_and_flushes() -> None:
    running, other = shown(repeats=2).sources
    assert (running.name, other.name) == ("cell 2", "cell 1")
    by_number = {line.number: line for line in running.lines}
    assert [line.text for line in running.lines] == CELLS[CELL].text.split("\n")
    assert (by_number[1].ops, by_number[3].ops, by_number[4].ops) == (0, 18, 4)
    assert by_number[3].seconds == pytest.approx(9e-4)  # half of two groups of 0.9 ms
    assert by_number[4].seconds == pytest.approx(2e-4)  # the sum; a dead op takes none
    assert by_number[4].flushes == ("print ×2",)
    assert other.lines[1].ops == 18


def test_data_flow_crosses_folded_repeats() -> None:
    (trace,) = shown().traces
    flow = {op.index: op.feeds for op in trace.ops}
    assert flow == {0: (1,), 1: (0, 18), 18: (19,), 19: ()}


def test_the_graph_has_an_id_on_everything() -> None:
    (trace,) = shown().traces
    text = dot(trace, "key-0-")
    for name in ("op-0", "op-1", "op-18", "op-19", "group-0"):
        assert f'id="key-0-{name}"' in text or f"id=key-0-{name}" in text
    picture = svg(text)
    if picture is None:
        pytest.skip("no `dot` program here")
    assert 'id="key&#45;0&#45;op&#45;0"' in picture or 'id="key-0-op-0"' in picture


def test_a_large_graph_is_collapsed_to_its_groups() -> None:
    builder = ReportBuilder()
    names = [["sin", "cos", "exp", "neg"][(i * i * 7 + i // 3) % 4] for i in range(600)]
    trace = chain(names, [3 + i % 97 for i in range(600)])
    builder.trace(
        reason="item()",
        where=None,
        tier="compiled",
        seconds=1.0,
        bytes_saved=0,
        trace=trace,
        plan=plan(tuple(range(600))),
    )
    (look,) = take(builder.report(), CELLS).traces
    assert len(look.ops) > 300
    assert "op-" not in dot(look) and "group-0" in dot(look)


def test_without_dot_there_is_no_picture_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    explorer = Explorer(report(), CELLS)
    assert explorer.svgs == {}
    assert "%1: f32[4] = mul(%0, 2)" in explorer._repr_html_()


def test_the_snapshot_is_json() -> None:
    assert json.loads(json.dumps(shown().to_dict()))["facts"][0] == ["20", "ops"]


def test_text_is_short_and_has_lines() -> None:
    text = repr(Explorer(report(), CELLS))
    assert "1 trace: 20 ops recorded, 18 fused, 1 dead; 1 kernel compiled" in text
    assert len(text.splitlines()) < 30


class Seen(html.parser.HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.pictures: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.pictures += [value or "" for name, value in attrs if name == "src"]


def test_static_html_has_only_what_survives_an_untrusted_reopen() -> None:
    page = Explorer(report(), CELLS)._repr_html_()
    seen = Seen()
    seen.feed(page)
    tables = {"table", "thead", "tbody", "tr", "th", "td"}
    assert seen.tags <= {"div", "span", "b", "details", "summary", "pre", "img"} | tables
    assert seen.attributes <= {"class", "style", "open", "src", "alt"}
    assert "var(" not in page
    for picture in seen.pictures:
        assert base64.b64decode(picture.removeprefix("data:image/svg+xml;base64,")).startswith(
            b"<svg"
        )
    assert "print(&#x27;&lt;&#x27;, x)" in page and "&lt;why&gt;" in page


def test_a_saved_page_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "trace.html"
    explorer = Explorer(report(), CELLS)
    explorer.save(path)
    page = path.read_text(encoding="utf-8")
    state = re.search(r'<script type="application/json" id="state">(.*?)</script>', page, re.DOTALL)
    assert state is not None
    data = json.loads(state[1])
    assert data["snapshot"]["kernels"][0]["levels"][1] == ["LLVM IR", "define <8 x float>"]
    assert "export default" not in page and "import(" in page
    assert not re.search(r"https?://(?!www\.w3\.org/)", page)


def test_nothing_deferred_is_said() -> None:
    empty = ReportBuilder().report()
    assert "No op was deferred" in Explorer(empty, CELLS)._repr_html_()
    assert "0 traces" in repr(Explorer(empty, {}))
