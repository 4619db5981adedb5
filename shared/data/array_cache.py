"""Keep arrays in memory, up to a number of bytes; the least recently used are dropped first."""

from collections.abc import Callable
from typing import Generic, TypeVar

from cachetools import LRUCache

T = TypeVar("T")


class ArrayCache(Generic[T]):
    """Values by key, at most `limit` bytes of them. The latest value is kept whatever its size."""

    def __init__(self, limit: int, nbytes: Callable[[T], int]) -> None:
        """nbytes: returns the size of a value in bytes."""
        self._items: LRUCache[str, T] = LRUCache(limit, getsizeof=nbytes)
        self._nbytes = nbytes
        self._last: tuple[str, T] | None = None

    @property
    def bytes(self) -> int:
        """Bytes held, without a latest value that exceeds the limit."""
        return int(self._items.currsize)

    def get(self, key: str, make: Callable[[], T]) -> T:
        """Return the value of `key`; make and keep it where it is not held."""
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        value = self._items.get(key)
        if value is None:
            value = make()
            if self._nbytes(value) <= self._items.maxsize:
                self._items[key] = value
        self._last = key, value
        return value
