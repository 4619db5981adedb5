"""Sizes of transfers, and transfers in parallel."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

PARALLEL_TRANSFERS = 8
"""Transfers at the same time."""
PART_BYTES = 32 * 2**20
"""Bytes of a part, in both directions: a large file travels in parts, several at the same time."""


def run_parallel(call: Callable[[T], object], items: Iterable[T]) -> None:
    """Call `call(item)` for all items in threads. The first error is raised, and calls not yet started are dropped."""
    with ThreadPoolExecutor(PARALLEL_TRANSFERS) as pool:
        futures = [pool.submit(call, item) for item in items]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
