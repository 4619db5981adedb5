"""What the cache of finished tasks keeps where it holds too much."""

import os

import pytest

from pipelines.executor.cache import FINISHED, Cache, FinishedTask

BYTES = 1000


@pytest.fixture
def cache(tmp_path) -> Cache:
    """Three tasks, kept in this order, that it has room for; their receipts are a few dozen bytes."""
    cache = Cache(tmp_path / "cache", limit=3.5 * BYTES)
    for i, key in enumerate(("first", "second", "third")):
        made = tmp_path / key
        made.mkdir()
        (made / "data").write_bytes(b"x" * BYTES)
        FinishedTask(key=key, seconds=1).save(made)
        os.utime(made, (i + 1, i + 1))
        cache.keep(key, made)
    return cache


def kept(cache: Cache) -> set[str]:
    return {finished.parent.name for finished in cache.root.glob(f"*/*/{FINISHED}")}


def test_nothing_goes_where_there_is_room(cache):
    assert cache.trim() == 0
    assert kept(cache) == {"first", "second", "third"}


def test_the_oldest_goes_first(cache):
    cache.limit = 2.5 * BYTES
    assert cache.trim() == 1
    assert kept(cache) == {"second", "third"}


def test_what_was_taken_since_counts_as_new(cache, tmp_path):
    taken = tmp_path / "again"
    assert cache.restore("first", taken) is not None
    assert (taken / "data").stat().st_size == BYTES
    cache.limit = 2.5 * BYTES
    assert cache.trim() == 1
    assert kept(cache) == {"first", "third"}


def test_runs_keep_what_the_cache_gives_up(cache, tmp_path):
    cache.limit = 0
    assert cache.trim() == 3
    assert not kept(cache) and cache.restore("first", tmp_path / "again") is None
    assert (tmp_path / "first/data").stat().st_size == BYTES, "its link is the run's own"
