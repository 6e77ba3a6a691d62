"""What is kept between flushes, in memory and bounded: plans by what was live, kernels by id."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


class LeastRecentlyUsed(Generic[Key, Item]):
    """A mapping that forgets what was asked for longest ago once it holds more than ``capacity`` items.

    Any thread may use it. What it forgets is dropped outside its lock, so that a destructor may use it
    too.

    Parameters
    ----------
    capacity
        How many items it holds at most; at least 1.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a cache needs room for at least one item, not {capacity}")
        self.capacity = capacity
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        self._items: dict[Key, Item] = {}  # least recently used first
        self._lock = threading.RLock()  # the garbage collector may come back in on this thread

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: Key) -> bool:
        return key in self._items

    def get(self, key: Key) -> Item | None:
        """Return an item and count it as used, None if it is not there."""
        with self._lock:
            if key not in self._items:
                self.misses += 1
                return None
            self.hits += 1
            item = self._items.pop(key)
            self._items[key] = item
            return item

    def put(self, key: Key, item: Item) -> None:
        """Add or replace an item, and forget the least recently used ones beyond the capacity."""
        forgotten = []
        with self._lock:
            forgotten.append(self._items.pop(key, None))
            self._items[key] = item
            while len(self._items) > self.capacity:
                forgotten.append(self._items.pop(next(iter(self._items))))
                self.evictions += 1

    def get_or_make(self, key: Key, make: Callable[[], Item]) -> Item:
        """Return an item, made now if it is not there; if making raises, nothing is kept.

        Not locked while it makes: two threads may both make an item, and the later one is kept.
        """
        item = self.get(key)
        if item is None:
            item = make()
            self.put(key, item)
        return item

    def discard(self, key: Key) -> None:
        """Forget an item if it is there."""
        with self._lock:
            forgotten = self._items.pop(key, None)
        del forgotten

    def clear(self) -> None:
        """Forget everything; the counts stay."""
        with self._lock:
            forgotten, self._items = self._items, {}
        forgotten.clear()
