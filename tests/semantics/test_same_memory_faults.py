"""Rules 2 and 7 when memory is short: a flush that cannot allocate names the op, and goes on once there is memory."""

import contextlib
import resource
from pathlib import Path

import pytest
import torch
from injection import in_a_child, in_a_thread, require_off
from tiers import COMPILED, TIERS

LARGE = 64 << 20  # bytes of the result that is too large
ROOM = 40 << 20  # bytes that may be allocated


@contextlib.contextmanager
def little_memory():
    """Let the process have little more memory than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def work(x, w, large):
    """Make eight tensors, each by an op that reads the one before; that of one index is large."""
    n = LARGE // 4 // 64
    results = []
    ops = [
        lambda t: t * 2,
        lambda t: t.exp(),
        lambda t: t @ w,
        lambda t: t + w,
        lambda t: t.softmax(-1),
        lambda t: t.sub_(0.5),
        lambda t: t.sum(-1, keepdim=True) * w,
        lambda t: t.tanh(),
    ]
    for index, op in enumerate(ops):
        x = op(x)
        if index == large:
            results.append(x[:1].expand(n, 8, 8) + x)  # below, its line is looked for
        results.append(x)
    return results


def check(large, compile, look):
    """Have the flush fail for want of memory; then look again."""
    import torchy

    torch.set_num_threads(1)
    x, w = torch.linspace(-1, 1, 64).view(8, 8), torch.linspace(0, 1, 64).view(8, 8)
    x = x.clone().view(1, 8, 8)
    expected = [(t.shape, t[-1].tolist(), t.sum().item()) for t in work(x.clone(), w, large)]
    settings = {"compile": compile, "max_bytes": 1 << 40}
    with torchy.lazy(**settings):
        work(x.clone(), w, None)[-1].tolist()  # small: what torch loads lazily is there
    results = []
    with (  # noqa: PT012
        pytest.raises(RuntimeError, match="allocate memory") as caught,
        little_memory(),
        torchy.lazy(**settings) as session,
    ):
        results += work(x.clone(), w, large)
        if look:
            results[-1].tolist()
            raise AssertionError("there was memory enough")
    (note,) = caught.value.__notes__
    require_off()

    def seen():
        return [(t.shape, t[-1].tolist(), t.sum().item()) for t in results]

    assert in_a_thread(seen, 60) == expected
    assert seen() == expected
    assert not any(map(torchy.is_pending, results))
    assert session.counters["recorded"]
    with torchy.lazy(**settings):
        assert work(x.clone(), w, None)[-1].tolist() == expected[-1][1] or large is not None
    return note


@COMPILED
@pytest.mark.parametrize("look", [True, False])
def test_any_step_of_a_flush_may_want_too_much(compile, look):
    line = next(
        number
        for number, text in enumerate(Path(__file__).read_text().splitlines(), start=1)
        if "its line is looked for" in text
    )
    for large in range(8):
        note = in_a_child(lambda at=large: check(at, compile, look))
        assert note == f"Torchy was running aten::add.Tensor, recorded at {__file__}:{line}", large


def repeated(compile):
    """Have a flush fail that the walker runs by itself."""
    import torchy

    torch.set_num_threads(1)
    x = torch.linspace(-1, 1, 64)

    def run(n):
        y = x * 2
        z = y.expand(n, 64) + y
        y.add_(1)
        return y, z, z[0, 0].item()

    with torchy.lazy(compile=compile, max_bytes=1 << 40) as session:
        for _ in range(5):
            run(10)
        assert session.counters["flushes"] == 5
        with pytest.raises(RuntimeError, match="allocate memory") as caught, little_memory():
            run(LARGE // 256)
        (note,) = caught.value.__notes__
        assert "aten::add.Tensor" in note and __file__ in note
        y, z, first = run(LARGE // 256)
    assert first == -4.0
    assert torch.equal(z, (x * 2).expand(LARGE // 256, 64) + x * 2)
    assert torch.equal(y, x * 2 + 1)


@TIERS
def test_a_flush_that_the_walker_repeats_wants_too_much(compile):
    assert in_a_child(lambda: repeated(compile)) is None
