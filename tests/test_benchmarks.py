"""The benchmarks measure what they say they measure."""

import json
import time
from xml.etree import ElementTree

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import __main__ as suites
from benchmarks import case, cells, check, measure, plot, programs, tables, whole
from benchmarks.chains import LENGTHS, OPERANDS, bytes_to_move, chain, look, operands
from benchmarks.peers import Peer, peers


class CountOps(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        self.names.append(op.overloadpacket.__name__)
        return op(*args, **(kwargs or {}))


@pytest.mark.parametrize("length", LENGTHS)
def test_a_chain_calls_as_many_ops_as_it_says(length):
    inputs = operands(3)
    with CountOps() as counted:
        chain(length)(*inputs)
    again = ["sub", "mul", "div", "add", "sub", "mul", "div", "add"]
    assert counted.names == (["add", *again[1:]] + again * 3)[:length]


def test_bytes_to_move_are_those_of_operands_and_result():
    inputs = operands(5)
    assert len(inputs) == OPERANDS
    assert bytes_to_move(5) == sum(t.nbytes for t in inputs) + chain(8)(*inputs).nbytes


def test_a_look_reads_the_last_element():
    assert look(torch.arange(6.0).reshape(2, 3)) == 5


def test_results_are_compared_by_their_bits():
    one = torch.ones(3)
    assert case.compare(one, one.clone()) == {"equal": True, "max_ulp": 0}
    assert case.compare(torch.nextafter(one, 2 * one), one) == {"equal": False, "max_ulp": 1}


def test_contenders_take_turns(monkeypatch):
    monkeypatch.setattr(measure, "WARM_UP_SECONDS", 0)
    slow = measure.Contender(lambda: time.sleep(0.004))
    fast = measure.Contender(lambda: time.sleep(0.001))
    times = measure.in_turns({"slow": slow, "fast": fast}, seconds=0, rounds=(3, 5))
    assert len(times["slow"]) == len(times["fast"]) == 3
    assert min(times["slow"]) > 0.004
    assert min(times["fast"]) > 0.001


def test_a_peer_that_fails_is_reported_and_the_others_are_measured(monkeypatch):
    def fail(function, examples):
        raise RuntimeError("no compiler\nat all")

    def two_peers():
        return [peers()[0], Peer("broken", fail)]

    monkeypatch.setattr(case, "peers", two_peers)
    monkeypatch.setattr(measure, "WARM_UP_SECONDS", 0)
    found = case.measure(8, 16, seconds=0)
    assert json.loads(json.dumps(found)) == found
    table = tables.case_table(found)
    assert "broken failed: RuntimeError: no compiler" in table
    [eager] = [line.split() for line in table.splitlines() if line.startswith("eager")]
    assert "1.00x" in eager
    assert eager[-1] == "yes"


def test_runs_are_compared_by_what_they_are_against_eager():
    def run(share, speed, peak):
        return {
            "recording": {
                "schemas": {"add": {"share": share, "eager_ns": 9.0}},
                "looks": [{"compute": "softmax", "look": "item()", "speed": speed}],
            },
            "memory": {
                "mlp": {
                    "eager": {"first": 1.0, "first_twelve": 9.0, "steady": 1.0},
                    "torchy": {
                        "first": 1.0,
                        "first_twelve": 9.0,
                        "steady": 1.0,
                        "peak": peak,
                    },
                }
            },
        }

    lines, worse = check.compare(run(0.5, 1.0, 100), run(0.5, 1.0, 100))
    assert (lines, worse) == ([], 0)
    lines, worse = check.compare(run(0.5, 1.0, 100), run(0.6, 2.0, 120))
    assert [(line[0], line[-1]) for line in lines] == [
        ("schemas: add", "worse"),
        ("softmax, item()", "better"),
        ("mlp: peak", "worse"),
    ]
    assert worse == 2


def counting():
    total = torch.zeros(3)

    def step():
        total.add_(torch.rand(3))
        return total.sum().item()

    return step


def test_a_program_is_run_for_as_many_steps_eagerly_as_under_torchy(monkeypatch):
    monkeypatch.setattr(whole, "TURN_STEPS", (2, 2))
    ours = whole.lazily(counting)
    eager = whole.eagerly(counting, ours["steps"])
    assert (eager["steps"], eager["results"]) == (ours["steps"], ours["results"])
    assert eager["results"] != whole.eagerly(counting, ours["steps"] + 1)["results"]
    assert min(ours["steady"], ours["one_session"], ours["pool"]) > 0


def row(eager, torchy, **more):
    figures = {"steady": torchy, "one_session": torchy, "pool": eager, "first": 2 * torchy}
    figures |= {"ops": 0, "signatures": 0, "settled": 12, "peak": 0}
    ours = {"steady": eager, "first": eager, "peak": 0}
    return {"eager": ours, "cold": {"first": 2 * torchy}, "torchy": figures, "equal": True, **more}


def test_the_table_of_programs_tells_which_are_slow():
    found = {"mlp": row(1.0, 0.5), "rnn": row(1.0, 2.0)}
    *_, steady, _, _, late = tables.whole_table(found).splitlines()
    assert steady == "a session a step: 1.00x, geometric mean of 2; below 0.98: rnn 0.50"
    assert late == "first runs, caches cold, beyond the bound: rnn; warm: 0.50x"


def test_a_program_that_torch_compile_does_not_finish_is_reported(monkeypatch):
    monkeypatch.setattr(suites, "PATIENCE", 0.01)
    found = suites.compiled("programs", "mlp", "")
    assert found == {"failed": "not done in 0.01 s"}
    table = tables.whole_table({"mlp": row(1.0, 1.0, compile=found)})
    assert table.splitlines()[1].endswith("not done in 0.01 s")


def test_the_picture_of_programs_has_a_dot_for_each_further_right_the_faster():
    compiled = {"steady": 0.25, "first": 9.0, "equal": True}
    found = {"rnn": row(1.0, 2.0), "mlp": row(1.0, 0.5, compile=compiled)}
    picture = ElementTree.fromstring(plot.speed_plot(found, "a < b"))
    texts = [each.text for each in picture.findall("{*}text")]
    assert {"a < b", "0.5x", "eager", "2x", "4x", "torch.compile"} <= set(texts)
    assert texts[-2:] == ["mlp", "rnn"]  # the fastest first
    legend, dots = 2, [float(dot.get("cx")) for dot in picture.findall("{*}circle")]
    compiled_mlp, mlp, rnn = dots[legend:]
    assert compiled_mlp > mlp > rnn


@pytest.mark.parametrize("name", programs.PROGRAMS)
def test_programs_compute_the_same_under_torchy(name):
    import torchy

    def steps():
        torch.manual_seed(0)
        step = programs.PROGRAMS[name]()
        return [step() for _ in range(2)]

    eager = steps()
    with torchy.lazy():
        assert steps() == eager


def test_a_cell_is_measured_from_enter_to_idle(monkeypatch):
    monkeypatch.setattr(cells, "CELLS", {"one op": "y = x + 1"})
    monkeypatch.setattr(cells, "WARM", 1)
    found = cells.measure(rounds=2)
    assert set(found["one op"]) == {"plain", "quiet", "explorer", "bytes"}
    assert 0 < found["one op"]["plain"] < 60 and 1000 < found["one op"]["bytes"] < 100_000
    assert "one op" in tables.cell_table(found)
