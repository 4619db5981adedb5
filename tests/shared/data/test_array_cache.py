"""The cache keeps within its limit, drops the least recently used, and keeps the latest value."""

import numpy as np
import pytest

from shared.data.array_cache import ArrayCache


class Maker:
    """Makes arrays of 10 bytes, or of the given size, and counts how often."""

    def __init__(self, **sizes: int) -> None:
        self.sizes, self.made = sizes, []

    def __call__(self, cache: ArrayCache[np.ndarray], *keys: str) -> list[str]:
        """Get the keys in turn; those that were made."""
        self.made = []
        for key in keys:
            value = cache.get(key, lambda key=key: self.make(key))
            assert value.nbytes == self.sizes.get(key, 10) and (value == ord(key[0])).all()
        return self.made

    def make(self, key: str) -> np.ndarray:
        self.made.append(key)
        return np.full(self.sizes.get(key, 10), ord(key[0]), np.uint8)


def cache_of(limit: int) -> ArrayCache[np.ndarray]:
    return ArrayCache(limit, lambda array: array.nbytes)


def test_values_are_made_once_while_they_fit() -> None:
    cache, get = cache_of(30), Maker()
    assert get(cache, "a", "b", "c", "a", "b", "c") == ["a", "b", "c"]
    assert cache.bytes == 30


def test_the_least_recently_used_is_dropped() -> None:
    cache, get = cache_of(30), Maker()
    get(cache, "a", "b", "c", "a", "d")  # b is the oldest use
    assert cache.bytes == 30
    assert get(cache, "a", "c", "d") == []
    assert get(cache, "b") == ["b"]


def test_the_limit_holds_for_sizes_of_any_kind() -> None:
    cache, get, rng = cache_of(100), Maker(a=5, b=40, c=60, d=99, e=1), np.random.default_rng(0)
    for key in rng.choice(list("abcde"), 200):
        get(cache, str(key))
        assert cache.bytes <= 100


@pytest.mark.parametrize("limit", [1, 9])
def test_the_latest_value_is_kept_whatever_its_size(limit: int) -> None:
    cache, get = cache_of(limit), Maker()
    assert get(cache, "a", "a", "a") == ["a"]
    assert cache.bytes == 0
    assert get(cache, "b", "a", "a") == ["b", "a"]


def test_a_large_value_drops_no_small_ones() -> None:
    cache, get = cache_of(30), Maker(z=31)
    assert get(cache, "a", "b", "z", "a", "b") == ["a", "b", "z"]


def test_a_failed_value_is_made_again() -> None:
    cache = cache_of(30)
    with pytest.raises(OSError, match="gone"):
        cache.get("a", lambda: (_ for _ in ()).throw(OSError("gone")))
    assert Maker()(cache, "a") == ["a"]
