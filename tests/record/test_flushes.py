"""Flushes, as the walker and Python share them: begun, joined, left, resumed, finished; and repeated from then on."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from recording import begun, counters, the_walker, trace_of

import torchy
from torchy.record.codes import Repeated, ScriptId
from torchy.run.program import Program

NUMBER = 10**6
MOST_SCRIPTS = 16


def library():
    return the_walker().library


def opened():
    """Open a session of the walker's that Python's runtime does not know of."""
    walker = the_walker()
    handle = walker.open(NUMBER, 0, 1024, 1 << 24, False, False, -1)
    walker.set(handle, 0, True, True, False, False, False)
    return handle


def record(handle, body):
    """Record a body on this thread."""
    walker = the_walker()
    walker.record_into(handle)
    try:
        return body()
    finally:
        walker.record_no_more()


def elsewhere(function, *arguments):
    """Return what a function gives on another thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


def test_a_flush_of_nothing_is_none():
    walker, handle = the_walker(), opened()
    assert library().torchy_begin(NUMBER) == 0
    assert walker.flush(handle, "nothing") == Repeated.YES
    assert walker.running(NUMBER) is None
    assert library().torchy_finish(NUMBER, 1, -1) == -1
    assert walker.counters(handle).flushes == 0


def test_a_program_runs_in_the_flush_that_it_was_made_for_only():
    walker, handle, x = the_walker(), opened(), torch.arange(3.0)
    y = record(handle, lambda: (x + 1).exp())
    assert library().torchy_begin(NUMBER) == 1
    program = Program.interpreting([(0, ()), (1, ())])
    words = program.address, len(program.words)
    for serial in (0, 2):  # the one before, finished meanwhile, and one that is to come
        assert walker.execute(NUMBER, serial, *words) == 0
        assert walker.remember(NUMBER, serial, 7, "", *words, 1, -1, (), (), ()) == 0
        assert library().torchy_finish(NUMBER, serial, -1) == -1
    assert walker.running(NUMBER).at == 0 and torchy.is_pending(y)
    assert walker.execute(NUMBER, 1, *words) == 0
    assert library().torchy_finish(NUMBER, 1, -1) >= 0
    assert y.tolist() == (x + 1).exp().tolist()


def test_a_flush_is_begun_and_joined_and_left_and_resumed_and_finished():
    walker, handle, x = the_walker(), opened(), torch.arange(3.0)
    y = record(handle, lambda: x + 1)
    assert walker.running(NUMBER) is None and not library().torchy_flushes(NUMBER)
    assert library().torchy_begin(NUMBER) == 1
    assert library().torchy_flushes(NUMBER)
    running = walker.running(NUMBER)
    assert (running.serial, running.visits, running.at, running.script) == (
        1,
        1,
        0,
        ScriptId.NO_SCRIPT,
    )
    assert library().torchy_begin(NUMBER) == 2  # this thread is at it
    library().torchy_leave(NUMBER)
    assert not library().torchy_flushes(NUMBER)
    assert walker.running(NUMBER) == running  # it waits for somebody
    assert library().torchy_begin(NUMBER) == 1
    assert walker.running(NUMBER).serial == 1
    assert torchy.is_pending(y)
    assert library().torchy_finish(NUMBER, 1, -1) >= 0  # that it has been run is up to the caller
    assert walker.running(NUMBER) is None
    assert library().torchy_finish(NUMBER, 1, -1) == -1
    assert not torchy.is_pending(y)
    assert walker.counters(handle).flushes == 1
    assert walker.close(handle) == 1


def test_a_session_that_owes_values_is_not_closed():
    walker, handle, x = the_walker(), opened(), torch.arange(3.0)
    y = record(handle, lambda: x + 1)
    assert walker.close(handle) == 0
    library().torchy_begin(NUMBER)
    library().torchy_leave(NUMBER)
    assert walker.close(handle) == 0
    # Python has seen it, and may have begun to run it
    assert walker.flush(handle, "by hand") == Repeated.YES
    assert walker.close(handle) == 1
    assert walker.close(handle) == 1
    assert y.tolist() == [1, 2, 3]


def test_what_python_has_begun_the_walker_does_not_do_by_itself():
    walker, handle, x = the_walker(), opened(), torch.arange(3.0)
    y = record(handle, lambda: x + 1)
    library().torchy_begin(NUMBER)
    assert walker.running(NUMBER) is not None  # who has looked runs it
    library().torchy_leave(NUMBER)
    assert walker.flush(handle, "by hand") == Repeated.NO
    assert torchy.is_pending(y) and walker.close(handle) == 0


def test_a_flush_that_is_asked_for_in_the_midst_of_it_is_left_to_who_is_at_it():
    walker, handle, x = the_walker(), opened(), torch.arange(3.0)
    y = record(handle, lambda: x + 1)
    assert library().torchy_begin(NUMBER) == 1
    assert walker.flush(handle, "by hand") == Repeated.NO
    assert elsewhere(walker.flush, handle, "by hand") == Repeated.NO  # it does not wait
    assert not elsewhere(library().torchy_flushes, NUMBER)
    elsewhere(library().torchy_leave, NUMBER)  # it is not that thread's to leave
    assert library().torchy_flushes(NUMBER)
    library().torchy_leave(NUMBER)
    assert walker.flush(handle, "by hand") == Repeated.YES
    assert y.tolist() == [1, 2, 3]


def test_a_thread_that_begins_a_flush_waits_for_who_is_at_it():
    walker, handle, x = the_walker(), opened(), torch.arange(3.0)
    y = record(handle, lambda: x + 1)
    assert library().torchy_begin(NUMBER) == 1
    told = []
    thread = threading.Thread(target=lambda: told.append(library().torchy_begin(NUMBER)))
    thread.start()
    thread.join(0.1)
    assert not told
    record_of_it = walker.running(NUMBER)
    assert [op.name for op in trace_of(record_of_it.path).ops] == ["aten::add.Tensor"]
    library().torchy_finish(NUMBER, 1, -1)
    thread.join()
    assert told == [0]  # there is nothing left to do
    assert not torchy.is_pending(y)


def test_ops_run_now_while_a_flush_is_under_way():
    walker, handle, x = the_walker(), opened(), torch.arange(3.0)
    y = record(handle, lambda: x + 1)
    library().torchy_begin(NUMBER)
    z = record(handle, lambda: x + 1)
    assert (torchy.is_pending(z), z.tolist()) == (False, [1, 2, 3])
    assert walker.counters(handle)[:3] == (1, 1, 1)
    library().torchy_leave(NUMBER)
    assert walker.flush(handle, "by hand") == Repeated.YES
    assert torchy.is_pending(record(handle, lambda: x + 1))
    assert y.tolist() == [1, 2, 3]


def test_a_flush_that_was_left_is_resumed_by_the_next_look():
    x = torch.arange(3.0)
    with torchy.lazy(compile="never") as session:
        y = x + 1
        with begun(session) as record_of_it:
            pass
        z = x * 2  # not into the trace that waits
        assert y.tolist() == [1, 2, 3] and z.tolist() == [0, 2, 4]
        assert counters(session).flushes == record_of_it.serial == 1
    assert len(session.report.traces) == 1


def test_serial_numbers_and_visits_count_up():
    x, seen = torch.arange(3.0), []
    with torchy.lazy(compile="never") as session:
        for _ in range(4):
            y = x + 1
            with begun(session) as record_of_it:
                seen.append((record_of_it.serial, record_of_it.visits))
            torchy.flush()
        y = x - 1
        with begun(session) as record_of_it:
            seen.append((record_of_it.serial, record_of_it.visits))
    # after the first flush the place is another one: after a flush at that line
    assert seen == [(1, 1), (2, 1), (3, 2), (4, 3), (5, 1)]
    del y


def flushed(session, x, reason="flush()"):
    """Do the same as always and flush; return how that was done."""
    before = counters(session)
    y = x * 2.5
    torchy.flush(reason)
    assert not torchy.is_pending(y)
    done = counters(session)
    if done.interpreted > before.interpreted:
        return "interpreted"
    return "repeated" if done.repeated > before.repeated else "python"


@pytest.mark.parametrize(
    ("compile", "expected"),
    [("never", "interpreted python repeated repeated"), ("always", "python python repeated")],
)
def test_a_script_is_kept_at_the_second_visit(compile, expected):
    with torchy.lazy(compile=compile) as session:
        (torch.ones(3) * 2.5).sum().item()
        flushed(session, torch.ones(4))  # the last after another line
        ways = [flushed(session, torch.randn(4 + i)) for i in range(len(expected.split()))]
    assert ways == expected.split()


def test_a_flush_that_python_has_looked_at_is_not_repeated():
    x = torch.randn(4)
    with torchy.lazy(compile="never") as session:
        for _ in range(4):
            way = flushed(session, x)
        assert way == "repeated"
        y = x * 2.5
        with begun(session) as record_of_it:
            assert (
                record_of_it.script == ScriptId.NO_SCRIPT
            )  # it is looked for when a flush is to be run
        before = counters(session).repeated
        torchy.flush()
        assert counters(session).repeated == before and not torchy.is_pending(y)
        flushed(session, x)  # at another place: after a flush at that line
        assert flushed(session, x) == "repeated"


def test_there_are_sixteen_scripts_at_a_place_at_most():
    x, reasons = torch.randn(4), [f"reason {i}" for i in range(20)]
    with torchy.lazy(compile="never") as session:
        for _ in range(2):
            flushed(session, x, "begin")
        rounds = [[flushed(session, x, reason) for reason in reasons] for _ in range(3)]
    assert rounds[0] == ["python"] * 20
    # "begin" has one as well
    kept = ["repeated"] * MOST_SCRIPTS + ["python"] * (20 - MOST_SCRIPTS)
    assert rounds[1] == rounds[2] == kept


def test_what_is_live_is_part_of_a_script():
    x = torch.randn(4)

    def way(session, keep):
        before = counters(session).repeated
        y = x * 2.5
        z = y + 1
        if not keep:
            del y
        torchy.flush()
        del z
        return counters(session).repeated - before

    with torchy.lazy(compile="never") as session:
        assert [way(session, True) for _ in range(4)] == [0, 0, 0, 1]
        assert [way(session, False) for _ in range(3)] == [0, 1, 1]
        assert [way(session, keep) for keep in (True, False)] == [1, 1]


def test_settings_that_change_what_is_run_are_part_of_a_script():
    x = torch.randn(4)
    with torchy.lazy(compile="never") as session:
        for _ in range(4):
            flushed(session, x)
        with torchy.lazy(skip_dead=False):
            assert flushed(session, x) == "python"
            assert flushed(session, x) == "repeated"
        with torchy.lazy(max_ops=100):  # changes no flush
            assert flushed(session, x) == "repeated"
        assert flushed(session, x) == "repeated"


def test_a_trace_ends_at_its_greatest_length():
    y = torch.ones(3)
    with torchy.lazy(compile="never", max_ops=5) as session:
        for _ in range(12):
            y = y + 1
        assert counters(session).flushes == 2
    traces = session.report.traces
    assert [trace.reason for trace in traces] == ["max_ops recorded"] * 2 + ["end of the region"]
    assert [len(trace.ops) for trace in traces] == [5, 5, 2]
    assert y.tolist() == [13] * 3


def test_no_thread_begins_a_flush_while_another_forks():
    walker, handle, x = the_walker(), opened(), torch.arange(3.0)
    y = record(handle, lambda: x + 1)
    library().torchy_hold_flushes(1)
    assert elsewhere(walker.flush, handle, "by hand") == Repeated.NO
    assert torchy.is_pending(y)
    library().torchy_hold_flushes(0)
    assert elsewhere(walker.flush, handle, "by hand") == Repeated.YES
    assert y.tolist() == [1, 2, 3]


def test_what_pends_on_a_tensor_is_settled_by_itself():
    walker, handle, x = the_walker(), opened(), torch.arange(3.0)
    y = record(handle, lambda: x + 1)
    address = y._cdata
    assert walker.settle(x._cdata, False, "a reader") == Repeated.YES
    assert torchy.is_pending(y)  # nobody owes x anything
    assert walker.settle(x._cdata, True, "a writer") == Repeated.YES
    assert not torchy.is_pending(y)  # it still had to read x
    assert walker.settle(address, True, "a writer") == Repeated.YES
    before = walker.counters(handle).recorded
    z = record(handle, lambda: y * 2)  # somebody outside may write to it
    assert not torchy.is_pending(z) and walker.counters(handle).recorded == before


def test_ops_of_a_thread_that_pauses_are_not_recorded():
    handle, x = opened(), torch.arange(3.0)
    pause = library().torchy_pause

    def body():
        made = []
        for on in (1, 1, 0, 0, 0):  # one end too many
            pause(on)
            made.append(torchy.is_pending(x + 1))
        return made

    assert record(handle, body) == [False, False, False, True, True]


def test_a_session_is_one_of_the_thread_that_records_into_it():
    walker, handle, x = the_walker(), opened(), torch.arange(3.0)
    y = record(handle, lambda: [x + 1, elsewhere(lambda: x + 1)])
    assert [torchy.is_pending(t) for t in y] == [True, False]
    library().torchy_attach(NUMBER)
    assert torchy.is_pending(x + 1)
    library().torchy_attach(-1)
    assert not torchy.is_pending(x + 1)
    assert walker.flush(handle, "by hand") == Repeated.YES


def test_while_kernels_are_compiled_the_walker_goes_on_interpreting():
    library().torchy_set_planning(1e-9)  # the second flush is planned
    x = torch.arange(6.0)
    with torchy.lazy() as session:
        for _ in range(3):
            ((x * 2.5 + 1).exp() - x).sum().item()
        assert counters(session).interpreted == 2  # the first and the third


def test_a_loop_whose_traces_are_too_long_comes_by_the_same_places():
    x = torch.rand(4)
    with torchy.lazy(max_ops=10, compile="never") as session:
        for i in range(8):
            total = (x * 2).sum()
            for _ in range(13):  # more than once too long, and never in the same way
                x = x * 0.5 + 1
            total.item()  # there already
            if i == 3:
                before = session.counters
        after = session.counters
    assert after["places"] == before["places"]
