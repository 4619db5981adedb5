"""Work side by side in threads, in order, with bounded memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from shared.system.devices import threads

IN_FLIGHT = 2**30
"""Bytes of the items in hand, as their `cost` says, beyond which no further one is begun."""
A = TypeVar("A")
B = TypeVar("B")


def in_order(
    pool: ThreadPoolExecutor,
    call: Callable[[A], B],
    items: Iterable[A],
    cost: Callable[[A], int] = lambda item: 0,
) -> Iterator[B]:
    """`map` with a bounded number of calls ahead, and of bytes: `cost` of the items in hand stays below `IN_FLIGHT`."""
    waiting: deque[tuple[Future[B], int]] = deque()
    ahead, held = 4 * threads(), 0
    try:
        for item in items:
            price = cost(item)
            while waiting and (held + price > IN_FLIGHT or len(waiting) >= ahead):
                future, paid = waiting.popleft()
                held -= paid
                yield future.result()
            waiting.append((pool.submit(call, item), price))
            held += price
        while waiting:
            yield waiting.popleft()[0].result()
    finally:
        for future, _ in waiting:
            future.cancel()
