"""A queue between two threads that holds so many bytes at most, and that either side can end."""

import threading
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class HandoverClosed(Exception):
    """The other side has ended."""


class Handover(Generic[Item]):
    """Items from one thread to another, in order.

    Args:
        most_items: waiting at most.
        most_bytes: of the waiting items at most, but for a single one, which always has room.
    """

    def __init__(self, most_items: int, most_bytes: int) -> None:
        self.most_items, self.most_bytes = most_items, most_bytes
        self._items: deque[tuple[Item, int]] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: Item, size: int = 0) -> None:
        """Adds an item of `size` bytes; waits while there is no room.

        Raises:
            HandoverClosed: if the queue was closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_room(size))
            if self._closed:
                raise HandoverClosed
            self._items.append((item, size))
            self._bytes += size
            self._changed.notify_all()

    def get(self) -> Item:
        """The next item; waits while there is none.

        Raises:
            HandoverClosed: if the queue was closed.
        """
        with self._changed:
            # In steps, so that Ctrl-C gets through where a wait without end would hold it back.
            while not self._changed.wait_for(lambda: self._closed or self._items, timeout=0.5):
                pass
            if self._closed:
                raise HandoverClosed
            item, size = self._items.popleft()
            self._bytes -= size
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Drops what waits, and releases who waits."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    def _has_room(self, size: int) -> bool:
        if not self._items:
            return True
        return len(self._items) < self.most_items and self._bytes + size <= self.most_bytes


__all__ = ["Handover", "HandoverClosed"]
