"""The public face: sessions, nesting, settings, quiet."""

from pathlib import Path
from unittest import mock

import pytest
import torch
from sameness import program
from tiers import SETTLED, TIERS


@TIERS
def test_nothing_is_pending_outside(compile):
    import torchy

    assert torchy.current_session() is None
    assert not torchy.is_pending(torch.ones(3) * 2)
    with torchy.lazy(compile=compile) as session:
        assert torchy.current_session() is session
        x = torch.ones(3) * 2
        assert torchy.is_pending(x)
        assert torchy.is_pending(x[1:])
        assert torchy.is_pending(x.detach())
    assert torchy.current_session() is None
    assert not torchy.is_pending(x)
    assert not torchy.is_pending(torch.ones(3) * 2)


@TIERS
def test_flush_computes_everything(compile):
    import torchy

    with torchy.lazy(compile=compile) as session:
        x = torch.ones(3) * 2
        y = x + 1
        torchy.flush()
        assert not torchy.is_pending(x)
        assert not torchy.is_pending(y)
        before = session.counters["flushes"]
        torchy.flush()
        assert session.counters["flushes"] == before
        z = y * 2
        assert torchy.is_pending(z)
    torchy.flush()
    assert z.tolist() == [6, 6, 6]


@TIERS
def test_enable_and_disable(compile):
    import torchy

    torchy.disable()
    torchy.enable(compile=compile)
    session = torchy.current_session()
    x = torch.ones(3) * 2
    assert torchy.is_pending(x)
    torchy.disable()
    assert torchy.current_session() is None
    assert not torchy.is_pending(x)
    torchy.disable()
    assert session.report.traces


@TIERS
def test_a_decorator(compile):
    import torchy

    @torchy.lazy(compile=compile)
    def twice(x, *, plus=0):
        """Double."""
        y = x * 2 + plus
        return y, torchy.is_pending(y)

    for _ in range(3):
        result, pending = twice(torch.ones(3), plus=1)
        assert pending
        assert not torchy.is_pending(result)
        assert result.tolist() == [3, 3, 3]
    assert twice.__name__ == "twice"
    assert twice.__doc__ == "Double."
    assert torchy.current_session() is None


@TIERS
def test_a_decorated_function_may_recurse_and_raise(compile):
    import torchy

    @torchy.lazy(compile=compile)
    def count(x, n):
        if n == 0:
            raise ValueError(x.sum().item())
        return count(x + 1, n - 1)

    with pytest.raises(ValueError, match=r"12\.0"):
        count(torch.zeros(3), 4)
    assert torchy.current_session() is None


@TIERS
def test_an_inner_session_joins_the_outer(compile):
    import torchy

    with torchy.lazy(compile=compile) as outer:
        x = torch.ones(3) * 2
        with torchy.lazy() as inner:
            assert torchy.current_session() in (inner, outer)
            y = x + 1
        assert torchy.is_pending(y)
        assert torchy.is_pending(x)
        assert torchy.current_session() is outer
        z = y * x
    assert z.tolist() == [6, 6, 6]
    assert torchy.current_session() is None


@TIERS
def test_other_settings_flush_at_their_borders(compile):
    import torchy

    other = "never" if compile == "always" else "always"
    with torchy.lazy(compile=compile):
        x = torch.ones(3) * 2
        with torchy.lazy(compile=other):
            assert not torchy.is_pending(x)
            y = x + 1
            assert torchy.is_pending(y)
        assert not torchy.is_pending(y)
        z = y * 2
        assert torchy.is_pending(z)
    assert z.tolist() == [6, 6, 6]


@TIERS
def test_fast_numerics_end_at_the_inner_border(compile):
    import torchy

    x = torch.randn(50)
    expected = (x * 3).sigmoid()
    with torchy.lazy(compile=compile):
        with torchy.lazy(compile=compile, numerics="fast"):
            near = (x * 3).sigmoid()
        exact = (x * 3).sigmoid()
    assert torch.equal(exact, expected)
    assert torch.allclose(near, expected)


@TIERS
@pytest.mark.parametrize("skip_dead", [True, False])
def test_what_is_dropped_unread_is_run_if_asked_for(compile, skip_dead):
    import torchy

    x = torch.linspace(0, 1, 64).reshape(8, 8)
    with torchy.lazy(compile=compile, skip_dead=skip_dead) as session:
        for _ in range(4):
            for _ in range(3):
                (x @ x).exp()
            y = x + 1
            y.add_(x)
            del y
            torchy.flush()
    assert len(session.report.traces) == 4
    for trace in session.report.traces:
        assert [op.dead for op in trace.ops] == [skip_dead] * 8


@TIERS
def test_an_exception_leaves_inner_and_outer(compile):
    import torchy

    with pytest.raises(KeyError), torchy.lazy(compile=compile):  # noqa: PT012
        x = torch.ones(3) * 2
        with torchy.lazy(max_ops=7):
            y = x + 1
            raise KeyError
    assert torchy.current_session() is None
    assert not torchy.is_pending(y)
    assert y.tolist() == [3, 3, 3]


@TIERS
def test_disable_within_a_block(compile):
    import torchy

    with torchy.lazy(compile=compile):
        x = torch.ones(3) * 2
        torchy.disable()
        assert not torchy.is_pending(x)
        y = x + 1
    assert y.tolist() == [3, 3, 3]
    assert torchy.current_session() is None
    assert not torchy.is_pending(torch.ones(2) + 1)


@TIERS
def test_every_enable_is_ended_by_its_own_disable(compile):
    import torchy

    torchy.enable(compile=compile)
    outer = torchy.current_session()
    x = torch.ones(3) * 2
    torchy.enable(compile=compile)
    y = x + 1
    torchy.disable()
    assert torchy.current_session() is outer
    z = y * 2
    torchy.disable()
    assert torchy.current_session() is None
    assert not any(map(torchy.is_pending, (x, y, z)))
    assert z.tolist() == [6, 6, 6]


@TIERS
def test_one_session_object_may_be_entered_again(compile):
    import torchy

    block = torchy.lazy(compile=compile)
    results = []
    for i in range(3):
        with block:
            results.append(torch.ones(2) * i)
    assert [r.tolist() for r in results] == [[0, 0], [1, 1], [2, 2]]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"numerics": "quick"}, ["numerics", "quick", "exact", "fast"]),
        ({"compile": "sometimes"}, ["compile", "sometimes", "auto", "always", "never"]),
        ({"compile": True}, ["compile", "auto", "always", "never"]),
        ({"max_ops": 0}, ["max_ops"]),
        ({"max_ops": "many"}, ["max_ops"]),
        ({"max_bytes": -1}, ["max_bytes"]),
        ({"numeric": "exact"}, ["numeric", "numerics", "compile", "max_ops", "max_bytes"]),
        ({"cache_dir": 3}, ["cache_dir"]),
        ({"skip_dead": 1}, ["skip_dead", "True", "False"]),
    ],
)
def test_wrong_settings_say_what_is_allowed(settings, words):
    import torchy

    for call in (torchy.lazy, torchy.enable):
        with pytest.raises((TypeError, ValueError)) as caught, call(**settings):
            pass
        for word in words:
            assert word in str(caught.value)
    assert torchy.current_session() is None


@program
def test_nothing_is_printed_unless_asked_for():
    x = torch.ones(3) * 2
    x.add_(1)
    x.sum().item()


@TIERS
def test_nothing_reaches_the_standard_streams(compile):
    import os
    import tempfile

    import torchy

    with tempfile.TemporaryFile() as file:
        kept = os.dup(1), os.dup(2)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            with torchy.lazy(compile=compile):
                x = (torch.randn(100) * 2).tanh()
                x.add_(1).sum().item()
        finally:
            os.dup2(kept[0], 1)
            os.dup2(kept[1], 2)
        file.seek(0)
        assert file.read() == b""


@SETTLED
def test_the_report_tells_what_happened(compile):
    import json

    import torchy

    with torchy.lazy(compile=compile) as session:
        x = torch.ones(30) * 2
        y = (x + 1).exp()
        y.sum().item()
        z = y * 2
    report = session.report
    assert len(report.traces) >= 2
    names = [op.name for trace in report.traces for op in trace.ops]
    assert [name for name in names if "mul" in name or "exp" in name]
    first = report.traces[0]
    assert first.reason
    assert first.tier == {"always": "compiled", "never": "interpreted"}[compile]
    source = Path(__file__).read_text().splitlines()
    start = test_the_report_tells_what_happened.__code__.co_firstlineno
    for op in first.ops:
        assert op.file == __file__
        assert start < op.line < start + 30
        assert source[op.line - 1].split()[0] in ("x", "y", "y.sum().item()", "z")
    as_json = report.to_json()
    json.loads(as_json if isinstance(as_json, str) else json.dumps(as_json))
    assert report.summary()
    assert repr(first)
    assert z[0].item() == y[0].item() * 2


@TIERS
def test_reading_a_report_never_flushes(compile):
    import torchy

    with torchy.lazy(compile=compile) as session:
        x = torch.ones(30) * 2
        x.sum().item()
        y = x + 1
        report = session.report
        repr(report)
        report.to_json()
        str(report.summary())
        [repr(trace) for trace in report.traces]
        assert torchy.is_pending(y)


def test_switched_off_it_leaves_no_trace_in_a_thread():
    import torchy

    with torchy.lazy():
        torch.ones(3) * 2
    keys = str(torch._C._dispatch_tls_local_include_set())
    assert "PrivateUse3" not in keys
    x = torch.ones(3) * 2
    assert "PrivateUse3" not in str(torch._C._dispatch_keys(x))


@TIERS
def test_no_tensor_keeps_the_bit_after_a_session(compile):
    import torchy

    w = torch.randn(3, requires_grad=True)
    with torchy.lazy(compile=compile):
        x = torch.ones(3) * 2
        view, alias = x[1:], x.detach()
        y = w * x
        y.sum().backward()
        with torch.no_grad():
            w.sub_(w.grad)
    for tensor in (w, x, view, alias, y, w.grad):
        assert "PrivateUse3" not in str(torch._C._dispatch_keys(tensor))


def test_the_end_of_an_inner_region_does_not_wake_a_session_that_sleeps():
    import torchy
    from torchy.face import _process

    with torchy.lazy() as session:
        with torchy.lazy():
            _process.runtime.upkeep.put_to_sleep(session, "traces are small")
            assert not torchy.is_pending(torch.ones(3) * 2)
        assert not torchy.is_pending(torch.ones(3) * 2)
        with torchy.lazy():
            assert torchy.is_pending(torch.ones(3) * 2)


@pytest.mark.parametrize("name", ["tolist", "numpy"])  # inherited by torch.Tensor, and its own
@pytest.mark.parametrize(
    ("start", "stop"),
    [
        ("before", "within"),
        ("before", "after"),
        ("before", "later"),
        ("within", "after"),
        ("within", "later"),
    ],
)
def test_what_the_program_puts_in_place_of_torch_s_methods_stays_until_it_takes_it_off(
    name, start, stop
):
    import torchy

    own, x = vars(torch.Tensor).get(name), torch.ones(2)
    patch = mock.patch.object(torch.Tensor, name, return_value="patched")
    plain = getattr(x, name)()
    if start == "before":
        patch.start()
    with torchy.lazy():
        if start == "within":
            patch.start()
        y = x + 1
        assert getattr(x, name)() == "patched"
        if stop == "within":
            patch.stop()
    if stop == "later":
        with torchy.lazy():
            assert getattr(x, name)() == "patched"
    if stop != "within":
        assert getattr(y, name)() == "patched"
        patch.stop()
    assert list(getattr(x, name)()) == list(plain)
    with torchy.lazy():
        y = x + 1
        assert list(getattr(y, name)()) == [2.0, 2.0]
    assert vars(torch.Tensor).get(name) is own
