"""All rules at once: random programs agree with eager, and random programs find faults."""

import contextlib
from pathlib import Path

import hypothesis
import pytest
from broken import MESSAGE
from drive import batches, start_servers
from faults import FAULTS
from hypothesis import strategies
from programs import MOST_MEMORY, TIERS, Draft, Program
from tiers import COMPILED

BROKEN = str(Path(__file__).with_name("broken.py"))
CACHES = str(Path(__file__).with_name("caches.py"))
PROGRAMS = str(Path(__file__).with_name("programs.py"))
# eager's result has room for the differences that it averages
UNWRITTEN = "b = F.mse_loss(a, a + 1).as_strided((3,), (1,))"
MIB = 1 << 20
SHARE = 4  # batches
SECONDS = 200.0
MINUTES = 5


@pytest.fixture(scope="module")
def servers():
    """Processes that fork for every batch."""
    with contextlib.closing(start_servers(2)) as started:
        yield started


@hypothesis.settings(max_examples=1, deadline=None)
@hypothesis.given(strategies.just(Draft))
def test_statements_that_want_too_much_memory_are_not_drawn(make):
    draft = make()
    draft.attempt("a = torch.ones(3)", keep=True)
    draft.attempt(f"a = torch.empty({2 * MOST_MEMORY}, dtype=torch.uint8)", keep=True)
    assert draft.lines == ["a = torch.ones(3)"]


@hypothesis.settings(max_examples=1, deadline=None)
@hypothesis.given(strategies.just(Draft))
def test_programs_are_given_up_where_a_failed_resize_leaves_a_tensor_beyond_its_storage(make):
    draft = make()
    draft.attempt("a = torch.ones(2, 3); arrays.append(a.numpy())")
    with pytest.raises(hypothesis.errors.UnsatisfiedAssumption):  # eager would write beyond it next
        draft.attempt("torch.add(torch.ones(4, 9), 1, out=a)")


@pytest.mark.parametrize(("line", "steady"), [("b = a.sum()", True), (UNWRITTEN, False)])
def test_programs_that_read_unwritten_memory_are_told(servers, line, steady):
    program = Program(("a = torch.linspace(0, 1, 12)", line), 2, {})
    assert servers.call(PROGRAMS, "is_steady", {"program": program}, SECONDS)[:2] == (
        "passed",
        steady,
    )


def test_a_program_after_which_nothing_can_be_computed_is_told(servers):
    kind, value, log = servers.call(BROKEN, "broken_batch", {"seed": 3}, SECONDS)
    assert kind == "passed", f"{value}\n{log[-3000:]}"
    _, failure = value
    assert failure.whole and any(MESSAGE in line for line in failure.found)


@pytest.mark.timeout(900)
def test_random_programs_agree_with_eager(servers):
    programs = 0
    for coverage, failure in batches(servers, seed=0, most=SHARE, count=40, shrink=True):
        assert failure is None, str(failure)
        programs += coverage.programs
    assert programs >= SHARE * 30  # hypothesis leaves out what it has drawn before


@pytest.mark.parametrize("tier", TIERS)
def test_random_programs_agree_where_nothing_is_kept(servers, tier):
    kind, value, log = servers.call(CACHES, "disagreements", {"tier": tier, "count": 25}, SECONDS)
    assert (kind, value) == ("passed", []), log[-3000:]


@COMPILED
def test_the_footprint_of_random_programs_levels_off(servers, compile):
    arguments = {"tier": compile, "shares": 6, "count": 25}
    kind, value, log = servers.call(CACHES, "footprints", arguments, SECONDS)
    assert kind == "passed", f"{value}\n{log[-3000:]}"
    assert value[5] - value[3] < 12 * MIB, [f"{resident / MIB:.1f} MiB" for resident in value]


@pytest.mark.slow
@pytest.mark.timeout(MINUTES * 60 + 300)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_random_programs_find_a_planted_fault(fault, tmp_path, monkeypatch):
    fault.plant(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # goes before the package's own folder
    monkeypatch.setenv("TORCHY_DEBUG", "")  # values alone must show it
    if fault.file.endswith((".h", ".cpp")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    programs = 0
    with contextlib.closing(start_servers(2)) as servers:
        found = batches(servers, seed=1, count=100, shrink=False, seconds=MINUTES * 60)
        for coverage, failure in found:
            programs += coverage.programs
            if failure is not None:
                print(f"{programs} programs")
                print(failure)
                return
    pytest.fail(f"{programs} programs in {MINUTES} minutes have not found it", pytrace=False)
