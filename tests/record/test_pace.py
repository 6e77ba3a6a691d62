"""Whether recording pays is reckoned; a session that does not pay goes to sleep under compile="auto", and only then."""

import functools
import itertools
import time
from collections import deque

import pytest
import torch
from recording import counters, forget_places_beyond, nothing_compiled, the_walker

import torchy

ENOUGH_FLUSHES = 3 * 32  # three times in a row
SECOND = 10**9


def weigh(session, times, ops=1, moved=0, nanoseconds=SECOND // 100, calls=0):
    """Tell the walker of flushes that Python has run."""
    weigh = the_walker().library.torchy_weigh
    return [weigh(session.id, ops, calls, moved, nanoseconds) for _ in range(times)]


def step(x):
    (x * 2.5).sum().item()


def nearly_asleep(session, body):
    """Have the walker repeat what a body does, and its next flush be the one by which the session has lost."""
    the_walker().library.torchy_listen(1.0)  # so long, it is said, eager takes for an op: awake
    while counters(session).repeated < 3:
        body()
    lose = functools.partial(weigh, session, ops=0, nanoseconds=SECOND)
    while lose(1) == [0]:
        pass
    assert lose(ENOUGH_FLUSHES - 1) == [0] * (ENOUGH_FLUSHES - 1)


def test_flushes_that_cost_more_than_eager_lose_once_there_are_enough():
    with torchy.lazy() as session:
        told = weigh(session, 3 * ENOUGH_FLUSHES)
    assert told == [*[0] * (ENOUGH_FLUSHES - 1), 1] * 3  # the past is forgotten then


def test_one_bad_moment_does_not_count():
    with torchy.lazy() as session:
        for _ in range(10):
            assert weigh(session, 2 * ENOUGH_FLUSHES // 3) == [0] * (2 * ENOUGH_FLUSHES // 3)
            won = weigh(session, ENOUGH_FLUSHES // 3, moved=10**9)
            assert won == [0] * (ENOUGH_FLUSHES // 3)


def test_flushes_that_take_hardly_any_time_are_not_judged():
    with torchy.lazy() as session:
        assert weigh(session, 500, nanoseconds=1000, ops=0) == [0] * 500


def test_of_a_call_only_what_is_beside_its_kernel_is_won():
    the_walker().library.torchy_listen(1e-3)  # so long, it is said, eager takes for an op
    with torchy.lazy() as session:
        assert 1 not in weigh(session, 300, ops=10, calls=0, nanoseconds=SECOND // 1000)
        assert 1 in weigh(session, 300, ops=10, calls=10, nanoseconds=SECOND // 1000)


def test_ops_that_run_at_once_cost_too():
    the_walker().library.torchy_listen(1e-3)
    x = torch.randn(4)
    with torchy.lazy(compile="never") as session:
        assert 1 not in weigh(session, 300, ops=10, nanoseconds=SECOND // 1000)
        told = []
        for _ in range(150):
            for _ in range(30):
                x.median()
            told += weigh(session, 1, ops=10, nanoseconds=SECOND // 1000)
        assert 1 in told


def test_what_is_not_moved_through_memory_is_won():
    with torchy.lazy() as session:
        assert weigh(session, 100, moved=10**9, nanoseconds=SECOND // 100) == [0] * 100
        assert 1 in weigh(session, 100, moved=10**7, nanoseconds=SECOND // 100)


def test_ops_are_won_too():
    the_walker().library.torchy_listen(1e-3)  # so long, it is said, eager takes for an op
    with torchy.lazy() as session:
        assert 1 not in weigh(session, 100, ops=100, nanoseconds=SECOND // 100)
        assert 1 in weigh(session, 100, ops=10, nanoseconds=SECOND // 100)


@pytest.mark.parametrize("compile", ["auto", "always", "never"])
def test_small_traces_put_a_session_to_sleep_under_auto_only(compile):
    x = torch.randn(4)
    with torchy.lazy(compile=compile) as session:
        nearly_asleep(session, lambda: step(x))
        for _ in range(50):  # flushes weigh too, once they are what they will be
            step(x)
        assert session.asleep == (compile == "auto")
        before = counters(session)
        step(x)
        recorded = counters(session).recorded - before.recorded
    assert recorded == (0 if compile == "auto" else 2)
    events = [event.text for event in session.report.events if event.kind == "asleep"]
    assert events == ["traces are small: recording does not pay here"] * (compile == "auto")


def test_a_session_that_sleeps_is_woken_by_the_next_region():
    x = torch.randn(4)
    with torchy.lazy() as session:
        nearly_asleep(session, lambda: step(x))
        for _ in range(50):
            step(x)
        assert session.asleep
        assert not torchy.is_pending(x * 2)
        with torchy.lazy() as inner:
            assert inner is session and not session.asleep
            assert torchy.is_pending(x * 2)
        assert torchy.is_pending(x * 2)
    with torchy.lazy():
        assert torchy.is_pending(x * 2)


def products():
    """Return what multiplies small matrices one by one and looks at each: there is nothing to fuse."""
    x = torch.eye(3)

    def multiply():
        y = x
        for _ in range(10):
            y = y.mm(x)
            last = y[0, 0].item()
        return last

    return multiply


def sessions(body, until, seconds=60):
    """Return the newest of sessions that all begin here, with a body run in each, once they are as wanted."""
    newest = deque(maxlen=40)
    end = time.monotonic() + seconds
    while len(newest) < newest.maxlen or not until([session.asleep for session in newest]):
        assert time.monotonic() < end, [session.asleep for session in newest]
        with torchy.lazy() as session:
            body()
        newest.append(session)
    return newest


def test_where_sessions_have_not_paid_the_next_ones_sleep():
    x, multiply = torch.randn(4), products()
    for session in sessions(lambda: [multiply() for _ in range(5)], until=all):
        assert counters_of(session) == {"recorded": 0, "flushes": 0}
    [event] = session.report.events
    assert (event.kind, event.text) == (
        "asleep",
        "recording did not pay here, or it is being compared",
    )
    assert repr(session).endswith("closed, 0 ops recorded>")
    with torchy.lazy():  # elsewhere
        assert torchy.is_pending(x * 2)


def test_sessions_of_some_twenty_milliseconds_are_compared_as_a_whole():
    multiply, times = products(), 0
    end = time.perf_counter() + 0.018  # so long does it take without recording
    while time.perf_counter() < end:
        multiply()
        times += 1
    asleep = 0
    end = time.monotonic() + 60
    while asleep < 20:
        assert time.monotonic() < end, asleep
        with torchy.lazy() as session:
            for _ in range(times):
                multiply()
        asleep = asleep + 1 if session.counters["recorded"] == 0 else 0


def test_what_has_been_enabled_is_recorded_each_time():
    """As cells under ``%torchy on``, which all begin at one place, and one right after the other where all are run."""
    multiply = products()
    for _ in range(100):
        session = torchy.enable()
        for _ in range(20):
            multiply()
        torchy.disable()
        assert session.counters["recorded"] > 0


def counters_of(session):
    return {name: session.counters[name] for name in ("recorded", "flushes")}


def test_where_sessions_pay_they_stay_awake():
    x = torch.rand(300, 300)

    def body():
        y = x
        for _ in range(30):
            y = y * 0.5 + 1
        y.sum().item()

    def begun():
        return sessions(body, until=lambda asleep: sum(asleep) <= 10)

    begun()  # once its kernel is there
    for _ in range(5):
        assert len(begun()) == 40


def test_where_kernels_are_still_being_compiled_nothing_is_compared():
    x = torch.rand(100, 100)

    def body():
        y = x
        for _ in range(20):
            y = y * 0.5 + 1
        y.sum().item()

    with nothing_compiled():
        end = time.monotonic() + 0.3  # before 256 spells of 3 ms have gone by
        while time.monotonic() < end:
            with torchy.lazy() as session:
                body()
            assert session.counters["recorded"] == 41


def test_a_region_within_one_that_sleeps_is_recorded():
    x, multiply = torch.randn(4), products()

    def inner():
        with torchy.lazy() as outer:
            slept = outer.asleep
            for _ in range(5):
                multiply()
            if slept:
                with torchy.lazy() as session:
                    assert session is outer and not session.asleep
                    y = x * 2
                    assert torchy.is_pending(y)
                assert torchy.is_pending(y * 2)
        return slept

    end = time.monotonic() + 60
    while not inner():
        assert time.monotonic() < end


def test_a_session_that_does_not_pay_goes_to_sleep_between_two_looks():
    multiply = products()
    found = {multiply()}
    end = time.monotonic() + 60
    with torchy.lazy() as session:
        while not session.asleep:
            assert time.monotonic() < end
            found.add(multiply())
        found.add(multiply())
    assert len(found) == 1


def test_a_trial_begins_though_something_is_pending_at_each_look():
    x, known = torch.randn(4), torch.ones(())
    before = y = x
    end = time.monotonic() + 60
    with torchy.lazy(max_ops=1_000_000) as session:  # no flush but at a look
        recorded = -1
        while session.counters["recorded"] > recorded:
            recorded = session.counters["recorded"]
            assert time.monotonic() < end
            known.item()
            before, y = y, x * 2.5
        assert not session.asleep
        assert not torchy.is_pending(before) and not torchy.is_pending(y)
        assert torch.equal(before, y)


def run_new_lines(name, lines, look=torchy.flush):
    """Run ops each of which is at a new place, in traces of ten."""
    body = ("x * 2.0\n" * 10 + "look()\n") * (lines // 10)
    exec(compile(body, name, "exec"), {"x": torch.randn(4), "look": look})


@pytest.mark.parametrize("compile", ["auto", "never"])
def test_a_session_whose_traces_are_new_each_time_goes_to_sleep(compile):
    forget_places_beyond(12_000)
    with torchy.lazy(compile=compile, max_ops=10) as session:  # nothing is looked at: no trials
        run_new_lines("first", 11_000, look=int)
        assert not session.asleep
        run_new_lines("second", 2_000, look=int)
        assert session.asleep == (compile == "auto")
    events = [event.text for event in session.report.events if event.kind == "asleep"]
    told = ["traces are new each time: recording does not pay here"]
    assert events == (told if compile == "auto" else [])
    assert session.report.totals.ops == counters(session).recorded


def test_looks_that_come_by_new_places_each_time_are_compared_too():
    end = time.monotonic() + 60
    with torchy.lazy() as session:
        for turn in itertools.count():
            assert time.monotonic() < end
            run_new_lines(f"turn {turn}", 100)
            if session.asleep:
                break
    assert session.report.totals.ops == counters(session).recorded


def test_a_session_goes_on_where_the_one_before_has_found_out_what_pays():
    multiply, asleep = products(), [0]
    end = time.monotonic() + 60
    while sum(asleep[-10:]) < 10:
        assert time.monotonic() < end, asleep
        with torchy.lazy() as session:
            multiply()
            asleep.append(session.asleep)  # after its first look
            begun = time.perf_counter()
            while not session.asleep and time.perf_counter() - begun < 0.04:
                multiply()


def test_a_session_that_comes_by_the_same_places_too_stays_awake():
    forget_places_beyond(12_000)
    x = torch.randn(4)
    with torchy.lazy(max_ops=10) as session:  # flushed without a look, by which its pace is known
        for i in range(13):
            run_new_lines(f"lines {i}", 1_100, look=int)
            for _ in range(1_500):  # at known places
                x.exp()
        assert counters(session).places > 13_000
        assert not session.asleep


def test_what_is_pending_when_a_session_falls_asleep_is_there():
    x = torch.randn(4)

    def body():
        y = x * 3.5
        step(x)
        return y

    with torchy.lazy() as session:
        nearly_asleep(session, body)
        y = body()
        assert session.asleep
        assert not torchy.is_pending(y) and torch.equal(y, x * 3.5)


@pytest.mark.parametrize("compile", ["auto", "never"])
def test_a_session_whose_ops_nearly_all_run_now_goes_to_sleep(compile):
    x = torch.randn(4)
    with torchy.lazy(compile=compile) as session:
        for _ in range(4095):
            x.median()
        assert not session.asleep
        x.median()
        assert session.asleep == (compile == "auto")
        for _ in range(10):
            x.median()
        done = counters(session)
    assert done.run_now == (4096 if compile == "auto" else 4106)
    events = [event.text for event in session.report.events if event.kind == "asleep"]
    told = ["nearly all ops run now: recording does not pay here"]
    assert events == (told if compile == "auto" else [])


def test_ops_on_single_elements_count_as_run_now():
    x = torch.tensor(1.0)
    with torchy.lazy() as session:
        for _ in range(4095):
            x * 2.0
        assert not session.asleep
        x * 2.0
        assert session.asleep
    assert counters(session).run_now == 4096


def test_a_session_that_records_a_tenth_stays_awake():
    x = torch.randn(4)
    with torchy.lazy(max_ops=100) as session:
        for i in range(4200):
            x.median()
            if i % 10 == 0:
                x.exp()
        assert counters(session).run_now >= 4096
        assert not session.asleep


def test_only_what_came_since_the_last_question_counts():
    x = torch.randn(4)
    only_walks = the_walker().library.torchy_only_walks
    with torchy.lazy(compile="never") as session:
        for _ in range(100):
            x.median()
        assert only_walks(session.id) == 1
        assert only_walks(session.id) == 0  # nothing has come
        y = [x.exp() for _ in range(10)]
        for _ in range(100):
            x.median()
        assert only_walks(session.id) == 0
        for _ in range(100):
            x.median()
        assert only_walks(session.id) == 1
        del y


def test_nobody_sleeps_where_functions_of_torch_compile_are_in_use():
    """They are compiled anew where recording begins or stops."""
    torch.compile(lambda y: y + 1, backend="eager")(torch.ones(3))
    multiply = products()
    end = time.monotonic() + 1
    with torchy.lazy() as session:
        while time.monotonic() < end:
            multiply()
        assert not session.asleep
    while time.monotonic() < end + 1:
        with torchy.lazy() as session:
            for _ in range(5):
                multiply()
            assert not session.asleep


def test_trials_mind_memory_that_two_storages_share():
    a, settled = torch.zeros(8), torch.zeros(())
    b = torch.utils.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(a))
    sums = set()
    end = time.monotonic() + 2
    with torchy.lazy() as session:
        while time.monotonic() < end and not session.asleep:
            b.zero_()
            y = a * 2 + 1
            settled.item()  # a trial may begin here
            b.add_(1)
            sums.add(y.sum().item())
    assert sums == {8.0}


def test_no_trial_where_an_inner_region_is_not_to_sleep():
    multiply, x = products(), torch.randn(4)
    end = time.monotonic() + 1
    with torchy.lazy(), torchy.lazy(compile="never") as session:
        while time.monotonic() < end:
            multiply()
            assert torchy.is_pending(x * 2)
        assert not session.asleep


def test_a_session_that_a_trial_put_to_sleep_is_woken():
    multiply, x = products(), torch.randn(4)
    end = time.monotonic() + 60
    with torchy.lazy() as session:
        while not session.asleep:
            assert time.monotonic() < end
            multiply()
        with torchy.lazy():
            assert torchy.is_pending(x * 2)


def test_what_is_run_by_hand_is_recorded_each_time():
    multiply, x = products(), torch.randn(4)
    for _ in range(40):
        time.sleep(0.03)
        with torchy.lazy():
            assert torchy.is_pending(x * 2)
            for _ in range(50):
                multiply()
