"""The report: plain data, rendered when read, bounded, and never in the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from torchy.ir.kernel import KernelForm
from torchy.ir.listing import short_op
from torchy.ir.trace import (
    Buffer,
    Constant,
    Layout,
    Mode,
    Number,
    Op,
    Operand,
    Source,
    Trace,
    View,
)
from torchy.plan.plan import Call, FusedGroup, Plan
from torchy.report import ReportBuilder, format_bytes, format_seconds

CELL = "/tmp/ipykernel_7/42.py"


def trace_of_three() -> Trace:
    """``c = a + b * 3.7``, its sum, and a product that nobody keeps."""
    f32 = torch.float32
    buffers = (Buffer(0, None), Buffer(1, None), Buffer(2, 0), Buffer(3, 1), Buffer(4, 2))
    views = (
        View(0, 0, f32, 2),
        View(1, 1, f32, 2),
        View(2, 2, f32, 2),
        View(3, 2, f32, 2),
        View(4, 3, f32, 0),
        View(5, 4, f32, 2),
    )
    linear = Mode.LINEAR
    ops = (
        Op(
            0,
            "aten::add.Tensor",
            (Operand(0, linear, True), Operand(1, linear, True), Number(0, float)),
            (2,),
            linear,
            (2,),
            Source(CELL, 7),
        ),
        Op(
            1,
            "aten::sum",
            (Operand(3), Constant(torch.float32), Constant(None)),
            (4,),
            None,
            (4,),
            Source(CELL, 8),
        ),
        Op(2, "aten::mul.Tensor", (Operand(0), Operand(0)), (5,), linear, (5,), None),
    )
    return Trace(buffers, views, ops, (float,))


def plan_of_three() -> Plan:
    """The sum comes first, as a call, then the fused addition; the product is dead."""
    group = FusedGroup((0,), KernelForm((), (), (), ()), (), (), 2)
    return Plan((group, Call(1)), (2,), ((), ()), ((), ()), {1: "aten::sum is a call"})


LAYOUTS = (
    Layout((64, 10), (10, 1), 0),
    Layout((64, 10), (10, 1), 0),
    Layout((64, 10), (10, 1), 0),
    Layout((10, 64), (1, 10), 0),
    Layout((), (), 0),
    Layout((64, 10), (10, 1), 0),
)


def note(builder: ReportBuilder, **changes: object) -> None:
    """Note one flush of the trace above."""
    flush = {
        "reason": "item()",
        "where": Source(CELL, 9),
        "tier": "compiled",
        "seconds": 2.1e-4,
        "bytes_saved": 2560,
        "trace": trace_of_three(),
        "plan": plan_of_three(),
        "kernels": ("k1", None),
        "layouts": LAYOUTS,
        "numbers": (3.7,),
        "step_seconds": (1e-4, 5e-5),
    }
    builder.trace(**(flush | changes))  # type: ignore[arg-type]


def test_listing_reads_as_the_issue_promises() -> None:
    builder = ReportBuilder()
    note(builder)
    trace = builder.report().with_file_names({CELL: "cell 4"}).traces[0]
    assert repr(trace) == trace.listing
    assert trace.listing.splitlines() == [
        "trace 0: 3 ops, 2 groups; flushed at cell 4, line 9: item()"
        " (compiled, 210 µs, 2.5 KiB saved)",
        "  %0: f32[64, 10] = input",
        "  %1: f32[64, 10] = input",
        "  %2: f32[64, 10] = add(%0, %1, 3.7)   # cell 4, line 7; group 0",
        "  %3: f32[10, 64] strides (1, 10) = view of %2",
        "  %4: f32[] = sum(%3, f32)             # cell 4, line 8; group 1",
        "  %5: f32[64, 10] = mul(%0, %0)        # dead",
    ]


def test_ops_tell_layouts_lines_groups_and_death() -> None:
    builder = ReportBuilder()
    note(builder)
    add, total, product = builder.report().traces[0].ops
    assert (add.name, add.short, add.file, add.line) == ("aten::add.Tensor", "add", CELL, 7)
    assert [operand.sizes for operand in add.operands] == [(64, 10), (64, 10)]
    assert total.operands[0].strides == (1, 10)
    assert (add.group, total.group, product.group) == (0, 1, None)
    assert (add.dead, product.dead) == (False, True)
    assert (product.file, product.line) == (None, None)


def test_a_trace_shows_its_plan_and_a_script_that_reproduces_it() -> None:
    builder = ReportBuilder()
    note(builder)
    trace = builder.report().traces[0]
    assert trace.plan_listing.startswith(
        "step 0: group over %2\n    %2: f32[64, 10] = add(%0, %1, 3.7)"
    )
    names: dict[str, object] = {}
    exec(trace.reproducer(), names)
    assert isinstance(names["v4"], torch.Tensor) and names["v4"].shape == ()


def test_a_script_needs_layouts() -> None:
    builder = ReportBuilder()
    note(builder, layouts=())
    with pytest.raises(ValueError, match="the layouts of trace 0 are not known"):
        builder.report().traces[0].reproducer()


def test_groups_name_their_kernel_and_why_they_stand_alone() -> None:
    builder = ReportBuilder()
    note(builder)
    fused, call = builder.report().traces[0].groups
    assert (fused.kind, fused.ops, fused.kernel, fused.seconds) == ("fused", (0,), "k1", 1e-4)
    assert (call.kind, call.kernel, call.why_apart) == ("call", None, "aten::sum is a call")


def test_nothing_is_rendered_before_it_is_read_and_then_once() -> None:
    calls: list[str] = []

    def told(name: str, value: object) -> object:
        calls.append(name)
        return value

    builder = ReportBuilder()
    note(
        builder,
        layouts=lambda: told("layouts", LAYOUTS),
        numbers=lambda: told("numbers", (3.7,)),
    )
    builder.kernel("k1", {"loop nest": lambda: str(told("source", "for i in n: ..."))})
    report = builder.report()
    report.summary()
    assert calls == []
    for _ in range(2):
        assert "3.7" in report.traces[0].listing
        assert report.kernels["k1"].levels["loop nest"] == "for i in n: ..."
        assert builder.report().traces[0].listing
    assert sorted(calls) == ["layouts", "numbers", "source"]


def test_unknown_layouts_and_numbers_are_shown_as_such() -> None:
    builder = ReportBuilder()
    note(builder, layouts=(), numbers=(), plan=None, kernels=())
    trace = builder.report().traces[0]
    assert trace.groups == () and trace.ops[0].group is None
    assert trace.ops[0].text == "%2: f32[·, ·] = add(%0, %1, n0)"


def test_old_traces_are_dropped_but_counted() -> None:
    builder = ReportBuilder(keep=3)
    for _ in range(10):
        note(builder)
        builder.event("policy raised", "aten::foo")
    report = builder.report()
    assert [trace.number for trace in report.traces] == [7, 8, 9]
    assert len(report.events) == 3
    totals = report.totals
    assert (totals.traces, totals.ops, totals.dead, totals.fused) == (10, 30, 10, 10)
    assert (totals.groups, totals.compiled, totals.events) == (20, 10, 10)
    assert totals.bytes_saved == 25600 and totals.seconds == pytest.approx(2.1e-3)


def test_a_report_is_a_snapshot() -> None:
    builder = ReportBuilder()
    note(builder)
    report = builder.report()
    note(builder)
    builder.event("policy raised", "late")
    builder.kernel("late", {})
    assert (len(report.traces), report.totals.traces) == (1, 1)
    assert not report.events and not report.kernels


def test_events_are_dated_from_the_beginning() -> None:
    now = iter([100.0, 101.5])
    builder = ReportBuilder(clock=lambda: next(now))
    builder.event("kernel failed to compile", "k1: interpreted")
    (event,) = builder.report().events
    assert (event.time, event.kind, event.text) == (
        1.5,
        "kernel failed to compile",
        "k1: interpreted",
    )


def test_summary_counts_and_ranks_reasons() -> None:
    builder = ReportBuilder()
    note(builder, reason="print")
    note(builder)
    note(builder)
    builder.kernel("k1", {}, 0.01)
    builder.event("policy raised", "aten::foo: KeyError: 3")
    assert builder.report().summary().splitlines() == [
        "3 traces: 9 ops recorded, 3 fused, 3 dead; 1 kernel compiled; 7.5 KiB saved; 630 µs in flushes",
        "flushed by: item() (x2), print",
        "policy raised: aten::foo: KeyError: 3",
    ]
    assert "0 traces" in ReportBuilder().report().summary()


def test_json_is_plain_and_complete() -> None:
    builder = ReportBuilder()
    note(builder, numbers=(float("nan"),), where=None)
    builder.kernel("k1", {"loop nest": lambda: "for i", "assembly": lambda: "vaddps"}, 0.01)
    data = json.loads(builder.report().to_json())
    assert data == builder.report().to_dict()
    (trace,) = data["traces"]
    assert trace["where"] is None and trace["tier"] == "compiled"
    assert trace["ops"][0]["results"][0]["text"] == "f32[64, 10]"
    assert trace["groups"][1] == {
        "id": 1,
        "kind": "call",
        "ops": [1],
        "kernel": None,
        "as_kernel": False,
        "seconds": 5e-5,
        "bytes_moved": 2564,
        "accesses": [],
        "numbers": [],
        "statements": [],
        "why_apart": "aten::sum is a call",
        "refused": None,
    }
    assert data["kernels"]["k1"] == {
        "id": "k1",
        "compile_seconds": 0.01,
        "levels": {"loop nest": "for i", "assembly": "vaddps"},
    }


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("aten::add.Tensor", "add"),
        ("aten::add_.Tensor", "add_"),
        ("aten::sum", "sum"),
        ("mine::gelu.out", "mine::gelu"),
    ],
)
def test_op_names_are_short(name: str, short: str) -> None:
    assert short_op(name) == short


def test_units_are_readable() -> None:
    assert [format_bytes(n) for n in (0, 1023, 1024, 150 << 10, 3 << 30, 5 << 40)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "150 KiB",
        "3.0 GiB",
        "5.0 TiB",
    ]
    assert [format_seconds(s) for s in (12.3, 1.26, 3.4e-3, 21e-6, 5e-9)] == [
        "12 s",
        "1.3 s",
        "3.4 ms",
        "21 µs",
        "5 ns",
    ]


def test_a_time_line_for_perfetto(tmp_path: Path) -> None:
    builder = ReportBuilder(clock=lambda: 10.0, began=4.0)
    note(builder, began=5.0, prepared=0.5)
    builder.ran_now(
        name="aten::eigh", where=Source(CELL, 3), why="it cannot", began=6.0, count=4, seconds=2.0
    )
    builder.event("asleep", "traces are small")
    builder.report().to_chrome_trace(tmp_path / "trace.json")
    data = json.loads((tmp_path / "trace.json").read_text())
    drawn = [(e["name"], e["ts"], e.get("dur")) for e in data["traceEvents"] if e["ph"] != "M"]
    assert drawn == [
        ("flush 0: item()", 1e6, pytest.approx(210)),
        ("planning, compiling", 5e5, 5e5),
        ("kernel k1", 1e6, pytest.approx(100)),
        ("sum", pytest.approx(1e6 + 100), pytest.approx(50)),
        ("eigh", 2e6, 5e5),
        ("asleep", 6e6, None),
    ]
    assert all(e["pid"] == 1 for e in data["traceEvents"])


def test_older_flushes_are_apart_by_tier() -> None:
    builder = ReportBuilder(keep=2)
    for tier in ("interpreted", "compiled", "compiled", "compiled", "compiled"):
        note(builder, tier=tier, trace=TRACE, plan=PLAN)
    older = builder.report().older
    assert [(record.tier, record.count) for record in older] == [
        ("interpreted", 1),
        ("compiled", 2),
    ]


TRACE, PLAN = trace_of_three(), plan_of_three()
