"""Batches are made in order, one ahead, in the background; errors surface at their step."""

import threading
import time

import pytest

from shared.system.errors import UserError
from shared.training.prefetch import prefetch


def test_every_step_gets_its_own_in_order() -> None:
    assert list(prefetch(lambda step: step**2, 3, 8)) == [9, 16, 25, 36, 49]
    assert list(prefetch(lambda step: 1 / 0, 5, 5)) == []


def test_one_batch_is_made_ahead_in_one_other_thread() -> None:
    made, threads = [], set()

    def make(step: int) -> int:
        threads.add(threading.get_ident())
        made.append(step)
        return step

    for step in prefetch(make, 0, 6):
        until = time.monotonic() + 10
        while len(made) < min(6, step + 2) and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(0.005)
        assert made == list(range(min(6, step + 2)))
    assert len(threads) == 1 and threading.get_ident() not in threads


def test_an_error_surfaces_at_its_step_with_its_message() -> None:
    def make(step: int) -> int:
        if step == 2:
            raise UserError("--images: image7: cannot be decoded; ingest it again")
        return step

    seen = []
    with pytest.raises(UserError, match="image7: cannot be decoded"):
        for step in prefetch(make, 0, 5):
            seen.append(step)
    assert seen == [0, 1]


def test_the_thread_ends_with_the_loop() -> None:
    def loop() -> None:
        for step in prefetch(lambda step: step, 0, 1000):
            if step == 3:
                raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        loop()
    until = time.monotonic() + 10
    while any(thread.name.startswith("prefetch") for thread in threading.enumerate()) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(thread.name.startswith("prefetch") for thread in threading.enumerate())
