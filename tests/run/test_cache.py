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
    assert cache.evictions == 1


def test_it_never_holds_more_than_its_capacity():
    cache = LeastRecentlyUsed[int, int](7)
    for key in range(100):
        cache.put(key, key)
        assert len(cache) <= 7
    assert [key for key in range(100) if key in cache] == list(range(93, 100))
    assert cache.evictions == 93


def test_replacing_an_item_forgets_nothing_else():
    cache = LeastRecentlyUsed[str, int](2)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.put("a", 3)
    assert cache.get("a") == 3
    assert cache.get("b") == 2
    assert cache.evictions == 0


def test_replacing_counts_as_use():
    cache = LeastRecentlyUsed[str, int](2)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.put("a", 3)
    cache.put("c", 4)
    assert "a" in cache
    assert "b" not in cache


def test_an_item_is_made_once_and_found_after_that():
    cache = LeastRecentlyUsed[str, list[int]](2)
    made = cache.get_or_make("a", lambda: [1])
    assert cache.get_or_make("a", lambda: [2]) is made
    assert (cache.hits, cache.misses) == (1, 1)


def test_nothing_is_kept_of_an_item_that_could_not_be_made():
    cache = LeastRecentlyUsed[str, float](2)
    with pytest.raises(ZeroDivisionError):
        cache.get_or_make("a", lambda: 1 / 0)
    assert "a" not in cache


def test_discard_and_clear_forget():
    cache = LeastRecentlyUsed[str, int](3)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.discard("a")
    cache.discard("never there")
    assert "a" not in cache
    cache.clear()
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
                assert cache.get_or_make((i * offset) % 11, lambda: 1) == 1
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in (1, 3, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(cache) == 5
