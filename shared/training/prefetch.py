"""Make the next batch in a background thread while the network computes."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def prefetch(make: Callable[[int], T], first: int, stop: int) -> Iterator[T]:
    """Yield make(first), ..., make(stop - 1), each made while the caller uses the one before it.

    Calls are made one at a time and in order, in one thread. What `make` returns must follow from its argument alone;
    then prefetching changes no result. An exception of `make` is raised at the step that it belongs to.
    """
    if first >= stop:
        return
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        pending = pool.submit(make, first)
        for step in range(first, stop):
            made = pending.result()
            if step + 1 < stop:
                pending = pool.submit(make, step + 1)
            yield made
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
