"""What is kept between flushes, in memory and bounded: plans by what was live, kernels by id."""

from __future__ import annotations

import threading
from collections.abc import Hashable
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
                return None
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

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            forgotten, self._items = self._items, {}
        forgotten.clear()
