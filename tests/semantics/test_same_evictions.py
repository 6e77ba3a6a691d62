"""Rule 9, bounded: what is kept between flushes is evicted at its bound, and works when it comes again."""

import gc
import itertools

import torch
from bounds import MIB, resident
from tiers import COMPILED, SETTLED, TIERS

OPS = ["exp", "sin", "cos", "tanh", "abs", "neg", "sigmoid", "square", "floor", "relu"]


def chain(names):
    """Compute something that depends on every op's name."""
    x = torch.linspace(0.1, 1, 50)
    for name in names:
        x = getattr(torch, name)(x) + 1
    return x


def the_runtime():
    """Return what the process has one of."""
    import torchy
    from torchy.face import _process

    with torchy.lazy():
        return _process.runtime


@SETTLED
def test_kernels_are_evicted_and_compiled_again(compile):
    import torchy

    runtime = the_runtime()
    runtime.kernels._ready.capacity = 3
    runtime.plans.capacity = 2  # else plans hold on to their kernels
    pairs = list(itertools.islice(itertools.permutations(OPS, 2), 12))
    compiled = []
    for _ in range(3):
        for names in pairs:
            with torchy.lazy(compile=compile):
                y = chain(names)
            assert torch.equal(y, chain(names))
            assert len(runtime.kernels._ready) <= 3
            assert len(runtime.plans) <= 2
        compiled.append(runtime.kernels.compiled)
    per_round = compiled[0]
    assert per_round >= 12 if compile == "always" else per_round == 0
    # the third time the walker repeats what it did, with the programs that it has
    assert compiled == [per_round, 2 * per_round, 2 * per_round]


def test_a_kernel_goes_with_the_last_that_has_it():
    import weakref

    import torchy
    from torchy.codegen.cpu.kernel import Kernel

    class Watched(Kernel):
        __slots__ = ("__weakref__",)

    import torchy.codegen.cpu.kernel as module

    module.Kernel = Watched
    runtime = the_runtime()
    runtime.kernels._ready.capacity = runtime.plans.capacity = 2
    runtime.upkeep.most_places = 0  # scripts have programs, and these have kernels
    watched = []
    for names in itertools.islice(itertools.permutations(OPS, 2), 8):
        with torchy.lazy(compile="always"):
            chain(names).sum().item()
        newest = next(reversed(runtime.kernels._ready._items.values()))
        watched.append(weakref.ref(newest))
    with torchy.lazy():
        pass
    gc.collect()
    assert sum(ref() is not None for ref in watched) <= 2


def test_kernels_take_little_memory():
    import torchy

    pairs = list(itertools.permutations(OPS, 2))
    runtime = the_runtime()
    with torchy.lazy(compile="always"):
        for names in pairs[:20]:
            chain(names).sum().item()
        before, compiled = resident(), runtime.kernels.compiled
        for names in pairs[20:80]:
            chain(names).sum().item()
        compiled = runtime.kernels.compiled - compiled
    assert compiled >= 60
    assert resident() - before < compiled * MIB / 4


@TIERS
def test_places_are_forgotten_and_learned_again(compile):
    import torchy

    runtime = the_runtime()
    runtime.upkeep.most_places = 40
    most = 0
    for _ in range(3):
        for names in itertools.islice(itertools.permutations(OPS, 3), 40):
            with torchy.lazy(compile=compile):
                y = chain(names)
                most = max(most, len(runtime.places))
            assert torch.equal(y, chain(names))
    assert 40 < most <= 80  # reached, and kept within a trace's length
    assert len(runtime.places._traces) <= most
    assert len(runtime.scripts) <= most


@TIERS
def test_places_are_forgotten_within_one_long_session(compile):
    import torchy

    runtime = the_runtime()
    runtime.upkeep.most_places = 40
    programs = list(itertools.islice(itertools.permutations(OPS, 3), 40))
    expected = [chain(names).sum().item() for names in programs]
    most = 0
    with torchy.lazy(compile=compile):
        for _ in range(3):
            for names, total in zip(programs, expected, strict=True):
                assert chain(names).sum().item() == total
                most = max(most, len(runtime.places))
    assert 30 < most <= 80  # between flushes


@SETTLED
def test_scripts_of_one_place_are_bounded(compile):
    import torchy

    runtime = the_runtime()

    def once(mask):
        x = torch.linspace(0, 1, 40)
        made = [x * 1.5, x + 2, x - 3, x.exp(), x.neg()]
        kept = [y for k, y in enumerate(made) if mask >> k & 1]
        del made[:]
        y = x * 0.5  # hence one path of ops, whichever results are live
        total = y.sum().item()
        return [total, *kept]

    expected = [once(mask) for mask in range(32)]
    with torchy.lazy(compile=compile) as session:
        for turn, mask in itertools.product(range(4), range(32)):
            for a, b in zip(once(mask), expected[mask], strict=True):
                assert torch.equal(torch.as_tensor(a), torch.as_tensor(b)), (turn, mask)
    assert session.counters["repeated"] > 0
    assert 8 <= len(runtime.scripts) <= 16


@SETTLED
def test_more_layouts_than_a_place_remembers(compile):
    import torchy

    def once(n):
        x = torch.linspace(0, 1, 4 * n).reshape(4, n)
        return (x.t() * 2 + 1).sin() + x.t().amax(1, keepdim=True)

    few, many = range(1, 10), range(1, 600)
    expected = {n: once(n) for n in many}
    with torchy.lazy(compile=compile) as session:
        for n in [*few] * 4:
            assert torch.equal(once(n), expected[n])
        layouts = session.counters["layouts"]
        assert layouts < 9 * 8  # each found once, for each of the ops
        for n in [*many, *few]:
            assert torch.equal(once(n), expected[n])
    assert session.counters["layouts"] > layouts + 599 * 4  # forgotten, and found anew


def test_kernels_of_traces_that_a_report_has_dropped():
    import torchy

    the_runtime()
    pairs = list(itertools.islice(itertools.permutations(OPS, 2), 20))
    with torchy.lazy(compile="always") as session:
        session.builder._keep = 5
        for _ in range(2):
            for names in pairs:
                chain(names).sum().item()
                report = session.report
                used = {group.kernel for trace in report.traces for group in trace.groups}
                assert set(report.kernels) == used - {None}
                assert len(report.traces) <= 5
                assert all(kernel.levels["LLVM IR"] for kernel in report.kernels.values())


@COMPILED
def test_tensors_whose_memory_was_seen_outside_are_not_kept(compile):
    import torchy

    x = torch.linspace(0, 1, 1000)
    with torchy.lazy(compile=compile):
        for _ in range(2000):
            (x + 1).data_ptr()
        before = resident()
        for _ in range(8000):
            (x + 1).data_ptr()
    assert resident() - before < 8 * MIB
