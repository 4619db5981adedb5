"""Time several functions fairly: they take turns."""

import time
from collections.abc import Callable
from statistics import median


def interleaved(contestants: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each. Turns alternate, so other load affects all alike; the first is not timed."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for repeat in range(repeats + 1):
        for name, work in contestants.items():
            start = time.perf_counter()
            work()
            if repeat:
                times[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in times.items()}
