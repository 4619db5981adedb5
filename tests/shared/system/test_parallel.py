"""Calls in threads: results come in order, and memory is bounded."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.system import parallel
from shared.system.parallel import in_order


@pytest.mark.parametrize("workers", ["1", "4"])
def test_results_come_in_order_within_the_memory_bound(monkeypatch, workers):
    monkeypatch.setenv("CYTOLOOM_THREADS", workers)
    monkeypatch.setattr(parallel, "MAX_BYTES_IN_FLIGHT", 100)
    begun, ended, held = 0, 0, []

    def items():
        nonlocal begun
        for i in range(60):
            begun += 1
            yield i

    def work(i: int) -> int:
        time.sleep(0.001 * (i % 3))
        return i * i

    with ThreadPoolExecutor(4) as pool:
        for i, result in enumerate(in_order(pool, work, items(), lambda i: 40)):
            assert result == i * i
            ended += 1
            held.append(begun - ended)
    assert ended == 60 and max(held) <= 3  # two of 40 fit into 100; the next one waits


def test_an_error_is_raised_and_cancels_the_rest():
    done = []

    def work(i: int) -> int:
        done.append(i)
        return 1 // (i - 3)

    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
        list(in_order(pool, work, range(10_000)))
    assert len(done) < 1000
