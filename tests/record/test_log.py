"""Raw records of flushes that the walker has run by itself: the newest are kept, the others summed."""

import torch
from recording import counters, did, forget_places_beyond, integers, log, the_walker, trace_of

import torchy
from torchy.record.codes import ScriptId
from torchy.record.native import Unplanned

MOST, MOST_BYTES = 1000, 4 << 20


def step(x, number):
    """Do the same at the same place: only numbers, and perhaps sizes, differ.

    A flush of one op is one step: Python does not come in, however busy the machine is.
    """
    y = x * number
    torchy.flush()
    return y


def taken(session):
    return the_walker().take_log(session.handle)[:2]


def learn(x):
    """Have the walker repeat the step from now on; Python has read the log when it saw the last of these."""
    for _ in range(3):  # at the session's begin; interpreted; planned
        step(x, 0.5)


def test_the_newest_records_are_kept_and_older_ones_summed():
    x = torch.randn(4)
    with torchy.lazy(compile="never") as session:
        learn(x)
        for i in range(1500):
            step(x, float(i))
        records, sums = taken(session)
        done = counters(session)
    assert (done.flushes, done.interpreted, done.repeated) == (1503, 2, 1500)
    assert len(records) == MOST
    numbers = [memoryview(record.numbers).cast("d")[0] for record in records]
    assert numbers == [float(i) for i in range(500, 1500)]  # oldest first
    assert len({record.origin for record in records}) == 1
    ((script, flushes, ops, nanoseconds, saved),) = sums
    assert (script, flushes, ops, saved) == (records[0].origin, 500, 500, 0)
    assert nanoseconds > 0


def test_flushes_that_nobody_has_planned_are_summed_together():
    lines = "y = x.exp(); flush()\n" + "y = x * 2.0; flush()\n" * 1099  # each is new at its place
    with torchy.lazy(compile="never") as session:
        exec(compile(lines, "lines", "exec"), {"x": torch.randn(4), "flush": torchy.flush})
        records, sums = taken(session)
        assert counters(session).interpreted == 1100
    assert len(records) == MOST
    assert [(entry.script, entry.flushes, entry.ops) for entry in sums] == [
        (ScriptId.NO_SCRIPT, 100, 100)
    ]


def test_what_is_taken_is_gone():
    x = torch.randn(4)
    with torchy.lazy(compile="never") as session:
        learn(x)
        for i in range(5):
            step(x, float(i))
        assert len(taken(session)[0]) == 5
        assert taken(session) == ([], [])
        step(x, 5.0)
        assert len(taken(session)[0]) == 1


def test_the_bytes_of_records_are_bounded():
    def large(size):
        """Record sizes and strides of 31 tensors with 60 dimensions: 30 KB."""
        y = torch.cat([x.view(*[1] * 59, -1)[..., :size] for x in made], -1)
        torchy.flush()
        return y

    made = [torch.randn(20) for _ in range(30)]
    sizes = [2 + i % 7 for i in range(300)]  # others each time
    with torchy.lazy(compile="never") as session:
        for size in sizes[:21]:
            large(size)
        taken(session)
        done = did(session, lambda: [large(size) for size in sizes])
        records, sums = taken(session)
    assert done.repeated == 300
    held = sum(record.held_bytes for record in records)
    assert MOST_BYTES * 0.95 < held <= MOST_BYTES
    assert len(records) + sum(entry.flushes for entry in sums) == 300


def test_words_that_are_as_they_were_are_shared():
    with torchy.lazy(compile="never") as session:
        learn(torch.randn(3))
        for size in (4, 4, 5, 5):
            step(torch.randn(size), 2.0)
        repeats = log(session)
    held = [record.held_bytes for record in repeats]
    (size,) = {len(record.words) for record in repeats}
    # the first, and the one whose sizes have changed
    assert held == [held[1] + size, held[1], held[1] + size, held[1]]
    assert [integers(record.words)[1] for record in repeats] == [4, 4, 5, 5]


def test_numbers_and_times_of_repeats():
    def chain(number):
        y = (x * number).exp() - x
        torchy.flush()
        return y

    x = torch.randn(4)
    with torchy.lazy(compile="never") as session:
        for i in range(7):
            chain(i + 0.5)
        repeats = log(session)
    for i, record in enumerate(repeats, 3):
        assert memoryview(record.numbers).cast("d").tolist() == [i + 0.5]
        times = integers(record.times)
        assert len(times) == 3 and all(time > 0 for time in times)
        assert sum(times) <= record.nanoseconds
    assert len(repeats) == 4


def test_a_flush_that_nobody_has_planned_tells_its_path_and_why_and_where():
    x = torch.randn(4)
    with torchy.lazy(compile="never") as session:
        y = (x * 2.5).exp()
        torchy.flush("to be told")
        (record,) = log(session)
    origin = record.origin
    assert [op.name for op in trace_of(origin.path).ops] == ["aten::mul.Tensor", "aten::exp"]
    assert (origin.reason, origin.text) == (7, "to be told")
    line = the_walker().source(origin.line)
    code = test_a_flush_that_nobody_has_planned_tells_its_path_and_why_and_where.__code__
    assert line == (__file__, code.co_firstlineno + 4)
    assert list(origin.flags) == [4, 1, 4 + 1]  # the input, the temporary, the result
    assert (record.bytes_saved, len(record.numbers), len(record.times)) == (0, 8, 2 * 8)
    del y


def test_records_whose_places_are_forgotten_are_only_counted():
    x = torch.randn(4)
    with torchy.lazy(compile="never") as session:
        learn(x)
        for i in range(5):
            step(x, float(i))
        assert the_walker().library.torchy_forget(session.id) == 1
        y = x.neg()
        torchy.flush()
        records, sums = taken(session)
    assert [type(record.origin) for record in records] == [Unplanned]
    assert [(entry.flushes, entry.ops) for entry in sums] == [(5, 5)]
    del y


def test_a_report_has_read_what_is_forgotten():
    x = torch.randn(4)
    forget_places_beyond(20)
    with torchy.lazy(compile="never") as session:
        for i in range(40):
            y = x * float(i)
            for _ in range(i):
                y = y + 1
            torchy.flush(f"turn {i}")
        report = session.report
    assert [trace.reason for trace in report.traces] == [f"turn {i}" for i in range(40)]
    assert [len(trace.ops) for trace in report.traces] == [i + 1 for i in range(40)]


def test_a_report_counts_what_it_does_not_keep():
    x = torch.randn(4)
    with torchy.lazy(compile="never") as session:
        for i in range(1200):
            step(x, float(i))
        report = session.report
    assert (report.totals.traces, report.totals.ops) == (1200, 1200)
    assert len(report.traces) == MOST


def test_a_log_outlives_its_session():
    x = torch.randn(4)
    with torchy.lazy(compile="never") as session:
        learn(x)
        for i in range(4):
            step(x, float(i))
    assert len(log(session)) == 4
    assert counters(session).flushes == 7
