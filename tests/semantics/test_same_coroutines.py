"""Rules 1 and 7 where regions do not nest: generators, coroutines and exit stacks leave them late, early, in odd order."""

import asyncio
import contextlib
import functools
import gc
import inspect
import threading

import torch
from facts import differences, facts_of
from injection import require_off
from sameness import reset
from tiers import TIERS


def in_regions(body):
    """Make a test of a program that opens regions by itself: it gets what opens one, or eagerly does nothing."""

    @TIERS
    def test(compile):
        import torchy

        def eagerly(**settings):
            return contextlib.nullcontext()

        lazily = functools.partial(torchy.lazy, compile=compile)
        outcomes = []
        for region in (eagerly, lazily, lazily, lazily):
            reset()
            result = body(region)
            if inspect.iscoroutine(result):
                result = asyncio.run(result)
            gc.collect()
            require_off()
            outcomes.append(facts_of(result, look=True))
            found = differences(outcomes[0], outcomes[-1])
            assert not found, "\n".join(found)

    test.__name__ = test.__qualname__ = body.__name__
    test.__module__ = body.__module__
    return test


def in_a_thread(work):
    seen = []

    def run():
        seen.append(work())
        require_off()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return seen[0]


def numbers():
    return torch.linspace(-1, 1, 8)


def steps(region, x, seen):
    """Suspended twice within a region."""
    try:
        with region():
            x = x * 2
            seen.append(x + 1)
            y = yield x
            y.add_(x)
            seen.append(y * 3)
            yield y
            seen.append(y.exp())
    finally:
        seen.append(x.tanh())


@in_regions
def test_a_generator_is_resumed_after_ops_outside_of_its_region(region):
    seen = []
    generator = steps(region, numbers(), seen)
    x = next(generator)
    z = x.sub_(1) * 2
    y = generator.send(z)
    w = y + z
    seen.append(list(generator))
    return x, y, z, w, seen


@in_regions
def test_a_generator_is_closed_where_it_is_suspended(region):
    seen = []
    generator = steps(region, numbers(), seen)
    x = next(generator)
    z = x * 2
    generator.close()
    x.add_(z)
    return x, z, seen


@in_regions
def test_a_generator_is_collected_where_it_is_suspended(region):
    seen = []
    generator = steps(region, numbers(), seen)
    x = next(generator)
    x.add_(1)
    z = generator.send(x * 2) * 2
    del generator
    gc.collect()
    x.mul_(z)
    return x, z, seen


@in_regions
def test_a_generator_that_is_part_of_a_cycle_is_collected_some_time(region):
    seen, cycle = [], {}
    cycle["steps"] = steps(region, numbers(), seen)
    x = next(cycle["steps"])
    cycle["self"] = cycle
    del cycle
    y = x * 2
    gc.collect()
    return x, y + 1, seen


@in_regions
def test_an_exception_is_thrown_into_a_generator(region):
    seen = []
    generator = steps(region, numbers(), seen)
    x = next(generator)
    x.mul_(2)
    try:
        generator.throw(ValueError("thrown"))
    except ValueError as error:
        seen.append(str(error))
    return x, x + 1, seen


@in_regions
def test_a_generator_catches_what_is_thrown_into_it_and_goes_on(region):
    def patient(x):
        with region():
            while True:
                try:
                    x = x * 2
                    yield x
                except ValueError:
                    x = x - 100

    generator = patient(numbers())
    seen = [next(generator), generator.throw(ValueError), next(generator)]
    seen[0].add_(1)
    generator.close()
    return seen


@in_regions
def test_generators_are_suspended_in_regions_of_each_other(region):
    seen, kept = [], []
    generators = [steps(region, numbers() + i, seen) for i in range(3)]
    for i in (0, 1, 2):
        kept.append(next(generators[i]))
    for i in (1, 0, 2):
        kept.append(generators[i].send(kept[i] * 2))
    for i in (0, 2, 1):
        kept.append(list(generators[i]))
        kept.append(kept[i] + 1)
    return kept, seen


@in_regions
def test_generators_with_other_settings_end_in_the_order_they_began(region):
    def one(x, **settings):
        with region(**settings):
            x = x * 3 + 1
            yield x
            x.sqrt_()
            yield x.sigmoid()

    first, second = one(numbers(), max_ops=3), one(numbers(), max_ops=7)
    kept = [next(first), next(second), next(first), next(second)]
    first.close()
    kept.append(kept[1] * 2)
    second.close()
    return kept, kept[0] + 1


@in_regions
def test_a_generator_begun_in_a_thread_is_resumed_in_another(region):
    seen = []
    generator = steps(region, numbers(), seen)

    def whole():
        x = next(generator)
        return x, generator.send(x * 2)

    x, y = in_a_thread(lambda: (*whole(), list(generator))[:2])
    return x, y, x + y, seen


@in_regions
def test_an_exit_stack_closes_regions_among_other_things(region):
    kept = []
    with contextlib.ExitStack() as stack:
        x = numbers()
        stack.enter_context(region())
        x = x * 2
        stack.callback(lambda: kept.append(x + 1))
        stack.enter_context(region(max_ops=5))
        stack.callback(lambda: kept.append(x.add_(3)))
        y = x.exp()
        later = stack.pop_all()
        z = y - x
    kept.append(z * 2)
    later.close()
    return x, y, z, kept


@in_regions
def test_regions_are_left_in_the_order_they_were_entered(region):
    regions = [region(max_ops=n) for n in (3, 5, 9)]
    x, kept = numbers(), []
    for one in regions:
        one.__enter__()
        x = x * 2 + 1
        kept.append(x)
    for one in regions:
        one.__exit__(None, None, None)
        kept.append(x - len(kept))
        x.add_(1)
    return x, kept


@in_regions
def test_an_exit_stack_unwinds_after_an_exception(region):
    x = numbers()
    try:
        with contextlib.ExitStack() as stack:
            for n in (2, 4, 6):
                stack.enter_context(region(max_ops=n))
                x.add_(n)
            y = x * 2
            raise KeyError(3)
    except KeyError as error:
        seen = str(error)
    return x, y, seen


async def task(region, x, pauses, kept):
    """Open a region, and give way in the midst of it."""
    with region():
        for _ in range(pauses):
            x = x * 1.5 + 1
            kept.append(x)
            await asyncio.sleep(0)
            x.sub_(0.5)
        return x.tanh()


@in_regions
async def test_tasks_take_turns_in_regions_of_their_own(region):
    kept = []
    results = await asyncio.gather(*(task(region, numbers() + i, 5 - i, kept) for i in range(4)))
    return results, kept


@in_regions
async def test_tasks_take_turns_in_one_region(region):
    kept = []
    with region():
        x = numbers() * 2
        results = await asyncio.gather(
            *(task(contextlib.nullcontext, x + i, 3, kept) for i in range(3))
        )
        x.add_(results[0])
    return results, kept, x


@in_regions
async def test_tasks_write_what_they_share_in_turns(region):
    x = numbers()

    async def work(factor):
        with region():
            for _ in range(4):
                x.mul_(factor)
                await asyncio.sleep(0)
                x.add_(factor)

    await asyncio.gather(work(2), work(0.5), work(-1))
    return x


def test_regions_that_overlap_end_themselves():
    import torchy

    outer, inner = torchy.lazy(compile="never"), torchy.lazy(compile="always", max_ops=5)
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(outer)
        other = inner.__enter__()
        assert other is session
        assert (session.settings.compile, session.settings.max_ops) == ("always", 5)
        x = numbers() * 2
        stack.pop_all().close()  # the outer one ends first
        assert torchy.current_session() is session
        assert session.settings.compile == "always"
        y = x + 1
        inner.__exit__(None, None, None)
    assert torchy.current_session() is None
    assert y.tolist() == (numbers() * 2 + 1).tolist()
    require_off()


def test_a_task_that_ends_takes_its_own_settings_with_it():
    import torchy

    seen = []

    async def fast():
        with torchy.lazy(numerics="fast"):
            await asyncio.sleep(0)

    async def exact():
        with torchy.lazy(numerics="exact") as session:
            for _ in range(4):
                await asyncio.sleep(0)
                seen.append(session.settings.numerics)

    async def both():
        await asyncio.gather(fast(), exact())

    asyncio.run(both())
    assert seen[-3:] == ["exact"] * 3
    require_off()


def test_a_region_that_was_disabled_from_within_ends_no_other():
    import torchy

    with torchy.lazy() as session:
        with torchy.lazy(max_ops=7):
            torchy.disable()
            assert session.settings.max_ops != 7
        assert torchy.current_session() is session
    require_off()


@in_regions
async def test_a_task_is_cancelled_within_its_region(region):
    kept = []
    running = asyncio.create_task(task(region, numbers(), 100, kept))
    other = asyncio.create_task(task(region, numbers() * 3, 4, kept))
    for _ in range(5):
        await asyncio.sleep(0)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    return await other, kept


@in_regions
async def test_a_gathered_task_raises(region):
    kept = []

    async def fails():
        with region():
            x = numbers() + 1
            kept.append(x)
            await asyncio.sleep(0)
            kept.append(x * 2)
            raise ValueError("in a task")

    results = await asyncio.gather(
        task(region, numbers(), 4, kept), fails(), return_exceptions=True
    )
    return results, kept


@in_regions
async def test_work_is_handed_to_threads(region):
    def work(x):
        with region():
            y = x * 2
            y.add_(1)
            return y

    with region():
        x = numbers() + 1
        results = await asyncio.gather(*(asyncio.to_thread(work, x + i) for i in range(3)))
        x.add_(results[1])
        x = x + await asyncio.to_thread(lambda: x.sum())
    return results, x


@in_regions
async def test_an_asynchronous_generator_is_left_in_its_region(region):
    async def batches():
        with region():
            x = numbers()
            while True:
                x = x + 1
                yield x

    kept = []
    source = batches()
    async for x in source:
        kept.append(x * 2)
        await asyncio.sleep(0)
        if len(kept) == 3:
            break
    await source.aclose()
    return kept


@in_regions
async def test_tasks_of_other_settings_overlap(region):
    async def work(x, n):
        with region(max_ops=n):
            for _ in range(n):
                x = (x * 1.5 + 1).sqrt()
                await asyncio.sleep(0)
            return x.exp()

    return await asyncio.gather(
        work(numbers() + 2, 3), work(numbers() + 3, 2), work(numbers() + 4, 5)
    )


def test_a_generator_that_leaves_its_region_on_another_thread_leaves_values():
    import torchy

    x = numbers()
    expected = [], x * 2
    generator = steps(contextlib.nullcontext, x, expected[0])
    next(generator)
    generator.send(torch.ones(8))
    list(generator)
    seen = []
    generator = steps(torchy.lazy, x, seen)
    y = next(generator)
    generator.send(torch.ones(8))
    thread = threading.Thread(target=lambda: list(generator))
    thread.start()
    thread.join()
    for one, other in zip([*expected[0], expected[1]], [*seen, y], strict=True):
        assert torch.equal(one, other)
