"""Keys made from paths, and the choice of a few that stand for many."""

from pathlib import PurePosixPath

import numpy as np
import pytest

from shared.artifacts.keys import evenly_spaced, frame_key, key_of


def test_plain_names_stay_as_they_are():
    assert [key_of(PurePosixPath(name)) for name in ("a.png", "p1/w2/a-1.tif", "x.ome.tif")] == [
        "a",
        "p1__w2__a-1",
        "x",
    ]
    assert frame_key("a", 7) == "a_f0007"


@pytest.mark.parametrize("count", [1, 2, 7, 50, 199])
@pytest.mark.parametrize("max_count", [1, 2, 3, 16, 64])
def test_keys_are_spaced_as_numpys_linspace(count, max_count):
    keys = [f"image{i:03}" for i in range(count)]
    expected = {keys[int(i)] for i in np.linspace(0, count - 1, max_count).round()}
    assert evenly_spaced(keys, max_count) == sorted(expected)
