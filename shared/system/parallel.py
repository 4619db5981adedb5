"""Work in parallel threads, with results in order and bounded memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from shared.system.devices import threads

MAX_BYTES_IN_FLIGHT = 2**30
"""Bytes of the items in progress, by their `cost`, above which no further item is started."""
A = TypeVar("A")
B = TypeVar("B")


def in_order(
    pool: ThreadPoolExecutor,
    call: Callable[[A], B],
    items: Iterable[A],
    cost: Callable[[A], int] = lambda item: 0,
    max_bytes: int | None = None,
) -> Iterator[B]:
    """Map like `pool.map`, but with a bounded number of calls and bytes in progress.

    cost: bytes of an item; those in progress stay below `max_bytes` together, unless a single one exceeds it. None:
    `MAX_BYTES_IN_FLIGHT`.
    """
    waiting: deque[tuple[Future[B], int]] = deque()
    limit = MAX_BYTES_IN_FLIGHT if max_bytes is None else max_bytes
    max_ahead, held = 4 * threads(), 0
    try:
        for item in items:
            size = cost(item)
            while waiting and (held + size > limit or len(waiting) >= max_ahead):
                future, freed = waiting.popleft()
                held -= freed
                yield future.result()
            waiting.append((pool.submit(call, item), size))
            held += size
        while waiting:
            yield waiting.popleft()[0].result()
    finally:
        for future, _ in waiting:
            future.cancel()
