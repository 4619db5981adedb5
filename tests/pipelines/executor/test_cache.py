"""What the cache of finished tasks keeps where it holds too much."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from pipelines.executor.cache import FINISHED, Cache, FinishedTask
from shared.system.errors import UserError

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


def test_a_changed_result_changes_neither_the_cache_nor_other_runs(cache, tmp_path):
    runs = [tmp_path / "run0", tmp_path / "run1"]
    for run in runs:
        assert cache.restore("first", run).key == "first"
    with (runs[0] / "data").open("r+b") as stream:
        stream.write(b"changed in place")
    for path in (runs[1] / "data", tmp_path / "first/data", *cache.root.glob("*/first/data")):
        assert path.read_bytes() == b"x" * BYTES, path
    assert cache.restore("first", runs[0]).key == "first"
    assert (runs[0] / "data").read_bytes() == b"x" * BYTES


def test_what_alone_exceeds_the_limit_is_not_copied(cache, tmp_path):
    cache.limit = BYTES / 2
    made = tmp_path / "fourth"
    made.mkdir()
    (made / "data").write_bytes(b"x" * BYTES)
    FinishedTask(key="fourth", seconds=1).save(made)
    cache.keep("fourth", made)
    assert "fourth" not in kept(cache)


def test_without_a_home_the_cache_is_a_folder_of_the_user_alone(tmp_path, monkeypatch):
    monkeypatch.delenv("CYTOLOOM_CACHE", raising=False)
    for home in (None, str(tmp_path / "absent")):
        monkeypatch.delenv("HOME", raising=False) if home is None else monkeypatch.setenv("HOME", home)
        monkeypatch.setattr(Path, "home", classmethod(_no_home))
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        found = Cache.from_environment()
        assert found.root == tmp_path / f"cytoloom-{os.getuid()}/tasks"
        assert stat.S_IMODE(found.root.parent.stat().st_mode) == 0o700
    found.root.parent.rmdir()
    found.root.parent.symlink_to(tmp_path)
    with pytest.raises(UserError, match="another user's; set CYTOLOOM_CACHE"):
        Cache.from_environment()


def _no_home(_: type) -> Path:
    """As where the number of the user has no name."""
    raise RuntimeError("Could not determine home directory.")
