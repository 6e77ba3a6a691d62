import gc
import threading

import pytest

from torchy.run.cache import LeastRecentlyUsed


def test_the_item_asked_for_longest_ago_is_forgotten_first():
    cache = LeastRecentlyUsed[str, int](2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert "b" not in cache
    assert cache.get("a") == 1
    assert cache.get("c") == 3


def test_it_never_holds_more_than_its_capacity():
    cache = LeastRecentlyUsed[int, int](7)
    for key in range(100):
        cache.put(key, key)
        assert len(cache) <= 7
    assert [key for key in range(100) if key in cache] == list(range(93, 100))


def test_replacing_an_item_forgets_nothing_else():
    cache = LeastRecentlyUsed[str, int](2)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.put("a", 3)
    assert cache.get("a") == 3
    assert cache.get("b") == 2


def test_replacing_counts_as_use():
    cache = LeastRecentlyUsed[str, int](2)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.put("a", 3)
    cache.put("c", 4)
    assert "a" in cache
    assert "b" not in cache


def test_clear_forgets():
    cache = LeastRecentlyUsed[str, int](3)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.clear()
    assert "a" not in cache
    assert len(cache) == 0


def test_a_cache_without_room_is_refused():
    with pytest.raises(ValueError, match="at least one item, not 0"):
        LeastRecentlyUsed(0)


def test_a_forgotten_item_may_use_the_cache_while_it_goes():
    cache = LeastRecentlyUsed[str, object](1)

    class Last:
        def __del__(self):
            cache.put("z", 26)

    cache.put("a", Last())
    cache.put("b", 2)
    gc.collect()
    assert cache.get("z") == 26
    assert len(cache) == 1


def test_threads_do_not_break_it():
    cache = LeastRecentlyUsed[int, int](5)
    errors = []

    def work(offset):
        try:
            for i in range(3000):
                key = (i * offset) % 11
                assert cache.get(key) in (None, key)
                cache.put(key, key)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in (1, 3, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(cache) == 5
